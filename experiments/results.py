"""The study's rows on disk, and the table that is made of them.

    results = Results(Path("docs/experiments"), "augmentation")       # augmentation.csv, and the recipes in augmentation.json
    results.add(row_of(...)); results.has(trial, seed, fold)
    text = markdown(title, command, comparisons, results.rows)

A row is one trial, seed and fold; fold "all" is of the predictions of all its folds together. Rows are added one by one, the
file always being whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.trials import N_FOLDS, Trial
from src.errors import UserError
from src.files import locked, write_json, write_text, written_whole
from src.runs import commit

if TYPE_CHECKING:
    from experiments.trials import Cost

DATA = "data"  # the entry of what the rows are of, among the recipes
ALL = "all"  # the folds of a seed together
KEY = ["trial", "seed", "fold"]
FIGURES = {
    "window_accuracy": "window accuracy",
    "recording_accuracy": "recording accuracy",
    "class_mean_average_precision": "class-mean AP",
    "row_f1": "row F1",
    "bird_auroc": "AUROC bird / none",
}
COMPARED = ("recording_accuracy", "window_accuracy")
LEVEL = 0.95
BY_HAND = "## What it says"  # from here on a table's file is a person's, and is kept


@dataclass(frozen=True)
class Comparison:
    """Trials that are compared with one of them.

    by_seed: their folds are of other windows, so only what all folds of a seed give together can be paired
    """

    title: str
    reference: str
    trials: tuple[str, ...]
    remark: str = ""
    by_seed: bool = False


class Results:
    """<folder>/<name>.csv, and <name>.json with the recipes that its rows name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.csv"
        self.recipes_path = folder / f"{name}.json"
        # Never removed, or two could hold it at once; so it is kept where it is in nobody's way.
        digest = sha256(str(self.path.absolute()).encode()).hexdigest()[:16]
        self._lock = Path(tempfile.gettempdir()) / f"birdcall-{digest}.lock"

    @property
    def rows(self) -> pd.DataFrame:
        """All rows, fold as text."""
        if not self.path.is_file():
            return pd.DataFrame(columns=KEY)
        return pd.read_csv(self.path, dtype={"trial": str, "fold": str, "recipe": str, "commit": str})

    @property
    def recipes(self) -> dict[str, dict]:
        """What Trial.describe gave, by the name in the rows' column `recipe`; and under DATA what the rows are of."""
        return json.loads(self.recipes_path.read_text(encoding="utf-8")) if self.recipes_path.is_file() else {}

    def check_data(self, digest: str) -> None:
        """Keep which recordings the rows are of. Raises UserError if there are rows of others: no table is of both."""
        with locked(self._lock):
            known = self.recipes.get(DATA, {}).get("digest")
            if known is None:
                write_json(self.recipes_path, {**self.recipes, DATA: {"digest": digest}})
            elif known != digest and len(self.rows):
                raise UserError(f"{self.path}: its rows are of other recordings or labels; give another folder with -o")

    def has(self, trial: Trial, seed: int, fold: int | str) -> bool:
        """Whether there is a row of this trial as it is now, not as an earlier default recipe had it."""
        rows = self.rows
        found = rows[(rows.trial == trial.name) & (rows.seed == seed) & (rows.fold == str(fold))]
        return bool(len(found)) and trial.is_of(self.recipes.get(str(found.recipe.iloc[-1]), {}))

    def add(self, row: dict, described: dict) -> None:
        """Add a row, in the place of an earlier one of the same trial, seed and fold. described: as of Trial.describe"""
        name = sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]
        with locked(self._lock):
            if self.recipes.get(name) != described:
                write_json(self.recipes_path, {**self.recipes, name: described})
            row = {**row, "fold": str(row["fold"]), "recipe": name, "commit": commit()}
            rows = self.rows
            same = np.logical_and.reduce([rows[key] == row[key] for key in KEY]) if len(rows) else []
            rows = pd.concat([rows[~same], pd.DataFrame([row])]) if len(rows) else pd.DataFrame([row])
            with written_whole(self.path) as temporary:
                rows.to_csv(temporary, index=False, float_format="%.5g")


def row_of(name: str, seed: int, fold: int | str, changes: dict, found: dict[str, float], cost: Cost) -> dict:
    """A row of the table. found: as of trials.figures"""
    return {
        **{"trial": name, "seed": seed, "fold": str(fold)},
        **found,
        "training_windows": cost.training_windows,
        "cpu_seconds": cost.cpu_seconds,
        "seconds": cost.seconds,
        "windows_cpu_seconds": cost.windows_cpu_seconds,
        "changes": json.dumps(changes),
    }


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half the width of its interval of LEVEL) by Student's t; NaN for the width of one value."""
    from scipy.stats import t

    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    quantile = t.ppf((1 + LEVEL) / 2, len(values) - 1)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def paired_interval(differences: Sequence[float], weights: Sequence[float], held_out: float) -> tuple[float, float]:
    """(weighted mean, half the width of its interval of LEVEL) of differences paired by seed and fold; NaN for one.

    held_out: validated over learned-from windows, 1/4 for five folds. Folds and seeds learn from much the same recordings, so
    their differences are no independent draws: the variance of the mean is taken as (1/n + held_out) s^2 in place of s^2 / n
    (Nadeau and Bengio 2003, for repeated cross-validation Bouckaert and Frank 2004).
    """
    from scipy.stats import t

    differences, share = np.asarray(differences, float), np.asarray(weights, float) / np.sum(weights)
    mean = float(differences @ share)
    if len(differences) < 2:
        return mean, float("nan")
    spread = share @ (differences - mean) ** 2 / (1 - share @ share)
    quantile = t.ppf((1 + LEVEL) / 2, len(differences) - 1)
    return mean, float(quantile * np.sqrt((share @ share + held_out) * spread))


