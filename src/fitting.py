"""What is fitted on answers whose truth is known, the calibration and the thresholds, and never judged on the same rows.

    answers = of_clips(oof, nocall_share=0.544)          # or answered_soundscapes.answers(...)
    fitted = fit(answers)                                # for the bundle: on all rows
    for group, fitted in cross_fitted(answers, answers).items(): ...     # for the report: on the other groups' rows

A group is a fold, or a part of the sources where there is only one fold. What belongs to one species is drawn towards what
is common to all where the species has few sources: own * n / (n + SHRINK_SOURCES) + common * SHRINK_SOURCES / (n + ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from src.calibration import Calibration, logit, sigmoid
from src.competition import NOCALL
from src.metrics import THRESHOLDS, best_threshold, clip_row_f1, plateau, soundscape_weights
from src.oof import OutOfFold
from src.soundscape import ROW_SECONDS, Decision, Prediction, accepted, row_probabilities

PARTS = 5  # of the sources, for cross-fitting within one fold
# A species with so many sources is believed by half: own optima of thresholds scatter by a logit or two with ten examples.
SHRINK_SOURCES = 10.0
# Of the calibration: one that knows nothing is made flat, never turned upside down; one that is never wrong, on the few rows
# there are, is not taken at its word.
LEAST_SLOPE, GREATEST_SLOPE, GREATEST_INTERCEPT = 0.05, 4.0, 10.0
OWN_TOLERANCE = 0.02  # of the share of rows with a species: its own scores that differ by less are alike
GREATEST_OFFSET = 4.0  # logits, of a species' own calibration and threshold from what is common
# What fit_decision tries, by kind: windows that overlap by half; shares of the neighbours; logits by which a file's threshold
# is stricter and a row's looser.
OVERLAP = 0.5  # share of a window
GATES = ((0.5, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (2.0, 0.5), (2.0, 1.0), (2.0, 2.0))
CHOICES: dict[str, list[dict]] = {
    "overlapping windows": [{"overlap": OVERLAP}],
    "neighbouring rows": [{"neighbours": share} for share in (0.1, 0.2, 0.3, 0.4, 0.5)],
    "strict for the file, loose for the row": [{"strict": strict, "loose": loose} for strict, loose in GATES],
    "at most so many a row": [{"most": most} for most in (1, 2, 3, 5)],
}
DECISION_GAIN = 0.002  # in row F1: less is chance
BIN_LOGITS = 0.125  # cells are pooled in bins of this width, so that a fit costs the same however many there are


@dataclass(frozen=True)
class Windows:
    """Windows that overlap, of the soundscapes that rows are of, answered.

    probabilities: float32 array [windows, labels], as the network gave them
    file: int array [windows], as in Answers; start_seconds: float array [windows]; window_seconds: their length
    """

    probabilities: np.ndarray
    file: np.ndarray
    start_seconds: np.ndarray
    window_seconds: float


@dataclass(frozen=True)
class Answers:
    """Answered rows whose truth is known: clip windows or rows of soundscapes.

    probabilities: float32 array [rows, labels], as the networks gave them
    origin: int array [rows, labels]: the number of the source that the species is heard from; -1 where it is not present
    maybe: bool array [rows, labels]: species that may be in the row, neither wanted nor held against an answer
    weight: float array [rows], summing to 1
    source, group: arrays of text [rows]: what a bootstrap draws, and what is held out together
    file: int array [rows]: which soundscape a row is of, the rows of one in the order of time; None: rows stand alone
    windows: of these soundscapes and maybe of others, windows that overlap; None: there are none
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    origin: np.ndarray
    maybe: np.ndarray
    weight: np.ndarray
    source: np.ndarray
    group: np.ndarray
    file: np.ndarray | None = None
    windows: Windows | None = None

    @property
    def present(self) -> np.ndarray:
        """bool array [rows, labels]"""
        return self.origin >= 0

    @property
    def examples(self) -> np.ndarray:
        """Independent examples of each species, its sources: int array [labels]."""
        return np.array([len(np.unique(column[column >= 0])) for column in self.origin.T])

    def of(self, rows: np.ndarray) -> Answers:
        """Some of the rows, by a bool array [rows]; their weights sum to 1 again."""
        weight = self.weight[rows]
        total = weight.sum()
        return replace(
            self,
            probabilities=self.probabilities[rows],
            origin=self.origin[rows],
            maybe=self.maybe[rows],
            weight=weight / total if total > 0 else np.full(len(weight), 1 / max(1, len(weight))),
            source=self.source[rows],
            group=self.group[rows],
            file=None if self.file is None else self.file[rows],
        )

    def overlapping(self, calibrations: Mapping[str, Calibration]) -> np.ndarray:
        """The rows' probabilities as the windows that overlap have them, float32 array [rows, labels].

        Each window is calibrated by its group's calibration, and a row is their mean, as it is for predict.py.
        """
        found = np.empty_like(self.probabilities)
        for file in np.unique(self.file):
            rows, of_file = np.flatnonzero(self.file == file), self.windows.file == file
            said = calibrations[self.group[rows[0]]].apply(self.windows.probabilities[of_file])
            ends = ROW_SECONDS * np.arange(1, len(rows) + 1)
            starts = self.windows.start_seconds[of_file]
            found[rows] = row_probabilities(Prediction(starts, said, self.windows.window_seconds, ends[-1], ""), ends)
        return found


