"""Lighter forms of an exported network: weights in float16, or all of it in bytes (int8), after a front end in float32.

    export(network, listener, folder, examples)                 # front_end.tflite, model_float16.tflite, model_int8.tflite
    window_accuracy(network, folder, prepared, split)           # of the int8 one, on the validated windows

The front end is never made lighter: in float16 its floor of 1e-8 becomes 0 and silence NaN, and in int8 it misses by 50 dB.
int8 is post-training quantisation of weights and activations (Jacob et al. 2018), by TensorFlow's converter; the ranges of the
activations are those that real windows give which the network learned from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from src import classifier
from src.bundle import FLOAT16_FILE, FRONT_END_FILE, INT8_FILE, NETWORK_FILE
from src.datasets import plain_batches, readable
from src.litert import Graph

if TYPE_CHECKING:
    from src.networks import Network
    from src.shards import Prepared
    from src.splits import Split


def export(network: Network, listener: keras.Model, folder: Path, examples: np.ndarray | None = None) -> None:
    """Write the lighter forms into `folder`. A network of audio is its own front end: it has a float16 form only, in one file.

    listener: the whole of it; examples: real windows for the ranges of int8: float32 array [windows, samples]; None: no int8
    Raises ValueError if int8 is asked of a network of audio.
    """
    if network.body is None:
        if examples is not None:
            raise ValueError(f"{network.backbone.name} hears audio: it has no front end to be followed by bytes")
        classifier.export(listener, folder, {FLOAT16_FILE: classifier.half})
        return
    front_end, after = _cut(network)
    classifier.export(front_end, folder, {FRONT_END_FILE: classifier.whole})
    forms = {NETWORK_FILE: classifier.whole, FLOAT16_FILE: classifier.half}
    if examples is not None:
        images = [np.asarray(front_end(waveform[None])) for waveform in examples]  # (1, mels, frames, 1) each
        forms[INT8_FILE] = lambda converter: classifier.in_bytes(converter, images)
    classifier.export(after, folder, forms)


def _cut(network: Network) -> tuple[keras.Model, keras.Model]:
    """The network in two: waveform, float32 (batch, samples) -> image (batch, mels, frames, 1) -> probabilities."""
    image = network.body.get_layer("image")
    waveform = keras.Input((network.recipe.window_samples,), name="waveform")
    front_end = keras.Model(waveform, image(classifier.FrontEnd(network.recipe)(waveform)))
    given = keras.Input(image.output.shape[1:], name="image")
    logits = network.head(keras.Model(image.output, network.body.output)(given))
    return front_end, keras.Model(given, keras.layers.Activation("sigmoid", dtype="float32")(logits))


def window_accuracy(network: Network, folder: Path, prepared: Prepared, split: Split) -> float:
    """Share of the validated windows of birds whose likeliest species is the labelled one, by the int8 network in `folder`."""
    keep = split.validation & (split.primary >= 0)
    image = network.body.get_layer("image")
    graph, answered = Graph(folder / INT8_FILE, (1, *image.output.shape[1:])), []
    with readable(prepared):
        for db in plain_batches(prepared, keep, network.recipe.batch_size, network.workers):
            answered += [int(graph.run(each[None])[0].argmax()) for each in np.asarray(image(db))]
    return float(np.mean(np.array(answered) == split.primary[keep]))