def difference(rows: pd.DataFrame, trial: str, comparison: Comparison, figure: str) -> tuple[float, float]:
    """Of a figure, against the reference, by what both have: (mean, half the width of its interval).

    By seed and fold, folds weighted by their recordings (paired_interval), or by seed (t_interval).
    """
    paired = rows[(rows.fold == ALL) == comparison.by_seed]
    own, reference = (paired[paired.trial == name] for name in (trial, comparison.reference))
    both = own.merge(reference, on=["seed", "fold"])
    if not len(both):
        return float("nan"), float("nan")
    differences = both[f"{figure}_x"] - both[f"{figure}_y"]
    if comparison.by_seed:
        return t_interval(differences)
    return paired_interval(differences, both.validated_recordings_y, 1 / (N_FOLDS - 1))


def verdict(rows: pd.DataFrame, trial: str, comparison: Comparison) -> str:
    """What the intervals of the compared figures say: better, worse, or that it cannot be told."""
    said = []
    for figure in COMPARED:
        mean, half = difference(rows, trial, comparison, figure)
        if np.isfinite(half) and abs(mean) > half:
            said.append(f"{figure.split('_')[0]}s {'better' if mean > 0 else 'worse'}")
    return ", ".join(said) or "cannot be told"


def table(comparison: Comparison, rows: pd.DataFrame) -> str:
    """A comparison as Markdown; trials without a row are left out."""
    names = [*FIGURES.values(), *(f"Δ {FIGURES[figure]}" for figure in COMPARED)]
    heads = ["trial", *names, "verdict", "training windows", "CPU min a fold", "+ windows", "seeds x folds"]
    lines = [heads, ["---"] * len(heads)]
    for name in comparison.trials:
        here = rows[rows.trial == name]
        folds, together = here[here.fold != ALL], here[here.fold == ALL]
        if not len(together):
            continue
        cells = [f"**{name}** (reference)" if name == comparison.reference else name]
        cells += [_figure(*t_interval(together[figure])) for figure in FIGURES]
        if name == comparison.reference:
            cells += [""] * (len(COMPARED) + 1)
        else:
            cells += [_change(*difference(rows, name, comparison, figure)) for figure in COMPARED]
            cells.append(verdict(rows, name, comparison))
        cells.append(f"{folds.training_windows.mean():.0f}")
        cells += [f"{folds.cpu_seconds.mean() / 60:.2f}", f"{folds.windows_cpu_seconds.max() / 60:.1f}"]
        cells.append(f"{together.seed.nunique()} x {folds.fold.nunique()}")
        lines.append(cells)
    if len(lines) == 2:
        return f"### {comparison.title}\n\nNot run yet.\n"
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"### {comparison.title}\n\n" + (f"{comparison.remark}\n\n" if comparison.remark else "") + text + "\n"


def _figure(mean: float, half: float) -> str:
    return f"{mean:.3f} ± {half:.3f}" if np.isfinite(half) else f"{mean:.3f}"


def _change(mean: float, half: float) -> str:
    if not np.isfinite(mean):
        return ""
    return f"{mean:+.3f}" + (f" ({mean - half:+.3f} to {mean + half:+.3f})" if np.isfinite(half) else "")


HOW_TO_READ = """\
Figures are of all folds' out-of-fold predictions together, the mean over seeds ± its 95 % t-interval; a seed draws the folds
and starts the training. That interval is about draws and starts: other recordings would move a figure by more. Δ is against
the reference by the same seeds and folds, with its 95 % interval, widened since folds learn from the same recordings (Nadeau
and Bengio's correction); the verdict says whether it leaves out 0, and one in twenty will where there is nothing. Accuracy is
of the likeliest species, a recording's by the mean over its windows; average precision over species; row F1 with a threshold
fitted on the other folds; AUROC of the greatest probability, windows of birds against recordings without. CPU minutes: of
training and validating one fold; + windows: of preparing and embedding them, once for all folds and seeds."""


def markdown(title: str, command: str, comparisons: Sequence[Comparison], rows: pd.DataFrame) -> str:
    """The generated part of a study's file."""
    parts = [f"# {title}\n", f"Written by `{command}`.\n"]
    if len(rows):
        parts += [table(comparison, rows) for comparison in comparisons]
        of_fold = rows[rows.fold != ALL]
        hours = of_fold.cpu_seconds.sum() / 3600
        parts.append(f"{len(of_fold)} folds, {hours:.1f} CPU hours of training.\n")
    parts.append(HOW_TO_READ + "\n")
    return "\n".join(parts)


def write_markdown(path: Path, generated: str) -> None:
    """Write the generated part; what a person wrote from BY_HAND on stays."""
    kept = path.read_text(encoding="utf-8") if path.is_file() else ""
    _, mark, by_hand = kept.partition(f"\n{BY_HAND}")
    write_text(path, generated + mark + by_hand)
