"""From probabilities of windows to answers for rows: which rows a window answers, and which species count in a row.

answered = row_probabilities(prediction, end_seconds)                   # float32 [rows, labels]; NaN where there is no audio
birds = decide(answered, labels, Rule(thresholds, decision), end_seconds)    # a set of codes a row; empty: nocall

Of several bundles the probabilities are their mean, by one Rule; or those of each, [bundles, rows, labels], by Votes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from src.calibration import logit
from src.errors import UserError

NOCALL = "nocall"  # how a row without birds is answered
ROW_SECONDS = 5.0
CELLS_AT_ONCE = 1 << 17  # rows times species, of which logits are held
BESIDE_SECONDS = 0.01  # rows are neighbours where one begins within so much of the other's end


@dataclass(frozen=True)
class Prediction:
    """A file's answer.

    start_seconds: float64 array [windows]
    probabilities: float32 array [windows, labels], in [0, 1]; where bundles vote, those of each: [bundles, windows, labels]
    window_seconds: length of each window
    seconds: audio that was read
    fault: "" or what was wrong with the file, though it could be read in part
    """

    start_seconds: np.ndarray
    probabilities: np.ndarray
    window_seconds: float
    seconds: float
    fault: str

    @property
    def mean(self) -> np.ndarray:
        """The probabilities, of several bundles their mean: float32 array [windows, labels]."""
        return self.probabilities if self.probabilities.ndim == 2 else self.probabilities.mean(axis=0)

    def on(self, start_seconds: np.ndarray, window_seconds: float) -> Prediction:
        """The same answers on other windows, each the mean of those that touch it, by the seconds they share."""
        ends = start_seconds + window_seconds
        shared = row_probabilities(self, ends, window_seconds)
        return replace(self, start_seconds=start_seconds, probabilities=shared, window_seconds=window_seconds)


@dataclass(frozen=True)
class Decision:
    """What decides beside the threshold. The default changes nothing.

    overlap: share of a window by which neighbouring windows overlap, so that a row is the mean of several; 0: as the recipe
        has it. It is no affair of rows: who answers the windows heeds it
    neighbours: share of the rows before and after in a row's logit, each half of it
    strict: a species is in a file if somewhere it reaches its threshold raised by so many logits,
    loose: and then in each row where it reaches its threshold lowered by so many
    most: greatest number of species a row, the likeliest by what they exceed their thresholds; 0: any
    """

    neighbours: float = 0.0
    strict: float = 0.0
    loose: float = 0.0
    most: int = 0
    overlap: float = 0.0

    def __post_init__(self) -> None:
        """Raise UserError for a number that makes no sense."""
        shares = 0 <= self.neighbours < 1 and 0 <= self.overlap < 1
        if not (shares and self.strict >= 0 and self.loose >= 0 and self.most >= 0):
            told = ", ".join(f"{name.replace('most', 'at-most')} {value:g}" for name, value in self.to_dict().items())
            raise UserError(
                "what decides beside the threshold: neighbours lie in [0, 1), so does the share of a window that overlaps, and "
                f"nothing below 0: {told}"
            )

    @property
    def alone(self) -> bool:
        """Whether each row is decided by itself, whatever the others of its file say."""
        return not (self.neighbours or self.strict or self.loose)

    def to_dict(self) -> dict:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Decision:
        """The inverse of `to_dict`. Raises ValueError for what is none."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a decision has no {', '.join(sorted(unknown))}")
        numbers = {name: float(value) for name, value in values.items()}
        if not all(np.isfinite(value) for value in numbers.values()):
            raise ValueError("a decision holds what is not a number")
        try:
            return cls(**{**numbers, "most": int(numbers.get("most", 0))})
        except UserError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Rule:
    """What makes answers of probabilities.

    thresholds: probability from which a species counts, one for all or float array [labels]; decision: what decides beside it
    allowed: bool array [labels], the only species that may be answered; None: all
    """

    thresholds: float | np.ndarray
    decision: Decision = Decision()
    allowed: np.ndarray | None = None

    @property
    def alone(self) -> bool:
        """Whether each row is decided by itself."""
        return self.decision.alone

    def counted(
        self, probabilities: np.ndarray, end_seconds: np.ndarray | None = None, row_seconds: float = ROW_SECONDS
    ) -> np.ndarray:
        """Which species count in the rows of one file: see `accepted`."""
        return accepted(probabilities, self.thresholds, self.decision, end_seconds, row_seconds, self.allowed)


