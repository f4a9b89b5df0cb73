"""A real bundle of a real network that needs no training: the tiny one as it begins, exported as train.py --saved-model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src import bundle
from src.recipe import Recipe

LABELS = ("amecro", "norcar")


def make_keras_bundle(folder: Path, window_seconds: float = 1.0) -> None:
    """Write FOLDER with model.tflite and saved_model.pb. Its answers mean nothing, and differ from window to window."""
    import tensorflow as tf

    from src import classifier, heads, networks
    from src.backbones import get

    recipe = Recipe(backbone="tiny", window_seconds=window_seconds, hop_seconds=window_seconds)
    network = networks.open_network(get("tiny", None, None), recipe, LABELS, None, tf.distribute.get_strategy())
    network.head = heads.build(LABELS, network.body.output.shape[1], recipe)
    for variable in network.head.trainable_variables:
        variable.assign(variable * 50)
    listener = network.listener()
    folder.mkdir(parents=True, exist_ok=True)
    classifier.export(listener, folder)
    classifier.export_saved_model(listener, folder)
    bundle.write(folder, "tiny", LABELS, recipe, {})
    noise = sounds(3, recipe.window_samples)
    expected = listener(noise).numpy()
    assert np.ptp(expected) > 0.01, "the answers must depend on what is asked, or comparing them says nothing"
    np.testing.assert_allclose(classifier.saved_answers(folder, noise), expected, atol=1e-5)


def sounds(count: int, samples: int = 32000) -> np.ndarray:
    """Windows of noise, each of another loudness and colour: float32 [count, samples]."""
    noise = np.random.default_rng(0).normal(0, 0.1, (count, samples))
    smooth = [np.convolve(each, np.ones(2**number) / 2**number, "same") for number, each in enumerate(noise)]
    return np.array(smooth, np.float32)
