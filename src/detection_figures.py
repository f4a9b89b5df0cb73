"""Pictures of a recording's spectrogram and, below it, what was detected when: a PNG for each ten minutes.

    draw([Path("dawn.wav.png")], 600.0, Path("dawn.wav"), recipe, 305.0, lines, "dawn.wav")

The spectrogram is what the model hears: log-mel, above each band's median, so that wind does not take all the colours. A
picture's columns are the loudest of what falls into them; no more than a picture is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from src.audio import AudioFile, file_windows
from src.figures import mel_to_hz, save
from src.recipe import Recipe
from src.spectrogram import log_mel
from src.status import as_text

COLUMNS = 1500
MOST_SPECIES = 30  # of a picture


def draw(
    pages: Sequence[Path],
    page_seconds: float,
    recording: Path,
    recipe: Recipe,
    seconds: float,
    lines: Iterable[list],
    title: str,
) -> None:
    """Write the pictures, each whole or not at all.

    pages: their names, one for each `page_seconds` of the recording's `seconds`
    lines: its detections [start_s, end_s, species, probability] in the order of time
    """
    spans = _by_page(lines, page_seconds)
    with AudioFile(recording) as audio:
        strips = _strips(audio, recipe, min(seconds, page_seconds), page_seconds)
        for number, (path, strip) in enumerate(zip(pages, strips)):
            start = number * page_seconds
            _draw(path, strip, recipe, (start, min(seconds, start + page_seconds)), next(spans), title)


def _strips(audio: AudioFile, recipe: Recipe, shown_seconds: float, page_seconds: float) -> Iterator[np.ndarray]:
    """The spectrogram of each page in turn: float32 [mels, columns], dB."""
    columns, page = [], 1
    a_window = int(np.clip(COLUMNS * recipe.window_seconds / max(shown_seconds, 1e-3), 1, recipe.image_shape[1] - 1))
    for window in file_windows(audio, recipe, hop_seconds=recipe.window_seconds):
        if window.start_seconds >= page * page_seconds - 1e-6:
            yield np.concatenate(columns, axis=1)
            columns, page = [], page + 1
        image = log_mel(window.samples[0], recipe)[:, :-1]  # (mels, frames)
        image[:, :2], image[:, -1:] = image[:, 2:3], image[:, -2:-1]  # a window's ends are clicks to the transform
        edges = np.linspace(0, image.shape[1], a_window, endpoint=False).astype(int)
        kept = max(1, round(a_window * window.audio_seconds / recipe.window_seconds))
        columns.append(np.maximum.reduceat(image, edges, axis=1)[:, :kept])
    yield np.concatenate(columns, axis=1)


def _by_page(lines: Iterable[list], page_seconds: float) -> Iterator[list[list]]:
    """The detections of each page in turn, without end; one that reaches into the next is in both."""
    waiting, page, carried = iter(lines), 1, []
    while True:
        found = carried
        for line in waiting:
            if line[0] >= page * page_seconds:
                waiting = chain([line], waiting)
                break
            found.append(line)
        yield found
        carried = [line for line in found if line[1] > page * page_seconds]
        page += 1


def _draw(
    path: Path, image: np.ndarray, recipe: Recipe, between: tuple[float, float], lines: list[list], title: str
) -> None:
    counts: dict[str, int] = {}
    for _, _, species, _ in lines:
        counts[species] = counts.get(species, 0) + 1
    shown = sorted(sorted(counts, key=lambda code: -counts[code])[:MOST_SPECIES], reverse=True)
    lanes = 0.3 * max(1, len(shown))
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(14, 3.8 + lanes), sharex=True, height_ratios=(3, 0.2 + lanes), layout="constrained"
    )
    start, end = between
    raised = image - np.median(image, axis=1, keepdims=True)
    low, high = np.percentile(raised, [5, 99.7])
    extent = (start, end, 0, recipe.n_mels)
    top.imshow(raised, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=max(high, low + 10), cmap="magma")
    ticks = np.linspace(0, recipe.n_mels, 5)
    top.set_yticks(ticks, [f"{mel_to_hz(tick, recipe) / 1000:.1f}" for tick in ticks])
    top.set_ylabel("kHz (mel scale)")
    # A name may hold a $, which is no formula, and what no font has.
    printable = "".join(
        letter if letter.isprintable() and ord(letter) < 0x2000 else "\N{REPLACEMENT CHARACTER}"
        for letter in as_text(title)
    )
    top.set_title(printable, fontsize=10, parse_math=False)
    colours = plt.get_cmap("viridis_r")
    for begin, until, species, probability in lines:
        if species in shown:
            left, right = max(begin, start), min(until, end)
            bottom.barh(shown.index(species), right - left, left=left, height=0.8, color=colours(probability))
    bottom.set_yticks(range(len(shown)), shown)
    hidden = len(counts) - len(shown)
    label = "time in the recording" + (f"; {hidden} rarer species are not drawn" if hidden else "")
    bottom.set(xlabel=label if shown else f"{label}; nothing was detected", xlim=between)
    bottom.set_ylim(-0.6, max(1, len(shown)) - 0.4)
    bottom.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.5, 3, 6, 10]))
    bottom.xaxis.set_major_formatter(FuncFormatter(_clock))
    bottom.grid(axis="x", alpha=0.3)
    scale = figure.colorbar(plt.cm.ScalarMappable(cmap=colours), ax=bottom, pad=0.01, aspect=8)
    scale.set_label("probability", fontsize=8)
    save(figure, path)


def _clock(seconds: float, _: int) -> str:
    """Seconds as hours, minutes and seconds, as far as they are needed."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    short = f"{rest:04.1f}" if rest % 1 else f"{int(rest):02d}"
    return f"{hours}:{minutes:02d}:{short}" if hours else f"{minutes}:{short}"