@dataclass(frozen=True)
class Votes:
    """What makes answers of the probabilities of several bundles: each answers by a rule of its own, its thresholds, neighbours
    and all, and a species counts where more than half of them answer it.

    most: greatest number of species a row, the likeliest by what they exceed the thresholds on average; 0: any
    """

    rules: tuple[Rule, ...]
    most: int = 0

    @property
    def alone(self) -> bool:
        """Whether each row is decided by itself."""
        return all(rule.alone for rule in self.rules)

    def counted(
        self, probabilities: np.ndarray, end_seconds: np.ndarray | None = None, row_seconds: float = ROW_SECONDS
    ) -> np.ndarray:
        """Which species count: bool [rows, labels]. probabilities: float array [bundles, rows, labels]; see `accepted`."""
        times = (end_seconds, row_seconds)
        votes = [rule.counted(own, *times) for rule, own in zip(self.rules, probabilities)]
        counted = np.mean(votes, axis=0) > 0.5
        if not self.most:
            return counted
        over = [_over(own, one.thresholds, one.decision, *times) for one, own in zip(self.rules, probabilities)]
        return _likeliest(counted, np.mean(over, axis=0), self.most)


def mean_decision(decisions: Sequence[Decision]) -> Decision:
    """That of an ensemble: the mean of its members', but of the overlap the greatest, since all are asked for the same windows,
    and the greatest number of species that any allows (0: any allows all)."""
    most = [one.most for one in decisions]
    means = {
        name: float(np.mean([getattr(one, name) for one in decisions])) for name in ("neighbours", "strict", "loose")
    }
    return Decision(**means, most=0 if 0 in most else max(most), overlap=max(one.overlap for one in decisions))


def row_probabilities(prediction: Prediction, end_seconds: np.ndarray, row_seconds: float = ROW_SECONDS) -> np.ndarray:
    """Answer rows that end at `end_seconds` (float array [rows]; NaN: the row stands for the whole file).

    A row takes the mean of the windows that touch it, each by the seconds it shares with the row: windows of 5 s every 5 s
    answer rows one to one, longer or overlapping ones are averaged. A whole file takes each species' greatest probability.
    A row beyond the audio is NaN. Returns float32 [rows, labels], or [bundles, rows, labels] as the probabilities are.
    """
    starts, said = prediction.start_seconds, prediction.probabilities
    ends = starts + prediction.window_seconds
    answers = np.full((*said.shape[:-2], len(end_seconds), said.shape[-1]), np.nan, np.float32)
    for row, end in enumerate(end_seconds):
        if np.isnan(end):
            # A bundle that votes is asked for its own greatest, as it would be alone.
            answers[..., row, :] = said.max(axis=-2)
            continue
        first = max(end - row_seconds, 0.0)
        shared = np.maximum(np.minimum(ends, end) - np.maximum(starts, first), 0.0)  # seconds, (windows,)
        touching = np.flatnonzero(shared)  # few of them, however long the file
        if first < prediction.seconds and len(touching):
            answers[..., row, :] = np.average(said[..., touching, :], axis=-2, weights=shared[touching])
    return answers


