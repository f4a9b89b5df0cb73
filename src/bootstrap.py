"""How far a figure is to be trusted: 95 % intervals from drawing the sources again, with replacement.

    boot = Bootstrap(source, draws=200, seed=0)          # source: text array [rows]
    low, high = interval(boot.mean(correct, weight))

A source (a recordist on a day) is drawn whole, as its windows are no independent examples. A draw is a weight for each
row, so all draws of a figure are a few matrix products and no model is asked again.
"""

from __future__ import annotations

import numpy as np

LEVEL = 0.95


class Bootstrap:
    """The draws. counts: float array [draws, sources], how often each source was drawn; index: int array [rows]."""

    def __init__(self, source: np.ndarray, draws: int = 200, seed: int = 0) -> None:
        names, self.index = np.unique(np.asarray(source, dtype=str), return_inverse=True)
        generator = np.random.default_rng(seed)
        self.counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws).astype(float)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the rows of each draw: float array [rows, ...] -> [draws, ...]."""
        values = np.asarray(values, float)
        by_source = np.zeros((self.counts.shape[1], *values.shape[1:]))
        np.add.at(by_source, self.index, values)
        return np.tensordot(self.counts, by_source, axes=1)

    def mean(self, values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        """Mean over the rows of each draw: float array [rows] -> [draws]; NaN where a draw has no weight."""
        weight = np.ones(len(values)) if weight is None else np.asarray(weight, float)
        return _ratio(self.sums(values * weight), self.sums(weight))

    def balanced_mean(self, values: np.ndarray, empty: np.ndarray, nocall_share: float | None) -> np.ndarray:
        """As `mean`, in each draw with the rows without birds weighted to nocall_share; None: all count the same.

        empty: bool array [rows]. A draw with only one kind of rows is their mean.
        """
        if nocall_share is None:
            return self.mean(values)
        without, birds = self.mean(values, empty), self.mean(values, ~empty)
        both = nocall_share * without + (1 - nocall_share) * birds
        return np.where(np.isnan(without), birds, np.where(np.isnan(birds), without, both))

    def ranking(
        self, probabilities: np.ndarray, present: np.ndarray, counted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(class-mean average precision, class-mean AUROC) of each draw, float arrays [draws].

        probabilities: float array [rows, labels]; present, counted: bool arrays [rows, labels]. In each draw the mean is over
        the species that are in it; NaN if none is.
        """
        scores = [
            self._ranking(probabilities[rows, label], present[rows, label], self.index[rows])
            for label, rows in enumerate(counted.T)
            if present[rows, label].any()
        ]
        if not scores:
            return tuple(np.full((2, len(self.counts)), np.nan))
        scores = np.array(scores)  # (labels, 2, draws)
        finite = np.isfinite(scores)
        return tuple(_ratio(np.where(finite, scores, 0).sum(axis=0), finite.sum(axis=0)))

    def _ranking(self, probability: np.ndarray, present: np.ndarray, index: np.ndarray) -> np.ndarray:
        """(average precision, AUROC) of one species in each draw, float array [2, draws]."""
        from scipy.sparse import csr_array

        # Only the places of the positives matter: odd bins hold one each, even bins what lies between two of them.
        marks = np.unique(probability[present])
        place = np.searchsorted(marks, probability, side="left") + np.searchsorted(marks, probability, side="right")
        shape = (2 * len(marks) + 1, self.counts.shape[1])

        def drawn(rows: np.ndarray) -> np.ndarray:
            """Weight of rows in each bin and draw: float array [bins, draws], the greatest probability first."""
            ones = np.ones(int(rows.sum()))
            return (csr_array((ones, (place[rows], index[rows])), shape=shape) @ self.counts.T)[::-1]

        right, wrong = drawn(present), drawn(~present)
        above = wrong.cumsum(axis=0)  # this bin's included
        rights, wrongs = right.sum(axis=0), wrong.sum(axis=0)
        precision = _ratio(right.cumsum(axis=0), right.cumsum(axis=0) + above)
        area = (right * (wrongs - above + 0.5 * wrong)).sum(axis=0)
        return np.stack([_ratio(np.nansum(right * precision, axis=0), rights), _ratio(area, rights * wrongs)])


def interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of LEVEL over draws, float array [draws]; draws that are NaN are left out; NaN if all are."""
    values = np.asarray(values)[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)
