"""From probabilities of windows to answers for rows: which rows a window answers, and which species count in a row.

answered = row_probabilities(prediction, end_seconds)                   # float32 [rows, labels]; NaN where there is no audio
birds = decide(answered, labels, Rule(thresholds, decision), end_seconds)    # a set of codes a row; empty: nocall
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from src.calibration import logit
from src.errors import UserError

NOCALL = "nocall"  # how a row without birds is answered
ROW_SECONDS = 5.0
BESIDE_SECONDS = 0.01  # rows are neighbours where one begins within so much of the other's end


@dataclass(frozen=True)
class Prediction:
    """A file's answer.

    start_seconds: float64 array [windows]
    probabilities: float32 array [windows, labels], in [0, 1]
    window_seconds: length of each window
    seconds: audio that was read
    fault: "" or what was wrong with the file, though it could be read in part
    """

    start_seconds: np.ndarray
    probabilities: np.ndarray
    window_seconds: float
    seconds: float
    fault: str


@dataclass(frozen=True)
class Decision:
    """What decides beside the threshold. The default changes nothing.

    neighbours: share of the rows before and after in a row's logit, each half of it
    strict: a species is in a file if somewhere it reaches its threshold raised by so many logits,
    loose: and then in each row where it reaches its threshold lowered by so many
    most: greatest number of species a row, the likeliest by what they exceed their thresholds; 0: any
    """

    neighbours: float = 0.0
    strict: float = 0.0
    loose: float = 0.0
    most: int = 0

    def __post_init__(self) -> None:
        """Raise UserError for a number that makes no sense."""
        if not (0 <= self.neighbours < 1 and self.strict >= 0 and self.loose >= 0 and self.most >= 0):
            raise UserError(f"a decision's neighbours lie in [0, 1) and nothing is below 0, not {self}")

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
        return cls(**{**numbers, "most": int(numbers.get("most", 0))})


@dataclass(frozen=True)
class Rule:
    """What makes answers of probabilities.

    thresholds: probability from which a species counts, one for all or float array [labels]; decision: what decides beside it
    allowed: bool array [labels], the only species that may be answered; None: all
    """

    thresholds: float | np.ndarray
    decision: Decision = Decision()
    allowed: np.ndarray | None = None

    def counted(
        self, probabilities: np.ndarray, end_seconds: np.ndarray | None = None, row_seconds: float = ROW_SECONDS
    ) -> np.ndarray:
        """Which species count in the rows of one file: see `accepted`."""
        return accepted(probabilities, self.thresholds, self.decision, end_seconds, row_seconds, self.allowed)


def mean_decision(decisions: Sequence[Decision]) -> Decision:
    """That of an ensemble: the mean of its members', and the greatest number of species that any allows (0: any allows all)."""
    most = [one.most for one in decisions]
    means = {
        name: float(np.mean([getattr(one, name) for one in decisions])) for name in ("neighbours", "strict", "loose")
    }
    return Decision(**means, most=0 if 0 in most else max(most))


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
    said = logit(np.nan_to_num(probabilities))
    limits = np.broadcast_to(logit(thresholds), said.shape)
    there = ~np.isnan(probabilities).any(axis=1)
    whole = np.zeros(len(said), bool) if end_seconds is None else np.isnan(end_seconds)
    if decision.neighbours:
        said = _with_neighbours(said, there & ~whole, decision.neighbours, end_seconds, row_seconds)
    over = said - limits  # (rows, labels), logits
    somewhere = (over[there] >= decision.strict).any(axis=0)
    counted = (over >= np.where(whole, decision.strict, -decision.loose)[:, None]) & somewhere & there[:, None]
    if not (decision.neighbours or decision.strict or decision.loose):  # to the last bit, which logits round away
        counted = (probabilities >= thresholds) & there[:, None]
    if allowed is not None:
        counted &= allowed
    if decision.most:
        kept = np.argsort(np.where(counted, -over, np.inf), axis=1, kind="stable")[:, : decision.most]
        among = np.zeros_like(counted)
        np.put_along_axis(among, kept, True, axis=1)
        counted &= among
    return counted


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
    probabilities: np.ndarray, labels: Sequence[str], rule: Rule, end_seconds: np.ndarray | None = None
) -> list[set[str]]:
    """The species of each row of a file by a rule; none for a row that is NaN. Arguments as for `accepted`."""
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
