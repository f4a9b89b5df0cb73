"""Figures of an evaluation, as PNG: what thresholds and calibration do, the species, the worst errors, runs side by side.

evaluation(run / "evaluation.png", found)
heard = errors(run / "errors.png", found.errors, recordings, recipe)     # how many could be drawn
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from src.audio import some_windows
from src.evaluation import Evaluation
from src.figures import COLOURS, mel_to_hz, plt, save
from src.metrics import THRESHOLDS
from src.recipe import Recipe
from src.spectrogram import log_mel

DARK, LIGHT = "#264653", "#8ab6b0"
DRAWN_ERRORS = 12
SHOWN_NAME = 40  # characters


def evaluation(path: Path, found: Evaluation) -> None:
    """Row F1 over thresholds, reliability before and after, what each way to choose thresholds scores, and the species."""
    rows = len(found.per_species)
    figure, axes = plt.subplot_mosaic(
        [["curve", "species"], ["reliability", "species"], ["decisions", "species"]],
        figsize=(13, max(11, 3 + 0.17 * rows)),
        layout="constrained",
    )
    for (name, scores), colour in zip(found.curves.items(), (LIGHT, DARK)):
        axes["curve"].plot(THRESHOLDS, scores, color=colour, label=name)
    nocall = found.scores.get("soundscape_all_nocall", found.scores["row_f1_all_nocall"])
    axes["curve"].axhline(nocall, color="grey", linestyle=":", label="all nocall")
    axes["curve"].set(xlabel="threshold (probability, not calibrated)", ylabel="row F1", ylim=(0, 1))
    axes["curve"].set_title("Row F1 over thresholds")
    axes["curve"].legend()
    _reliability(axes["reliability"], found)
    _decisions(axes["decisions"], found, nocall)
    table = found.per_species.sort_values("average_precision", na_position="first")
    axes["species"].barh(table.ebird_code, table.average_precision.fillna(0), color=LIGHT, label="average precision")
    axes["species"].plot(table.window_accuracy, table.ebird_code, "o", ms=4, color=DARK, label="windows recognised")
    for place, (windows, sources) in enumerate(zip(table.windows, table.sources)):
        axes["species"].text(0.01, place, f"{windows} windows, {sources} sources", va="center", fontsize=7)
    axes["species"].set(xlim=(0, 1), ylim=(-0.7, rows - 0.3), title="Species, out of fold")
    axes["species"].tick_params(axis="y", labelsize=8)
    axes["species"].legend(loc="lower right")
    save(figure, path)


def _reliability(axis: plt.Axes, found: Evaluation) -> None:
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":")
    errors = (found.scores["calibration_error"], found.scores["calibration_error_calibrated"])
    for (name, parts), error, colour in zip(found.reliability.items(), errors, (COLOURS["false"], DARK)):
        filled = parts[0] > 0
        mean, right, share = parts[1, filled] / parts[0, filled], parts[2, filled] / parts[0, filled], parts[0, filled]
        axis.plot(mean, right, color=colour, label=f"{name}: error {error:.3f}")
        axis.scatter(mean, right, s=10 + 300 * share / share.sum(), color=colour, alpha=0.6)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the likeliest species", ylabel="share that is right")
    axis.set_title(f"Calibration on {found.fitted_on}; a dot's size: rows")
    axis.legend(loc="upper left")


def _decisions(axis: plt.Axes, found: Evaluation, nocall: float) -> None:
    table = found.decisions[::-1]
    colours = [COLOURS["right"] if name == found.chosen else LIGHT for name in table.thresholds]
    reach = np.abs(np.nan_to_num([table.row_f1 - table.low, table.high - table.row_f1]))
    axis.barh(table.thresholds, table.row_f1, color=colours, xerr=reach, ecolor="grey", capsize=3)
    for place, value in enumerate(table.row_f1):
        axis.text(0.01, place, f"{value:.3f}", va="center", fontsize=9)
    axis.axvline(nocall, color="grey", linestyle=":")
    axis.set(xlim=(0, 1), xlabel=f"row F1 on {found.fitted_on}, with 95 % intervals; dotted: all nocall")
    axis.set_title("Thresholds, fitted on other sources; dark: kept")


def errors(path: Path, table: pd.DataFrame, recordings: pd.DataFrame | None, recipe: Recipe) -> int:
    """The worst errors as spectrograms: true and answered species, probability, file and second. Returns how many were drawn.

    table: of evaluation.errors; recordings: columns filename, path; None: they are not there, and nothing is written
    """
    path_of = {} if recordings is None else dict(zip(recordings.filename, recordings.path))
    drawn = []
    for row in table.itertuples():
        if row.filename in path_of and len(drawn) < DRAWN_ERRORS:
            read = some_windows(path_of[row.filename], recipe, recipe.channels, {row.start_seconds})
            drawn += [(row, samples[row.channel]) for samples in read.values()]
    if not drawn:
        path.unlink(missing_ok=True)  # one of an earlier evaluation would be taken for this one's
        return 0
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.6 * columns, 2.9 * lines), squeeze=False, layout="constrained"
    )
    for axis, (row, samples) in zip(axes.flat, drawn):
        image = log_mel(samples, recipe)
        low, high = np.percentile(image, [5, 99.7])
        extent = (row.start_seconds, row.start_seconds + recipe.window_seconds, 0, recipe.n_mels)
        axis.imshow(image, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma")
        ticks = np.linspace(0, recipe.n_mels, 4)
        axis.set_yticks(ticks, [f"{mel_to_hz(tick, recipe) / 1000:.1f}" for tick in ticks], fontsize=7)
        axis.tick_params(axis="x", labelsize=7)
        own = "" if row.true == "nocall" else f" {row.probability_of_true:.2f}"
        title = f"{row.true}{own}, answered {row.answered} {row.probability:.2f}\n{row.filename[-SHOWN_NAME:]}"
        axis.set_title(plain(f"{title}, {row.start_seconds:g} s"), fontsize=8, loc="left")
    for axis in axes.flat[len(drawn) :]:
        axis.axis("off")
    figure.supxlabel("seconds of the recording", fontsize=8)
    figure.supylabel("kHz (mel scale)", fontsize=8)
    save(figure, path)
    return len(drawn)


def comparison(path: Path, table: pd.DataFrame) -> None:
    """Row F1 of each run with its interval, beside that of all nocall. table: of comparison.compare."""
    shown = table[::-1]
    names = [plain(name[-SHOWN_NAME:]) for name in shown.model]
    figure, axis = plt.subplots(figsize=(9, 1.4 + 0.45 * len(shown)), layout="constrained")
    for place, row in enumerate(shown.itertuples()):
        for offset, prefix, colour in ((0.18, "soundscape_row_f1", DARK), (-0.18, "row_f1", LIGHT)):
            value, low, high = (getattr(row, f"{prefix}{end}") for end in ("", "_low", "_high"))
            if np.isfinite(value):
                reach = np.nan_to_num([[value - low], [high - value]]).clip(0)
                axis.barh(place + offset, value, height=0.34, color=colour, xerr=reach, ecolor="grey", capsize=2)
    for label, colour in (("soundscapes", DARK), ("clips", LIGHT)):
        axis.barh(0, 0, color=colour, label=label)
    axis.axvline(shown.all_nocall.mean(), color="grey", linestyle=":", label="all nocall")
    axis.set_yticks(range(len(shown)), names)
    axis.set(xlim=(0, 1), xlabel="row F1, with 95 % intervals over sources")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    save(figure, path)


def plain(text: str) -> str:
    """Text as matplotlib draws it: a $ would begin a formula."""
    return text.replace("$", r"\$")
