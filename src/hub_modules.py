"""TF-Hub modules: found, downloaded, loaded; and as a Keras 3 layer.

module = load_module(backbones.get("b6"))     # from the cache, a folder, tfhub.dev or Kaggle Models, in this order
layer = HubLayer(module)                      # float32 (batch, height, width, 3) -> (batch, features)
layer.layer_groups()                          # [("stem_conv", [...]), ("stem_bn", [...]), ...], from input to output
"""

from __future__ import annotations

import math
import os
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from src import layer_order
from src.backbones import Backbone, cache_folder, cached, kept_by_kagglehub
from src.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

CONNECT_SECONDS = 5.0  # to find out whether there is a network; neither client has a limit of its own for this
# Where one of these is set, the way out is a proxy's, or Kaggle's own in a notebook; the clients know it.
OTHER_WAYS_OUT = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "KAGGLE_KERNEL_RUN_TYPE")


def load_module(backbone: Backbone, weights: Path | None = None) -> Any:
    """Load a backbone's SavedModel: from the folder `weights` if given, else its own path, else by its handles.

    Handles resolve to what is in TensorFlow Hub's cache ($TFHUB_CACHE_DIR), any of the published versions; then to what
    tfhub.dev gives; then to what kagglehub has or downloads. Raises UserError that says how to get the weights where they are
    not to be had; without a network that takes seconds.
    """
    folder = weights or (Path(backbone.path) if backbone.path else None)
    if folder is None and backbone.handle and Path(backbone.handle).is_dir():
        folder = Path(backbone.handle)
    if folder is not None:
        if not (folder / "saved_model.pb").is_file():
            raise UserError(
                f"{folder}: no saved_model.pb there; --weights takes the folder of an unpacked TF-Hub module"
            )
        return _load(str(folder), str(folder))
    found = cached(backbone)
    if found is not None:
        return _load(str(found[1]), f"{found[1]} (the cache of {found[0]})")
    faults = []
    for name, host, fetch in (
        ("tfhub.dev", "tfhub.dev", _from_tfhub),
        ("Kaggle Models", "api.kaggle.com", _from_kaggle),
    ):
        try:
            return fetch(backbone, host)
        except (OSError, ValueError, RuntimeError, ImportError) as error:  # URLError and those of requests are OSErrors
            faults.append(f"{name}: {type(error).__name__}: {error}")
    raise UserError(
        f"the weights of {backbone.name} are not here: {backbone.handle} is not in {cache_folder(backbone.handle)}; "
        "connect this machine once and run again (they are downloaded to that folder), or unpack the module there on "
        "a machine that has it and set TFHUB_CACHE_DIR to the folder above it, or give a downloaded module with "
        f"--weights FOLDER{_kaggle_way(backbone)} ({'; '.join(faults)})"
    )


def _kaggle_way(backbone: Backbone) -> str:
    if not backbone.kaggle:
        return ""
    return f", from https://www.kaggle.com/models/{backbone.kaggle} or kagglehub.model_download('{backbone.kaggle}')"


def _load(place: str, told: str) -> Any:
    """hub.load, with its errors as a UserError that names the place."""
    try:
        return _hub().load(place)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{told}: TensorFlow cannot load it ({error})") from error


def input_shape(folder: Path) -> tuple[int, ...]:
    """The shape of the float input of a SavedModel's signature, -1 where it varies. Raises UserError if it has none."""
    module = _load(str(folder), str(folder))
    for signature in getattr(module, "signatures", {}).values():
        for spec in signature.structured_input_signature[1].values():
            if spec.dtype.is_floating and spec.shape.rank is not None:
                return tuple(-1 if side is None else side for side in spec.shape)
    raise UserError(f"{folder}: its signature does not say how much audio it takes; give --window-seconds")


def _hub() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources, which tells every user that it is deprecated
        import tensorflow_hub
    return tensorflow_hub


def _from_tfhub(backbone: Backbone, host: str) -> Any:
    _check_network(host)
    return _hub().load(backbone.handle)


