"""The two sides of a fold: what is learned from, what is validated, and what each window teaches.

split = split_fold(prepared, folds, fold, recipe)   # raises if anything leaks
split.train, split.validation                       # bool arrays [windows of the index]
split.targets, split.weights                        # [windows, labels], [windows]
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from src.competition import NOCALL
from src.errors import UserError
from src.folds import check_no_leak
from src.mixing import MASKED
from src.oof import code_matrix
from src.recipe import Recipe
from src.shards import Prepared


@dataclass(frozen=True)
class Split:
    """One fold's two sides, in the order of the prepared index.

    windows: the index with columns source, fold and side added ("train", "validation" or "" for unused copies)
    train, validation, background: bool arrays [windows]; background: windows without birds on the training side
    watch: bool array [windows]: what early stopping looks at, if it is asked for; else none
    targets: float32 array [windows, labels]: 1 for the species labelled in it, less or MASKED for secondary ones
    weights: float32 array [windows]: what each counts in the loss, 1 on average over train
    """

    labels: tuple[str, ...]
    windows: pd.DataFrame
    train: np.ndarray
    validation: np.ndarray
    background: np.ndarray
    watch: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @cached_property
    def primary(self) -> np.ndarray:
        """The species each window is labelled by, as its place among the labels: int array [windows], -1 for nocall."""
        return pd.Index(self.labels).get_indexer(self.windows.ebird_code)

    @cached_property
    def digest(self) -> str:
        """What this split is, as hexadecimal digits: the same windows with the same labels on the same sides."""
        hashes = pd.util.hash_pandas_object(self.windows, index=False).to_numpy()
        return hashlib.sha256("\n".join(self.labels).encode() + hashes.tobytes()).hexdigest()


def split_fold(prepared: Prepared, folds: pd.DataFrame, fold: int, recipe: Recipe) -> Split:
    """Put each prepared window on its side of a fold and check that nothing leaks.

    Raises UserError if the fold does not exist, has nothing on a side, or if windows of one source are on both.
    """
    if fold not in set(folds.fold):
        raise UserError(f"fold {fold} does not exist; folds are {', '.join(map(str, sorted(set(folds.fold))))}")
    windows = prepared.index.merge(
        folds[["filename", "source", "fold"]], on="filename", how="left", validate="many_to_one"
    )
    held_out = windows.fold == fold
    # Augmented copies teach; what is validated is what was recorded.
    windows["side"] = np.where(~held_out, "train", np.where(windows["transform"] == "", "validation", ""))
    # Stopping where the judged fold is best would flatter it; the next one tells when, and is not learned from.
    watched = min(set(folds.fold) - {fold}, key=lambda other: (other < fold, other), default=fold)
    unheard = [fold, watched] if recipe.patience else [fold]
    # A copy over a background that is validated, as nocall, would teach that very background.
    validated = set(folds.filename[folds.fold.isin(unheard)].str.rsplit("/", n=1).str[-1])
    mixed_in = (
        windows.background.str.rsplit("/", n=1).str[-1].isin(validated)
    )  # by its bare name: folders may be given anew
    windows.loc[mixed_in & ~held_out, "side"] = ""
    check_no_leak(windows[windows.side != ""])

    # Who may be in a window that is kept as nocall is not taught: it was kept because nobody is heard.
    may_be = code_matrix(windows.secondary.where(windows.ebird_code != NOCALL, ""), prepared.labels)
    present = code_matrix(windows.ebird_code + " " + windows.others, prepared.labels)
    uncertain = MASKED if recipe.mask_secondary else recipe.secondary_target
    targets = np.where(present, 1.0, may_be * uncertain).astype(np.float32)

    train, validation = (windows.side == "train").to_numpy(), (windows.side == "validation").to_numpy()
    watch = np.zeros(len(windows), bool)
    if recipe.patience:
        of_watched = windows.fold == watched
        watch = (of_watched & (windows.side == "train") & (windows["transform"] == "")).to_numpy()
        train = train & ~of_watched.to_numpy()
    birds = (windows.ebird_code != NOCALL).to_numpy()
    for side, name in ((train, "to learn from"), (validation, "to validate on")):
        if not (side & birds).any():
            fix = (
                "leave --patience out: it wants three folds"
                if side is train and recipe.patience
                else "look at the folds file"
            )
            raise UserError(f"fold {fold} has no window of a bird {name}; {fix}")
    background = train & ~birds & (windows["transform"] == "").to_numpy()
    without_doubt = background & (windows.secondary == "").to_numpy()
    if without_doubt.any():  # else the quiet windows of the recordings themselves must do
        background = without_doubt
    weights = _weights(windows, train, recipe)
    return Split(prepared.labels, windows, train, validation, background, watch, targets, weights)


def check_learnable(split: Split, fold: int, keep_going: bool = False) -> None:
    """Raise UserError if the training side cannot teach what the fold is validated on.

    keep_going: though some of its species have nothing to learn from; there must be something to tell apart all the same
    """
    code = split.windows.ebird_code
    learned, asked = set(code[split.train]), set(code[split.validation]) - {NOCALL}
    if len(learned) < 2:
        raise UserError(
            f"fold {fold}: all windows to learn from are {', '.join(learned)}: a model needs two species, or recordings without "
            "birds (prepare.py --nocall), to tell apart"
        )
    unknown = sorted(asked - learned)
    if unknown and not keep_going:
        if set(unknown) & set(code[split.watch]):
            raise UserError(
                f"fold {fold} validates {', '.join(unknown[:5])}, of which only the fold that --patience watches has recordings: "
                "leave --patience out, or train with --keep-going"
            )
        raise UserError(
            f"fold {fold} validates {', '.join(unknown[:5])}, of which no other fold has a recording: add some of another "
            "source, leave the species out of the data, or train with --keep-going"
        )


def _weights(windows: pd.DataFrame, train: np.ndarray, recipe: Recipe) -> np.ndarray:
    """What each window counts in the loss: float32 [windows], 1 on average over those to learn from."""
    weights = np.ones(len(windows))
    birds = (windows.ebird_code != NOCALL).to_numpy()
    if recipe.class_balance:
        number = windows.ebird_code[train].value_counts()
        count = windows.ebird_code.map(number).fillna(1).to_numpy(float)
        weights[birds] = count[birds] ** -recipe.class_balance
    if recipe.call_weight:
        score = windows.call_score.clip(lower=0).to_numpy(float)
        best = windows.assign(score=np.where(birds, score, 0)).groupby("filename").score.transform("max").to_numpy()
        share = np.divide(score, best, out=np.ones(len(score)), where=best > 0)
        weights[birds] *= share[birds] ** recipe.call_weight
    # nocall is no class to balance: a window without birds counts as one of birds does on average.
    weights[~birds] = weights[birds & train].mean()
    return (weights / weights[train].mean()).astype(np.float32)
