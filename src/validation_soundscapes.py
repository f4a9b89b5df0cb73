"""Soundscapes with truth, for a fold: calls of its held-out recordings mixed over its held-out backgrounds.

    material = material_of(oof, recordings)                     # which windows a fold may use; None: no backgrounds
    for minute in minutes(material, recipe, Options(minutes=30)):
        minute.samples, minute.rows                             # float32 [samples]; a row each 5 s, with its truth

What a model answers to them is answered_soundscapes.py's.

A clip is a bird close to the microphone and little else, and a threshold that is right for clips is wrong for soundscapes. So
the thresholds are chosen here. A row without birds is backgrounds only; in another lie one to three calls, each 1.5 to 5 s of
a window that calls, at an SNR drawn from `snr_db`. A call may run on into the next row, if that is one with birds. A row holds
a species if half a second of the call itself, or half of a short call, lies in it, where the call is what comes within 10 dB
of its loudest; with less of it than that, and for the recording's secondary species, an answer is neither wanted nor wrong.

The SNR is of mel power, as in training: the call's over the background's in the same place. A minute's calls and backgrounds
are of one part of the fold's sources (see fitting.parts), so that what is fitted on the other parts has not heard it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.audio import some_windows
from src.competition import NOCALL, read_backgrounds
from src.errors import UserError
from src.files import written_whole
from src.fitting import parts
from src.recipe import Recipe
from src.soundscape import ROW_SECONDS
from src.spectrogram import log_mel
from src.storage import place

ROWS = 12  # of a soundscape: a minute
BATCH_MINUTES = 30  # whose audio is held in memory together: about 250 MB
CALLS = (0.7, 0.2, 0.1)  # the shares of rows with birds that have one, two and three calls
CALL_SECONDS = (1.5, 5.0)
FADE_SECONDS = 0.05
CALL_RANGE_DB = 10.0
ROW_HAS_SECONDS = 0.5
LEAST_NOISE_DB = -50.0  # mean mel power: what is softer is no background to set a level by
PEAK = 0.9
BACKGROUND_WINDOWS = 12  # of a recording in --background


@dataclass(frozen=True)
class Options:
    """How many minutes a fold, which share of rows is empty, the range of SNRs in dB, and the seed."""

    minutes: int = 30
    nocall_share: float = 0.544
    snr_db: tuple[float, float] = (0.0, 20.0)
    seed: int = 0


@dataclass(frozen=True)
class Material:
    """What a fold may use. Both tables have a row a window: filename, path, channel, start_seconds, source, part.

    calls: with ebird_code and maybe (codes separated by spaces); backgrounds: start_seconds is NaN for "any"
    """

    calls: pd.DataFrame
    backgrounds: pd.DataFrame


@dataclass(frozen=True)
class Minute:
    """samples: float32 [samples] at the recipe's rate; rows: number, part, start_seconds, truth, origins, maybe, source."""

    number: int
    samples: np.ndarray
    rows: pd.DataFrame


@dataclass(frozen=True)
class _Placed:
    """A call in a minute. window: a row of Material.calls; row: which row it was drawn for; snr_db: of mel power."""

    window: int
    row: int
    snr_db: float


def material_of(
    oof: pd.DataFrame, recordings: pd.DataFrame, background: str = "", share: tuple[int, int] = (0, 1)
) -> Material | None:
    """What the fold of an oof table may use; None where it held out no recording without birds, or none of birds is there.

    recordings: columns filename, path, ebird_code; background: a folder used instead of the held-out backgrounds, less what
    is among `recordings` and not held out by this fold, as the model may have learned from it
    share: which of how many folds this is, among which the folder's sources are dealt out
    """
    path_of = dict(zip(recordings.filename, recordings.path))
    quiet = set(recordings.filename[recordings.ebird_code == NOCALL])
    there = oof[oof.filename.isin(path_of)]
    there = there.assign(path=there.filename.map(path_of), maybe=(there.others + " " + there.secondary).str.strip())
    columns = ["filename", "path", "channel", "start_seconds", "source"]
    calls = there.loc[there.ebird_code != NOCALL, [*columns, "ebird_code", "maybe"]]
    backgrounds = there.loc[there.filename.isin(quiet), columns]
    if background:
        found = pd.DataFrame(read_backgrounds(place(background)))
        held_out = {name.rsplit("/", 1)[-1] for name in backgrounds.filename}
        learned = {name.rsplit("/", 1)[-1] for name in quiet} - held_out
        found = found[~found.filename.str.rsplit("/", n=1).str[-1].isin(learned)]
        if found.empty:
            raise UserError(
                f"{background}: all of its recordings may have been learned from; --background takes others"
            )
        backgrounds = found.assign(channel=0, start_seconds=np.nan)[columns]
    if calls.empty or backgrounds.empty:
        return None
    part_of = parts(oof) if not background else {**parts(backgrounds.assign(ebird_code=NOCALL)), **parts(oof)}
    calls = calls.assign(part=calls.source.map(part_of)).reset_index(drop=True)
    backgrounds = backgrounds.assign(part=backgrounds.source.map(part_of)).reset_index(drop=True)
    if background:
        # Each fold has its own part of the folder: what a threshold was fitted on is not what it is judged on.
        sources = np.unique(backgrounds.source)
        own = set(sources[share[0] :: share[1]])
        backgrounds = backgrounds[backgrounds.source.isin(own)].reset_index(drop=True)
    if set(calls.part) - set(backgrounds.part):  # too few of them serve all parts
        backgrounds["part"] = -1
    return Material(calls, backgrounds)