@dataclass(frozen=True)
class Fitted:
    """A calibration, and on its scale the threshold for all species and those of each, float64 array [labels]."""

    calibration: Calibration
    threshold: float
    thresholds: np.ndarray


def of_clips(oof: OutOfFold, nocall_share: float) -> Answers:
    """Out-of-fold windows as answers, those without birds weighted to the share they have in soundscapes."""
    source = oof.windows.source.to_numpy(str)
    number = np.unique(source, return_inverse=True)[1]
    origin = np.where(oof.present, number[:, None], -1)
    weight = soundscape_weights(oof.present, nocall_share)
    return Answers(oof.labels, oof.probabilities, origin, oof.secondary, weight, source, groups(oof))


def groups(oof: OutOfFold) -> np.ndarray:
    """What is held out together: the fold, or, of one fold only, a part of its sources. Array of text [windows]."""
    folds = oof.windows.fold.to_numpy() if "fold" in oof.windows else np.zeros(len(oof.windows), int)
    if len(np.unique(folds)) > 1:
        return np.array([f"fold{fold}" for fold in folds])
    part_of = parts(oof.windows)
    return np.array([f"part{part_of[source]}" for source in oof.windows.source])


def parts(windows: pd.DataFrame) -> dict[str, int]:
    """Each source's part, 0 to PARTS - 1, the same for the same sources. windows: columns source, ebird_code

    Sources of birds and those of backgrounds alone are dealt out one after the other, so that each part has some of both.
    """
    birds = set(windows.source[windows.ebird_code != NOCALL])
    found: dict[str, int] = {}
    for names in (sorted(birds), sorted(set(windows.source) - birds)):
        drawn = np.random.default_rng(0).permutation(len(names)) % PARTS
        found |= dict(zip(names, drawn.tolist()))
    return found


def cross_fitted(judged: Answers, learned: Answers, uncalibrated: bool = False) -> dict[str, Fitted]:
    """For each group of what is judged, what the other groups of `learned` give; on all of it if there is no other group."""
    found = {}
    for group in np.unique(judged.group):
        others = learned.group != group
        rows = learned.of(others) if others.any() else learned
        found[str(group)] = fit_uncalibrated(rows) if uncalibrated else fit(rows)
    return found


def fit(answers: Answers) -> Fitted:
    """Calibration and thresholds on these rows."""
    calibration = fit_calibration(answers)
    calibrated = replace(answers, probabilities=calibration.apply(answers.probabilities))
    threshold = _threshold(calibrated)
    return Fitted(calibration, threshold, fit_species_thresholds(calibrated, threshold))


def fit_uncalibrated(answers: Answers) -> Fitted:
    """One threshold for all, on the network's own probabilities."""
    threshold = _threshold(answers)
    return Fitted(Calibration(), threshold, np.full(len(answers.labels), threshold))


def _threshold(answers: Answers) -> float:
    return best_threshold(answers.probabilities, answers.present, answers.maybe, answers.weight)[0]


def fit_calibration(answers: Answers) -> Calibration:
    """Platt scaling for all species by maximum likelihood, then an offset for each, drawn to 0 where its sources are few.

    The identity where nothing can be learned: no species is ever present, or all always are.
    """
    from scipy.optimize import minimize

    value, right, wrong = _pooled(answers)  # (labels, bins) each
    if not right.sum() > 0 or not wrong.sum() > 0:
        return Calibration()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        said = parameters[0] * value + parameters[1]
        error = (right + wrong) * sigmoid(said) - right
        cost = (right * np.logaddexp(0, -said) + wrong * np.logaddexp(0, said)).sum()
        return float(cost), np.array([(error * value).sum(), error.sum()])

    bounds = [(LEAST_SLOPE, GREATEST_SLOPE), (-GREATEST_INTERCEPT, GREATEST_INTERCEPT)]
    found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds)
    slope, intercept = (float(number) for number in found.x)
    said = slope * value + intercept
    # The offset at which a species comes true as often as it says: bisection, as the error grows with it.
    low, high = np.full((2, len(value)), [[-GREATEST_OFFSET], [GREATEST_OFFSET]])
    for _ in range(40):
        middle = (low + high) / 2
        error = ((right + wrong) * sigmoid(said + middle[:, None]) - right).sum(axis=1)
        low, high = np.where(error < 0, middle, low), np.where(error < 0, high, middle)
    own = np.where(right.sum(axis=1) > 0, (low + high) / 2, 0.0)
    offsets = shrunk(own, 0.0, answers.examples)
    return Calibration(round(slope, 6), round(intercept, 6), tuple(round(float(offset), 6) for offset in offsets))


