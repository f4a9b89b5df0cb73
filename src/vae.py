"""A convolutional variational autoencoder of mel windows: what it is, how it learns, what it makes of a window.

    vae = build(recipe.image_shape, Design(), seed=0)
    fit(vae, batches, plan, recipe, checkpoint, history)        # batches: of an epoch, float32 (batch, mels, frames) in dB
    mean, deviation = vae.encode(db)                            # float32 (batch, mels / 8, frames / 8, latents) each
    again = vae.decode(mean, vae.levels(db), frames)            # float32 (batch, mels, frames) in dB

Kingma and Welling 2014, with what pictures of calls need:

- The latent is a map, 16 numbers for 8 by 8 values: a call has its place, and one vector for a window can only blur it.
- Each mel band's mean over the window is set aside and given back: nothing is spent on hiss and microphones.
- The likelihood is Laplace's with the scale that fits best (the calibrated decoder of Rybkin et al. 2021). It is of the values
  and of their differences along time and frequency (Mathieu et al. 2016), which keeps edges, and counts what is loud for more:
  most of a window is noise, whose texture nothing can foretell, and by itself it decides what is worth a nat.
- The KL term counts a fraction (beta of Higgins et al. 2017, below 1) for the same reason, and is warmed up (Bowman et al.
  2016) with free bits (Kingma et al. 2016), so that the latent is not given up before it is of use.

It learns from crops in time, a quarter of a window, and is fully convolutional: it costs a quarter, and answers for any length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tqdm import tqdm

from src import devices, optimizers
from src.checkpoints import Checkpoint
from src.errors import UserError
from src.history import History
from src.optimizers import Plan
from src.recipe import Recipe

STAGE = "vae"
LARGEST_GRADIENT = 1.0  # norm of a step's gradient; the logarithm of a small error is steep
LEAST_SCALE = 1e-3  # of the likelihood, in Design.unit_db


@dataclass(frozen=True)
class Design:
    """The numbers of the network and of its training that no recipe asks for.

    patch: mel bands and frames that the first layer takes together, and the last gives; cell: those of a place of the latent
    latents: numbers in a cell; widths: channels at a patch's and at a cell's resolution
    unit_db: what the network sees as 1; crop_frames: of a window, that a step learns from; batch: windows a step, at most
    beta: weight of the KL term; warmup: share of the steps in which it rises to that
    free_nats: that a latent may have for nothing, on average over a batch's cells
    edges: weight of an error in a difference of neighbours; loud: of a value, for each unit above its band's mean
    """

    patch: int = 4
    cell: int = 8
    latents: int = 16
    widths: tuple[int, int] = (64, 96)
    unit_db: float = 10.0
    crop_frames: int = 80
    batch: int = 16
    learning_rate: float = 2e-3
    beta: float = 0.02
    warmup: float = 0.3
    free_nats: float = 0.05
    edges: float = 1.0
    loud: float = 1.0


@dataclass(frozen=True)
class Vae:
    """An encoder and a decoder of windows in dB."""

    design: Design
    encoder: keras.Model
    decoder: keras.Model

    @property
    def variables(self) -> list[keras.Variable]:
        """All its weights; all of them learn."""
        return [*self.encoder.trainable_variables, *self.decoder.trainable_variables]

    @staticmethod
    def levels(db: tf.Tensor) -> tf.Tensor:
        """Each band's mean over the window: (batch, mels, frames) -> (batch, mels, 1), both in dB."""
        return tf.reduce_mean(db, axis=2, keepdims=True)

    @cached_property
    def encode(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """The posterior of windows, float32 (batch, mels, frames) in dB: mean and deviation, (batch, rows, columns, latents)."""
        return tf.function(
            lambda db: self.posterior((db - self.levels(db)) / self.design.unit_db), reduce_retracing=True
        )

    @cached_property
    def decode(self) -> Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]:
        """Windows of a latent, given `levels` and the number of frames: float32 (batch, mels, frames) in dB."""

        def decoded(latent: tf.Tensor, levels: tf.Tensor, frames: int) -> tf.Tensor:
            return self.decoder(latent)[:, : levels.shape[1], :frames, 0] * self.design.unit_db + levels

        return tf.function(decoded, reduce_retracing=True)

    def posterior(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `encode`, of what the network sees: float32 (batch, mels, frames) about 0, in Design.unit_db."""
        cell = self.design.cell
        padded = tf.pad(values, [[0, 0], [0, -values.shape[1] % cell], [0, -values.shape[2] % cell]])
        mean, spread = tf.split(self.encoder(padded[..., None]), 2, axis=3)
        return mean, tf.nn.softplus(spread)


def build(image_shape: tuple[int, int], design: Design, seed: int = 0) -> Vae:
    """A network that has learned nothing, for windows of (mels, frames). Draws from `seed` and from none of Keras's own seeds."""
    seeds = iter(range(seed * 1000, seed * 1000 + 1000))  # a kernel each
    rows = -(-image_shape[0] // design.cell)
    fine, coarse = design.widths
    step = design.cell // design.patch

    def convolution(channels: int, size: int, stride: int = 1, gain: float = 1.0) -> layers.Layer:
        kernel = keras.initializers.VarianceScaling(gain, "fan_in", "truncated_normal", seed=next(seeds))
        return layers.Conv2D(channels, size, stride, padding="same", kernel_initializer=kernel)

    def residual(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
        inner = convolution(channels, 3, gain=2.0)(keras.activations.silu(x))
        # Begins as nearly nothing, so that the whole begins as nearly linear and needs no normalisation.
        return x + convolution(channels, 3, gain=0.1)(keras.activations.silu(inner))

    given = keras.Input((rows * design.cell, None, 1))
    x = residual(convolution(fine, design.patch, design.patch)(given), fine)  # (batch, mels / 4, frames / 4, 64)
    x = residual(convolution(coarse, step, step)(x), coarse)  # (batch, mels / 8, frames / 8, 96)
    encoder = keras.Model(given, convolution(2 * design.latents, 1)(keras.activations.silu(x)))

    latent = keras.Input((rows, None, design.latents))
    x = residual(convolution(coarse, 3)(latent), coarse)
    x = convolution(fine * step**2, 1)(keras.activations.silu(x))
    x = residual(Unfold(step)(x), fine)
    x = convolution(design.patch**2, 3)(keras.activations.silu(x))
    return Vae(design, encoder, keras.Model(latent, Unfold(design.patch)(x)))


class Unfold(layers.Layer):
    """Channels laid out as an image: (batch, rows, columns, channels) -> (batch, by rows, by columns, channels / by / by)."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.nn.depth_to_space(x, self.by)


def nats(mean: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
    """KL divergence of a posterior from the standard normal prior, for each number of a latent: the shape of its arguments."""
    return 0.5 * (tf.square(mean) + tf.square(deviation) - 1) - tf.math.log(deviation + 1e-8)


def misfit(values: tf.Tensor, decoded: tf.Tensor, design: Design) -> tf.Tensor:
    """Weighted mean absolute error of values and of differences of neighbours, in Design.unit_db: a scalar."""
    wrong = values - decoded
    weight = 1 + design.loud * tf.nn.relu(values)
    along_time = tf.reduce_mean(tf.abs(wrong[:, :, 1:] - wrong[:, :, :-1]))
    along_frequency = tf.reduce_mean(tf.abs(wrong[:, 1:] - wrong[:, :-1]))
    of_values = tf.reduce_mean(weight * tf.abs(wrong)) / tf.reduce_mean(weight)
    return of_values + design.edges * (along_time + along_frequency)


def plan_of(recipe: Recipe, design: Design, windows: int) -> Plan:
    """How long it learns from so many windows, each once an epoch."""
    return Plan(STAGE, recipe.vae_epochs, max(1, windows // design.batch), design.learning_rate, 0.0, 0.5)


def fit(
    vae: Vae,
    batches: Callable[[int], tf.data.Dataset],
    plan: Plan,
    recipe: Recipe,
    checkpoint: Checkpoint,
    history: History,
) -> None:
    """Train for the plan's epochs, each leaving a checkpoint and a row of history; goes on after the last checkpoint.

    batches: an epoch's windows, float32 (batch, mels, frames) in dB. Raises UserError if the loss is not a number, memory is
    short or the checkpoint is of another training.
    """
    # None of what shapes the classifier's own training.
    optimizer = optimizers.build(
        replace(recipe, optimizer="adam", average=0.0, mixed_precision=False), plan, vae.variables, ()
    )
    state = [*vae.variables, *optimizer.variables]
    first, _ = checkpoint.restore(state)
    history.go_on(plan.name, first)
    step = _step(vae, optimizer, plan, recipe.seed)
    with tqdm(total=plan.epochs * plan.steps, initial=first * plan.steps, unit="batch", desc=plan.name) as bar:
        for epoch in range(first, plan.epochs):
            bar.set_description(f"{plan.name} {epoch + 1}/{plan.epochs}")
            clock, started = time.perf_counter(), time.process_time()
            found = []
            with devices.memory(vae.design.batch):
                for number, db in enumerate(batches(epoch).take(plan.steps)):
                    found.append(step(db, tf.constant(epoch * plan.steps + number, tf.int64)))
                    bar.update(1)
            loss, error_db, cell_nats = np.mean(found, axis=0).tolist()
            if not np.isfinite(loss):
                raise UserError(f"the autoencoder's loss became {loss} in epoch {epoch}; try another --seed")
            history.add(
                {
                    "stage": plan.name,
                    "epoch": epoch,
                    "loss": loss,
                    "error_db": error_db,
                    "nats_a_cell": cell_nats,
                    "learning_rate": float(optimizer.learning_rate),
                    "seconds": round(time.perf_counter() - clock, 2),
                    "cpu_seconds": round(time.process_time() - started, 2),
                }
            )
            checkpoint.save(state, [], epoch + 1)
            bar.set_postfix(error=f"{error_db:.2f} dB", nats=f"{cell_nats:.1f}")


def _step(vae: Vae, optimizer: keras.optimizers.Optimizer, plan: Plan, seed: int) -> Callable:
    """A function of windows in dB and the step's number that moves the weights: [loss, mean error in dB, nats a cell]."""
    design, variables = vae.design, vae.variables
    full_weight_at = max(1.0, design.warmup * plan.epochs * plan.steps)

    @tf.function(reduce_retracing=True)
    def step(db: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        seeds = _seeds(seed, number)
        values = _cropped((db - vae.levels(db)) / design.unit_db, design.crop_frames, next(seeds))
        with tf.GradientTape() as tape:
            mean, deviation = vae.posterior(values)
            latent = mean + deviation * tf.random.stateless_normal(tf.shape(mean), next(seeds))
            decoded = vae.decoder(latent)[:, : values.shape[1], : values.shape[2], 0]
            each = tf.reduce_mean(nats(mean, deviation), axis=[0, 1, 2])  # (latents,)
            paid = tf.reduce_sum(tf.maximum(each, design.free_nats)) / design.cell**2  # nats a value
            beta = design.beta * tf.minimum(1.0, tf.cast(number, tf.float32) / full_weight_at)
            # Of a Laplace distribution with the best scale, -log likelihood is the log of the mean error, but for a constant.
            loss = tf.math.log(misfit(values, decoded, design) + LEAST_SCALE) + beta * paid
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(tf.clip_by_global_norm(gradients, LARGEST_GRADIENT)[0], variables)
        error_db = design.unit_db * tf.reduce_mean(tf.abs(values - decoded))
        return tf.stack([loss, error_db, tf.reduce_sum(each)])

    return step


def _seeds(seed: int, number: tf.Tensor) -> Iterator[tf.Tensor]:
    """Seeds for the random numbers of a step, one after the other."""
    for use in range(2):
        yield tf.stack([tf.constant(seed * 2 + use, tf.int64), number])


def _cropped(values: tf.Tensor, frames: int, seed: tf.Tensor) -> tf.Tensor:
    """A span of each window: (batch, mels, all) -> (batch, mels, frames), or what there is if that is less."""
    spare = values.shape[2] - frames
    if spare <= 0:
        return values
    first = tf.random.stateless_uniform([tf.shape(values)[0], 1], seed, 0, spare + 1, tf.int32)
    return tf.gather(values, first + tf.range(frames)[None], axis=2, batch_dims=1)