def accepted(
    probabilities: np.ndarray,
    thresholds: float | np.ndarray,
    decision: Decision = Decision(),
    end_seconds: np.ndarray | None = None,
    row_seconds: float = ROW_SECONDS,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Which species count in the rows of one file: bool [rows, labels]. None of a row that is NaN.

    probabilities: float array [rows, labels], calibrated; thresholds: one for all, or float array [labels] or [rows, labels]
    end_seconds: of the rows, in any order, NaN for one of the whole file, which has no neighbours and asks for the strict
        threshold; None: they follow each other; row_seconds: from one row's end to the next one's
    allowed: bool array [labels], the only species that may be answered; None: all
    """
    there, whole = ~np.isnan(probabilities).any(axis=1), _whole(len(probabilities), end_seconds)
    limits = np.broadcast_to(np.asarray(thresholds), probabilities.shape)
    counted = np.zeros(probabilities.shape, bool)
    over = np.empty(probabilities.shape, np.float32) if decision.most else None
    # Some species at a time, each of which is decided by itself: logits of all of a long file would be far larger than it.
    at_once = max(1, CELLS_AT_ONCE // max(1, len(probabilities)))
    for first in range(0, probabilities.shape[1], at_once):
        here = np.s_[:, first : first + at_once]
        if decision.alone:  # to the last bit, which logits round away
            counted[here] = (probabilities[here] >= limits[here]) & there[:, None]
        if decision.alone and over is None:
            continue
        own = _over(probabilities[here], limits[here], decision, end_seconds, row_seconds)
        if not decision.alone:
            somewhere = (own[there] >= decision.strict).any(axis=0)
            needed = np.where(whole, decision.strict, -decision.loose)[:, None]
            counted[here] = (own >= needed) & somewhere & there[:, None]
        if over is not None:
            over[here] = own
    if allowed is not None:
        counted &= allowed
    return counted if over is None else _likeliest(counted, over, decision.most)


def _over(
    probabilities: np.ndarray,
    thresholds: float | np.ndarray,
    decision: Decision,
    end_seconds: np.ndarray | None,
    row_seconds: float,
) -> np.ndarray:
    """By how many logits each species exceeds its threshold, its neighbours heard: float array [rows, labels]."""
    said = logit(np.nan_to_num(probabilities))
    if decision.neighbours:
        there = ~np.isnan(probabilities).any(axis=1) & ~_whole(len(said), end_seconds)
        said = _with_neighbours(said, there, decision.neighbours, end_seconds, row_seconds)
    return said - np.broadcast_to(logit(thresholds), said.shape)


def _whole(rows: int, end_seconds: np.ndarray | None) -> np.ndarray:
    """Which rows stand for a whole file: bool [rows]."""
    return np.zeros(rows, bool) if end_seconds is None else np.isnan(end_seconds)


def _likeliest(counted: np.ndarray, over: np.ndarray, most: int) -> np.ndarray:
    """Of the species that count in a row the `most` that exceed their thresholds most: bool [rows, labels]."""
    kept = np.argsort(np.where(counted, -over, np.inf), axis=1, kind="stable")[:, :most]
    among = np.zeros_like(counted)
    np.put_along_axis(among, kept, True, axis=1)
    return counted & among


def _with_neighbours(
    said: np.ndarray, there: np.ndarray, share: float, end_seconds: np.ndarray | None, row_seconds: float
) -> np.ndarray:
    """Logits with those of the rows before and after mixed in; a row at an edge has itself for the missing one."""
    ends = np.arange(len(said)) * row_seconds if end_seconds is None else end_seconds
    order = np.flatnonzero(there)[np.argsort(ends[there], kind="stable")]
    mixed = said.copy()
    apart = np.abs(np.diff(ends[order]) - row_seconds) > BESIDE_SECONDS  # after a gap nobody is beside
    ordered = said[order]
    before, after = ordered.copy(), ordered.copy()
    before[1:] = np.where(apart[:, None], ordered[1:], ordered[:-1])
    after[:-1] = np.where(apart[:, None], ordered[:-1], ordered[1:])
    mixed[order] = (1 - share) * ordered + share * (before + after) / 2
    return mixed


def decide(
    probabilities: np.ndarray, labels: Sequence[str], rule: Rule | Votes, end_seconds: np.ndarray | None = None
) -> list[set[str]]:
    """The species of each row of a file by a rule; none for a row that is NaN. Arguments as for `accepted`, and for `Votes`."""
    return [{labels[column] for column in np.flatnonzero(row)} for row in rule.counted(probabilities, end_seconds)]


def read_species(path: Path, labels: Sequence[str]) -> list[str]:
    """The labels that a text file names, one code a line, what follows a comma or # aside.

    Raises UserError for a file that cannot be read, or that names none of them; says on stderr what is none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); --species takes a text file with a code a line") from error
    named = {line.split("#")[0].split(",")[0].strip() for line in lines} - {""}
    unknown = sorted(named - set(labels))
    if len(unknown) == len(named):
        raise UserError(f"{path}: names no species that the model knows; those are {', '.join(labels[:8])}, ...")
    if unknown:
        print(f"{path}: the model does not know {', '.join(unknown)}", file=sys.stderr)
    return [label for label in labels if label in named]
