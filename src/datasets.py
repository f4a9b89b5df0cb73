"""tf.data from shards: reading, shuffling, and the on-line augmentation of training batches.

    batches = training_batches(prepared, keep, targets, background, recipe, epoch)
    for db, target in batches: ...      # float32 (batch, mels, frames) in dB, float32 (batch, labels)

Shards hold dB of mel power, so adding sounds is adding powers: a background at a signal-to-noise ratio, or a second bird
(mixup, the labels become their union), costs a few vector operations. All randomness is drawn from the recipe's seed, the
epoch and the batch's number: a resumed run sees what an undisturbed one would have.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from src.recipe import Recipe
from src.shards import Prepared
from src.spectrogram import from_bytes

SHUFFLE_WINDOWS = 2048  # windows held to draw from: 80 MB of 128x313 bytes
SHARDS_AT_ONCE = 8
DB_PER_NEPER = np.float32(10 / np.log(10))


def read(prepared: Prepared, keep: np.ndarray, shuffle_seed: int | None = None, workers: int = 2) -> tf.data.Dataset:
    """Stored windows: (uint8 (mels, frames), int64 window number), in the index's order unless a seed to shuffle by is given.

    keep: bool array [windows of the index]
    """
    mels, frames = prepared.recipe.image_shape
    of_shard = prepared.index.groupby("shard").window.agg(["min", "max"])
    wanted = [any(keep[first : last + 1]) for first, last in of_shard.to_numpy()]
    of_shard = of_shard[wanted]
    files = [str(prepared.shard_path(shard)) for shard in of_shard.index]
    dataset = tf.data.Dataset.from_tensor_slices((files, of_shard["min"].to_numpy(np.int64)))
    if shuffle_seed is not None:
        dataset = dataset.shuffle(len(files), seed=shuffle_seed, reshuffle_each_iteration=False)

    def windows_of(file: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.FixedLengthRecordDataset(file, mels * frames)
        return tf.data.Dataset.zip(records, tf.data.Dataset.range(first, np.iinfo(np.int64).max))

    at_once = 1 if shuffle_seed is None else SHARDS_AT_ONCE
    dataset = dataset.interleave(
        windows_of, cycle_length=at_once, num_parallel_calls=min(workers, at_once), deterministic=True
    )
    kept = tf.constant(keep)
    dataset = dataset.filter(lambda record, number: tf.gather(kept, number))
    if shuffle_seed is not None:
        dataset = dataset.shuffle(SHUFFLE_WINDOWS, seed=shuffle_seed, reshuffle_each_iteration=False)

    def decode(record: tf.Tensor, number: tf.Tensor) -> tuple:
        return tf.reshape(tf.io.decode_raw(record, tf.uint8), (mels, frames)), number

    return dataset.map(decode, num_parallel_calls=workers, deterministic=True)


def plain_batches(prepared: Prepared, keep: np.ndarray, batch_size: int, workers: int = 2) -> tf.data.Dataset:
    """The kept windows in the index's order as they are: float32 (batch, mels, frames) in dB."""
    dataset = read(prepared, keep, None, workers).batch(batch_size)
    dataset = dataset.map(lambda stored, number: _decibel(stored, prepared.recipe)).prefetch(2)
    return dataset.apply(tf.data.experimental.assert_cardinality(-(-int(keep.sum()) // batch_size)))


def training_batches(
    prepared: Prepared,
    keep: np.ndarray,
    targets: np.ndarray,
    background: np.ndarray,
    recipe: Recipe,
    epoch: int,
    steps: int,
    workers: int = 2,
) -> tf.data.Dataset:
    """One epoch of `steps` shuffled, augmented batches: (float32 (batch, mels, frames) in dB, float32 (batch, labels)).

    keep, background: bool arrays [windows]: what to learn from, and what may be mixed in as background
    targets: float32 array [windows, labels]
    """
    seed = recipe.seed * 100_003 + epoch
    labels = tf.constant(targets)
    # An epoch that asks for more batches than there are windows goes round again, in another order.
    rounds = -(-steps * recipe.batch_size // int(keep.sum()))
    dataset = read(prepared, keep, seed, workers)
    for again in range(1, rounds):
        dataset = dataset.concatenate(read(prepared, keep, seed + 7919 * again, workers))
    dataset = dataset.enumerate()

    def target_of(count: tf.Tensor, window: tuple) -> tuple:
        stored, number = window
        if recipe.roll:
            shift = tf.random.stateless_uniform([], (seed, count), 0, stored.shape[1], tf.int64)
            stored = tf.roll(stored, shift, axis=1)
        return stored, tf.gather(labels, number)

    dataset = dataset.map(target_of, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(recipe.batch_size, drop_remainder=True).take(steps)
    if recipe.background_probability > 0 and background.any():
        noise = read(prepared, background, seed, workers).map(lambda stored, number: stored)
        noise = noise.repeat().batch(recipe.batch_size, drop_remainder=True)
        dataset = tf.data.Dataset.zip(dataset, noise)
    else:
        dataset = dataset.map(lambda stored, target: ((stored, target), None))

    def augment(step: tf.Tensor, batch: tuple) -> tuple:
        (stored, target), noise = batch
        draw = _Draw(seed, step, recipe.batch_size)
        db = _decibel(stored, prepared.recipe)
        if recipe.mixup_probability > 0:
            db, target = mixup(db, target, recipe, draw)
        if noise is not None:
            db = add_background(db, _decibel(noise, prepared.recipe), recipe, draw)
        db = change_level(db, recipe, draw)
        return mask(db, recipe, draw), target

    dataset = dataset.enumerate().map(augment, num_parallel_calls=workers, deterministic=True)
    return dataset.prefetch(4).apply(tf.data.experimental.assert_cardinality(steps))


class _Draw:
    """Random numbers for one batch: every call gives another float32 (batch, 1, 1), the same for the same seed and step."""

    def __init__(self, seed: int, step: tf.Tensor, batch_size: int) -> None:
        self._seed, self._step, self._batch_size, self._calls = seed, step, batch_size, 0

    def uniform(self, low: float, high: float) -> tf.Tensor:
        self._calls += 1
        seed = tf.stack([tf.cast(self._seed, tf.int64), self._step * 64 + self._calls])
        return tf.random.stateless_uniform([self._batch_size, 1, 1], seed, low, high)

    def happens(self, probability: float) -> tf.Tensor:
        return self.uniform(0.0, 1.0) < probability


def _decibel(stored: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    return from_bytes(tf.cast(stored, tf.float32), recipe)


def _power(db: tf.Tensor) -> tf.Tensor:
    return tf.exp(db / DB_PER_NEPER)


def _level(power: tf.Tensor) -> tf.Tensor:
    """Mean power of each window in dB, (batch, 1, 1)."""
    return DB_PER_NEPER * tf.math.log(tf.reduce_mean(power, axis=[1, 2], keepdims=True) + 1e-12)


def _added(db: tf.Tensor, other: tf.Tensor, difference_db: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Add the sound `other` to the sound `db`, `difference_db` louder than it on average, where `where` holds."""
    power, other_power = _power(db), _power(other)
    gain = _power(_level(power) - _level(other_power) + difference_db)
    return tf.where(where, DB_PER_NEPER * tf.math.log(power + gain * other_power), db)


def mixup(db: tf.Tensor, target: tf.Tensor, recipe: Recipe, draw: _Draw) -> tuple[tf.Tensor, tf.Tensor]:
    """Add to some windows the next one of the batch, at up to mixup_gain_db more or less; targets become the greater of both."""
    where = draw.happens(recipe.mixup_probability)
    difference = draw.uniform(-recipe.mixup_gain_db, recipe.mixup_gain_db)
    mixed = _added(db, tf.roll(db, 1, axis=0), difference, where)
    union = tf.maximum(target, tf.roll(target, 1, axis=0))
    return mixed, tf.where(where[:, :, 0], union, target)


def add_background(db: tf.Tensor, noise: tf.Tensor, recipe: Recipe, draw: _Draw) -> tf.Tensor:
    """Add to some windows a background without birds, at a signal-to-noise ratio drawn from background_snr_db."""
    low, high = recipe.background_snr_db
    return _added(db, noise, -draw.uniform(low, high), draw.happens(recipe.background_probability))


def change_level(db: tf.Tensor, recipe: Recipe, draw: _Draw) -> tf.Tensor:
    """A gain for the whole window and, for half of them, a loss that grows with frequency, as distance and leaves make it."""
    db += draw.uniform(-recipe.gain_db, recipe.gain_db)
    if recipe.high_loss_db > 0:
        slope = tf.maximum(tf.linspace(-1.0, 1.0, db.shape[1]), 0.0)[None, :, None]  # 0 up to half of the mel scale
        loss = draw.uniform(0.0, recipe.high_loss_db) * tf.cast(draw.happens(0.5), tf.float32)
        db -= loss * slope
    # What lies under the floor of the front end is never met in the field.
    return tf.clip_by_value(db, recipe.floor_db, recipe.floor_db + recipe.range_db)


def mask(db: tf.Tensor, recipe: Recipe, draw: _Draw) -> tf.Tensor:
    """In some windows, set a span of frames and a span of mel bands to the window's mean (SpecAugment, Park et al. 2019)."""
    mean = tf.reduce_mean(db, axis=[1, 2], keepdims=True)
    spans = ((2, recipe.mask_frames), (1, recipe.mask_mels))
    for axis, greatest in spans:
        if recipe.mask_probability > 0 and greatest > 0:
            length = db.shape[axis]
            width = draw.uniform(0.0, greatest) * length
            first = draw.uniform(0.0, 1.0) * (length - width)
            place = tf.reshape(tf.range(length, dtype=tf.float32), [1, -1, 1] if axis == 1 else [1, 1, -1])
            hidden = (place >= first) & (place < first + width) & draw.happens(recipe.mask_probability)
            db = tf.where(hidden, mean, db)
    return db
