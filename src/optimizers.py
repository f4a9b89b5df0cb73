"""The optimizer of a stage: warm-up and cosine, a rate of its own for the backbone, decay where it belongs, averaged weights.

optimizer = build(recipe, plan, variables, slow)
with averaged(optimizer, variables): ...           # the running mean of the weights in their place, then back
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from src.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """How long a stage of training is, and how fast.

    name: "head" or "network"; steps: batches an epoch
    """

    name: str
    epochs: int
    steps: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float


def head_plan(recipe: Recipe, windows: int) -> Plan:
    """The stage that trains the head on embeddings of so many windows."""
    steps = max(1, windows // recipe.batch_size)
    return Plan("head", recipe.head_epochs, steps, recipe.head_learning_rate, recipe.head_weight_decay, 0.0)


def network_plan(recipe: Recipe, windows: int) -> Plan:
    """The stage that trains all that is unfrozen on so many windows."""
    steps = recipe.steps_per_epoch or max(1, windows // recipe.batch_size)
    return Plan("network", recipe.epochs, steps, recipe.learning_rate, recipe.weight_decay, recipe.warmup_epochs)


def build(recipe: Recipe, plan: Plan, variables: Sequence[keras.Variable], slow: Sequence[keras.Variable]) -> Any:
    """An optimizer for `variables`: the rate rises through the warm-up and falls by a cosine to zero at the plan's end.

    slow: those that learn at recipe.backbone_rate of it
    """
    warmup = round(plan.warmup_epochs * plan.steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else plan.learning_rate,
        decay_steps=max(1, plan.epochs * plan.steps - warmup),
        warmup_target=plan.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    kind = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[recipe.optimizer]
    slowed = {id(variable) for variable in slow}
    rates = [recipe.backbone_rate if id(variable) in slowed else 1.0 for variable in variables]
    # Biases and the scales of batch norm are no weights: pulling them to zero takes the network apart.
    decays = [plan.weight_decay if len(variable.shape) > 1 else 0.0 for variable in variables]
    optimizer = _rated(kind, rates, decays)(schedule, use_ema=recipe.average > 0, ema_momentum=recipe.average or 0.99)
    if recipe.mixed_precision and tf.config.list_physical_devices("GPU"):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(list(variables))
    return optimizer


def _rated(kind: type, rates: Sequence[float], decays: Sequence[float]) -> type:
    """An optimizer class with a rate and a decay for each variable that it is built with.

    The decay is decoupled (Loshchilov and Hutter 2019) and, as the step is, at the variable's own rate.
    """

    class Rated(kind):
        def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> Any:
            place = self._get_variable_index(variable)
            rate = learning_rate * rates[place]
            if decays[place]:
                variable.assign_sub(variable * tf.cast(decays[place] * rate, variable.dtype))
            return super().update_step(gradient, variable, rate)

        def _update_model_variables_moving_average(self, trainable_variables: Sequence[keras.Variable]) -> None:
            """Keras's mean starts at the first step's weights and is long made of them; this one forgets them in time.

            The momentum of step t is at most t / (t + 9), as in tf.train.ExponentialMovingAverage.
            """
            if self.use_ema:
                step = tf.cast(self.iterations.value, tf.float32)
                momentum = tf.minimum(self.ema_momentum, step / (step + 9.0))
                for variable, mean in zip(trainable_variables, self._model_variables_moving_average):
                    mean.assign(momentum * mean + (1.0 - momentum) * variable)

    return Rated


@contextmanager
def averaged(optimizer: Any, variables: Sequence[keras.Variable]) -> Iterator[None]:
    """The running mean of the weights in place of the last ones, within the block; nothing where none is kept."""
    inner = _averaging(optimizer)
    if inner is None:
        yield
        return
    last = [tf.identity(variable.value) for variable in variables]
    inner.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, last):
            variable.assign(value)


def take_average(optimizer: Any, variables: Sequence[keras.Variable]) -> None:
    """Put the running mean of the weights in their place, for good; nothing where none is kept."""
    inner = _averaging(optimizer)
    if inner is not None:
        inner.finalize_variable_values(variables)


def _averaging(optimizer: Any) -> Any:
    """The optimizer that keeps a running mean, which may be inside one that scales losses; None where there is none yet."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return inner if inner.use_ema and int(inner.iterations) else None
