"""The loss: for each window, a yes or no for each species, since several may call at once.

loss = crossentropy(targets, logits)               # float32 (batch,)
"""

from __future__ import annotations

import tensorflow as tf


def crossentropy(targets: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Binary cross-entropy of each window, averaged over the species that are not left out of it: float32 (batch,).

    targets: float32 (batch, labels) from 0 to 1, or below 0 (mixing.MASKED) for a species that may or may not be there
    logits: (batch, labels); smoothing: targets are drawn towards one half by this share
    """
    counted = tf.cast(targets >= 0, tf.float32)
    wanted = tf.maximum(targets, 0.0) * (1 - smoothing) + smoothing / 2
    each = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=tf.cast(logits, tf.float32))
    return tf.reduce_sum(each * counted, axis=1) / tf.maximum(tf.reduce_sum(counted, axis=1), 1.0)
