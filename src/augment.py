"""Offline augmentation of a window of audio: the four transforms of the original study, and backgrounds at a known level.

    shifted, parameters = augment(waveform, "shift", recipe, "XC123.mp3/0/5.000/shift/0", clips)

Shift, pitch, stretch and noise are audiomentations'. "background" is ours, since a clip has to pass through the recipe's
own decoding and high-pass before its level can be compared. The name of a copy seeds it, so a copy is the same whoever
makes it, in whatever order, on however many cores.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.audio import AUDIO_SUFFIXES, AudioError, AudioFile, file_windows
from src.errors import UserError
from src.recipe import Recipe

if TYPE_CHECKING:
    from audiomentations.core.transforms_interface import BaseWaveformTransform

# Of pitch and stretch: the faster of audiomentations' two (tests/bench/preparation.py prints both), once numba has compiled
# it, which takes 18 s and is kept.
METHOD = "librosa_phase_vocoder"
CLIP_SECONDS = 60.0  # of a clip are used


@dataclass(frozen=True)
class Clips:
    """Recordings to mix in: a folder and the names of the files in it, each of which can be decoded."""

    folder: str = ""
    names: tuple[str, ...] = ()
    digest: str = ""


def find_clips(folder: Path, recipe: Recipe) -> tuple[Clips, dict[str, str]]:
    """The clips of a folder on this disk, and those that cannot be used with the reason. Raises UserError if none can."""
    usable, faults, digest = [], {}, hashlib.sha256()
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; --background takes a folder of recordings without birds")
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES):
        name = path.relative_to(folder).as_posix()
        try:
            loud = _clip(str(path), recipe).any()
        except AudioError as error:
            faults[name] = str(error)
            continue
        if not loud:
            faults[name] = "silent throughout"
            continue
        usable.append(name)
        digest.update(f"{name} {zlib.crc32(path.read_bytes())}\n".encode())
    if not usable:
        raise UserError(f"{folder}: holds no recording that can be mixed in as background")
    return Clips(str(folder), tuple(usable), f"{folder.resolve().name}-{digest.hexdigest()[:8]}"), faults


@lru_cache(maxsize=16)
def _clip(path: str, recipe: Recipe) -> np.ndarray:
    """The beginning of a clip as float32 [samples], at the recipe's rate and with its high-pass."""
    pieces, seconds = [], 0.0
    with AudioFile(Path(path)) as audio:
        for window in file_windows(audio, recipe, hop_seconds=recipe.window_seconds):
            pieces.append(window.samples[0, : round(window.audio_seconds * recipe.sample_rate)])
            seconds += window.audio_seconds
            if seconds >= CLIP_SECONDS:
                break
    return np.concatenate(pieces)


def augment(
    waveform: np.ndarray, entry: str, recipe: Recipe, name: str, clips: Clips | None = None
) -> tuple[np.ndarray, dict]:
    """One augmented copy of a window, with the parameters that were drawn for it.

    waveform: float32 array [samples], unit scale, at recipe.sample_rate
    entry: "shift", "pitch", "stretch", "noise" or "background", or several joined by "+", applied in that order
    name: what seeds the copy, with recipe.augment_seed
    returns: float32 array [samples], and {transform: {parameter: value}}
    """
    parameters = {}
    for position, transform_name in enumerate(entry.split("+")):
        seed = zlib.crc32(f"{recipe.augment_seed}/{name}{f'/{position}' if position else ''}".encode())
        if transform_name == "background":
            generator = random.Random(seed)
            waveform, parameters[transform_name] = _with_background(waveform, recipe, clips, generator)
            continue
        # Built first: loading audiomentations takes seconds, in which another thread of a cluster's worker may draw.
        transform = _transform(transform_name, recipe)
        with _seeded(seed):
            waveform = transform(waveform, recipe.sample_rate)
        drawn = {key: value for key, value in transform.parameters.items() if key != "should_apply"}
        parameters[transform_name] = drawn
    return np.ascontiguousarray(waveform, dtype=np.float32), parameters


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The two global generators that audiomentations draws from, seeded; what they held before is given back afterwards."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def copy_name(filename: str, channel: int, start_seconds: float, entry: str, copy: int) -> str:
    """The name that seeds the `copy`-th copy of a window by an entry of recipe.augment: the same at any sample rate."""
    return f"{filename}/{channel}/{start_seconds:.3f}/{entry}/{copy}"


def _with_background(
    waveform: np.ndarray, recipe: Recipe, clips: Clips | None, generator: random.Random
) -> tuple[np.ndarray, dict]:
    """A window over a piece of a clip, at a ratio of their powers drawn from recipe.snr_db."""
    if clips is None or not clips.names:
        raise ValueError("the augmentation 'background' needs clips")
    name, snr_db = generator.choice(clips.names), generator.uniform(*recipe.snr_db)
    clip = _clip(str(Path(clips.folder) / name), recipe)
    start = int(generator.random() * len(clip))  # a share of the clip, which is the same place at another sample rate
    noise = np.take(clip, np.arange(start, start + len(waveform)), mode="wrap")
    ratio = rms(waveform) / max(rms(noise), 1e-6) * 10 ** (-snr_db / 20)
    drawn = {"clip": name, "snr_db": round(snr_db, 3), "start_seconds": round(start / recipe.sample_rate, 3)}
    return waveform + np.float32(ratio) * noise, drawn


def rms(waveform: np.ndarray) -> float:
    """Root of the mean square of an array of samples."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _transform(name: str, recipe: Recipe) -> BaseWaveformTransform:
    import audiomentations  # not above: it takes seconds, which workers that augment nothing need not pay

    if name == "shift":
        limit = recipe.shift_seconds
        return audiomentations.Shift(-limit, limit, shift_unit="seconds", rollover=True, p=1.0)
    if name == "pitch":
        limit = recipe.pitch_semitones
        return audiomentations.PitchShift(-limit, limit, method=METHOD, p=1.0)
    if name == "stretch":
        limit = recipe.stretch_fraction
        return audiomentations.TimeStretch(1 - limit, 1 + limit, method=METHOD, p=1.0)
    return audiomentations.AddGaussianNoise(*recipe.noise_amplitude, p=1.0)
