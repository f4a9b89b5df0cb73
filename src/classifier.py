"""The network: log-mel spectrogram -> image -> backbone -> features; with a head on it; and its export to LiteRT.

below = body(recipe, backbone)                 # Keras: float32 (batch, mels, frames) in dB -> features
model = with_head(below, heads.build(...))     # -> logits (batch, labels)
listener = with_front_end(model, recipe)       # Keras: float32 (batch, samples) -> probabilities (batch, labels)
export(listener, folder)                       # folder/model.tflite
export_saved_model(listener, folder)           # folder/saved_model.pb
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from src import hub_modules, quiet
from src.audio_backbones import AudioLayer, AudioModel
from src.backbones import Backbone
from src.bundle import MODEL_FILE, SAVED_MODEL_FILE
from src.errors import UserError
from src.files import written_whole
from src.recipe import Recipe
from src.spectrogram import log_mel_graph


@keras.saving.register_keras_serializable("birdcall")
class Image(layers.Layer):
    """Log-mel in dB -> grey image: float32 (batch, mels, frames) -> (batch, mels, frames, 1), values in [0, 1].

    level_bands: first each mel band loses its mean over the window, and with it steady noise and the colour of a microphone.
    Then the window is standardised by its own mean and deviation, so neither a gain nor a bird's distance matters; from 2
    deviations below the mean (black) to 4 above it (white). A window that is constant gives grey.
    """

    def __init__(self, level_bands: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._level_bands = level_bands

    def call(self, db: tf.Tensor) -> tf.Tensor:
        """See the class."""
        if self._level_bands:
            db = db - tf.reduce_mean(db, axis=2, keepdims=True)
        centred = db - tf.reduce_mean(db, axis=[1, 2], keepdims=True)
        deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axis=[1, 2], keepdims=True))
        image = tf.clip_by_value((centred / (deviation + 1.0) + 2.0) / 6.0, 0.0, 1.0)
        # reshape and not [..., None], which the converter turns into an op that LiteRT's built-in ones lack
        return tf.reshape(image, [-1, db.shape[1], db.shape[2], 1])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(batch, mels, frames, 1)."""
        return (*input_shape, 1)


class FrontEnd(layers.Layer):
    """Waveform -> log-mel in dB, by the recipe: float32 (batch, samples) -> (batch, mels, frames)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(name="front_end")
        self._recipe = recipe

    def call(self, waveform: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.reshape(log_mel_graph(waveform, self._recipe), [-1, *self._recipe.image_shape])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(batch, mels, frames)."""
        return (input_shape[0], *self._recipe.image_shape)


def body(recipe: Recipe, backbone: Backbone, weights: Path | None = None) -> keras.Model:
    """A network without its head: float32 (batch, mels, frames) in dB -> features, float32 (batch, features).

    backbone: an image network, or the tiny one of our own, which starts at random by recipe.seed
    weights: folder of a TF-Hub module to use instead of the registry's handle

    Raises UserError if there are no weights or the module's output is not (batch, features).
    """
    db = keras.Input(recipe.image_shape, name="log_mel")
    image = Image(recipe.level_bands, name="image")(db)  # (batch, mels, frames, 1)
    own = not backbone.handle and not backbone.path
    features = _tiny(image) if own else _hub(image, recipe, backbone, weights)  # (batch, features)
    if len(features.shape) != 2 or features.shape[1] is None:
        raise UserError(
            f"{backbone.name}: the module gives {features.shape}, not (batch, features): not a headless model; take its "
            "feature vector"
        )
    return keras.Model(db, features, name=backbone.name)


def with_head(below: keras.Model, head: keras.Model) -> keras.Model:
    """The whole network: what `below` takes -> logits (batch, labels)."""
    return keras.Model(below.input, head(below.output), name=below.name)


def _hub(image: Any, recipe: Recipe, backbone: Backbone, weights: Path | None) -> Any:
    height, width = recipe.image_size or (backbone.size, backbone.size)
    low, high = backbone.input_range
    pixels = image
    if (height, width) != recipe.image_shape:
        pixels = layers.Resizing(height, width, interpolation="bilinear", name="resize")(pixels)
    pixels = layers.Concatenate(name="rgb")([pixels, pixels, pixels])  # (batch, height, width, 3)
    if (low, high) != (0.0, 1.0):
        pixels = layers.Rescaling(high - low, low, name="range")(pixels)
    module = hub_modules.load_module(backbone, weights)
    if not (callable(module) and hasattr(module, "variables") and hasattr(module, "trainable_variables")):
        raise UserError(
            f"{backbone.name}: the SavedModel cannot be called or does not list its variables: it is not a module of TF-Hub's "
            "second format (TF2 SavedModel), which can be fine-tuned"
        )
    layer = hub_modules.HubLayer(module, recipe.batch_statistics, name="backbone", trainable=recipe.unfreeze != 0)
    try:
        return layer(pixels)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(
            f"{backbone.name}: the module does not take images of {height} by {width} ({_first_line(error)}); it was "
            f"published for {backbone.size} by {backbone.size}, see --image-size"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def unfreeze(network: keras.Model, recipe: Recipe) -> list[keras.Variable]:
    """Leave the last recipe.unfreeze layers of the backbone trainable (-1: all); returns its variables that then train.

    Raises UserError if it has fewer layers.
    """
    layer = next((layer for layer in _layers(network) if isinstance(layer, hub_modules.HubLayer)), None)
    if layer is None:
        return []
    groups = layer.layer_groups()
    if recipe.unfreeze > len(groups):
        raise UserError(
            f"--unfreeze {recipe.unfreeze}: {network.name} has {len(groups)} layers; all unfreezes them all"
        )
    first = 0 if recipe.unfreeze < 0 else len(groups) - recipe.unfreeze
    for _, variables in groups[:first]:
        for variable in variables:
            variable.trainable = False
    return [variable for _, variables in groups[first:] for variable in variables]


def _layers(network: keras.Model) -> Iterator[keras.Layer]:
    for layer in network.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)


