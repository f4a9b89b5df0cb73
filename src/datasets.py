"""tf.data from shards: reading, shuffling, and training batches with their on-line augmentation.

    batches = training_batches(prepared, keep, targets, background, recipe, epoch, steps)
    for db, target in batches: ...      # float32 (batch, mels, frames) in dB, float32 (batch, labels)

Windows stay strings of bytes until they are in a batch: a function that is mapped over them one by one costs more than all else
together. Memory holds SHUFFLE_WINDOWS windows to shuffle and as many backgrounds, however many there are. All randomness is
drawn from the recipe's seed, the epoch and the batch's number: a resumed run sees what an undisturbed one would have, whatever
the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from src.mixing import Draw, augmented, decibel, mixed_weights
from src.recipe import Recipe
from src.shards import Prepared

SHUFFLE_WINDOWS = 2048  # windows held to draw from: 80 MB of 128x313 bytes
SHARDS_AT_ONCE = 8
RECORDS_AT_ONCE = 64  # looked at together for those to keep


@contextmanager
def readable(prepared: Prepared) -> Iterator[None]:
    """Around what reads batches: a shard that cannot be had is the storage's own error, not TensorFlow's page about it."""
    try:
        yield
    except tf.errors.OpError as error:
        if prepared.cache is not None and prepared.cache.fault is not None:
            raise prepared.cache.fault from error
        raise


def read(prepared: Prepared, keep: np.ndarray, shuffle_seed: int | None = None, workers: int = 2) -> tf.data.Dataset:
    """Stored windows: (int64 window number, string of its bytes), in the index's order unless a seed to shuffle by is given.

    keep: bool array [windows of the index]
    """
    dataset = _records(prepared, keep, shuffle_seed, workers)
    if shuffle_seed is not None:
        dataset = dataset.shuffle(SHUFFLE_WINDOWS, seed=shuffle_seed, reshuffle_each_iteration=False)
    return dataset


def plain_batches(
    prepared: Prepared, keep: np.ndarray, batch_size: int, workers: int = 2, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """The kept windows as they are, ordered as by `read`: float32 (batch, mels, frames) in dB."""
    dataset = read(prepared, keep, shuffle_seed, workers).batch(batch_size)
    dataset = dataset.map(
        lambda number, records: decibel(_decoded(records, prepared), prepared.recipe),
        num_parallel_calls=workers,
        deterministic=True,
    )
    return dataset.prefetch(2).apply(tf.data.experimental.assert_cardinality(-(-int(keep.sum()) // batch_size)))


def training_batches(
    prepared: Prepared,
    keep: np.ndarray,
    targets: np.ndarray,
    background: np.ndarray,
    recipe: Recipe,
    epoch: int,
    steps: int,
    workers: int = 2,
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """One epoch of `steps` shuffled, augmented batches: (float32 (batch, mels, frames) in dB, float32 (batch, labels)).

    keep, background: bool arrays [windows]: what to learn from, and what may be mixed in as background
    targets: float32 array [windows, labels]; MASKED where a species is left out of the loss
    weights: float32 array [windows]; if given, batches have a third part, float32 (batch,)
    """
    seed = recipe.seed * 100_003 + epoch
    targets_of = _lookup(targets)
    weight_of = None if weights is None else tf.constant(weights, tf.float32)
    # An epoch that asks for more batches than there are windows goes round again, in another order.
    rounds = -(-steps * recipe.batch_size // int(keep.sum()))
    dataset = read(prepared, keep, seed, workers)
    for again in range(1, rounds):
        dataset = dataset.concatenate(read(prepared, keep, seed + 7919 * again, workers))
    dataset = dataset.batch(recipe.batch_size, drop_remainder=True).take(steps)
    if recipe.background_probability > 0 and background.any():
        dataset = tf.data.Dataset.zip(dataset, _backgrounds(prepared, background, recipe.batch_size, seed, workers))
    else:
        dataset = dataset.map(lambda numbers, records: ((numbers, records), None))

    def augment(step: tf.Tensor, batch: tuple) -> tuple:
        (numbers, records), noise = batch
        stored = _decoded(records, prepared)
        noise = None if noise is None else _decoded(noise, prepared)
        draw = Draw(seed, step, recipe.batch_size)
        made = augmented(stored, targets_of(numbers), noise, recipe, prepared.recipe, draw)
        return made if weights is None else (*made, mixed_weights(tf.gather(weight_of, numbers), recipe, draw))

    dataset = dataset.enumerate().map(augment, num_parallel_calls=workers, deterministic=True)
    return dataset.prefetch(4).apply(tf.data.experimental.assert_cardinality(steps))


def _records(prepared: Prepared, keep: np.ndarray, shuffle_seed: int | None, workers: int) -> tf.data.Dataset:
    """The kept windows as `read` has them, shard after shard or, given a seed, of some shards in turn."""
    spans = prepared.index[keep].groupby("shard").agg({"window": ["min", "max"], "row": "min"})
    if shuffle_seed is not None:
        spans = spans.iloc[np.random.default_rng(shuffle_seed % 2**32).permutation(len(spans))]
    # Asked for one by one: a shard that is not on this disk is fetched, and those after it while it is read.
    files = tf.data.Dataset.from_generator(
        lambda: prepared.local_shards(list(spans.index)), output_signature=tf.TensorSpec((), tf.string)
    )
    dataset = tf.data.Dataset.zip(files, tf.data.Dataset.from_tensor_slices(spans.to_numpy(np.int64)))
    mels, frames = prepared.recipe.image_shape

    def windows_of(file: tf.Tensor, span: tf.Tensor) -> tf.data.Dataset:
        first, last, row = tf.unstack(span)
        records = tf.data.FixedLengthRecordDataset(file, mels * frames, header_bytes=row * (mels * frames))
        return tf.data.Dataset.zip(tf.data.Dataset.range(first, last + 1), records)

    at_once = 1 if shuffle_seed is None else SHARDS_AT_ONCE
    dataset = dataset.interleave(
        windows_of, cycle_length=at_once, num_parallel_calls=min(workers, at_once), deterministic=True
    )
    kept = tf.constant(keep)

    def only_kept(numbers: tf.Tensor, records: tf.Tensor) -> tuple:
        where = tf.gather(kept, numbers)
        return tf.boolean_mask(numbers, where), tf.boolean_mask(records, where)

    return dataset.batch(RECORDS_AT_ONCE).map(only_kept).unbatch()


def _backgrounds(
    prepared: Prepared, background: np.ndarray, batch_size: int, seed: int, workers: int
) -> tf.data.Dataset:
    """Batches without end of windows to mix in: strings (batch,), the same SHUFFLE_WINDOWS of some shards throughout.

    Backgrounds are few among many windows. Read again for each batch, they would cost more than the batch; kept in memory,
    they cost nothing, and another epoch takes others.
    """
    noise = _records(prepared, background, seed, workers).map(lambda number, record: record)
    noise = noise.take(SHUFFLE_WINDOWS).cache()
    # One more than there are, so that the first batch finds the end and the cache is whole, however short the epoch.
    noise = noise.shuffle(SHUFFLE_WINDOWS + 1, seed=seed, reshuffle_each_iteration=False)
    return noise.repeat().batch(batch_size, drop_remainder=True)


def _lookup(targets: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from window numbers to their rows of targets, float32 (batch, labels).

    It keeps only what is not zero: a table of a few hundred species for each window is more than all else in memory.
    """
    rows, columns = np.nonzero(targets)
    starts = np.searchsorted(rows, np.arange(len(targets) + 1))
    columns_of = tf.RaggedTensor.from_row_splits(columns, starts)
    values_of = tf.RaggedTensor.from_row_splits(targets[rows, columns], starts)

    def targets_of(numbers: tf.Tensor) -> tf.Tensor:
        columns = tf.gather(columns_of, numbers)
        places = tf.stack([columns.value_rowids(), columns.values], axis=1)
        return tf.scatter_nd(places, tf.gather(values_of, numbers).values, (numbers.shape[0], targets.shape[1]))

    return targets_of


def _decoded(records: tf.Tensor, prepared: Prepared) -> tf.Tensor:
    """Strings (batch,) as uint8 (batch, mels, frames)."""
    return tf.reshape(tf.io.decode_raw(records, tf.uint8), (records.shape[0] or -1, *prepared.recipe.image_shape))
