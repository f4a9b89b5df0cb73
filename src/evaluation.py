"""What out-of-fold predictions say about a run: scores, each species, and the threshold that goes into its bundles.

    found = evaluate(out_of_fold, nocall_share)     # Evaluation: scores, per_species, threshold

The threshold that is kept is fitted on all out-of-fold windows. The score that is reported with it is cross-fitted: each
part of the sources is judged by a threshold fitted on the others, so no window is judged by one it helped to choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src import bundle
from src.errors import UserError
from src.metrics import (
    class_mean_average_precision,
    clip_row_f1,
    fit_threshold,
    soundscape_weights,
    species_f1,
    top1,
)
from src.oof import OutOfFold, accuracies

PARTS = 5  # of the sources, for cross-fitting


@dataclass(frozen=True)
class Evaluation:
    """scores: figures by name; per_species: a table; threshold: fitted on all out-of-fold windows."""

    scores: dict[str, float]
    per_species: pd.DataFrame
    threshold: float


def folds_of(run: Path) -> list[Path]:
    """The finished folds of a run (or the one fold given). Raises UserError if there are none."""
    folders = (
        [run] if (run / "oof.parquet").is_file() else sorted(path.parent for path in run.glob("fold*/oof.parquet"))
    )
    if not folders:
        raise UserError(f"{run}: no finished fold there; train.py writes them to runs/MODEL/foldK")
    return folders


def evaluate(oof: OutOfFold, nocall_share: float) -> Evaluation:
    """Score out-of-fold windows.

    nocall_share: share of rows without birds that soundscapes are expected to have, which windows are weighted to
    """
    weights = soundscape_weights(oof.present, nocall_share)
    threshold, fitted_f1 = fit_threshold(oof.probabilities, oof.present, oof.secondary, nocall_share)
    thresholds = _cross_fitted(oof, nocall_share)
    rows = clip_row_f1(oof.probabilities, oof.present, oof.secondary, thresholds)
    by_window, by_recording = accuracies(oof)
    birds = oof.primary >= 0
    scores = {
        "row_f1": float(np.average(rows, weights=weights)),
        "row_f1_all_nocall": float(np.average(oof.primary < 0, weights=weights)),
        "row_f1_fitted_on_itself": fitted_f1,
        "window_accuracy": by_window,
        "recording_accuracy": by_recording,
        "class_mean_average_precision": class_mean_average_precision(oof.probabilities, oof.present, ~oof.secondary),
        "windows": len(oof.primary),
        "nocall_windows": int((~birds).sum()),
        "recordings": int(oof.windows.filename[birds].nunique()),
        "sources": int(oof.windows.source[birds].nunique()),
    }
    return Evaluation(scores, _per_species(oof, thresholds), threshold)


def _cross_fitted(oof: OutOfFold, nocall_share: float) -> np.ndarray:
    """For each window the threshold fitted on the other parts' sources: float array [windows]."""
    names, number = np.unique(oof.windows.source.to_numpy(str), return_inverse=True)
    part = (np.random.default_rng(0).permutation(len(names)) % min(PARTS, len(names)))[number]
    thresholds = np.zeros(len(part))
    for held_out in np.unique(part):
        others = part != held_out
        if not others.any():  # one source only: there is nothing else to fit on
            others = ~others
        thresholds[part == held_out], _ = fit_threshold(
            oof.probabilities[others], oof.present[others], oof.secondary[others], nocall_share
        )
    return thresholds


def _per_species(oof: OutOfFold, thresholds: np.ndarray) -> pd.DataFrame:
    """For each species: its windows, recordings and sources, how many windows are recognised, and F1 at the thresholds."""
    counted = [
        {label for label, on, maybe in zip(oof.labels, row >= threshold, secondary) if on and not maybe}
        for row, threshold, secondary in zip(oof.probabilities, thresholds, oof.secondary)
    ]
    truth = [{oof.labels[column] for column in np.flatnonzero(row)} for row in oof.present]
    f1 = species_f1(truth, counted, oof.labels)
    rows = []
    for column, label in enumerate(oof.labels):
        own = oof.primary == column
        rows.append(
            {
                "ebird_code": label,
                "windows": int(own.sum()),
                "recordings": int(oof.windows.filename[own].nunique()),
                "sources": int(oof.windows.source[own].nunique()),
                "window_accuracy": top1(oof.probabilities[own], oof.primary[own]) if own.any() else float("nan"),
                "f1": f1[label],
            }
        )
    return pd.DataFrame(rows)


def keep_threshold(folders: list[Path], found: Evaluation, described: str) -> None:
    """Write the threshold and the scores into the bundles of these folds."""
    scores = {name: value for name, value in found.scores.items() if np.isfinite(value)}
    for folder in folders:
        bundle.update(bundle.load(folder / "bundle"), found.threshold, described, scores)
