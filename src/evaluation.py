"""How good a run is and what it needs: scores with intervals, tables of species, confusions and errors, calibration, thresholds.

    found = evaluate(oof, nocall_share=0.544, soundscapes=answered_soundscapes.answers(...))
    found.scores["soundscape_row_f1"], found.intervals["soundscape_row_f1"]
    keep(folders, found, "fold0, fold1")                   # calibration and thresholds into the bundles

Whatever is fitted is fitted on other folds than those it is judged on (with one fold: on other sources), see fitting.py; what
goes into the bundles is fitted on all. Intervals are of drawing the sources again, see bootstrap.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from src import bundle, judging, metrics
from src.bootstrap import Bootstrap, interval
from src.errors import UserError
from src.files import is_held
from src.fitting import Answers, Fitted, cross_fitted, fit, of_clips
from src.judging import Judged, judge
from src.oof import OutOfFold, hits
from src.soundscape import Decision

DEFAULT, CLIPS, SOUNDSCAPES = f"{bundle.DEFAULT_THRESHOLD} for all, not calibrated", "clips", "soundscapes"
# The names of the threshold's four ways, in the order in which they are reported.
ON_CLIPS, CALIBRATED, BY_SPECIES = "one, fitted on clips", "one, calibrated", "one for each species, calibrated"
VOTED = "votes: one for each species and member, calibrated"
BETTER = "the better of the two on the other folds"
KEPT_ERRORS = 48


@dataclass(frozen=True)
class Evaluation:
    """What was found. scores, intervals: figures by name, and (low, high) of those that have one

    decisions: a row for each way to choose thresholds, with its row F1; chosen: the one that goes into the bundles
    per_species, confusions, errors: tables; fitted: on all rows; fitted_on: SOUNDSCAPES or CLIPS
    fitted_elsewhere: False where there was one group only, so that what is reported was fitted on itself
    reliability: sums of metrics.calibration_parts, float array [3, BINS], before and after
    decision: what decides beside the thresholds, fitted on all rows of soundscapes; the default one without any
    curves: mean row F1 at each of metrics.THRESHOLDS, of the network's own probabilities, by what it is of
    """

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    decisions: pd.DataFrame
    chosen: str
    per_species: pd.DataFrame
    confusions: pd.DataFrame
    errors: pd.DataFrame
    fitted: Fitted
    fitted_on: str
    fitted_elsewhere: bool
    reliability: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    decision: Decision

    @property
    def threshold(self) -> float:
        """The one for all species, on the calibrated scale."""
        return self.fitted.threshold

    @property
    def thresholds(self) -> np.ndarray:
        """Of each species, float64 array [labels]: its own if they were not worse than one for all."""
        own = self.chosen == BY_SPECIES
        return self.fitted.thresholds if own else np.full(len(self.fitted.thresholds), self.threshold)


def folds_of(run: Path) -> list[Path]:
    """The folds of a run (or the one fold given). Raises UserError if there are none, or one was stopped before its bundle."""
    folders = (
        [run] if (run / "oof.parquet").is_file() else sorted(path.parent for path in run.glob("fold*/oof.parquet"))
    )
    for folder in folders:
        if not (folder / "bundle/bundle.json").is_file():
            if is_held(folder / ".lock"):
                raise UserError(f"{folder}: is being trained now; evaluate it when its train.py is done")
            raise UserError(f"{folder}: no bundle there, so it was stopped at its end; run its train.py again")
    if not folders:
        what = "no such folder" if not run.exists() else "no run" if not run.is_dir() else "no finished fold there"
        raise UserError(f"{run}: {what}; train.py writes them to runs/MODEL/foldK")
    return folders


def evaluate(
    oof: OutOfFold,
    nocall_share: float,
    soundscapes: Answers | None = None,
    draws: int = 200,
    seed: int = 0,
    members: Sequence[tuple[OutOfFold, Answers | None]] = (),
) -> Evaluation:
    """Score out-of-fold windows, and soundscapes of held-out calls if there are any.

    nocall_share: share of rows without birds that soundscapes are expected to have, which windows are weighted to
    draws, seed: of the bootstrap
    members: of an ensemble, whose mean `oof` and `soundscapes` are: it decides as the predict core does, by the mean of the
        members' probabilities, each calibrated by its own, and the mean of their thresholds

    Raises UserError if no window of a bird was validated.
    """
    if not (oof.primary >= 0).any():
        raise UserError("no window of a bird was validated: there is nothing to judge; look at the folds file")
    clips = of_clips(oof, nocall_share)
    main = clips if soundscapes is None else soundscapes
    on = [(of_clips(one, nocall_share), heard) for one, heard in members or [(oof, soundscapes)]]
    mains = [of if heard is None else heard for of, heard in on]
    learned = {
        DEFAULT: None,
        ON_CLIPS: [cross_fitted(one, of, uncalibrated=True) for one, (of, _) in zip(mains, on)],
        CALIBRATED: [cross_fitted(one, one) for one in mains],
    }
    judged = {name: judge(mains, found, by_species=False) for name, found in learned.items()}
    judged[BY_SPECIES] = judge(mains, learned[CALIBRATED], by_species=True)
    if members:
        judged[VOTED] = judging.votes(mains, learned[CALIBRATED])
    # Figures of clips are of the threshold that was fitted on clips.
    on_clips = judged[ON_CLIPS]
    if soundscapes is not None:
        on_clips = judge([of for of, _ in on], [cross_fitted(of, of, True) for of, _ in on], False)

    better = judging.better(main, judged[CALIBRATED], judged[BY_SPECIES])
    steps, last, decision = {}, better, Decision()
    if soundscapes is not None:
        overlapping = judging.overlapping(mains, learned[CALIBRATED])
        steps, last, decision = judging.steps(soundscapes, better, overlapping, nocall_share, draws, seed)
    table = judging.table(main, {**judged, BETTER: better, **steps}, nocall_share, draws, seed)
    score = dict(zip(table.thresholds, table.row_f1))
    chosen = BY_SPECIES if score[BY_SPECIES] >= score[CALIBRATED] else CALIBRATED
    scores, intervals = _clip_scores(oof, clips, on_clips, nocall_share, draws, seed)
    if soundscapes is not None:
        more, limits = _soundscape_scores(soundscapes, last, nocall_share, draws, seed)
        scores, intervals = {**more, **scores}, {**limits, **intervals}
    reliability = {
        "calibration_error": metrics.calibration_parts(main.probabilities, main.present, main.maybe),
        "calibration_error_calibrated": metrics.calibration_parts(
            judged[CALIBRATED].probabilities, main.present, main.maybe
        ),
    }
    boot = Bootstrap(main.source, draws, seed)
    for name, parts in reliability.items():
        weighted = parts * main.weight[:, None, None]
        reliability[name] = weighted.sum(axis=0)
        scores[name] = float(metrics.calibration_error(reliability[name]))
        intervals[name] = interval(metrics.calibration_error(boot.sums(weighted)))

    fitted = fit(main)
    curves = {
        name: metrics.threshold_scores(rows.probabilities, rows.present, rows.maybe, rows.weight)
        for name, rows in ((CLIPS, clips), (SOUNDSCAPES, soundscapes))
        if rows is not None
    }
    found = Evaluation(
        scores,
        intervals,
        table,
        chosen,
        pd.DataFrame(),
        confusions(oof),
        errors(oof),
        fitted,
        CLIPS if soundscapes is None else SOUNDSCAPES,
        len(np.unique(main.group)) > 1,
        {"not calibrated": reliability["calibration_error"], "calibrated": reliability["calibration_error_calibrated"]},
        curves,
        decision,
    )
    return replace(found, per_species=_per_species(oof, on_clips, main, last, found))


def _clip_scores(
    oof: OutOfFold, clips: Answers, judged: Judged, nocall_share: float, draws: int, seed: int
) -> tuple[dict, dict]:
    """Figures of out-of-fold windows, with their intervals."""
    birds, counted, empty = oof.primary >= 0, ~oof.secondary, ~clips.present.any(axis=1)
    windows, recordings = hits(oof)
    kinds = metrics.decisions(judged.probabilities, oof.present, oof.secondary, judged.thresholds)
    scores = {
        "row_f1": float(np.average(judged.f1, weights=clips.weight)),
        "row_f1_all_nocall": float(np.average(empty, weights=clips.weight)),
        "row_f1_fitted_on_itself": float(
            metrics.fit_threshold(oof.probabilities, oof.present, oof.secondary, nocall_share)[1]
        ),
        "macro_f1": float(metrics.macro_f1(*kinds.sum(axis=1))),
        "class_mean_average_precision": metrics.class_mean_average_precision(oof.probabilities, oof.present, counted),
        "class_mean_auroc": metrics.class_mean_auroc(oof.probabilities, oof.present, counted),
        "window_accuracy": float(windows.right.mean()),
        "recording_accuracy": float(recordings.right.mean()),
        "windows": len(oof.primary),
        "nocall_windows": int((~birds).sum()),
        "recordings": int(oof.windows.filename[birds].nunique()),
        "sources": int(oof.windows.source[birds].nunique()),
    }
    boot = Bootstrap(clips.source, draws, seed)
    ranking = boot.ranking(oof.probabilities, oof.present, counted)
    intervals = {
        "row_f1": interval(boot.balanced_mean(judged.f1, empty, nocall_share)),
        "macro_f1": interval(metrics.macro_f1(*(boot.sums(kind) for kind in kinds))),
        "class_mean_average_precision": interval(ranking[0]),
        "class_mean_auroc": interval(ranking[1]),
        "window_accuracy": interval(Bootstrap(windows.source, draws, seed).mean(windows.right)),
        "recording_accuracy": interval(Bootstrap(recordings.source, draws, seed).mean(recordings.right)),
    }
    return scores, intervals


def _soundscape_scores(rows: Answers, judged: Judged, nocall_share: float, draws: int, seed: int) -> tuple[dict, dict]:
    """Figures of soundscapes with the thresholds that go into the bundle, as cross-fitted."""
    kinds = metrics.decisions(judged.probabilities, rows.present, rows.maybe, judged.thresholds)
    empty = ~rows.present.any(axis=1)
    boot = Bootstrap(rows.source, draws, seed)
    scores = {
        "soundscape_row_f1": float(judged.f1.mean()),
        "soundscape_all_nocall": float(empty.mean()),
        "soundscape_macro_f1": float(metrics.macro_f1(*kinds.sum(axis=1))),
        "soundscape_rows": len(rows.source),
    }
    return scores, {
        "soundscape_row_f1": interval(boot.balanced_mean(judged.f1, empty, nocall_share)),
        "soundscape_macro_f1": interval(metrics.macro_f1(*(boot.sums(kind) for kind in kinds))),
    }


def _per_species(oof: OutOfFold, clips: Judged, main: Answers, judged: Judged, found: Evaluation) -> pd.DataFrame:
    """A row a species: how much there is of it, how well its windows are told, and what its threshold does."""
    right, false, missed = metrics.decisions(clips.probabilities, oof.present, oof.secondary, clips.thresholds).sum(
        axis=1
    )
    on_main = metrics.decisions(judged.probabilities, main.present, main.maybe, judged.thresholds).sum(axis=1)
    precision, area = metrics.ranking_scores(oof.probabilities, oof.present, ~oof.secondary)
    rows = []
    for column, label in enumerate(oof.labels):
        own = oof.primary == column
        row = {
            "ebird_code": label,
            "windows": int(own.sum()),
            "recordings": int(oof.windows.filename[own].nunique()),
            "sources": int(oof.windows.source[own].nunique()),
            "window_accuracy": metrics.top1(oof.probabilities[own], oof.primary[own]) if own.any() else float("nan"),
            "average_precision": precision[column],
            "auroc": area[column],
            "f1": _share(2 * right[column], 2 * right[column] + false[column] + missed[column]),
        }
        if found.fitted_on == SOUNDSCAPES:
            hit, wrong, lost = on_main[:, column]
            row |= {
                "soundscape_rows": int(hit + lost),
                "soundscape_precision": _share(hit, hit + wrong),
                "soundscape_recall": _share(hit, hit + lost),
            }
        rows.append({**row, "threshold": found.thresholds[column]})
    return pd.DataFrame(rows)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def confusions(oof: OutOfFold) -> pd.DataFrame:
    """The most confused pairs, the most windows first: columns true, answered, windows, recordings, share (of true's windows)."""
    windows, _ = hits(oof)
    birds = oof.primary >= 0
    rows = np.arange(len(windows))
    excused = (oof.present | oof.secondary)[birds][rows, windows.answered]
    wrong = windows[~excused]
    codes = np.array(oof.labels)
    table = (
        wrong.assign(true=codes[wrong.primary], answered=codes[wrong.answered])
        .groupby(["true", "answered"])
        .agg(windows=("filename", "size"), recordings=("filename", "nunique"))
        .reset_index()
    )
    own = dict(zip(oof.labels, np.bincount(oof.primary[birds], minlength=len(codes)).tolist()))
    table["share"] = [round(row.windows / own[row.true], 4) for row in table.itertuples()]
    return table.sort_values(["windows", "true", "answered"], ascending=[False, True, True], ignore_index=True)


def errors(oof: OutOfFold) -> pd.DataFrame:
    """The worst errors, one a recording: where the likeliest species is not there and is most above the true one.

    Columns filename, channel, start_seconds, fold, true, answered, probability, probability_of_true (both as the network
    gave them; 0 for nocall).
    """
    rows = np.arange(len(oof.primary))
    answered = oof.probabilities.argmax(axis=1)
    probability = oof.probabilities[rows, answered].astype(float)
    of_true = np.where(oof.primary >= 0, oof.probabilities[rows, np.maximum(oof.primary, 0)], 0.0).astype(float)
    wrong = ~(oof.present | oof.secondary)[rows, answered]
    columns = [name for name in ("filename", "channel", "start_seconds", "fold") if name in oof.windows]
    table = oof.windows[columns].assign(
        true=oof.windows.ebird_code,
        answered=np.array(oof.labels)[answered],
        probability=probability.round(4),
        probability_of_true=of_true.round(4),
    )
    worst = table.assign(excess=probability - of_true)[wrong].sort_values("excess", ascending=False, kind="stable")
    return worst.drop_duplicates("filename").drop(columns="excess").head(KEPT_ERRORS).reset_index(drop=True)


def keep(folders: list[Path], found: Evaluation, names: str) -> str:
    """Write calibration, thresholds and scores into the bundles of these folds; returns what they were fitted on, in words."""
    scores = {name: value for name, value in found.scores.items() if np.isfinite(value)}
    on = "soundscapes of held-out calls" if found.fitted_on == SOUNDSCAPES else "out-of-fold windows"
    each = "one for each species" if found.chosen == BY_SPECIES else "one for all species"
    described = f"{on} of {names}; {each}"
    for folder in folders:
        bundle.update(
            bundle.load(folder / "bundle"),
            found.threshold,
            described,
            scores,
            found.thresholds if found.chosen == BY_SPECIES else None,
            found.fitted.calibration,
            found.decision,
        )
    return described
