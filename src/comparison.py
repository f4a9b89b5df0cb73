"""Several runs side by side, and their ensemble, as CSV, Markdown and a page that opens without a network.

table, remarks = compare([done_b3, done_b6], Settings())     # a row a run, and one for the mean of their probabilities
write(Path("runs/comparison"), table, [done_b3, done_b6], remarks)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from src import answered_soundscapes, evaluation, evaluation_figures, page
from src.answered_soundscapes import Heard
from src.data_figures import Picture
from src.errors import UserError
from src.evaluated_run import EvaluatedRun, Settings, cost
from src.evaluation import Evaluation
from src.files import write_text, written_whole
from src.fitting import Answers
from src.oof import OutOfFold

WITH_INTERVAL = (
    *("soundscape_row_f1", "row_f1", "macro_f1", "class_mean_average_precision", "class_mean_auroc"),
    *("window_accuracy", "recording_accuracy", "calibration_error_calibrated"),
)
# What a person reads, in this order: the column, its name, its decimals.
SHOWN = (
    ("soundscape_row_f1", "row F1, soundscapes", 3),
    ("soundscape_all_nocall", "all nocall there", 3),
    ("row_f1", "row F1, clips", 3),
    ("all_nocall", "all nocall there ", 3),
    ("macro_f1", "macro F1", 3),
    ("class_mean_average_precision", "class-mean AP", 3),
    ("class_mean_auroc", "AUROC", 3),
    ("window_accuracy", "top-1 window", 3),
    ("recording_accuracy", "top-1 recording", 3),
    ("calibration_error_calibrated", "calibration error", 3),
    ("parameters", "parameters", 0),
    ("cpu_ms_a_window", "CPU ms a window", 1),
    ("model_mb", "file MB", 1),
    ("training_cpu_s", "training CPU s", 0),
)
KEY = ["filename", "channel", "start_seconds"]


def compare(runs: Sequence[EvaluatedRun], settings: Settings) -> tuple[pd.DataFrame, list[str]]:
    """A row a run, in the order given, then one for their ensemble; and why there is none, if so.

    Columns model, folds, the scores (those of WITH_INTERVAL with _low and _high), threshold, chosen, and what it costs.
    """
    costs = [cost(one) for one in runs]
    rows = [_row(str(one.run), one.names, one.found, paid) for one, paid in zip(runs, costs)]
    remarks = []
    if len({one.names for one in runs}) > 1:
        remarks.append("the runs have different folds, so their scores are of different recordings")
    labels = [one.oof.labels for one in runs]
    most = max(labels, key=labels.count)  # of equals, those of the first
    alike = [one for one in runs if one.oof.labels == most]
    remarks += [
        f"{one.run} answers for other species than most: not in the ensemble"
        for one in runs
        if one.oof.labels != most and len(alike) > 1
    ]
    if len(runs) > 1:
        try:
            (oof, soundscapes), members = ensemble(alike if len(alike) > 1 else runs)
            found = evaluation.evaluate(oof, settings.nocall_share, soundscapes, settings.draws, settings.seed, members)
            name = f"ensemble of the {len(alike)}: mean of probabilities"
            paid = {key: sum(paid[key] for one, paid in zip(runs, costs) if one.oof.labels == most) for key in costs[0]}
            rows.append(_row(name, "those that all validated", found, paid))
            remarks.append(f"the ensemble is judged on the {len(oof.primary)} windows that all runs validated")
            remarks.append(_of_votes(found))
        except UserError as error:
            remarks.append(f"no ensemble: {error}")
    return pd.DataFrame(rows), remarks


def _row(name: str, folds: str, found: Evaluation, paid: dict[str, float]) -> dict[str, object]:
    row: dict[str, object] = {"model": name, "folds": folds}
    for score in WITH_INTERVAL:
        row[score] = found.scores.get(score, float("nan"))
        row[f"{score}_low"], row[f"{score}_high"] = found.intervals.get(score, (float("nan"), float("nan")))
    row["all_nocall"] = found.scores["row_f1_all_nocall"]
    row["soundscape_all_nocall"] = found.scores.get("soundscape_all_nocall", float("nan"))
    return {**row, "threshold": found.threshold, "chosen": found.chosen, **paid}


def _of_votes(found: Evaluation) -> str:
    """How the ensemble does by votes, beside the mean with the same thresholds."""
    mean, votes = (
        found.decisions[found.decisions.thresholds == name].iloc[0]
        for name in (evaluation.BY_SPECIES, evaluation.VOTED)
    )
    return (
        f"by votes (predict.py --combine votes) its row F1 on {found.fitted_on} is {votes.row_f1:.3f} "
        f"({votes.low:.2f} to {votes.high:.2f}), by the mean with a threshold for each species {mean.row_f1:.3f} "
        f"({mean.low:.2f} to {mean.high:.2f})"
    )


Judged = tuple[OutOfFold, Answers | None]


def ensemble(runs: Sequence[EvaluatedRun]) -> tuple[Judged, list[Judged]]:
    """The mean of the runs' probabilities, and each run's, of windows that all of them validated.

    With each the soundscapes of folds that all runs have, None if they did not all hear the same.

    Raises UserError with the reason where that means nothing: other species, other folds, no window in common.
    """
    first = runs[0]
    keys = []
    for one in runs:
        if one.oof.labels != first.oof.labels:
            raise UserError(f"{one.run} and {first.run} answer for different species")
        keys.append(pd.MultiIndex.from_frame(one.oof.windows[KEY]))
    common = keys[0]
    for key in keys[1:]:
        common = common[common.isin(key)]
    if not len(common):
        raise UserError("there is no window that all runs validated")
    places = [key.get_indexer(common) for key in keys]
    for one, place in zip(runs, places):
        for column in ("source", "fold", "ebird_code"):
            own, expected = one.oof.windows[column].to_numpy()[place], first.oof.windows[column].to_numpy()[places[0]]
            if (own != expected).any():
                raise UserError(
                    f"{one.run} and {first.run} are of different folds ({column} differs): train on the same ones"
                )
    clips = []
    for one, place in zip(runs, places):
        own, windows = one.oof, one.oof.windows.iloc[place].reset_index(drop=True)
        clips.append(
            OutOfFold(
                own.labels,
                windows,
                own.probabilities[place],
                own.primary[place],
                own.present[place],
                own.secondary[place],
            )
        )
    heard = _same_soundscapes([one.soundscapes for one in runs], first.oof.labels)
    members = list(zip(clips, heard or [None] * len(runs)))
    mean = replace(clips[0], probabilities=_mean([one.probabilities for one in clips]))
    together = None
    if heard:  # what windows that overlap say is each member's to tell
        together = replace(heard[0], probabilities=_mean([one.probabilities for one in heard]), windows=None)
    return (mean, together), members


def _mean(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(probabilities, axis=0, dtype=np.float64).astype(np.float32)


def _same_soundscapes(heard: Sequence[Sequence[Heard]], labels: tuple[str, ...]) -> list[Answers]:
    """Each run's answers to the soundscapes of folds that all runs have; none if they are not the same ones."""
    of_fold = [{one.fold: one for one in of_run} for of_run in heard]
    kept: list[list[Heard]] = [[] for _ in heard]
    for fold in sorted(set.intersection(*(set(folds) for folds in of_fold))):
        found = [folds[fold] for folds in of_fold]
        described = [one.rows.drop(columns=list(labels)).reset_index(drop=True) for one in found]
        if not all(one.equals(described[0]) for one in described):
            return []
        for of_run, one in zip(kept, found):
            of_run.append(one)
    return [answered_soundscapes.answers(of_run, labels) for of_run in kept] if kept[0] else []


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, a score with its interval: "0.609 (0.49 to 0.74)"."""
    shown = {"model": table.model, "folds": table.folds}
    for column, name, decimals in SHOWN:
        cells = []
        for row in table.to_dict("records"):
            text = f"{row[column]:,.{decimals}f}" if np.isfinite(row[column]) else ""
            if text and np.isfinite(row.get(f"{column}_low", float("nan"))):
                text += f" ({row[f'{column}_low']:.2f} to {row[f'{column}_high']:.2f})"
            cells.append(text)
        if any(cells):
            shown[name] = cells
    return pd.DataFrame(shown)


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    cells = [[str(cell).strip().replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def write(output: Path, table: pd.DataFrame, runs: Sequence[EvaluatedRun], remarks: Sequence[str]) -> list[Path]:
    """comparison.csv, .md and .html in the folder `output`; returns the figures that the page had to leave out."""
    with written_whole(output / "comparison.csv") as temporary:
        table.to_csv(temporary, index=False)
    text = readable(table)
    write_text(output / "comparison.md", markdown(text) + "".join(f"\n{remark}.\n" for remark in remarks))
    evaluation_figures.comparison(output / "comparison.png", table)
    how = (
        "In parentheses 95 % intervals, from drawing the sources again. Thresholds and calibration are fitted on other folds "
        "than those they are judged on, or on other sources where there is one fold. All nocall: what an empty answer "
        "everywhere gets. CPU ms: of one fold's exported model, waveform to probabilities, on one thread of this machine, now; "
        "training: all folds."
    )
    bars = Picture(output / "comparison.png", f"Row F1 of {len(table)} models with intervals, beside all nocall.")
    sections = [page.Section("Models", "\n\n".join([how, *remarks]), [bars], [text])]
    sections += [_section(one) for one in runs]
    return page.write(output / "comparison.html", "Runs compared", sections)


def _section(one: EvaluatedRun) -> page.Section:
    found = one.found
    pictures = [Picture(one.run / "evaluation.png", f"Thresholds, calibration and species of {one.run}.")]
    if (one.run / "errors.png").is_file():
        pictures.append(Picture(one.run / "errors.png", f"Spectrograms of the worst errors of {one.run}."))
    text = "\n\n".join([f"Thresholds in the bundles: fitted on {one.kept}. {one.names}.", *one.remarks])
    tables = [found.decisions, found.per_species, found.confusions]
    return page.Section(str(one.run), text, pictures, tables, decimals=3)
