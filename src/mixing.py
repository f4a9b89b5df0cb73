"""The on-line augmentation of one batch of stored windows: what else might have been heard at the microphone, and how.

    draw = Draw(seed, step, batch_size)
    db, target = augmented(stored, target, noise, recipe, scale, draw)      # stored, noise: uint8 (batch, mels, frames)

Sounds add as powers: a second bird (mixup, the labels become their union) and a background at a signal-to-noise ratio cost one
exponential a value for each sound and one logarithm for the sum. What the recipe leaves out costs nothing, and does not change
what is drawn for the rest.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
import tensorflow as tf

from src.recipe import Recipe
from src.spectrogram import from_bytes

MASKED = -1.0  # the target of a species that may or may not be in a window: no loss either way
DB_PER_NEPER = np.float32(10 / np.log(10))


class Draw:
    """Random numbers for one batch, float32 (batch, 1, 1): each name has its own, the same for the same seed and step."""

    def __init__(self, seed: int, step: tf.Tensor, batch_size: int) -> None:
        self._seed, self._step, self._batch_size = seed, tf.cast(step, tf.int64), batch_size

    def uniform(self, name: str, low: float, high: float) -> tf.Tensor:
        """Numbers from low up to high."""
        seed = tf.stack([tf.constant(self._seed, tf.int64), self._step * 2**32 + crc32(name.encode())])
        return tf.random.stateless_uniform([self._batch_size, 1, 1], seed, low, high)

    def happens(self, name: str, probability: float) -> tf.Tensor:
        """True with this probability."""
        return self.uniform(name, 0.0, 1.0) < probability


def decibel(stored: tf.Tensor, scale: Recipe) -> tf.Tensor:
    """Stored bytes as float32 in dB."""
    return from_bytes(tf.cast(stored, tf.float32), scale)


def augmented(
    stored: tf.Tensor, target: tf.Tensor, noise: tf.Tensor | None, recipe: Recipe, scale: Recipe, draw: Draw
) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch after all that the recipe asks for: (float32 (batch, mels, frames) in dB, targets).

    noise: as many windows without birds, or None; scale: the recipe by which the windows were stored
    """
    if recipe.roll:
        stored = roll(stored, draw)
    if recipe.mixup_probability > 0 or noise is not None:
        db, target = mix(stored, target, noise, recipe, scale, draw)
    else:
        db = decibel(stored, scale)
    return mask(change_level(db, recipe, scale, draw), recipe, draw), target


def roll(stored: tf.Tensor, draw: Draw) -> tf.Tensor:
    """Each window turned round in time by some frames. As bytes, a quarter of what floats would be to move."""
    frames = stored.shape[2]
    shift = tf.cast(draw.uniform("roll", 0.0, frames)[:, 0, 0], tf.int32)
    # One gather of the whole batch takes five times as long.
    rolled = tf.map_fn(lambda one: tf.roll(one[0], one[1], axis=1), (stored, shift), fn_output_signature=tf.uint8)
    return tf.ensure_shape(rolled, stored.shape)


def mix(
    stored: tf.Tensor, target: tf.Tensor, noise: tf.Tensor | None, recipe: Recipe, scale: Recipe, draw: Draw
) -> tuple[tf.Tensor, tf.Tensor]:
    """Add to some windows the next one of the batch, at up to mixup_gain_db more or less, and to some a background, at a
    signal-to-noise ratio drawn from background_snr_db: in dB, with the union of both targets where there are two windows.
    """
    power = _power(stored, scale)
    mean = _mean(power)
    total = power
    if recipe.mixup_probability > 0:
        where = draw.happens("mixup", recipe.mixup_probability)
        more = draw.uniform("mixup gain", -recipe.mixup_gain_db, recipe.mixup_gain_db)
        ratio = tf.where(where, _ratio(more), 0.0)  # of the second window's mean power to the first's
        total += ratio * mean / tf.roll(mean, 1, axis=0) * tf.roll(power, 1, axis=0)
        mean *= 1 + ratio
        target = tf.where(where[:, :, 0], union(target, tf.roll(target, 1, axis=0)), target)
    if noise is not None:
        snr = draw.uniform("background snr", *recipe.background_snr_db)
        ratio = tf.where(draw.happens("background", recipe.background_probability), _ratio(-snr), 0.0)
        added = _power(noise, scale)
        total += ratio * mean / _mean(added) * added
    return DB_PER_NEPER * tf.math.log(total) + np.float32(scale.floor_db), target


def union(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The targets of two windows heard at once: the greater, and MASKED where one is that and neither is sure to be there."""
    greater = tf.maximum(first, second)
    return tf.where((tf.minimum(first, second) < 0) & (greater < 1), MASKED, greater)


def mixed_weights(weights: tf.Tensor, recipe: Recipe, draw: Draw) -> tf.Tensor:
    """Weights of a batch's windows, float32 (batch,), once `mix` has drawn the same: where there are two, the greater."""
    if recipe.mixup_probability == 0:
        return weights
    where = draw.happens("mixup", recipe.mixup_probability)[:, 0, 0]
    return tf.where(where, tf.maximum(weights, tf.roll(weights, 1, axis=0)), weights)


def change_level(db: tf.Tensor, recipe: Recipe, scale: Recipe, draw: Draw) -> tf.Tensor:
    """A gain for the whole window and, for half of them, a loss that grows with frequency, as distance and leaves make it."""
    if recipe.gain_db > 0:
        db += draw.uniform("gain", -recipe.gain_db, recipe.gain_db)
    if recipe.high_loss_db > 0:
        slope = tf.maximum(tf.linspace(-1.0, 1.0, db.shape[1]), 0.0)[None, :, None]  # 0 up to half of the mel scale
        loss = draw.uniform("high loss", 0.0, recipe.high_loss_db) * tf.cast(draw.happens("far", 0.5), tf.float32)
        db -= loss * slope
    # What lies under the floor of the front end is never met in the field.
    return tf.clip_by_value(db, scale.floor_db, scale.floor_db + scale.range_db)


def mask(db: tf.Tensor, recipe: Recipe, draw: Draw) -> tf.Tensor:
    """In some windows, set a span of frames and a span of mel bands to the window's mean (SpecAugment, Park et al. 2019)."""
    spans = (("frames", recipe.mask_frames, [1, 1, -1]), ("mels", recipe.mask_mels, [1, -1, 1]))
    hidden = None
    for name, greatest, shape in spans:
        if recipe.mask_probability > 0 and greatest > 0:
            length = db.shape[shape.index(-1)]
            width = draw.uniform(f"mask {name} width", 0.0, greatest) * length
            first = draw.uniform(f"mask {name} first", 0.0, 1.0) * (length - width)
            place = tf.reshape(tf.range(length, dtype=tf.float32), shape)
            span = (place >= first) & (place < first + width) & draw.happens(f"mask {name}", recipe.mask_probability)
            hidden = span if hidden is None else hidden | span
    return db if hidden is None else tf.where(hidden, _mean(db), db)


def _power(stored: tf.Tensor, scale: Recipe) -> tf.Tensor:
    """Mel power over that of the floor: 1 or more, so that no mean of it is zero, wherever the floor lies."""
    return tf.exp(tf.cast(stored, tf.float32) * np.float32(scale.range_db / 255 / DB_PER_NEPER))


def _ratio(db: tf.Tensor) -> tf.Tensor:
    return tf.exp(db / DB_PER_NEPER)


def _mean(values: tf.Tensor) -> tf.Tensor:
    """Each window's mean, (batch, 1, 1)."""
    return tf.reduce_mean(values, axis=[1, 2], keepdims=True)
