"""A fold's mixed soundscapes as its model answers them: asked, kept beside the fold, and as arrays for fitting and judging.

    heard = ask(minutes(material, recipe, options), recipe, predictor, fold=0)
    write(folder, heard, made)         # fold<k>/soundscapes.parquet, soundscape_windows.parquet
    read(folder, made)                 # the same, if they were made so
    rows = answers([heard], labels)    # as arrays

Rows are answered by the windows of the model's recipe, and, where these overlap by less than half, kept beside them are those
that overlap by half: whether they help is found out as all that decides is, see judging.steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from src.audio import WindowStream
from src.files import written_whole
from src.fitting import OVERLAP, Answers, Windows
from src.oof import code_matrix
from src.predictor import Prediction, Predictor, hop_of
from src.recipe import Recipe
from src.soundscape import ROW_SECONDS, row_probabilities
from src.validation_soundscapes import Minute

FILE, WINDOWS_FILE = "soundscapes.parquet", "soundscape_windows.parquet"
VERSION = 4  # of how they are mixed and kept: those of another are mixed anew


@dataclass(frozen=True)
class Heard:
    """A fold's answered soundscapes.

    rows: those of Minute.rows with the fold and the network's probability of each species
    windows: those that overlap by half: minute, start_seconds, window_seconds and the probabilities; None: the rows' own do
    """

    rows: pd.DataFrame
    windows: pd.DataFrame | None

    @property
    def fold(self) -> int:
        """Which fold's."""
        return int(self.rows.fold.iloc[0])

    @property
    def shares_backgrounds(self) -> bool:
        """Was a recording without birds heard in several of its parts, there being too few for each to have its own?"""
        return bool((self.rows.groupby("source").part.nunique() > 1).any())


def ask(mixed: Iterable[Minute], recipe: Recipe, predictor: Predictor, fold: int) -> Heard:
    """Answer minutes that were mixed by this recipe, as the predictor answers soundscapes."""
    rows, windows = [], []
    # What is mixed is high-passed already, and a filter of a sum is the sum of what it filters.
    own = predictor.recipe
    own = replace(own, highpass_hz=0.0) if own.highpass_hz == recipe.highpass_hz else own
    hop_seconds = hop_of(own, OVERLAP)
    labels = list(predictor.labels)
    for minute in mixed:
        asked: dict[float, np.ndarray] = {}  # every second window is one of the recipe's: none is asked for twice
        found = _answered(minute, recipe, own, own.hop_seconds, predictor, asked)
        probabilities = row_probabilities(found, minute.rows.start_seconds.to_numpy() + ROW_SECONDS)
        rows.append(pd.concat([minute.rows, pd.DataFrame(probabilities, columns=labels)], axis=1))
        if hop_seconds < own.hop_seconds:
            found = _answered(minute, recipe, own, hop_seconds, predictor, asked)
            described = {"start_seconds": found.start_seconds, "window_seconds": found.window_seconds}
            table = pd.DataFrame(found.probabilities, columns=labels)
            windows.append(pd.concat([pd.DataFrame(described).assign(minute=minute.number), table], axis=1))
    overlapping = pd.concat(windows, ignore_index=True).assign(fold=fold) if windows else None
    return Heard(pd.concat(rows, ignore_index=True).assign(fold=fold), overlapping)


def _answered(
    minute: Minute,
    mixed_by: Recipe,
    recipe: Recipe,
    hop_seconds: float,
    predictor: Predictor,
    asked: dict[float, np.ndarray],
) -> Prediction:
    """A minute's windows so many seconds apart. asked: what is known by a window's start, to which the others are added."""
    starts = []
    stream = WindowStream(mixed_by.sample_rate, recipe, 1, hop_seconds)
    for window in stream.push(minute.samples[:, None], last=True):
        starts.append(window.start_seconds)
        if window.start_seconds not in asked:
            asked[window.start_seconds] = predictor.probabilities(window.samples)[0]
    said = np.stack([asked[start] for start in starts])
    return Prediction(np.array(starts), said, recipe.window_seconds, len(minute.samples) / mixed_by.sample_rate, "")


def write(folder: Path, heard: Heard, made: str) -> None:
    """Keep a fold's answered soundscapes. made: by which options and model, so that `read` knows them again."""
    for file, table in ((WINDOWS_FILE, heard.windows), (FILE, heard.rows)):
        if table is None:
            (folder / file).unlink(missing_ok=True)
            continue
        table.attrs.update(made=f"{VERSION} {made}", has_windows=heard.windows is not None)
        with written_whole(folder / file) as temporary:
            table.to_parquet(temporary, index=False)


def read(folder: Path, made: str) -> Heard | None:
    """A fold's answered soundscapes, if they were made by these options and model, and are there whole."""
    tables = []
    for file in (FILE, WINDOWS_FILE):
        try:
            table = pd.read_parquet(folder / file)
        except (OSError, ValueError):
            return None
        if table.attrs.get("made") != f"{VERSION} {made}":
            return None
        tables.append(table)
        if not table.attrs["has_windows"]:
            return Heard(table, None)
    return Heard(*tables)


def answers(heard: Sequence[Heard], labels: tuple[str, ...]) -> Answers:
    """Answered soundscapes of folds as arrays, with the groups of fitting.groups: the fold, or the part of one fold."""
    table = pd.concat([one.rows for one in heard], ignore_index=True)
    group = "fold" + table.fold.astype(str) if table.fold.nunique() > 1 else "part" + table.part.astype(str)
    present = code_matrix(table.truth, labels)
    sources = {
        name: number for number, name in enumerate(sorted({s for row in table.origins for s in json.loads(row)}))
    }
    origin = np.full(present.shape, -1)
    column = {code: number for number, code in enumerate(labels)}
    for row, (codes, names) in enumerate(zip(table.truth, table.origins)):
        for code, name in zip(codes.split(), json.loads(names)):
            origin[row, column[code]] = sources[name]
    file, known = _minutes_of(table).factorize()
    return Answers(
        labels=tuple(labels),
        probabilities=table[list(labels)].to_numpy(np.float32),
        origin=origin,
        maybe=code_matrix(table.maybe, labels) & ~present,
        weight=np.full(len(table), 1 / len(table)),
        source=table.source.to_numpy(str),
        group=group.to_numpy(str),
        file=file,
        windows=_windows([one.windows for one in heard], known, labels),
    )


def _windows(tables: Sequence[pd.DataFrame | None], known: pd.Index, labels: tuple[str, ...]) -> Windows | None:
    """The windows of all folds, by the numbers of their files; None if a fold has none."""
    if any(table is None for table in tables):
        return None
    table = pd.concat(tables, ignore_index=True)
    return Windows(
        probabilities=table[list(labels)].to_numpy(np.float32),
        file=known.get_indexer(_minutes_of(table)),
        start_seconds=table.start_seconds.to_numpy(),
        window_seconds=float(table.window_seconds.iloc[0]),
    )


def _minutes_of(table: pd.DataFrame) -> pd.Series:
    return table.fold.astype(str) + "/" + table.minute.astype(str)