def _tiny(image: Any) -> Any:
    """A small network of our own: strided convolutions that keep the frequency axis, then the best moment of the window.

    Global pooling over frequency would make a call at 3 kHz equal to the same one at 6 kHz, so only time is pooled.
    """

    def normalised(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    def convolution(x: Any, filters: int, size: int, strides: tuple[int, int]) -> Any:
        return normalised(layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x))

    x = convolution(image, 16, 5, (2, 2))  # (batch, mels / 2, frames / 2, 16)
    x = convolution(x, 32, 3, (2, 2))
    x = convolution(x, 48, 3, (2, 2))
    x = convolution(x, 64, 3, (2, 1))  # (batch, mels / 16, frames / 8, 64)
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
    x = normalised(layers.Dense(96, use_bias=False)(x))  # (batch, frames / 8, 96): all bands at one time
    x = layers.Conv1D(96, 9, padding="same", activation="relu")(x)  # rhythm: 9 steps are 1.2 s
    best = layers.GlobalMaxPooling1D()(x)
    mean = layers.GlobalAveragePooling1D()(x)
    return layers.Concatenate()([best, mean])  # (batch, 192)


def with_front_end(model: keras.Model, recipe: Recipe) -> keras.Model:
    """The network as it goes to the field: waveform, float32 (batch, samples), unit scale -> probabilities (batch, labels)."""
    waveform = keras.Input((recipe.window_samples,), name="waveform")
    return _probabilities(waveform, model(FrontEnd(recipe)(waveform)))


def over_audio(model: AudioModel, head: keras.Model, recipe: Recipe) -> keras.Model:
    """The same for a network of audio with a head. recipe: with the network's own sample rate"""
    waveform = keras.Input((recipe.window_samples,), name="waveform")
    return _probabilities(waveform, head(AudioLayer(model, name="backbone")(waveform)))


def over_features(head: keras.Model) -> keras.Model:
    """The same for what follows a .tflite file, which no graph of ours can hold: features (batch, features) in."""
    return _probabilities(head.input, head.output)


def _probabilities(given: Any, logits: Any) -> keras.Model:
    return keras.Model(given, layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits))


Form = Callable[[tf.lite.TFLiteConverter], None]


def export(listener: keras.Model, folder: Path, forms: Mapping[str, Form] | None = None) -> None:
    """Write `folder`/model.tflite, built-in ops only; the batch may have any size.

    forms: other files to write instead, by name, each with what sets the converter for it: `whole`, `half`, `in_bytes`
    """
    saved = folder / ".saved_model"
    shutil.rmtree(saved, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        # By way of a SavedModel: from_keras_model and from_concrete_functions lose a Keras 3 model's weights in silence.
        with quiet.native_stderr():  # the converter tells its inner life
            listener.export(str(saved), verbose=False)
            for name, form in (forms or {MODEL_FILE: whole}).items():
                converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
                form(converter)
                content = converter.convert()
                with written_whole(folder / name) as temporary:
                    temporary.write_bytes(content)
    finally:
        shutil.rmtree(saved, ignore_errors=True)


def export_saved_model(listener: keras.Model, folder: Path) -> None:
    """Write `folder`/saved_model.pb: one window, float32 (1, samples) "waveform" -> (1, labels) "probabilities".

    A graph of plain ops with the weights as constants, without functions and attributes that have their default. What
    Keras exports needs ops that TensorFlow 2.7, the last one for a Jetson TX2, does not know; this it loads.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    saved = folder / ".saved_model"
    shutil.rmtree(saved, ignore_errors=True)
    window = tf.TensorSpec([1, listener.input.shape[1]], tf.float32, name="waveform")
    answer = tf.function(lambda waveform: listener(waveform, training=False)).get_concrete_function(window)
    frozen = convert_variables_to_constants_v2(answer)
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session, quiet.native_stderr():
        given, told = (each[0].name for each in (frozen.inputs, frozen.outputs))
        waveform, probabilities = tf.import_graph_def(
            frozen.graph.as_graph_def(), return_elements=[given, told], name=""
        )
        signature = v1.saved_model.predict_signature_def({"waveform": waveform}, {"probabilities": probabilities})
        builder = v1.saved_model.Builder(str(saved))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, strip_default_attrs=True
        )
        builder.save()
    os.replace(saved / "saved_model.pb", folder / SAVED_MODEL_FILE)
    shutil.rmtree(saved)


def saved_answers(folder: Path, waveforms: np.ndarray) -> np.ndarray:
    """What `folder`/saved_model.pb says of waveforms: float32 [windows, samples] -> [windows, labels]."""
    answer = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return np.concatenate([answer(waveform=tf.constant(each[None]))["probabilities"] for each in waveforms])


def whole(converter: tf.lite.TFLiteConverter) -> None:
    """Weights and sums in float32: as the converter is."""


def half(converter: tf.lite.TFLiteConverter) -> None:
    """Weights in float16, sums in float32."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def in_bytes(converter: tf.lite.TFLiteConverter, examples: Sequence[np.ndarray]) -> None:
    """Weights and activations in int8, within the ranges that the examples give: float32 arrays of the input's shape."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([example] for example in examples)
