"""The competition's score, the other figures, and the threshold.

row_f1(truth, answers)                   # the competition's score
top1(probabilities, primary)             # share of windows whose likeliest species is the labelled one
class_mean_average_precision(...)
fit_threshold(...)                       # the threshold with the best row F1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from src.competition import NOCALL

# Evenly spaced in the logarithm below 0.1, where the probabilities of a model that is unsure of many species crowd.
THRESHOLDS = np.round(np.concatenate([np.geomspace(0.002, 0.1, 40)[:-1], np.arange(0.1, 0.99, 0.01)]), 4)


def row_f1(truth: Sequence[Iterable[str]], answers: Sequence[Iterable[str]]) -> float:
    """The competition's score: F1 = 2TP / (2TP + FP + FN) of each row's label set, averaged over rows.

    `nocall` is an ordinary label; an empty set stands for it. Raises ValueError if lengths differ or there are no rows.
    """
    if len(truth) != len(answers) or not len(truth):
        raise ValueError(f"{len(truth)} rows of truth and {len(answers)} answers")
    scores = []
    for true, answered in zip(truth, answers):
        true, answered = set(true) or {NOCALL}, set(answered) or {NOCALL}
        scores.append(2 * len(true & answered) / (len(true) + len(answered)))
    return float(np.mean(scores))


def species_f1(truth: Sequence[set[str]], answers: Sequence[set[str]], labels: Sequence[str]) -> dict[str, float]:
    """F1 of each label over all rows; NaN for one that is neither true nor answered anywhere."""
    scores = {}
    for label in labels:
        both = sum(label in true and label in answered for true, answered in zip(truth, answers))
        either = sum((label in true) + (label in answered) for true, answered in zip(truth, answers))
        scores[label] = 2 * both / either if either else float("nan")
    return scores


def top1(probabilities: np.ndarray, primary: np.ndarray) -> float:
    """Share of rows whose greatest probability is at `primary`: float array [rows, labels], int array [rows]."""
    return float(np.mean(probabilities.argmax(axis=1) == primary))


def mean_by(probabilities: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities of each group (recording): (group names sorted, float array [groups, labels])."""
    names, number = np.unique(group, return_inverse=True)
    sums = np.zeros((len(names), probabilities.shape[1]))
    np.add.at(sums, number, probabilities)
    return names, sums / np.bincount(number)[:, None]


def class_mean_average_precision(probabilities: np.ndarray, present: np.ndarray, counted: np.ndarray) -> float:
    """Average precision of each label over the rows where it counts, averaged over labels with a positive; NaN if none.

    probabilities: float array [rows, labels]; present, counted: bool arrays [rows, labels]
    """
    from sklearn.metrics import average_precision_score

    scores = []
    for label in range(probabilities.shape[1]):
        rows = counted[:, label]
        if present[rows, label].any():
            scores.append(average_precision_score(present[rows, label], probabilities[rows, label]))
    return float(np.mean(scores)) if scores else float("nan")


def clip_row_f1(
    probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray, threshold: float | np.ndarray
) -> np.ndarray:
    """Row F1 of each labelled window, float array [windows], at a threshold or at one of its own, float array [windows].

    present: bool array [windows, labels]: the species in it; none: the truth is nocall
    secondary: bool array [windows, labels]: species that may or may not be in it, neither wanted nor held against it
    """
    answered = (probabilities >= np.reshape(threshold, (-1, 1))) & ~secondary
    number = np.maximum(answered.sum(axis=1), 1)  # an empty answer is the label nocall
    right = np.where(present.any(axis=1), (answered & present).sum(axis=1), ~answered.any(axis=1))
    return 2 * right / (np.maximum(present.sum(axis=1), 1) + number)


def fit_threshold(
    probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray, nocall_share: float
) -> tuple[float, float]:
    """The threshold with the greatest mean row F1, and that F1. Arguments as in `clip_row_f1`.

    nocall_share: the share of rows without birds that soundscapes are expected to have. Clips have another, so windows
        without birds are weighted to it; where there are none of them, or only them, all windows count the same.
    """
    weight = soundscape_weights(present, nocall_share)
    scores = [np.average(clip_row_f1(probabilities, present, secondary, t), weights=weight) for t in THRESHOLDS]
    # Scores of neighbouring thresholds differ by chance; the middle of the plateau around the best is the safer choice.
    high = np.array(scores) >= max(scores) - 0.002
    first = last = int(np.argmax(scores))
    while first > 0 and high[first - 1]:
        first -= 1
    while last < len(high) - 1 and high[last + 1]:
        last += 1
    chosen = (first + last) // 2
    return float(THRESHOLDS[chosen]), float(scores[chosen])


def soundscape_weights(present: np.ndarray, nocall_share: float) -> np.ndarray:
    """Weights of windows, float array summing to 1, that give those without birds the share of a soundscape.

    present: bool array [windows, labels]
    """
    nocall = ~present.any(axis=1)
    if nocall.all() or not nocall.any():
        return np.full(len(nocall), 1 / len(nocall))
    return np.where(nocall, nocall_share / nocall.sum(), (1 - nocall_share) / (~nocall).sum())
