"""A stage of training: fit what is trainable, keep its state after each epoch, go on where it was; and what comes of it.

fit(model, plan, batches, answer, split, recipe, checkpoint, history)
logits = predict_logits(answers(model), prepared, keep, ...) # float32 [kept, labels]
table = out_of_fold(logits, split)                           # what evaluate.py reads
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from src import devices, losses, optimizers
from src.checkpoints import Checkpoint
from src.datasets import plain_batches, readable
from src.errors import UserError
from src.history import History
from src.metrics import top1
from src.optimizers import Plan
from src.recipe import Recipe
from src.shards import Prepared
from src.splits import Split

RATE_OPTION = {"head": "--head-learning-rate", "network": "--learning-rate"}


def fit(
    model: keras.Model,
    plan: Plan,
    batches: devices.Batches,
    answer: Callable[[np.ndarray], np.ndarray],
    split: Split,
    recipe: Recipe,
    checkpoint: Checkpoint,
    history: History,
    slow: Sequence[keras.Variable] = (),
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Train for the plan's epochs, or until early stopping; a checkpoint and a row of history after each.

    batches: (inputs, targets, weights) of an epoch; answer: logits of some windows, bool array [windows] -> [kept, labels]
    slow: variables that learn at recipe.backbone_rate

    Leaves the weights that are to be used: the averaged or the best ones, if the recipe asks for them. Goes on after the last
    checkpoint, if there is one. Raises UserError if it is of another training, or the loss is not a number.
    """
    strategy = strategy or tf.distribute.get_strategy()
    variables = list(model.trainable_variables)
    with strategy.scope():
        optimizer = optimizers.build(recipe, plan, variables, slow)
    # What is judged, and so kept, are the weights with the statistics of batch norm that belong to them.
    statistics = [each for each in model.non_trainable_variables if keras.backend.is_float_dtype(each.dtype)]
    judged = [*variables, *statistics]
    state = [*model.variables, *optimizer.variables]
    first, best = checkpoint.restore(state)
    history.go_on(plan.name, first)
    step = step_of(model, optimizer, variables, recipe, strategy)
    started = time.process_time()
    with tqdm(total=plan.epochs * plan.steps, initial=first * plan.steps, unit="batch", desc=plan.name) as bar:
        for epoch in range(first, plan.epochs):
            if _stalled(history.of(plan.name), recipe.patience):
                break
            bar.set_description(f"{plan.name} {epoch + 1}/{plan.epochs}")
            clock, total, taken = time.perf_counter(), 0.0, 0
            with devices.memory(recipe.batch_size):
                for batch in devices.each_batch(strategy, batches, epoch, recipe.batch_size):
                    total += step(*batch)
                    taken += 1
                    bar.update(1)
            if taken != plan.steps:
                raise RuntimeError(f"{taken} batches came where {plan.steps} were planned: the rate would be another")
            devices.agree(strategy, statistics)
            loss = float(total) / plan.steps
            if not np.isfinite(loss):
                raise UserError(f"the loss became {loss} in epoch {epoch}; try a smaller {RATE_OPTION[plan.name]}")
            with optimizers.averaged(optimizer, variables), devices.memory(recipe.batch_size):
                found = judge(answer, split, recipe)
                if recipe.patience and _is_best(found, history.of(plan.name)):
                    best = [np.asarray(variable) for variable in judged]
            row = {
                "stage": plan.name,
                "epoch": epoch,
                "loss": loss,
                **found,
                "learning_rate": float(optimizer.learning_rate),
                "seconds": round(time.perf_counter() - clock, 2),
                "cpu_seconds": round(time.process_time() - started, 2),
            }
            started = time.process_time()
            if devices.is_chief(strategy):
                history.add(row)
                checkpoint.save(state, best, epoch + 1)
            else:
                history.rows.append(row)
            bar.set_postfix(loss=f"{loss:.4f}", val_accuracy=f"{found['val_window_accuracy']:.3f}")
    _take(optimizer, variables, judged, best)


def step_of(model: keras.Model, optimizer: Any, variables: list, recipe: Recipe, strategy: Any) -> Callable:
    """A function of one batch that moves the weights and returns the loss."""

    def of_replica(inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            each = losses.crossentropy(targets, model(inputs, training=True), recipe.label_smoothing)
            # Of the whole batch, so that the sum over replicas is its mean.
            loss = tf.reduce_sum(each * weights) / (len(each) * strategy.num_replicas_in_sync)
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        return loss

    @tf.function
    def step(inputs: Any, targets: Any, weights: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(of_replica, (inputs, targets, weights)), axis=None)

    return step


def judge(answer: Callable[[np.ndarray], np.ndarray], split: Split, recipe: Recipe) -> dict[str, float]:
    """Figures of the validated windows, and of those that early stopping watches if there are any."""
    logits = answer(split.validation)
    primary = split.primary[split.validation]
    birds = primary >= 0
    found = {
        "val_loss": _loss(split.targets[split.validation], logits, recipe),
        "val_window_accuracy": top1(logits[birds], primary[birds]),
    }
    if split.watch.any():
        found["watch_loss"] = _loss(split.targets[split.watch], answer(split.watch), recipe)
    return found


def _loss(targets: np.ndarray, logits: np.ndarray, recipe: Recipe) -> float:
    return float(tf.reduce_mean(losses.crossentropy(targets, logits, recipe.label_smoothing)))


def _is_best(found: dict[str, float], rows: list[dict]) -> bool:
    return all(found["watch_loss"] < row["watch_loss"] for row in rows)


def _stalled(rows: list[dict], patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing."""
    if not patience or not rows:
        return False
    watched = [row["watch_loss"] for row in rows]
    return len(rows) - 1 - int(np.argmin(watched)) >= patience


def _take(optimizer: Any, variables: list, judged: list, best: list[np.ndarray]) -> None:
    """Leave the best of what was judged, or the averaged weights, in the variables; the last ones where neither are kept."""
    if best:
        for variable, value in zip(judged, best):
            variable.assign(value)
        return
    optimizers.take_average(optimizer, variables)


def answers(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model's logits without dropout, traced once for batches of any size."""
    return tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)


def predict_logits(
    model: Callable[[tf.Tensor], tf.Tensor], prepared: Prepared, keep: np.ndarray, batch_size: int, workers: int
) -> np.ndarray:
    """Logits of the kept windows in the index's order, by what `answers` gives: float32 array [kept, labels]."""
    prepared.check_unchanged()
    with readable(prepared):
        return np.concatenate([model(db).numpy() for db in plain_batches(prepared, keep, batch_size, workers)])


def out_of_fold(logits: np.ndarray, split: Split) -> pd.DataFrame:
    """The validation windows with what they are (filename, channel, ebird_code, ...) and a probability for each species.

    logits: float array [validated windows, labels]
    """
    columns = ["filename", "channel", "ebird_code", "others", "secondary", "source", "fold"]
    columns += ["start_seconds", "audio_seconds", "call_score"]
    described = split.windows.loc[split.validation, columns].reset_index(drop=True)
    probabilities = pd.DataFrame(
        1 / (1 + np.exp(-logits.astype(np.float64))), columns=list(split.labels), dtype=np.float32
    )
    return pd.concat([described, probabilities], axis=1)
