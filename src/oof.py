"""Out-of-fold predictions: the table that train.py writes for a fold, and several of them together as arrays.

runs/<model>/fold<k>/oof.parquet    one row a validation window: what it is, and a probability for each species
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.competition import NOCALL
from src.errors import UserError
from src.files import written_whole
from src.metrics import mean_by, top1


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions as arrays.

    windows: what each window is: filename, channel, ebird_code, source, fold, start_seconds, ...
    probabilities: float32 array [windows, labels]
    primary: int array [windows], -1 for nocall
    secondary: bool array [windows, labels]
    """

    labels: tuple[str, ...]
    windows: pd.DataFrame
    probabilities: np.ndarray
    primary: np.ndarray
    secondary: np.ndarray


def write(folder: Path, table: pd.DataFrame) -> None:
    """Keep a fold's out-of-fold predictions."""
    with written_whole(folder / "oof.parquet") as temporary:
        table.to_parquet(temporary, index=False)


def read(folders: Sequence[Path], labels: Sequence[str]) -> OutOfFold:
    """The out-of-fold predictions of some folds together.

    Raises UserError if one is absent, is of other species, or if folds do not fit together: a window or a source in two
    of them was predicted by a model that had learned from it.
    """
    tables = []
    for folder in folders:
        path = folder / "oof.parquet"
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); train this fold again") from error
        if list(table.columns[-len(labels) :]) != list(labels):
            raise UserError(f"{path}: answers for other species than the other folds; train it again")
        tables.append(table.assign(folder=folder.name))
    together = pd.concat(tables, ignore_index=True)
    for what, columns in (("window", ["filename", "channel", "start_seconds"]), ("source", ["source"])):
        shared = together.groupby(columns).folder.nunique()
        if (shared > 1).any():
            raise UserError(
                f"{folders[0].parent}: the {what} {shared.index[shared > 1][0]} is validated by more than one fold, so a "
                "model has learned from what it is judged on: the folds were drawn anew in between; train all of them again"
            )
    return as_arrays(together.drop(columns="folder"), labels)


def as_arrays(table: pd.DataFrame, labels: Sequence[str]) -> OutOfFold:
    """A table of out-of-fold predictions as arrays."""
    column = {code: number for number, code in enumerate(labels)}
    secondary = np.zeros((len(table), len(labels)), bool)
    for row, codes in enumerate(table.secondary):
        for code in codes.split():
            if code in column:
                secondary[row, column[code]] = True
    primary = table.ebird_code.map(lambda code: -1 if code == NOCALL else column[code]).to_numpy(int)
    probabilities = table[list(labels)].to_numpy(np.float32)
    return OutOfFold(tuple(labels), table.drop(columns=list(labels)), probabilities, primary, secondary)


def accuracies(oof: OutOfFold) -> tuple[float, float]:
    """(window accuracy, recording accuracy) on windows of birds: share whose likeliest species is the labelled one."""
    birds = oof.primary >= 0
    by_window = top1(oof.probabilities[birds], oof.primary[birds])
    filenames = oof.windows.filename.to_numpy()[birds]
    names, means = mean_by(oof.probabilities[birds], filenames)
    first = pd.Series(oof.primary[birds], index=filenames).groupby(level=0).first().loc[names].to_numpy()
    return by_window, top1(means, first)
