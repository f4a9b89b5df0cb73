"""A figure of a soundscape with what is true and what was answered, as PNG; and what other figures share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from src.audio import AudioFile, file_windows
from src.files import written_whole
from src.recipe import Recipe
from src.spectrogram import log_mel

COLOURS = {"right": "#2a9d8f", "missed": "#e9c46a", "false": "#e76f51"}


def soundscape(
    path: Path,
    recording: Path,
    recipe: Recipe,
    labels: Sequence[str],
    true: Sequence[set[str]],
    answered: Sequence[set[str]],
    end_seconds: Sequence[float],
    row_seconds: float = 5.0,
) -> None:
    """A recording's spectrogram, and below it what is true and what was answered in the rows that end at `end_seconds`."""
    with AudioFile(recording) as audio:
        windows = file_windows(audio, recipe, hop_seconds=recipe.window_seconds)
        images = [log_mel(window.samples[0], recipe)[:, :-1] for window in windows]
    image = np.concatenate(images, axis=1)  # (mels, frames of all windows)
    seconds = len(images) * recipe.window_seconds
    shown = [code for code in labels if any(code in row for row in (*true, *answered))]
    figure, (top, bottom) = plt.subplots(
        2,
        1,
        figsize=(14, 4.2 + 0.28 * len(shown)),
        sharex=True,
        height_ratios=(3, 0.4 + 0.28 * len(shown)),
        layout="constrained",
    )
    low, high = np.percentile(image, [5, 99.7])
    top.imshow(
        image, origin="lower", aspect="auto", extent=(0, seconds, 0, recipe.n_mels), vmin=low, vmax=high, cmap="magma"
    )
    ticks = np.linspace(0, recipe.n_mels, 5)
    top.set_yticks(ticks, [f"{mel_to_hz(tick, recipe) / 1000:.1f}" for tick in ticks])
    top.set(ylabel="kHz (mel scale)", title=recording.name)
    for end, true_row, answered_row in zip(end_seconds, true, answered):
        for place, code in enumerate(shown):
            if code in true_row or code in answered_row:
                kind = (
                    "right" if code in true_row and code in answered_row else "missed" if code in true_row else "false"
                )
                bottom.barh(place, row_seconds * 0.96, left=end - row_seconds, color=COLOURS[kind], height=0.8)
    for kind, colour in COLOURS.items():
        bottom.barh(
            0, 0, color=colour, label={"right": "true and answered", "missed": "missed", "false": "false"}[kind]
        )
    bottom.set_yticks(range(len(shown)), shown)
    bottom.set(xlabel="seconds", ylim=(-0.6, len(shown) - 0.4), xlim=(0, seconds))
    bottom.set_xticks(np.arange(0, seconds + 1, row_seconds), minor=True)
    bottom.grid(axis="x", which="both", alpha=0.3)
    bottom.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=3, frameon=False)
    save(figure, path)


def mel_to_hz(band: float, recipe: Recipe) -> float:
    """The frequency at the lower edge of a mel band, in Hz."""
    import librosa

    low, high = librosa.hz_to_mel([recipe.fmin_hz, recipe.fmax_hz])
    return float(librosa.mel_to_hz(low + (high - low) * band / recipe.n_mels))


def save(figure: plt.Figure, path: Path, dpi: int = 90) -> None:
    """Write a figure as PNG, whole or not at all, and forget it."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    plt.close(figure)
