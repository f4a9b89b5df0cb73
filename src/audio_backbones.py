"""Networks that hear a waveform, made for birds or for any sound: YAMNet, Perch, and any LiteRT or SavedModel embedding model.

    model = load(backbones.get("yamnet"))
    model.embed(windows)                    # float32 [n, samples] at model.sample_rate -> float32 [n, model.features]
    AudioLayer(model)                       # a Keras 3 layer of the same, to be exported with a head on it; not for .tflite

A window longer than what a model hears is cut into pieces that overlap by half, the last flush with its end. Of their
embeddings, or of those that a model gives for each of its own frames, the greatest of each feature is kept (pieces.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import keras
import numpy as np

from src import hub_modules, litert
from src.backbones import Backbone, model_config
from src.errors import UserError
from src.pieces import Pieces, half_overlapping

if TYPE_CHECKING:
    import tensorflow as tf

EMBED_BATCH = 32  # windows at once


class AudioModel:
    """A loaded embedding model.

    sample_rate: of the waveforms it takes, in Hz; features: length of an embedding
    pieces: what it hears at once
    graph: tensors float32 (batch, samples) -> (batch, features), the samples' number being known; None for a .tflite file
    module: what holds the graph's weights, to be kept as long as the graph; path: the .tflite file, else None
    """

    def __init__(
        self,
        backbone: Backbone,
        embed: Callable[[np.ndarray], np.ndarray],
        graph: Callable[[tf.Tensor], tf.Tensor] | None = None,
        module: Any = None,
    ) -> None:
        self.name = backbone.name
        self.sample_rate = backbone.sample_rate
        self.pieces = _pieces(backbone)
        self.graph = graph
        self.module = module
        self.path = Path(backbone.path) if graph is None else None
        self._embed = embed
        heard = self.pieces.size or self.sample_rate
        self.features = int(embed(np.zeros((1, heard), np.float32)).shape[1])

    @property
    def parameters(self) -> int:
        """Numbers in the module; 0 where they cannot be counted, in a .tflite file."""
        variables = getattr(self.module, "variables", None) or ()
        return sum(int(np.prod(variable.shape)) for variable in variables)

    def embed(self, waveforms: np.ndarray, batch_size: int = EMBED_BATCH) -> np.ndarray:
        """Embeddings of windows, so many at once: float32 [n, samples] at `sample_rate`, unit scale -> [n, features]."""
        if waveforms.ndim != 2:
            raise ValueError(f"waveforms must be [n, samples], not {list(waveforms.shape)}")
        found = [self._embed(part) for part in _batches(waveforms.astype(np.float32, copy=False), batch_size)]
        return np.concatenate(found) if found else np.zeros((0, self.features), np.float32)


def _batches(waveforms: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(waveforms), size):
        yield waveforms[start : start + size]


def _pieces(backbone: Backbone) -> Pieces:
    return half_overlapping(round(backbone.window_seconds * backbone.sample_rate))


def load(backbone: Backbone, weights: Path | None = None) -> AudioModel:
    """Load an audio backbone: a .tflite file by LiteRT, else a SavedModel as hub_modules.load_module finds it.

    weights: SavedModel folder to use instead. Raises UserError where the weights are not to be had, the model takes anything
    but audio, or which of its outputs is the embedding cannot be told.
    """
    if backbone.kind != "audio":
        raise UserError(f"{backbone.name} is a network for images, not for audio")
    if weights is None and backbone.path.endswith(".tflite"):
        embedder = litert.Embedder(Path(backbone.path), _pieces(backbone), backbone.features)
        return AudioModel(backbone, lambda waveforms: np.stack([embedder.embed(window) for window in waveforms]))

    import tensorflow as tf

    module = hub_modules.load_module(backbone, weights)
    pieces = _pieces(backbone)
    on_pieces = _on_pieces(module, backbone, weights, pieces)

    def graph(waveforms: tf.Tensor) -> tf.Tensor:
        samples = waveforms.shape[1]
        size = pieces.size or samples
        if samples < size:
            waveforms = tf.pad(waveforms, [[0, 0], [0, size - samples]])
        starts = pieces.starts(samples)
        # (batch, pieces, size), the pieces of a window beside each other
        cut = tf.stack([waveforms[:, start : start + size] for start in starts], axis=1)
        features = on_pieces(tf.reshape(cut, [-1, size]))  # (batch * pieces, features)
        return _pool(pieces, tf.reshape(features, [-1, len(starts), features.shape[-1]]), axis=1)

    @lru_cache(maxsize=4)
    def traced(samples: int) -> Callable[[np.ndarray], tf.Tensor]:
        return tf.function(graph, input_signature=[tf.TensorSpec([None, samples], tf.float32)], autograph=False)

    return AudioModel(
        backbone, lambda waveforms: traced(waveforms.shape[1])(tf.constant(waveforms)).numpy(), graph, module
    )


def _pool(pieces: Pieces, embeddings: tf.Tensor, axis: int) -> tf.Tensor:
    """What pieces.pool does, in TensorFlow."""
    import tensorflow as tf

    return (tf.reduce_max if pieces.pooling == "max" else tf.reduce_mean)(embeddings, axis=axis)


def _on_pieces(module: Any, backbone: Backbone, weights: Path | None, how: Pieces) -> Callable[[tf.Tensor], tf.Tensor]:
    """What turns pieces into embeddings: float32 (pieces, size) -> (pieces, features).

    A module is asked by its `infer_tf` (Perch), else its only signature, else by calling it; its input is (batch, samples),
    one waveform (samples,) as YAMNet's, or mel images as the model's description beside it says.
    """
    import tensorflow as tf

    told = str(weights or backbone.path or backbone.handle)
    call, shape = _entry(module, told)
    axes = len(shape)
    front_end = _mel_front_end(model_config(backbone), told) if axes == 4 else None

    def embedding(values: tf.Tensor) -> tf.Tensor:
        outputs = call(values)
        if isinstance(outputs, (list, tuple)):
            outputs = {str(number): output for number, output in enumerate(outputs)}
        elif not isinstance(outputs, dict):
            outputs = {"embedding": outputs}
        shapes = {
            name: tuple(output.shape) if output.shape.rank is not None else () for name, output in outputs.items()
        }
        found = outputs[litert.choose_embedding(shapes, backbone.features, told)]
        return tf.ensure_shape(found, [None, backbone.features]) if backbone.features else found

    def one_by_one(pieces: tf.Tensor) -> tf.Tensor:
        # A model that takes one waveform gives an embedding for each of its frames.
        def pooled(piece: tf.Tensor) -> tf.Tensor:
            return _pool(how, embedding(piece if axes == 1 else piece[tf.newaxis]), axis=0)

        features = backbone.features or pooled(tf.zeros_like(pieces[0])).shape[-1]
        return tf.map_fn(pooled, pieces, fn_output_signature=tf.TensorSpec([features], tf.float32))

    def on_pieces(pieces: tf.Tensor) -> tf.Tensor:
        if backbone.peak:
            pieces = _to_peak(pieces, backbone.peak)
        if front_end is not None:
            return embedding(front_end(pieces))
        return one_by_one(pieces) if axes == 1 or shape[0] == 1 else embedding(pieces)

    return on_pieces


def _entry(module: Any, told: str) -> tuple[Callable[[tf.Tensor], Any], tuple[int | None, ...]]:
    """What to call of a module, and the shape of its input. Raises UserError that says what it takes if it is not audio."""
    if hasattr(module, "infer_tf"):
        return module.infer_tf, _first_shape(module.infer_tf)
    signatures = dict(getattr(module, "signatures", {}))
    signature = signatures.get("serving_default") or (next(iter(signatures.values())) if len(signatures) == 1 else None)
    if signature is not None:
        inputs = signature.structured_input_signature[1]
        if len(inputs) == 1:
            ((name, spec),) = inputs.items()
            shape = (None, None) if spec.shape.rank is None else tuple(spec.shape)
            if spec.dtype.is_floating and len(shape) in (1, 2, 4):
                return lambda values: signature(**{name: values}), shape
        shapes = ", ".join(f"{name} {spec.dtype.name} {spec.shape}" for name, spec in inputs.items())
        raise UserError(f"{told}: takes {shapes}; an audio model must take one float32 [batch, samples]")
    if callable(module):
        return module, _first_shape(module.__call__)
    raise UserError(f"{told}: has neither a signature, nor infer_tf, nor can be called: not an embedding model")


def _first_shape(function: Any) -> tuple[int | None, ...]:
    """The shape of a restored function's first argument; (None, None) where it does not say."""
    for concrete in getattr(function, "concrete_functions", ()):
        given = [*concrete.structured_input_signature[0], *concrete.structured_input_signature[1].values()]
        shapes = [spec.shape for spec in given if hasattr(spec, "shape")]
        if shapes and shapes[0].rank in (1, 2, 4):
            return tuple(shapes[0])
    return (None, None)