def minutes(material: Material, recipe: Recipe, options: Options) -> Iterable[Minute]:
    """Mix the soundscapes, the same for the same material and options. What cannot be read is left out, in silence of it."""
    generator = np.random.default_rng(options.seed)
    empty = np.zeros(options.minutes * ROWS, bool)
    empty[: round(len(empty) * options.nocall_share)] = True
    empty = generator.permutation(empty).reshape(options.minutes, ROWS)
    known = sorted(material.calls.part.unique())
    for first in range(0, options.minutes, BATCH_MINUTES):
        numbers = range(first, min(first + BATCH_MINUTES, options.minutes))
        plans = [_plan(material, known[number % len(known)], empty[number], options, generator) for number in numbers]
        calls = _read(material.calls.iloc[sorted({call.window for plan, _ in plans for call in plan})], recipe)
        quiet = _read(material.backgrounds.iloc[sorted({window for _, plan in plans for window in plan})], recipe)
        if not quiet:
            raise UserError(
                "none of the recordings without birds can be read: soundscapes cannot be mixed; see --background"
            )
        for number, (plan, windows) in zip(numbers, plans):
            there = [window for window in windows if window in quiet] or list(quiet)
            noise, heard = _noise([quiet[window] for window in there], recipe, generator)
            backgrounds = [material.backgrounds.source.iloc[there[place]] for place in heard]
            yield _mix(number, material, plan, calls, noise, backgrounds, recipe, generator)


def _plan(
    material: Material, part: int, empty: np.ndarray, options: Options, generator: np.random.Generator
) -> tuple[list[_Placed], list[int]]:
    """Which calls and which windows of backgrounds a minute is made of. empty: bool array [rows]"""
    calls = material.calls[material.calls.part == part]
    species = calls.ebird_code.unique()
    plan = []
    for row in np.flatnonzero(~empty):
        number = min(1 + generator.choice(len(CALLS), p=CALLS), len(species))
        for code in generator.choice(
            species, number, replace=False
        ):  # a rare species is heard as often as a common one
            of_code = calls[calls.ebird_code == code]
            filename = generator.choice(of_code.filename.unique())
            window = generator.choice(of_code.index[of_code.filename == filename])
            plan.append(_Placed(int(window), int(row), generator.uniform(*options.snr_db)))
    backgrounds = material.backgrounds.index[material.backgrounds.part.isin([part, -1])].to_numpy()
    return plan, generator.choice(backgrounds, ROWS * 2, replace=len(backgrounds) < ROWS * 2).tolist()


def _read(windows: pd.DataFrame, recipe: Recipe) -> dict[int, np.ndarray]:
    """The samples of windows by their index, float32 [samples] each; each recording is decoded once."""
    found: dict[int, np.ndarray] = {}
    for path, of_path in windows.groupby("path", sort=False):
        starts = None if of_path.start_seconds.isna().any() else set(of_path.start_seconds)
        read = some_windows(path, recipe, recipe.channels, starts, BACKGROUND_WINDOWS)
        for index, start, channel in zip(of_path.index, of_path.start_seconds, of_path.channel):
            if starts is None and read:
                found[index] = np.concatenate([samples[channel] for samples in read.values()])
            elif start in read:
                found[index] = read[start][channel]
    return found


