"""Training one fold: what to learn from, the fit, its checkpoints, and the out-of-fold predictions.

split = split_fold(prepared, folds, fold, recipe)   # who is on which side; raises if anything leaks
history = fit(model, prepared, split, recipe, folder, workers)
out_of_fold(model, prepared, split, recipe)         # a table that evaluate.py reads

<folder>/checkpoint.npz     weights, optimizer and epoch, after each epoch
<folder>/history.csv        a line an epoch
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from src.competition import NOCALL
from src.datasets import plain_batches, readable, training_batches
from src.errors import UserError
from src.files import written_whole
from src.folds import check_no_leak
from src.metrics import top1
from src.oof import code_matrix
from src.recipe import Recipe
from src.shards import Prepared


@dataclass(frozen=True)
class Split:
    """One fold's two sides, in the order of the prepared index.

    windows: the index with columns source, fold and side added ("train", "validation" or "" for unused copies)
    train, validation, background: bool arrays [windows]; background: windows without birds on the training side
    targets: float32 array [windows, labels]: 1 for the species labelled in it, less for secondary ones
    """

    labels: tuple[str, ...]
    windows: pd.DataFrame
    train: np.ndarray
    validation: np.ndarray
    background: np.ndarray
    targets: np.ndarray

    @cached_property
    def digest(self) -> str:
        """What this split is, as hexadecimal digits: the same windows with the same labels on the same sides."""
        hashes = pd.util.hash_pandas_object(self.windows, index=False).to_numpy()
        return hashlib.sha256("\n".join(self.labels).encode() + hashes.tobytes()).hexdigest()


def prepare_device() -> str:
    """Let TensorFlow take a GPU's memory as it needs it, instead of all at once; says what training runs on."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    return (
        ", ".join(names) or "the CPU: TensorFlow sees no GPU (for NVIDIA's: pip install 'tensorflow[and-cuda]==2.21.0')"
    )


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
    # A copy over a background that is validated, as nocall, would teach that very background.
    validated = set(folds.filename[folds.fold == fold].str.rsplit("/", n=1).str[-1])
    mixed_in = (
        windows.background.str.rsplit("/", n=1).str[-1].isin(validated)
    )  # by its bare name: folders may be given anew
    windows.loc[mixed_in & ~held_out, "side"] = ""
    check_no_leak(windows[windows.side != ""])

    # Who may be in a window that is kept as nocall is not taught: it was kept because nobody is heard.
    may_be = code_matrix(windows.secondary.where(windows.ebird_code != NOCALL, ""), prepared.labels)
    present = code_matrix(windows.ebird_code + " " + windows.others, prepared.labels)
    targets = np.where(present, 1.0, may_be * recipe.secondary_target).astype(np.float32)

    train, validation = (windows.side == "train").to_numpy(), (windows.side == "validation").to_numpy()
    birds = (windows.ebird_code != NOCALL).to_numpy()
    for side, name in ((train, "to learn from"), (validation, "to validate on")):
        if not (side & birds).any():
            raise UserError(f"fold {fold} has no window of a bird {name}; look at the folds file")
    background = train & ~birds & (windows["transform"] == "").to_numpy()
    without_doubt = background & (windows.secondary == "").to_numpy()
    if without_doubt.any():  # else the quiet windows of the recordings themselves must do
        background = without_doubt
    return Split(prepared.labels, windows, train, validation, background, targets)


def steps_of(recipe: Recipe, split: Split) -> int:
    """Training batches an epoch."""
    return recipe.steps_per_epoch or max(1, int(split.train.sum()) // recipe.batch_size)


def compile_model(model: keras.Model, recipe: Recipe, steps: int) -> None:
    """Give the model its loss and its optimizer: warm-up, then a cosine to zero over all epochs."""
    warmup = round(recipe.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, recipe.epochs * steps - warmup),
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[recipe.optimizer](schedule)
    # Several species may call at once: each is a yes or no of its own.
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss, jit_compile=False)


