"""Figures of the sound of recordings, as PNG: ten seconds of each species, and soundscapes with their timed labels.

waveforms, spectrograms = examples(folder, described, seed=0, jobs=-1)    # pages of twelve species
soundscape(folder, 1, described.iloc[0])                                  # -> [Picture(folder/soundscape-1-1.png, ...)]
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.patches import Rectangle

from src.audio import AudioError, AudioFile, Window, file_windows
from src.data_figures import DARK, WIDTH, Picture, saved
from src.errors import UserError
from src.exploration import timed_labels
from src.figures import mel_to_hz
from src.recipe import Recipe, changed, preset
from src.spectrogram import log_mel
from src.storage import local_copy

EXAMPLE_SECONDS = 10.0
EXAMPLES_A_PAGE = 12
TRIED = 5  # recordings of a species, until one can be read
COLUMN = 320  # samples that make a column of a waveform: 10 ms
STRIP_SECONDS = 60.0
STRIPS_A_PAGE = 5
MOST_STRIPS = 10


class _Place(NamedTuple):
    """Where in a recording an example begins."""

    filename: str
    path: str
    start_seconds: float


class _Example(NamedTuple):
    """Ten seconds for a panel; place is None if none of the species' recordings can be read."""

    code: str
    place: _Place | None
    seconds: float
    envelope: np.ndarray  # [2, columns]: least and greatest
    mel_db: np.ndarray  # [mels, frames]


def examples(folder: Path, described: pd.DataFrame, seed: int, jobs: int) -> tuple[list[Picture], list[Picture]]:
    """Ten seconds of a random recording of each species, its first or some with a timed label: waveforms, mel spectrograms."""
    recipe = changed(preset("default"), window_seconds=EXAMPLE_SECONDS, hop_seconds=EXAMPLE_SECONDS)
    drawn = []
    for code, places in sorted(_places(described).items()):
        drawn.append((code, random.Random(f"{seed} {code}").sample(places, min(TRIED, len(places)))))
    waveforms, spectrograms = [], []
    with Parallel(n_jobs=jobs) as parallel:
        for page, start in enumerate(range(0, len(drawn), EXAMPLES_A_PAGE), 1):
            panels = parallel(delayed(_example)(*one, recipe) for one in drawn[start : start + EXAMPLES_A_PAGE])
            waveforms.append(_panels(folder / f"waveforms-{page}.png", panels, recipe, _draw_waveform))
            spectrograms.append(_panels(folder / f"spectrograms-{page}.png", panels, recipe, _draw_spectrogram))
    return waveforms, spectrograms


def _places(described: pd.DataFrame) -> dict[str, list[_Place]]:
    """For each label, where it is to be heard."""
    places = defaultdict(list)
    whole = described[described.events == ""]
    for code, filename, path in zip(whole.ebird_code, whole.filename, whole.path):
        places[code].append(_Place(filename, path, 0.0))
    for label in timed_labels(described).itertuples():
        start = label.start_seconds // EXAMPLE_SECONDS * EXAMPLE_SECONDS
        places[label.ebird_code].append(_Place(label.filename, label.path, start))
    return places


def _example(code: str, places: list[_Place], recipe: Recipe) -> _Example:
    for place in places:
        try:
            with local_copy(place.path) as local, AudioFile(local) as audio:
                number = round(place.start_seconds / EXAMPLE_SECONDS)
                window = next(islice(file_windows(audio, recipe), number, None), None)
        except (AudioError, OSError, UserError):  # named with the measurements
            continue
        if window is not None:  # None: the label lies beyond the file's end
            samples = window.samples[0]
            columns = samples.reshape(-1, COLUMN)
            envelope = np.stack([columns.min(axis=1), columns.max(axis=1)])
            return _Example(code, place, window.audio_seconds, envelope, log_mel(samples, recipe))
    return _Example(code, None, 0.0, np.zeros((2, 1)), np.zeros((recipe.n_mels, 1)))


