"""The competition's score, the other figures, and the threshold.

row_f1(truth, answers)                   # the competition's score
top1(probabilities, primary)             # share of windows whose likeliest species is the labelled one
class_mean_average_precision(...), class_mean_auroc(...), macro_f1(...)
calibration_parts(...)                   # what the expected calibration error is made of
fit_threshold(...), best_threshold(...)  # the threshold with the best row F1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from src.competition import NOCALL

# Evenly spaced in the logarithm below 0.1, where the probabilities of a model that is unsure of many species crowd.
THRESHOLDS = np.round(np.concatenate([np.geomspace(0.002, 0.1, 40)[:-1], np.arange(0.1, 0.99, 0.01)]), 4)
BINS = 10  # of the calibration error


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
    return _mean(ranking_scores(probabilities, present, counted)[0])


def class_mean_auroc(probabilities: np.ndarray, present: np.ndarray, counted: np.ndarray) -> float:
    """Area under the ROC curve, averaged over labels with a positive and a negative; arguments as of average precision."""
    return _mean(ranking_scores(probabilities, present, counted)[1])


def ranking_scores(
    probabilities: np.ndarray, present: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(average precision, AUROC) of each label, float arrays [labels]; NaN where a label has no positive (or negative).

    probabilities: float array [rows, labels]; present, counted: bool arrays [rows, labels]
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    precision, area = np.full((2, probabilities.shape[1]), np.nan)
    for label in range(probabilities.shape[1]):
        rows = counted[:, label]
        true, answered = present[rows, label], probabilities[rows, label]
        if true.any():
            precision[label] = average_precision_score(true, answered)
            if not true.all():
                area[label] = roc_auc_score(true, answered)
    return precision, area


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def decisions(
    probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray, threshold: float | np.ndarray
) -> np.ndarray:
    """Of each row and label whether it is right, false or missed: bool array [3, rows, labels]; arguments as of clip_row_f1."""
    answered = (probabilities >= _by_row(threshold)) & ~secondary
    return np.stack([answered & present, answered & ~present, ~answered & present])


def macro_f1(right: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """F1 of each label, averaged over the labels that are true or answered: float arrays [..., labels] of weights -> [...]."""
    either = 2 * right + false + missed
    f1 = np.divide(2 * right, either, out=np.full(either.shape, np.nan), where=either > 0)
    counted = np.isfinite(f1)
    number = counted.sum(axis=-1)
    return np.divide(np.nansum(f1, axis=-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def calibration_parts(probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray) -> np.ndarray:
    """What `calibration_error` adds up: float array [rows, 3, BINS] of (1, probability, right) in its bin.

    Of each row the likeliest species is taken, as that is what a person reads first; a row where it is a secondary one, which
    may be there or not, has zeros only.
    """
    rows = np.arange(len(probabilities))
    likeliest = probabilities.argmax(axis=1)
    surest = probabilities[rows, likeliest].astype(float)
    parts = np.zeros((len(rows), 3, BINS))
    place = np.minimum((surest * BINS).astype(int), BINS - 1)
    values = np.stack([np.ones(len(rows)), surest, present[rows, likeliest]], axis=1)
    parts[rows, :, place] = values * ~secondary[rows, likeliest][:, None]
    return parts


def calibration_error(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error: sums of `calibration_parts` over rows, float array [..., 3, BINS] -> [...].

    The mean distance, over rows, between the mean probability of a bin and the share of it that is right.
    """
    total = sums[..., 0, :].sum(axis=-1)
    distance = np.abs(sums[..., 1, :] - sums[..., 2, :]).sum(axis=-1)
    return np.divide(distance, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def _by_row(threshold: float | np.ndarray) -> np.ndarray:
    """A threshold for all (), for each row [rows], or for each row and label [rows, labels], as it is compared."""
    threshold = np.asarray(threshold)
    return threshold if threshold.ndim == 2 else np.reshape(threshold, (-1, 1))


def clip_row_f1(
    probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray, threshold: float | np.ndarray
) -> np.ndarray:
    """Row F1 of each labelled window, float array [windows].

    threshold: one for all, or one for each window, float array [windows], or for its labels too, [windows, labels]
    present: bool array [windows, labels]: the species in it; none: the truth is nocall
    secondary: bool array [windows, labels]: species that may or may not be in it, neither wanted nor held against it
    """
    answered = (probabilities >= _by_row(threshold)) & ~secondary
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
    return best_threshold(probabilities, present, secondary, soundscape_weights(present, nocall_share))


def best_threshold(
    probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """As `fit_threshold`, with the rows' weights given: float array [rows]."""
    scores = threshold_scores(probabilities, present, secondary, weight)
    chosen = plateau(scores)
    return float(THRESHOLDS[chosen]), float(scores[chosen])


def threshold_scores(
    probabilities: np.ndarray, present: np.ndarray, secondary: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Mean row F1 at each of THRESHOLDS, float array [thresholds]; each probability is looked at once, however many there are."""
    rows, places = np.arange(len(probabilities))[:, None], len(THRESHOLDS) + 1
    reached = np.searchsorted(THRESHOLDS, probabilities.astype(np.float64), side="right")  # so many thresholds

    def count(cells: np.ndarray) -> np.ndarray:
        """How many of these cells [rows, labels] of a row are answered at each threshold."""
        key = (rows * places + reached)[cells]
        table = np.bincount(key, minlength=len(probabilities) * places).reshape(-1, places)
        return table[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]

    answered, right = count(~secondary), count(present & ~secondary)
    empty = ~present.any(axis=1)
    right = np.where(empty[:, None], answered == 0, right)
    f1 = 2 * right / (np.maximum(present.sum(axis=1), 1)[:, None] + np.maximum(answered, 1))
    return np.average(f1, axis=0, weights=weight)


def plateau(scores: np.ndarray, tolerance: float = 0.002) -> int:
    """The place of the best score; of several alike beside each other, the middle one.

    Scores of neighbouring thresholds differ by chance; the middle of the plateau around the best is the safer choice.
    tolerance: by which scores that are alike may differ
    """
    high = np.asarray(scores) >= np.max(scores) - tolerance
    first = last = int(np.argmax(scores))
    while first > 0 and high[first - 1]:
        first -= 1
    while last < len(high) - 1 and high[last + 1]:
        last += 1
    return (first + last) // 2


def soundscape_weights(present: np.ndarray, nocall_share: float) -> np.ndarray:
    """Weights of windows, float array summing to 1, that give those without birds the share of a soundscape.

    present: bool array [windows, labels]
    """
    nocall = ~present.any(axis=1)
    if nocall.all() or not nocall.any():
        return np.full(len(nocall), 1 / len(nocall))
    return np.where(nocall, nocall_share / nocall.sum(), (1 - nocall_share) / (~nocall).sum())