def _noise(pieces: list[np.ndarray], recipe: Recipe, generator: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A minute of backgrounds one after the other, each faded into the next, from the first again if they do not suffice.

    It begins anywhere in the first of them, so that no row is one of them from end to end. Returns the samples, and for each
    row the place among `pieces` of the one that fills most of it.
    """
    minute, fade = round(ROWS * ROW_SECONDS * recipe.sample_rate), round(FADE_SECONDS * recipe.sample_rate)
    skipped = int(generator.integers(len(pieces[0])))
    size = minute + skipped
    whole, owner = np.zeros(size, np.float32), np.zeros(size, int)
    position = number = 0
    while position < size:
        piece = _faded(pieces[number % len(pieces)], fade)
        whole[position : position + len(piece)] += piece[: size - position]
        owner[position : position + len(piece)] = number % len(pieces)
        position += len(piece) - fade
        number += 1
    rows = np.array_split(owner[skipped:], ROWS)
    return whole[skipped:], [int(np.bincount(row).argmax()) for row in rows]


def _mix(
    number: int,
    material: Material,
    plan: list[_Placed],
    calls: Mapping[int, np.ndarray],
    noise: np.ndarray,
    backgrounds: Sequence[str],
    recipe: Recipe,
    generator: np.random.Generator,
) -> Minute:
    """Put the planned calls into a minute of noise and say what is where."""
    rate, samples = recipe.sample_rate, noise.copy()
    there = [call for call in plan if call.window in calls]
    with_birds = {call.row for call in there}
    heard: list[dict[str, str]] = [{} for _ in range(ROWS)]  # the source of each species that is in a row
    maybe: list[set[str]] = [set() for _ in range(ROWS)]
    for call in there:
        of = material.calls.loc[call.window]
        piece, loud = _cut(calls[call.window], recipe, generator)
        enough = min(
            round(ROW_HAS_SECONDS * rate), int(loud.sum()) // 2
        )  # samples of the call that a row needs to hold it
        # It may run on into a row with birds, once its own row has enough of it; a row without birds stays without.
        within = np.searchsorted(loud.cumsum(), enough) + 1 if call.row + 1 in with_birds else len(piece)
        first = round((call.row + 1) * ROW_SECONDS * rate) - within
        first = max(
            first - int(generator.uniform(0, ROW_SECONDS * rate - within)), round(call.row * ROW_SECONDS * rate)
        )
        piece, loud = piece[: len(samples) - first], loud[: len(samples) - first]
        under = max(_power(noise[first : first + len(piece)], recipe), 10 ** (LEAST_NOISE_DB / 10))
        gain = np.sqrt(10 ** (call.snr_db / 10) * under / _power(piece[loud], recipe))
        samples[first : first + len(piece)] += np.float32(gain) * _faded(piece, round(FADE_SECONDS * rate))
        for row in range(call.row, min(call.row + 2, ROWS)):
            edges = np.clip(np.round(np.array([row, row + 1]) * ROW_SECONDS * rate).astype(int) - first, 0, len(loud))
            if loud[slice(*edges)].sum() >= max(enough, 1):
                heard[row][of.ebird_code] = of.source
                maybe[row] |= set(of.maybe.split())
            elif edges[1] > edges[0]:
                maybe[row] |= {of.ebird_code, *of.maybe.split()}
    peak = np.abs(samples).max()
    if peak > PEAK:
        samples *= PEAK / peak
    rows = pd.DataFrame(
        {
            "minute": number,
            "part": int(material.calls.part.loc[plan[0].window]) if plan else -1,
            "start_seconds": np.arange(ROWS) * ROW_SECONDS,
            "truth": [" ".join(sorted(species)) for species in heard],
            "origins": [json.dumps([species[code] for code in sorted(species)]) for species in heard],
            "maybe": [" ".join(sorted(codes - set(species))) for codes, species in zip(maybe, heard)],
            "source": [next(iter(species.values()), own) for species, own in zip(heard, backgrounds)],
        }
    )
    return Minute(number, samples, rows)


def _cut(window: np.ndarray, recipe: Recipe, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A piece of a window around its loudest moment, and where the call itself is: float32 and bool arrays [samples]."""
    image = log_mel(window, recipe)
    power_db = 10 * np.log10((10 ** (image / 10)).sum(axis=0))  # of each frame
    seconds = min(generator.uniform(*CALL_SECONDS), len(window) / recipe.sample_rate)
    size = round(seconds * recipe.sample_rate)
    loudest = int(power_db.argmax()) * recipe.hop_length
    first = int(np.clip(loudest - generator.uniform(0.1, 0.9) * size, 0, len(window) - size))
    frames = np.minimum((first + np.arange(size)) // recipe.hop_length, len(power_db) - 1)
    return window[first : first + size], (power_db >= power_db.max() - CALL_RANGE_DB)[frames]


def _power(samples: np.ndarray, recipe: Recipe) -> float:
    """Mean mel power, as the SNR is of."""
    return float((10 ** (log_mel(samples, recipe) / 10)).mean())


def _faded(samples: np.ndarray, fade: int) -> np.ndarray:
    ramp = np.linspace(0, 1, fade, dtype=np.float32)[: len(samples) // 2]
    faded = samples.copy()
    faded[: len(ramp)] *= ramp
    faded[len(faded) - len(ramp) :] *= ramp[::-1]
    return faded


def write_audio(folder: Path, minute: Minute, recipe: Recipe) -> None:
    """A minute as WAV and its truth as CSV (minuteN.wav, minuteN.csv), for a person to listen to."""
    import soundfile

    with written_whole(folder / f"minute{minute.number}.wav") as temporary:
        soundfile.write(temporary, minute.samples, recipe.sample_rate)
    with written_whole(folder / f"minute{minute.number}.csv") as temporary:
        minute.rows.to_csv(temporary, index=False)
