"""Out-of-fold predictions: the table that train.py writes for a fold, and several of them together as arrays.

runs/<model>/fold<k>/oof.parquet    one row a validation window: what it is, and a probability for each species
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.competition import NOCALL
from src.errors import UserError
from src.files import written_whole
from src.metrics import mean_by


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions as arrays.

    windows: what each window is: filename, channel, ebird_code, source, fold, start_seconds, ...
    probabilities: float32 array [windows, labels]
    primary: int array [windows], -1 for nocall
    present: bool array [windows, labels]: the primary species and others labelled in the very window
    secondary: bool array [windows, labels]: species that may be in it
    """

    labels: tuple[str, ...]
    windows: pd.DataFrame
    probabilities: np.ndarray
    primary: np.ndarray
    present: np.ndarray
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
        if "others" not in table.columns:
            raise UserError(f"{path}: was written by another version of this software; train this fold again")
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
    present = code_matrix(table.ebird_code + " " + table.others, labels)
    secondary = code_matrix(table.secondary, labels) & ~present
    primary = table.ebird_code.map(lambda code: -1 if code == NOCALL else column[code]).to_numpy(int)
    probabilities = table[list(labels)].to_numpy(np.float32)
    return OutOfFold(tuple(labels), table.drop(columns=list(labels)), probabilities, primary, present, secondary)


def code_matrix(codes: Iterable[str], labels: Sequence[str]) -> np.ndarray:
    """Cells of codes separated by spaces as a bool array [cells, labels]; codes that are no label are left out."""
    column = {code: number for number, code in enumerate(labels)}
    cells = [[column[code] for code in cell.split() if code in column] for cell in codes]
    matrix = np.zeros((len(cells), len(labels)), bool)
    for row, columns in enumerate(cells):
        matrix[row, columns] = True
    return matrix


def accuracies(oof: OutOfFold) -> tuple[float, float]:
    """(window accuracy, recording accuracy) on windows of birds: share whose likeliest species is the labelled one."""
    windows, recordings = hits(oof)
    return float(windows.right.mean()), float(recordings.right.mean())


def hits(oof: OutOfFold) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Windows of birds, and recordings by their mean probabilities, with columns filename, source, primary, answered, right.

    primary, answered: columns of the labelled and of the likeliest species
    """
    birds = oof.primary >= 0
    described = oof.windows.loc[birds, ["filename", "source"]].reset_index(drop=True)
    windows = described.assign(primary=oof.primary[birds], answered=oof.probabilities[birds].argmax(axis=1))
    # Where windows have labels of their own, those of one species are what its part of the recording is judged by.
    key = (windows.filename + "\n" + windows.primary.astype(str)).to_numpy()
    names, means = mean_by(oof.probabilities[birds], key)
    recordings = windows.assign(key=key).groupby("key").first().loc[names].assign(answered=means.argmax(axis=1))
    recordings = recordings.reset_index(drop=True)
    return tuple(table.assign(right=table.primary == table.answered) for table in (windows, recordings))
