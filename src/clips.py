"""The audio of detections, cut out of their recording at its own rate and with all its channels, to be listened to.

    paths = clip_paths(Path("clips"), "a/dawn.wav", lines)    # clips/amerob/a/dawn.wav_00005.000s_0.9312.wav, ...
    cut(Path("dawn.wav"), lines, paths)

A folder a species, so that all that was taken for one can be heard in a row; the name says where in the recording, in seconds,
and the probability. A clip is a WAV of 16 bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from src.audio import AudioFile
from src.files import written_whole
from src.recording_files import output_path


def clip_path(folder: Path, name: str, line: list) -> Path:
    """Where the clip of a detection [start_s, end_s, species, probability] lies."""
    start, _, species, probability = line
    return output_path(folder / species.replace("/", "_"), name, f"_{start:09.3f}s_{probability:.4f}.wav")


def remove(folder: Path, name: str) -> None:
    """Take away all clips of a recording."""
    if not folder.is_dir():
        return
    for of_species in folder.iterdir():
        stem = output_path(of_species, name, "")
        pattern = re.compile(re.escape(stem.name) + r"_\d{5,}\.\d{3}s_[01]\.\d{4}\.wav")
        for path in stem.parent.iterdir() if stem.parent.is_dir() else ():
            if pattern.fullmatch(path.name):
                path.unlink()


def cut(recording: Path, name: str, lines: Iterable[list], folder: Path) -> None:
    """Write the clips of detections [start_s, end_s, species, probability], which come in the order of time.

    What is held is no longer than a clip and a block. Clips that are there are left as they are. Raises AudioError if
    nothing of the recording can be read.
    """
    missing = ((line, clip_path(folder, name, line)) for line in lines)
    wanted = ((line, path) for line, path in missing if not path.exists())
    line, path = next(wanted, (None, None))
    if line is None:
        return
    with AudioFile(recording) as audio:
        rate = audio.sample_rate
        for held, held_start, last in _growing(audio, lambda: round(line[0] * rate)):
            while line is not None and (last or round(line[1] * rate) <= held_start + len(held)):
                first = round(line[0] * rate) - held_start
                _write(path, held[first : round(line[1] * rate) - held_start], rate)
                line, path = next(wanted, (None, None))
            if line is None:
                return


def _growing(audio: AudioFile, needed_from) -> Iterator[tuple[np.ndarray, int, bool]]:
    """The audio from the frame that is needed on, float32 [frames, channels], its first frame, and whether it is the last."""
    held, start = np.zeros((0, audio.channels), np.float32), 0
    for block in audio.blocks():
        held = np.concatenate([held, block])
        yield held, start, False
        drop = min(max(needed_from() - start, 0), len(held))
        held, start = held[drop:], start + drop
    yield held, start, True


def _write(path: Path, samples: np.ndarray, rate: int) -> None:
    with written_whole(path) as temporary:
        soundfile.write(temporary, samples, rate, subtype="PCM_16", format="WAV")