def _to_peak(pieces: tf.Tensor, peak: float) -> tf.Tensor:
    """Pieces without their mean, scaled so that the greatest sample is `peak`; silence stays silence."""
    import tensorflow as tf

    centred = pieces - tf.reduce_mean(pieces, axis=1, keepdims=True)
    greatest = tf.reduce_max(tf.abs(centred), axis=1, keepdims=True)
    return centred * (peak / tf.maximum(greatest, 1e-9))


def _mel_front_end(config: dict, told: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The front end of BirdNET-STM32's "hybrid" models: float32 (pieces, size) -> (pieces, mels, frames, 1).

    Magnitudes of a Hann-windowed, centred Fourier transform, stretched to [0, 1] over the piece, through the model's own mel
    matrix, times its `k0`. That is its piecewise-linear scale: the other pieces begin above 0.1, which mel values of
    magnitudes up to 1 do not reach, as the filters' weights add up to 0.025 at most.
    """
    import tensorflow as tf

    needed = ("fft_length", "hop_length", "spec_width", "num_mels")
    if missing := [name for name in needed if name not in config]:
        raise UserError(
            f"{told}: takes images, and no *_model_config.json beside it says how they are made of audio ({missing[0]})"
        )
    length, hop, frames, mels = (int(config[name]) for name in needed)
    matrix, scale = _mel_matrix(Path(config["folder"]), (length // 2 + 1, mels))

    def front_end(pieces: tf.Tensor) -> tf.Tensor:
        # As many samples as make `frames` frames: the converter has no slice of complex numbers.
        needed_samples = (frames - 1) * hop + length
        after = max(0, needed_samples - length // 2 - pieces.shape[1])
        padded = tf.pad(pieces, [[0, 0], [length // 2, after]])[:, :needed_samples]
        magnitude = tf.abs(tf.signal.stft(padded, length, hop, length))  # (pieces, frames, bins)
        low = tf.reduce_min(magnitude, axis=[1, 2], keepdims=True)
        high = tf.reduce_max(magnitude, axis=[1, 2], keepdims=True)
        mel = tf.matmul((magnitude - low) / (high - low + 1e-10), tf.constant(matrix * scale))  # (pieces, frames, mels)
        return tf.reshape(tf.transpose(mel, [0, 2, 1]), [-1, mels, frames, 1])

    return front_end


def _mel_matrix(folder: Path, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The model's mel matrix, float32 [bins, mels], and its scale, float32 [mels] (ones if it has none)."""
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as stored:
            if "mel" in stored and stored["mel"].shape == shape:
                scale = stored.get("k0", np.ones(shape[1]))
                return stored["mel"].astype(np.float32), scale.astype(np.float32)
    raise UserError(f"{folder}: no .npz file there holds the model's mel matrix `mel` of {shape[0]} by {shape[1]}")


@keras.saving.register_keras_serializable("birdcall")
class AudioLayer(keras.layers.Layer):
    """An AudioModel as a Keras 3 layer: float32 (batch, samples) -> (batch, features). Its weights do not train."""

    def __init__(self, model: AudioModel, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        if model.graph is None:
            raise ValueError(f"{model.name} is a LiteRT file, which no Keras model can hold")
        self._model = model
        self._module = model.module  # tracked, so that its variables are saved with this layer's model

    def call(self, waveforms: tf.Tensor) -> tf.Tensor:
        """Embeddings of a batch of windows."""
        return self._model.graph(waveforms)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(batch, features)."""
        return (input_shape[0], self._model.features)
