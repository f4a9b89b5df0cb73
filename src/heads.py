"""The head: features of a backbone -> a logit for each species; and the batches of embeddings it is trained on.

head = build(labels, features, recipe, embeddings[split.train])       # standardised by the training windows
batches(embeddings, split, recipe, epoch, steps, share)               # shuffled, weighted
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from src.devices import Share
from src.recipe import Recipe
from src.splits import Split


@keras.saving.register_keras_serializable("birdcall")
class Standardise(layers.Layer):
    """Features less their mean, over their deviation: float32 (batch, features) -> the same. Neither learns."""

    def build(self, input_shape: tuple) -> None:
        """Until they are set, features pass as they are."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", trainable=False)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return (features - self.mean) * self.scale

    def fit(self, features: np.ndarray, least_variance: float) -> None:
        """Take mean and deviation from float32 [windows, features].

        least_variance: of the features' mean variance, added to each: an unseen window may be anywhere in one that hardly varies
        """
        variance = features.var(axis=0, dtype=np.float64)
        self.mean.assign(features.mean(axis=0, dtype=np.float64).astype(np.float32))
        floor = least_variance * variance.mean() + 1e-12
        self.scale.assign((1 / np.sqrt(variance + floor)).astype(np.float32))


def build(labels: Sequence[str], features: int, recipe: Recipe, example: np.ndarray | None = None) -> keras.Model:
    """A head: float32 (batch, features) -> logits, float32 (batch, labels).

    example: embeddings to standardise by, float32 [windows, features]; None: features pass as they are
    """
    given = keras.Input((features,), name="features")
    standardise = Standardise(name="standardise")
    hidden = layers.Dropout(recipe.dropout, seed=recipe.seed, name="dropout")(standardise(given))
    # A bird is rare in a window: starting from that, the first epoch is not spent on learning it.
    rare = keras.initializers.Constant(-np.log(max(len(labels) - 1, 1)))
    logits = layers.Dense(len(labels), bias_initializer=rare, dtype="float32", name="logits")(hidden)
    if example is not None:
        standardise.fit(example, recipe.least_variance)
    return keras.Model(given, logits, name="head")


def batches(
    embeddings: np.ndarray, split: Split, recipe: Recipe, epoch: int, steps: int, share: Share
) -> tf.data.Dataset:
    """One epoch of `steps` shuffled batches: (float32 (batch, features), float32 (batch, labels), float32 (batch,)).

    embeddings: float32 array [windows, features]
    """
    rows = np.flatnonzero(split.train)[share.index :: share.count]
    generator = np.random.default_rng((recipe.seed, epoch))
    size = share.batch_size

    def made() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        order = generator.permutation(rows)
        for step in range(steps):
            # Where there are fewer windows than a batch wants, it goes round.
            taken = order.take(np.arange(step * size, (step + 1) * size), mode="wrap")
            yield embeddings[taken], split.targets[taken], split.weights[taken]

    shapes = (embeddings.shape[1],), (len(split.labels),), ()
    signature = tuple(tf.TensorSpec((size, *shape), tf.float32) for shape in shapes)
    return tf.data.Dataset.from_generator(made, output_signature=signature).prefetch(4)