def _pooled(answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each species and bin the mean logit, and the weights of cells where it is and is not present.

    Three float arrays [labels, bins]. Cells that may be either are left out.
    """
    said = logit(answers.probabilities)
    place = np.round(said / BIN_LOGITS).astype(int)
    place -= place.min()
    labels, bins = said.shape[1], int(place.max()) + 1
    key = (place + np.arange(labels) * bins).ravel()
    weight = (answers.weight[:, None] * ~answers.maybe).ravel()

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(key, values, minlength=labels * bins).reshape(labels, bins)

    everything, right = total(weight), total(weight * answers.present.ravel())
    value = np.divide(total(weight * said.ravel()), everything, out=np.zeros_like(everything), where=everything > 0)
    return value, right, everything - right


def fit_species_thresholds(answers: Answers, common: float) -> np.ndarray:
    """A threshold for each species: its own where the others stay at the common one, shrunk to that. float64 array [labels].

    A species that is nowhere present keeps the common one.
    """
    scores = _own_scores(answers, common)  # (labels, thresholds)
    # One species moves the mean over all rows by no more than the share of the rows that it is in.
    share = answers.weight @ answers.present  # (labels,)
    own = np.array([THRESHOLDS[plateau(row, OWN_TOLERANCE * part)] for row, part in zip(scores, share)])
    centre = float(logit(np.array(common)))
    own = np.clip(logit(own), centre - GREATEST_OFFSET, centre + GREATEST_OFFSET)
    return np.round(sigmoid(shrunk(own, centre, answers.examples)), 5)


def _own_scores(answers: Answers, common: float) -> np.ndarray:
    """Mean row F1 where one species has each of THRESHOLDS and the others the common one: float array [labels, thresholds]."""
    present, free = answers.present, ~answers.maybe
    answered = (answers.probabilities >= common) & free
    number, right, true = answered.sum(axis=1), (answered & present).sum(axis=1), present.sum(axis=1)

    def f1(number: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Row F1 of rows with so many answers, so many of them right."""
        right = np.where(true > 0, right, number == 0)
        return 2 * right / (np.maximum(true, 1) + np.maximum(number, 1))

    scores = []
    for label in range(len(answers.labels)):
        others, hits = number - answered[:, label], right - (answered & present)[:, label]
        without = f1(others, hits)
        gain = np.where(free[:, label], f1(others + 1, hits + present[:, label]) - without, 0.0) * answers.weight
        # The threshold at place j takes in the rows whose probability reaches more than j of them.
        reached = np.searchsorted(THRESHOLDS, answers.probabilities[:, label].astype(np.float64), side="right")
        gains = np.bincount(reached, gain, minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
        scores.append(np.sum(without * answers.weight) + gains)
    return np.array(scores)


def shrunk(own: np.ndarray, common: float, examples: np.ndarray) -> np.ndarray:
    """Each species' own number drawn to the common one: all of it with no source, half of it with SHRINK_SOURCES."""
    return (examples * own + SHRINK_SOURCES * common) / (examples + SHRINK_SOURCES)


def fit_decision(
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    answers: Answers,
    kinds: Sequence[str] = tuple(CHOICES),
    overlapping: np.ndarray | None = None,
) -> Decision:
    """What to decide by beside the thresholds: for each kind of CHOICES that is named the best one, one after the other.

    probabilities, thresholds: float arrays [rows, labels], calibrated; answers: of soundscapes, with their files
    overlapping: the probabilities as windows that overlap have them; None: there are none, and it is not tried

    What gains less than DECISION_GAIN in mean row F1 is left out.
    """

    def score(decision: Decision) -> float:
        said = overlapping if decision.overlap else probabilities
        return float(decided_f1(said, thresholds, answers, decision) @ answers.weight)

    found = Decision()
    best = score(found)
    for kind in kinds:
        tried = [replace(found, **choice) for choice in CHOICES[kind]]
        scores = [score(one) for one in tried if overlapping is not None or not one.overlap]
        if scores and max(scores) > best + DECISION_GAIN:
            found, best = tried[int(np.argmax(scores))], max(scores)
    return found


def decided(probabilities: np.ndarray, thresholds: np.ndarray, answers: Answers, decision: Decision) -> np.ndarray:
    """Which species count in each row, file by file: bool [rows, labels]."""
    counted = np.zeros(probabilities.shape, bool)
    for file in np.unique(answers.file):
        rows = answers.file == file
        counted[rows] = accepted(probabilities[rows], thresholds[rows], decision)
    return counted


def decided_f1(probabilities: np.ndarray, thresholds: np.ndarray, answers: Answers, decision: Decision) -> np.ndarray:
    """Row F1 of what `decided` gives: float array [rows]."""
    counted = decided(probabilities, thresholds, answers, decision)
    return clip_row_f1(counted.astype(float), answers.present, answers.maybe, 0.5)