def _from_kaggle(backbone: Backbone, host: str) -> Any:
    """What kagglehub keeps in its own cache, or downloads. Raises OSError, ValueError or ImportError."""
    if not backbone.kaggle:
        raise ValueError("no handle is known there")
    from kagglehub import exceptions, model_download

    if kept_by_kagglehub(backbone) is None:
        _check_network(host)
    try:
        folder = model_download(backbone.kaggle)
    except (exceptions.CredentialError, exceptions.BackendError, exceptions.DataCorruptionError) as error:
        raise OSError(str(error)) from error
    return _hub().load(folder)


def _check_network(host: str) -> None:
    """Raise OSError within seconds where a host cannot be reached: behind a firewall that drops packets, clients wait minutes."""
    if any(os.environ.get(name) for name in OTHER_WAYS_OUT):
        return
    with socket.create_connection((host, 443), CONNECT_SECONDS):
        pass


@keras.saving.register_keras_serializable("birdcall")
class HubLayer(keras.layers.Layer):
    """A loaded TF-Hub module as a Keras 3 layer: float32 (batch, height, width, 3) -> (batch, features).

    hub.KerasLayer refuses Keras 3. Here each of the module's variables becomes a weight of this layer; the module's own dropout
    works, and its batch statistics move, only when training a layer that is trainable, and with `batch_statistics`: a module
    has one switch for both.

    batch_statistics: False: batch norm always uses the stored statistics, though weights train. For few unfrozen layers or
        small batches, whose own statistics say little.
    """

    def __init__(self, module: Any, batch_statistics: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._module = module
        self._batch_statistics = batch_statistics
        self._image_shape: tuple = ()
        trained = {id(variable) for variable in module.trainable_variables}
        weights = {}
        for variable in module.variables:
            weight = keras.Variable(initializer=variable, trainable=id(variable) in trained, name=_plain(variable.name))
            self._track_variable(weight)
            weights[id(variable)] = weight
        # Kept in a closure, as Keras takes what a layer has as an attribute for its own: whether a weight can train does not
        # change when it is frozen.
        learnable = [(variable, weights[id(variable)]) for variable in module.trainable_variables]
        self._learnable = lambda: learnable

    def build(self, input_shape: tuple) -> None:
        """Remember the images' size, for layer_groups."""
        self._image_shape = tuple(input_shape[1:])
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Features of a batch of images."""
        return self._module(images, training=bool(training and self.trainable and self._batch_statistics))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(batch, features), found by asking the module: handles do not say it."""
        return (input_shape[0], *self._traced(tuple(input_shape[1:])).output_shapes[1:])

    def _traced(self, image_shape: tuple) -> Any:
        import tensorflow as tf

        call = tf.function(lambda images: self._module(images, training=False))
        return call.get_concrete_function(tf.TensorSpec((1, *image_shape), tf.float32))

    def layer_groups(self) -> list[tuple[str, list[keras.Variable]]]:
        """What can train, by layer, from input to output: [("Conv1", [kernel]), ("bn_Conv1", [gamma, beta]), ...].

        A layer is what comes before the last dot of a variable's name. Modules list their variables in any order, so that of
        the layers is read from the graph: by how deep below the input a layer's first variable is used. The layer must have
        been called. Weights that were frozen since are among them; those that its answer does not depend on are not.
        """
        learnable = self._learnable()
        deep = layer_order.depths(self._traced(self._image_shape), [variable for variable, _ in learnable])
        depth_of: dict[str, float] = {}
        groups: dict[str, list[keras.Variable]] = {}
        for (_, weight), depth in zip(learnable, deep):
            if depth is None:
                continue
            name = weight.name.rpartition(".")[0]
            groups.setdefault(name, []).append(weight)
            depth_of[name] = min(depth_of.get(name, math.inf), depth)
        return sorted(groups.items(), key=lambda group: depth_of[group[0]])


def _plain(name: str) -> str:
    """A variable's name without what Keras forbids: Conv1/kernel:0 -> Conv1.kernel."""
    return name.split(":")[0].replace("/", ".")
