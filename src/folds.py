"""Who is in which fold: stratified by species, grouped by source, written once; and the check that nothing leaks.

A source is one person on one day: same bird, same microphone, same rain. A model that is validated on a source it was
trained on looks twice as good as it is. `folds.csv` (filename, ebird_code, source, fold) is the one truth about folds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.competition import NOCALL, read_table
from src.errors import UserError
from src.files import written_whole

log = logging.getLogger(__name__)
COLUMNS = ["filename", "ebird_code", "source", "fold"]


def make_folds(
    recordings: pd.DataFrame, n_folds: int = 5, seed: int = 0, alike: Sequence[Sequence[str]] = ()
) -> pd.DataFrame:
    """Assign each recording to a fold: columns filename, ebird_code, source, fold (0 .. n_folds - 1).

    recordings: columns filename, ebird_code, source
    alike: groups of file names that hold the same audio; each is made one source, and so are the sources they come from

    Raises UserError if there are fewer sources than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import, and folds are drawn once

    source = merge_sources(recordings, alike)
    check_enough(recordings.assign(source=source), n_folds)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.full(len(recordings), -1)
    for number, (_, held_out) in enumerate(splitter.split(recordings, recordings.ebird_code, source)):
        fold[held_out] = number
    return pd.DataFrame(
        {"filename": recordings.filename, "ebird_code": recordings.ebird_code, "source": source, "fold": fold}
    )


def check_enough(recordings: pd.DataFrame, n_folds: int) -> None:
    """Raise UserError if these recordings cannot fill so many folds."""
    source = recordings.source
    if n_folds < 2:
        raise UserError(f"--n-folds must be 2 or more, not {n_folds}")
    if source.nunique() < n_folds:
        raise UserError(
            f"{source.nunique()} sources cannot fill {n_folds} folds; use --n-folds {max(2, source.nunique())}"
        )
    most = int(recordings.ebird_code.value_counts().max())
    if most < n_folds:
        raise UserError(
            f"no species has as many as {n_folds} recordings to put one in each fold; use --n-folds {max(2, most)}"
        )


def merge_sources(recordings: pd.DataFrame, alike: Sequence[Sequence[str]]) -> pd.Series:
    """`recordings.source`, with the sources of recordings that hold the same audio made one (named after the first)."""
    root = {source: source for source in recordings.source}

    def find(source: str) -> str:
        while root[source] != source:
            source = root[source]
        return source

    source_of = dict(zip(recordings.filename, recordings.source))
    for names in alike:
        first, *others = sorted({find(source_of[name]) for name in names})
        for other in others:
            root[other] = first
        log.info("same audio, taken as one source: %s", ", ".join(names))
    return recordings.source.map(find)


def few_sources(folds: pd.DataFrame) -> dict[str, int]:
    """Species that have fewer sources than there are folds, with their number: some fold cannot validate them."""
    sources = folds[folds.ebird_code != NOCALL].groupby("ebird_code").source.nunique()
    return sources[sources < folds.fold.nunique()].to_dict()


def write_folds(path: Path, folds: pd.DataFrame) -> None:
    """Write folds.csv, whole or not at all."""
    with written_whole(path) as temporary:
        folds[COLUMNS].to_csv(temporary, index=False)


def read_folds(path: Path) -> pd.DataFrame:
    """Read folds.csv. Raises UserError if it is absent or broken, with the fix."""
    if not path.is_file():
        raise UserError(f"{path}: not there; prepare.py writes it, or give the --folds that it was given")
    table = read_table(path, COLUMNS)
    if not table.fold.str.fullmatch(r"\d+").all() or table.filename.duplicated().any():
        raise UserError(
            f"{path}: each file needs one row with a fold number; write it anew with prepare.py --new-folds"
        )
    return table[COLUMNS].astype({"fold": int})


def match_folds(recordings: pd.DataFrame, folds: pd.DataFrame, path: Path) -> None:
    """Raise UserError if folds.csv lacks one of these recordings or has it with another label. It may name more."""
    listed = dict(zip(folds.filename, folds.ebird_code))
    actual = dict(zip(recordings.filename, recordings.ebird_code))
    differing = sorted(name for name in actual if listed.get(name) != actual[name])
    if differing:
        raise UserError(
            f"{path} is about other recordings: {len(differing)} differ, {', '.join(differing[:3])} among them; "
            "keep one file a data set with --folds FILE, or write it anew with --new-folds"
        )


def match_sources(recordings: pd.DataFrame, folds: pd.DataFrame, path: Path) -> None:
    """Raise UserError if recordings that now share a source are in different folds: train.csv was corrected since."""
    fold_of = dict(zip(folds.filename, folds.fold))
    places = recordings.filename.map(fold_of).groupby(recordings.source).nunique()
    if (places > 1).any():
        raise UserError(
            f"{path}: recordings of {places.index[places > 1][0]} are in more than one fold: recordist or date have "
            "changed since it was written; --new-folds draws it anew"
        )


def match_alike(alike: Sequence[Sequence[str]], folds: pd.DataFrame, path: Path) -> None:
    """Raise UserError if recordings of the same audio are in different folds: one was added or replaced since.

    alike: groups of file names that hold the same audio
    """
    fold_of = dict(zip(folds.filename, folds.fold))
    for names in alike:
        if len({fold_of[name] for name in names if name in fold_of}) > 1:
            raise UserError(
                f"{path}: {' and '.join(names)} hold the same audio and are in different folds; --new-folds draws them anew"
            )


def check_no_leak(windows: pd.DataFrame) -> None:
    """Raise UserError, naming them, if anything derived from one source is in two folds or on both sides of a split.

    windows: one row for each window, channel and augmented copy that training or validation is about to see, with columns
        filename, source, fold, transform ("" for an original) and side ("train" or "validation")
    """
    for what in ("source", "filename"):
        for where in ("fold", "side"):
            places = windows.groupby(what)[where].nunique()
            leaking = places.index[places > 1].tolist()
            if leaking:
                raise UserError(
                    f"leak: windows of {what} {', '.join(map(str, leaking[:5]))} are in more than one {where}"
                )
    unlisted = windows.filename[windows.fold.isna() | windows.source.isna()].unique()
    if len(unlisted):
        raise UserError(f"leak check: {', '.join(unlisted[:5])} are in no fold")
    augmented = windows.filename[(windows.side == "validation") & (windows["transform"] != "")].unique()
    if len(augmented):
        raise UserError(f"leak: augmented copies of {', '.join(augmented[:5])} are in the validation set")
