"""From probabilities of windows to answers for rows.

answered = row_probabilities(prediction, end_seconds)     # float32 [rows, labels]; NaN where there is no audio
birds = decide(answered, labels, predictor.thresholds)    # a set of codes a row; empty: nocall
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.predictor import Prediction

ROW_SECONDS = 5.0


def row_probabilities(prediction: Prediction, end_seconds: np.ndarray, row_seconds: float = ROW_SECONDS) -> np.ndarray:
    """Answer rows that end at `end_seconds` (float array [rows]; NaN: the row stands for the whole file).

    A row takes the mean of the windows that touch it, each by the seconds it shares with the row: windows of 5 s every 5 s
    answer rows one to one, longer or overlapping ones are averaged. A whole file takes each species' greatest probability.
    A row beyond the audio is NaN. Returns float32 [rows, labels].
    """
    starts = prediction.start_seconds
    ends = starts + prediction.window_seconds
    answers = np.full((len(end_seconds), prediction.probabilities.shape[1]), np.nan, np.float32)
    for row, end in enumerate(end_seconds):
        if np.isnan(end):
            answers[row] = prediction.probabilities.max(axis=0)
            continue
        first = max(end - row_seconds, 0.0)
        shared = np.maximum(np.minimum(ends, end) - np.maximum(starts, first), 0.0)  # seconds, (windows,)
        if first < prediction.seconds and shared.any():
            answers[row] = np.average(prediction.probabilities, axis=0, weights=shared)
    return answers


def decide(probabilities: np.ndarray, labels: Sequence[str], threshold: float | np.ndarray) -> list[set[str]]:
    """The species of each row whose probability reaches the threshold (one for all, or float array [labels]).

    None for a row that is NaN.
    """
    return [{labels[column] for column in np.flatnonzero(row >= threshold)} for row in probabilities]
