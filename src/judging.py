"""Rows judged by what was fitted on others: each way to choose thresholds, and what decides beside them, step by step.

one = judge([answers], [cross_fitted(answers, answers)], by_species=True)     # one.f1: row F1, float array [rows]
tried, last, decision = steps(answers, one, overlapping([answers], found), nocall_share=0.544)
table(answers, {"one": one, **tried}, nocall_share=0.544)                     # a row for each, with its interval
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src import bundle, metrics
from src.bootstrap import Bootstrap, interval
from src.fitting import CHOICES, Answers, Fitted, decided, fit_decision
from src.soundscape import Decision

Found = Sequence[Mapping[str, Fitted]]  # of each member what was found for each group


@dataclass(frozen=True)
class Judged:
    """Rows with what was fitted elsewhere applied: probabilities, thresholds float arrays [rows, labels]; f1 [rows]."""

    probabilities: np.ndarray
    thresholds: np.ndarray
    f1: np.ndarray


def judge(members: Sequence[Answers], found: Found | None, by_species: bool) -> Judged:
    """Apply to each member and group what was found for it, and take the mean as the predict core does.

    None: the default threshold and no calibration.
    """
    rows = members[0]
    said = [member.probabilities.astype(np.float32, copy=True) for member in members]
    limits = [np.full(rows.probabilities.shape, bundle.DEFAULT_THRESHOLD) for _ in members]
    for probabilities, thresholds, of_groups in zip(said, limits, found or ()):
        for group, fitted in of_groups.items():
            here = rows.group == group
            probabilities[here] = fitted.calibration.apply(probabilities[here])
            thresholds[here] = fitted.thresholds if by_species else fitted.threshold
    probabilities, thresholds = np.mean(said, axis=0), np.mean(limits, axis=0)
    return Judged(probabilities, thresholds, metrics.clip_row_f1(probabilities, rows.present, rows.maybe, thresholds))


def votes(members: Sequence[Answers], found: Found) -> Judged:
    """What more than half of the members answer, each by its own calibration and thresholds of the species, as soundscape.Votes
    has it: its probabilities are 1 where a species counts, else 0."""
    alone = [judge([member], [of_groups], by_species=True) for member, of_groups in zip(members, found)]
    counted = (np.mean([one.probabilities >= one.thresholds for one in alone], axis=0) > 0.5).astype(float)
    return _counted(members[0], counted)


def _counted(rows: Answers, counted: np.ndarray) -> Judged:
    """Rows of which it is known what counts: float array [rows, labels] of 0 and 1."""
    half = np.full(counted.shape, 0.5)
    return Judged(counted, half, metrics.clip_row_f1(counted, rows.present, rows.maybe, half))


def overlapping(members: Sequence[Answers], found: Found) -> np.ndarray | None:
    """The probabilities of `judge` as windows that overlap have them: float32 array [rows, labels].

    A member without them, whose own windows overlap as much, is taken as it is. None where no member has them.
    """
    if all(member.windows is None for member in members):
        return None
    said = []
    for member, of_groups in zip(members, found):
        if member.windows is None:
            said.append(judge([member], [of_groups], by_species=False).probabilities)
        else:
            said.append(member.overlapping({group: fitted.calibration for group, fitted in of_groups.items()}))
    return np.mean(said, axis=0)


def better(rows: Answers, first: Judged, second: Judged) -> Judged:
    """In each group the way that does better in the other groups, the second if neither.

    What the others are judged by was fitted with this group among the rest, so a trace of it is in the choice.
    """
    probabilities, thresholds, f1 = second.probabilities.copy(), second.thresholds.copy(), second.f1.copy()
    for group in np.unique(rows.group):
        here = rows.group == group
        others = rows.weight * ~here if not here.all() else rows.weight
        if others @ first.f1 > others @ second.f1:
            probabilities[here], thresholds[here], f1[here] = (
                first.probabilities[here],
                first.thresholds[here],
                first.f1[here],
            )
    return Judged(probabilities, thresholds, f1)


def steps(
    rows: Answers, judged: Judged, overlapped: np.ndarray | None, nocall_share: float, draws: int = 200, seed: int = 0
) -> tuple[dict[str, Judged], Judged, Decision]:
    """What each kind of decision brings beside the thresholds, those before it that are kept included.

    overlapped: the judged probabilities as windows that overlap have them, None: that kind is not tried

    Each group is decided by what was fitted on the others' rows, as their thresholds stand. Which kinds are kept is chosen on
    all rows: those whose gain's interval lies above 0. Returns all that were tried, by name; what comes of those kept; and
    their decision, fitted on all rows, for the bundle.
    """
    boot, empty = Bootstrap(rows.source, draws, seed), ~rows.present.any(axis=1)
    tried, last, kept = {}, judged, ()
    for kind in CHOICES:
        if overlapped is None and any(choice.get("overlap") for choice in CHOICES[kind]):
            continue
        counted = np.zeros(judged.probabilities.shape)
        for group in np.unique(rows.group):
            here = rows.group == group
            others = ~here if not here.all() else here
            found = fit_decision(
                judged.probabilities[others],
                judged.thresholds[others],
                rows.of(others),
                (*kept, kind),
                None if overlapped is None else overlapped[others],
            )
            said = overlapped if found.overlap else judged.probabilities
            counted[here] = decided(said[here], judged.thresholds[here], rows.of(here), found)
        one = _counted(rows, counted)
        tried[f"and {kind}"] = one
        if interval(boot.balanced_mean(one.f1 - last.f1, empty, nocall_share))[0] > 0:
            kept, last = (*kept, kind), one
    return tried, last, fit_decision(judged.probabilities, judged.thresholds, rows, kept, overlapped)


def table(
    rows: Answers, judged: Mapping[str, Judged], nocall_share: float, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """What each way to choose thresholds scores: columns thresholds, row_f1, low, high, macro_f1, rows_with_birds."""
    boot, empty, found = Bootstrap(rows.source, draws, seed), ~rows.present.any(axis=1), []
    for name, one in judged.items():
        low, high = interval(boot.balanced_mean(one.f1, empty, nocall_share))
        kinds = metrics.decisions(one.probabilities, rows.present, rows.maybe, one.thresholds)
        found.append(
            {
                "thresholds": name,
                "row_f1": float(np.average(one.f1, weights=rows.weight)),
                "low": low,
                "high": high,
                "macro_f1": float(metrics.macro_f1(*kinds.sum(axis=1))),
                "rows_with_birds": float(np.average((kinds[0] | kinds[1]).any(axis=1), weights=rows.weight)),
            }
        )
    return pd.DataFrame(found)
