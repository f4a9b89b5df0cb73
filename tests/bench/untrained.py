"""An untrained bundle for 264 species: what a network costs does not depend on its weights.

untrained(Path("run"), "b0")                 # EfficientNet B0 on the log-mel of 5 s as it is, 128 by 313
untrained(Path("run"), "b0_224")             # and resized to 224 by 224, as train.py gives it to the published module
model, recipe, labels = untrained_model("tiny")
write_run(Path("run"), "tiny", model, recipe, labels)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from src.networks import Network
    from src.recipe import Recipe

NETWORKS = ("b0", "b0_224", "tiny")
LABELS = 264


def untrained(run: Path, network: str = "b0") -> Path:
    """Write RUN/fold0/bundle with random weights, in all that train.py exports; returns RUN."""
    import tensorflow as tf

    from src import bundle, classifier, lighter

    made = _network(network)
    folder, listener = run / "fold0/bundle", made.listener()
    classifier.export(listener, folder)
    lighter.export(made, listener, folder)
    bundle.write(folder, network, made.labels, made.recipe, {"tensorflow": tf.__version__})
    return run


def untrained_model(network: str) -> tuple[keras.Model, Recipe, tuple[str, ...]]:
    """The same as a Keras model, float32 (batch, samples) -> (batch, labels), and what it hears and knows."""
    made = _network(network)
    return made.listener(), made.recipe, made.labels


def _network(name: str) -> Network:
    import keras
    import tensorflow as tf

    from src import backbones, classifier, heads
    from src.networks import Network
    from src.recipe import changed, preset

    keras.utils.set_random_seed(0)
    labels = tuple(f"bird{number}" for number in range(LABELS))
    recipe = changed(preset("default"), backbone="tiny")
    tiny = backbones.get("tiny")
    if name == "tiny":
        below = classifier.body(recipe, tiny)
    else:
        db = keras.Input(recipe.image_shape)
        pixels = classifier.Image(recipe.level_bands, name="image")(db)
        if name == "b0_224":
            pixels = keras.layers.Resizing(224, 224)(pixels)
        pixels = keras.layers.Concatenate()([pixels, pixels, pixels])
        b0 = keras.applications.EfficientNetB0(include_top=False, weights=None, pooling="avg")
        below = keras.Model(db, b0(pixels, training=False))
    head = heads.build(labels, below.output.shape[1], recipe)
    return Network(tiny, recipe, labels, below, None, "", tf.distribute.get_strategy(), 1, head)


def write_run(run: Path, name: str, model: keras.Model, recipe: Recipe, labels: tuple[str, ...]) -> Path:
    """Export a model as a run of one fold; returns RUN."""
    import tensorflow as tf

    from src import bundle, classifier

    folder = run / "fold0/bundle"
    classifier.export(model, folder)
    bundle.write(folder, name, labels, recipe, {"tensorflow": tf.__version__})
    return run