def fit(
    model: keras.Model,
    prepared: Prepared,
    split: Split,
    recipe: Recipe,
    folder: Path,
    workers: int = 2,
    weights: str = "",
) -> pd.DataFrame:
    """Train for recipe.epochs, with a checkpoint and a line of history after each. Returns the history.

    Goes on after the last checkpoint in `folder`, if there is one. weights: where the backbone's came from, if not from
    its handle. Raises UserError if the checkpoint is of another recipe, split or weights, or the loss is not a number.
    """
    settings = f"{recipe!r} {split.digest} {weights}"
    steps = steps_of(recipe, split)
    compile_model(model, recipe, steps)
    model.optimizer.build(model.trainable_variables)
    first, history = _restore(model, folder, settings)
    primary = split.targets[split.validation].argmax(axis=1)
    birds = split.targets[split.validation].max(axis=1) > 0
    started = time.process_time()
    with tqdm(total=recipe.epochs * steps, initial=first * steps, unit="batch", desc="training") as bar:
        for epoch in range(first, recipe.epochs):
            clock = time.perf_counter()
            prepared.check_unchanged()
            batches = training_batches(
                prepared, split.train, split.targets, split.background, recipe, epoch, steps, workers
            )
            progress = _Progress(bar, epoch, recipe.epochs)
            with readable(prepared):
                fitted = model.fit(batches, verbose=0, shuffle=False, callbacks=[progress])
            loss = fitted.history["loss"][0]
            if not np.isfinite(loss):
                raise UserError(f"the loss became {loss} in epoch {epoch}; try a smaller --learning-rate")
            logits = predict_logits(model, prepared, split.validation, recipe.batch_size, workers)
            history.append(
                {
                    "epoch": epoch,
                    "loss": loss,
                    "val_loss": float(model.loss(split.targets[split.validation], logits)),
                    "val_window_accuracy": top1(logits[birds], primary[birds]),
                    "learning_rate": float(model.optimizer.learning_rate),
                    "seconds": round(time.perf_counter() - clock, 2),
                    "cpu_seconds": round(time.process_time() - started, 2),
                }
            )
            started = time.process_time()
            _write_history(folder, history)
            _save(model, folder, settings, epoch + 1)
            bar.set_postfix(loss=f"{loss:.4f}", val_accuracy=f"{history[-1]['val_window_accuracy']:.3f}")
    return pd.DataFrame(history)


class _Progress(keras.callbacks.Callback):
    """One bar over all epochs, since its remaining time is what a person wants to know."""

    def __init__(self, bar: tqdm, epoch: int, epochs: int) -> None:
        super().__init__()
        self._bar, self._name = bar, f"epoch {epoch + 1}/{epochs}"

    def on_train_begin(self, logs: Any = None) -> None:
        self._bar.set_description(self._name)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._bar.update(1)


def predict_logits(
    model: keras.Model, prepared: Prepared, keep: np.ndarray, batch_size: int, workers: int
) -> np.ndarray:
    """Logits of the kept windows in the index's order: float32 array [kept, labels]."""
    with readable(prepared):
        return model.predict(plain_batches(prepared, keep, batch_size, workers), verbose=0)


def out_of_fold(model: keras.Model, prepared: Prepared, split: Split, recipe: Recipe, workers: int = 2) -> pd.DataFrame:
    """The validation windows with what they are (filename, channel, ebird_code, ...) and a probability for each species."""
    logits = predict_logits(model, prepared, split.validation, recipe.batch_size, workers)
    columns = ["filename", "channel", "ebird_code", "others", "secondary", "source", "fold"]
    columns += ["start_seconds", "audio_seconds", "call_score"]
    described = split.windows.loc[split.validation, columns].reset_index(drop=True)
    probabilities = pd.DataFrame(
        1 / (1 + np.exp(-logits.astype(np.float64))), columns=list(split.labels), dtype=np.float32
    )
    return pd.concat([described, probabilities], axis=1)


def _variables(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


def _save(model: keras.Model, folder: Path, settings: str, epochs_done: int) -> None:
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(_variables(model))}
    with written_whole(folder / "checkpoint.npz") as temporary:
        np.savez(temporary, epochs_done=epochs_done, settings=settings, **arrays)


def _restore(model: keras.Model, folder: Path, settings: str) -> tuple[int, list[dict]]:
    """(epochs done, their history); (0, []) where there is no checkpoint. Raises UserError for one that does not fit."""
    path = folder / "checkpoint.npz"
    if not path.exists():
        return 0, []
    try:
        with np.load(path) as stored:
            if str(stored["settings"]) != settings:
                raise UserError(
                    f"{path} is of a training with other options, windows or folds; give the same ones to go on, "
                    "--restart to train anew, or -o for another folder"
                )
            for number, variable in enumerate(_variables(model)):
                variable.assign(stored[f"v{number}"])
            epochs_done = int(stored["epochs_done"])
        history = pd.read_csv(folder / "history.csv")
    except UserError:
        raise
    except Exception as error:  # zipfile, numpy and Keras each have their own for a damaged file
        raise UserError(f"{path} cannot be used ({error}); --restart trains anew") from error
    return epochs_done, history[history.epoch < epochs_done].to_dict("records")


def _write_history(folder: Path, history: list[dict]) -> None:
    with written_whole(folder / "history.csv") as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False)
