"""The registry of backbones: TF-Hub handles, input sizes and ranges; and how a module becomes a Keras layer.

    backbone = get("b6")                       # Backbone(handle=".../efficientnet/b6/feature-vector/1", size=528, ...)
    layer = HubLayer(load_module(backbone))    # float32 (batch, height, width, 3) -> (batch, features)

Handles resolve as TensorFlow Hub resolves them: `$TFHUB_CACHE_DIR/<SHA-1 of the handle>/` first, then the network.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from src.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

EFFICIENTNET = "https://tfhub.dev/tensorflow/efficientnet"
IMAGENET = "https://tfhub.dev/google/imagenet"


@dataclass(frozen=True)
class Backbone:
    """An image network without its head.

    handle: TF-Hub handle, spelled exactly (its hash names the cache folder); "" for our own, which starts at random
    size: side in pixels of the square input it was published with; 0: takes the spectrogram as it is
    input_range: what its pixels' values must span
    """

    name: str
    handle: str
    size: int
    input_range: tuple[float, float] = (0.0, 1.0)


REGISTRY = {
    backbone.name: backbone
    for backbone in (
        Backbone("tiny", "", 0),
        Backbone("b0", f"{EFFICIENTNET}/b0/feature-vector/1", 224),
        Backbone("b1", f"{EFFICIENTNET}/b1/feature-vector/1", 240),
        Backbone("b2", f"{EFFICIENTNET}/b2/feature-vector/1", 260),
        Backbone("b3", f"{EFFICIENTNET}/b3/feature-vector/1", 300),
        Backbone("b4", f"{EFFICIENTNET}/b4/feature-vector/1", 380),
        Backbone("b5", f"{EFFICIENTNET}/b5/feature-vector/1", 456),
        Backbone("b6", f"{EFFICIENTNET}/b6/feature-vector/1", 528),
        Backbone("b7", f"{EFFICIENTNET}/b7/feature-vector/1", 600),
        Backbone("efficientnet_lite0", f"{EFFICIENTNET}/lite0/feature-vector/2", 224),
        Backbone("inception_v3", f"{IMAGENET}/inception_v3/feature_vector/4", 299),
        Backbone("mobilenet_v2", f"{IMAGENET}/mobilenet_v2_100_224/feature_vector/4", 224),
        Backbone("mobilenet_v2_140", f"{IMAGENET}/mobilenet_v2_140_224/feature_vector/4", 224),
        Backbone("mobilenet_v2_035", f"{IMAGENET}/mobilenet_v2_035_224/feature_vector/5", 224),
        Backbone("resnet_v2_152", f"{IMAGENET}/resnet_v2_152/feature_vector/4", 224),
        Backbone("pnasnet", f"{IMAGENET}/pnasnet_large/feature_vector/4", 331),
    )
}


def get(name: str) -> Backbone:
    """The backbone called `name`. Raises UserError with the names there are."""
    if name not in REGISTRY:
        raise UserError(f"no model is called {name!r}; there are {', '.join(REGISTRY)}")
    return REGISTRY[name]


def cache_folder(handle: str) -> Path:
    """Where TensorFlow Hub keeps the module of a handle on this machine."""
    root = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(tempfile.gettempdir(), "tfhub_modules")
    return Path(root) / hashlib.sha1(handle.encode()).hexdigest()


def load_module(backbone: Backbone, weights: Path | None = None) -> Any:
    """Load a TF-Hub module: from `weights`, a SavedModel folder, if given, else by its handle.

    Raises UserError that says how to get the weights where they are not to be had.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources, which tells every user that it is deprecated
        import tensorflow_hub as hub

    if weights is not None and not (weights / "saved_model.pb").is_file():
        raise UserError(f"{weights}: no saved_model.pb there; --weights takes the folder of an unpacked TF-Hub module")
    try:
        return hub.load(str(weights) if weights else backbone.handle)
    except (OSError, ValueError, RuntimeError) as error:  # URLError, a refused host and a damaged folder are among them
        if weights:
            raise UserError(f"{weights}: TensorFlow cannot load it ({error})") from error
        folder = cache_folder(backbone.handle)
        raise UserError(
            f"the weights of {backbone.name} are not here: {backbone.handle} is not in {folder}; "
            "connect this machine once and run again (they are downloaded to that folder), or unpack the module there on "
            "a machine that has it and set TFHUB_CACHE_DIR to the folder above it, or give a downloaded module with "
            f"--weights FOLDER ({type(error).__name__}: {error})"
        ) from error


@keras.saving.register_keras_serializable("birdcall")
class HubLayer(keras.layers.Layer):
    """A loaded TF-Hub module as a Keras 3 layer: float32 (batch, height, width, 3) -> (batch, features).

    hub.KerasLayer refuses Keras 3. Here each of the module's variables becomes a weight of this layer; batch statistics
    move, and dropout works, only when training a layer that is trainable.
    """

    def __init__(self, module: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._module = module
        trained = {id(variable) for variable in module.trainable_variables}
        for variable in module.variables:
            weight = keras.Variable(initializer=variable, trainable=id(variable) in trained, name=_plain(variable.name))
            self._track_variable(weight)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Features of a batch of images."""
        return self._module(images, training=bool(training and self.trainable))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(batch, features), found by asking the module: handles do not say it."""
        import tensorflow as tf

        features = tf.function(lambda images: self._module(images, training=False)).get_concrete_function(
            tf.TensorSpec((1, *input_shape[1:]), tf.float32)
        )
        return (input_shape[0], features.output_shapes[-1])


def _plain(name: str) -> str:
    """A variable's name without what Keras forbids: Conv1/kernel:0 -> Conv1.kernel."""
    return name.split(":")[0].replace("/", ".")