def _panels(path: Path, panels: list[_Example], recipe: Recipe, draw: Callable) -> Picture:
    rows = -(-len(panels) // 2)
    figure, grid = plt.subplots(rows, 2, figsize=(WIDTH, 0.4 + 1.75 * rows), layout="constrained", squeeze=False)
    for axes, panel in zip(grid.flat, panels):
        name = panel.place.filename if panel.place else ""
        axes.set_title(f"{_short(panel.code, 22)}  {_short(name, 26)}", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        if panel.place:
            draw(axes, panel, recipe)
            axes.set_xlim(panel.place.start_seconds, panel.place.start_seconds + EXAMPLE_SECONDS)
        else:
            axes.text(0.5, 0.5, "no recording can be read", ha="center", transform=axes.transAxes)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.supxlabel("seconds", fontsize=9)
    kind = "Waveforms" if draw is _draw_waveform else "Mel spectrograms"
    named = ", ".join(f"{panel.code} ({panel.place.filename if panel.place else 'none'})" for panel in panels)
    return saved(figure, path, f"{kind} of ten seconds of {named}.")


def _short(name: str, length: int) -> str:
    """A name, cut in its middle if need be: it is the ends that tell recordings apart."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}\u2026{name[-(length // 2) :]}"


def _draw_waveform(axes: plt.Axes, panel: _Example, recipe: Recipe) -> None:
    time_s = (np.arange(panel.envelope.shape[1]) + 0.5) * COLUMN / recipe.sample_rate
    there = time_s <= panel.seconds
    axes.fill_between(panel.place.start_seconds + time_s[there], *panel.envelope[:, there], color=DARK, linewidth=0.4)
    peak = max(float(np.abs(panel.envelope).max()), 1e-4)
    axes.set(ylim=(-1.1 * peak, 1.1 * peak))
    axes.set_yticks([-peak, 0, peak], [f"{-peak:.2g}", "0", f"{peak:.2g}"])


def _draw_spectrogram(axes: plt.Axes, panel: _Example, recipe: Recipe) -> None:
    frames = max(1, round(panel.seconds * recipe.sample_rate / recipe.hop_length))
    start = panel.place.start_seconds
    _show_mel(axes, panel.mel_db[:, :frames], start, start + panel.seconds, recipe)
    _kilohertz(axes, recipe)


def _show_mel(axes: plt.Axes, mel_db: np.ndarray, start_s: float, end_s: float, recipe: Recipe) -> None:
    there = mel_db[mel_db > mel_db.min() + 1]  # not the empty top of a recording at a low rate
    low, high = np.percentile(there if there.size else mel_db, [5, 99.7])
    extent = (start_s, end_s, 0, recipe.n_mels)
    axes.imshow(mel_db, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=max(high, low + 10), cmap="magma")


def _kilohertz(axes: plt.Axes, recipe: Recipe) -> None:
    edges_hz = _band_edges(recipe)
    ticks = [hz for hz in (500, 1000, 2000, 4000, 8000, 16000) if edges_hz[0] <= hz <= edges_hz[-1]]
    axes.set_yticks(np.interp(ticks, edges_hz, np.arange(len(edges_hz))), [f"{hz / 1000:g}" for hz in ticks])
    axes.set_ylabel("kHz", fontsize=8)


@lru_cache
def _band_edges(recipe: Recipe) -> tuple[float, ...]:
    return tuple(mel_to_hz(band, recipe) for band in range(recipe.n_mels + 1))


def soundscape(folder: Path, number: int, recording: pd.Series) -> list[Picture]:
    """A recording's spectrogram in strips of a minute, its timed labels drawn as spans. [] if it cannot be read.

    number: of the recording, in the figures' names
    recording: with filename, path and events (a JSON list of [start_seconds, end_seconds, code])
    """
    events = [(float(start), float(end), str(code)) for start, end, code in json.loads(recording.events)]
    codes = sorted({code for _, _, code in events})
    strong_first = [*range(0, 20, 2), *range(1, 20, 2)]
    colours = {code: plt.get_cmap("tab20")(strong_first[place % 20]) for place, code in enumerate(codes)}
    recipe = changed(preset("default"), window_seconds=STRIP_SECONDS, hop_seconds=STRIP_SECONDS)
    pictures = []
    try:
        with local_copy(recording.path) as local, AudioFile(local) as audio:
            windows = islice(file_windows(audio, recipe), MOST_STRIPS)
            while strips := list(islice(windows, STRIPS_A_PAGE)):
                path = folder / f"soundscape-{number}-{len(pictures) + 1}.png"
                pictures.append(_strips(path, recording.filename, strips, events, colours, recipe))
    except (AudioError, OSError, UserError):  # named with the measurements
        pass
    return pictures


def _strips(path: Path, title: str, strips: list[Window], events: list, colours: dict, recipe: Recipe) -> Picture:
    """A page: below each other the strips, each with a lane above its picture for each species that is labelled in it."""
    inside = [_within(events, strip.start_seconds, strip.start_seconds + STRIP_SECONDS) for strip in strips]
    heights = [1.7 + 0.17 * len({code for _, _, code in found}) for found in inside]
    figure, grid = plt.subplots(
        len(strips), 1, figsize=(12, 0.6 + sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for axes, strip, found in zip(grid.flat, strips, inside):
        start, end = strip.start_seconds, strip.start_seconds + strip.audio_seconds
        frames = max(1, round(strip.audio_seconds * recipe.sample_rate / recipe.hop_length))
        mel_db = log_mel(strip.samples[0], recipe)[:, :frames]
        # Above each band's median: wind at the bottom would take all the colours, and the birds would have none.
        _show_mel(axes, mel_db - np.median(mel_db, axis=1, keepdims=True), start, end, recipe)
        lanes = {code: lane for lane, code in enumerate(sorted({code for _, _, code in found}))}
        lane_height = recipe.n_mels * 0.17 / 1.5
        for begin, until, code in found:
            axes.add_patch(Rectangle((begin, 0), until - begin, recipe.n_mels, color=colours[code], alpha=0.16))
            bottom = recipe.n_mels + lane_height * (lanes[code] + 0.1)
            axes.add_patch(Rectangle((begin, bottom), until - begin, 0.8 * lane_height, color=colours[code]))
        _kilohertz(axes, recipe)
        ticks = [recipe.n_mels + lane_height * (lane + 0.5) for lane in lanes.values()]
        right = axes.secondary_yaxis("right")
        right.set_yticks(ticks, lanes, fontsize=8)
        for label, code in zip(right.get_yticklabels(), lanes):
            label.set_color(np.multiply(colours[code], (0.75, 0.75, 0.75, 1)))
        axes.set(xlim=(start, start + STRIP_SECONDS), ylim=(0, recipe.n_mels + lane_height * len(lanes)))
        axes.set_xticks(np.arange(start, start + STRIP_SECONDS + 1, 5))
        axes.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("seconds", fontsize=9)
    first, last = strips[0].start_seconds, strips[-1].start_seconds + strips[-1].audio_seconds
    counts = pd.Series([code for found in inside for _, _, code in found], dtype=object).value_counts()
    named = ", ".join(f"{code} {count}" for code, count in counts.items()) or "none"
    return saved(
        figure, path, f"Mel spectrogram of {title} from {first:.0f} to {last:.0f} s; labelled events: {named}."
    )


def _within(events: list, start_s: float, end_s: float) -> list:
    return [
        (max(begin, start_s), min(until, end_s), code)
        for begin, until, code in events
        if begin < end_s and until > start_s
    ]
