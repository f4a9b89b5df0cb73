"""Every backbone: found, loaded, trained on, exported and asked. Those whose weights cannot be had here as modules of the
same signature, which check what they are given; the real ones with their real weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from conftest import ROOT

from src import (
    audio_backbones,
    backbones,
    bundle,
    classifier,
    heads,
    hub_modules,
    layer_order,
    layouts,
    litert,
    model_table,
    preparation,
    runs,
)
from src.backbones import REGISTRY, Backbone
from src.errors import UserError
from src.folds import make_folds
from src.history import History
from src.networks import Place, open_network
from src.pieces import Pieces, half_overlapping
from src.predictor import Predictor
from src.recipe import Recipe
from src.splits import split_fold
from src.training import out_of_fold
from src.workers import Workers

LABELS = ("aaa", "bbb", "ccc")
STUDY = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "inception_v3", "mobilenet_v2", "mobilenet_v2_140")
STUDY += ("resnet_v2_152", "pnasnet")  # Table 3
# A short window: what is tested here is what comes after the front end, and that is built eighteen times.
SHORT = Recipe(window_seconds=1.0, hop_seconds=1.0, n_fft=1024, n_mels=32)


def published(backbone: Backbone) -> tf.train.Checkpoint:
    """A module of a backbone's signature with few random weights, as TF-Hub's reusable SavedModels are.

    It refuses images of another size, and pixels or samples that are outside the published range or span a tenth of it.
    """
    module, random = tf.train.Checkpoint(), tf.random.stateless_normal
    low, high = backbone.input_range

    def check(values: tf.Tensor) -> list:
        spread = tf.reduce_max(values) - tf.reduce_min(values)
        return [
            tf.debugging.assert_greater_equal(tf.reduce_min(values), low),
            tf.debugging.assert_less_equal(tf.reduce_max(values), high),
            # Silence is asked, too; else a range of [0, 255] would pass for one of [0, 1] divided once too often.
            tf.debugging.Assert((spread == 0) | (spread > (high - low) / 100), [spread]),
        ]

    if backbone.kind == "image":
        kernel = tf.Variable(random([16, 16, 3, 4], [0, 1], stddev=0.05), name="stem/conv/kernel")
        mean = tf.Variable(tf.zeros([4]), trainable=False, name="stem/bn/moving_mean")
        dense = tf.Variable(random([4, backbone.features], [0, 2]), name="top/dense/kernel")

        @tf.function(autograph=False)
        def call(images: tf.Tensor, training: bool = False) -> tf.Tensor:
            with tf.control_dependencies(check(images)):
                stem = tf.nn.conv2d(images, kernel, 16, "SAME")
            if training:
                mean.assign(0.9 * mean + 0.1 * tf.reduce_mean(stem, axis=[0, 1, 2]))
            return tf.matmul(tf.reduce_mean(tf.nn.relu(stem - mean), axis=[1, 2]), dense)

        for training in (False, True):
            side = backbone.size
            call.get_concrete_function(tf.TensorSpec([None, side, side, 3], tf.float32), training=training)
        module.__call__ = call
        module.trainable_variables = [dense, kernel]  # the last layer first, as some published modules list them
        module.variables = [dense, kernel, mean]
        return module

    kernel = module.kernel = tf.Variable(random([400, backbone.features], [0, 1]))
    classes = 521 if backbone.name == "yamnet" else 10932

    def embed(frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies(check(frames)):
            embeddings = tf.nn.relu(tf.matmul(frames[..., :400], kernel))
        return tf.tile(embeddings[..., :1], [1, classes]), embeddings

    if backbone.window_seconds:  # Perch
        samples = round(backbone.window_seconds * backbone.sample_rate)
        module.infer_tf = tf.function(embed, input_signature=[tf.TensorSpec([None, samples], tf.float32)])
    else:  # YAMNet: one waveform in, a row for each of its frames out

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def of_frames(waveform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            frames = tf.signal.frame(waveform, 15600, 7680, pad_end=True)
            return (*embed(frames), frames[:, :64])

        module.__call__ = of_frames
    return module


def audible(recipe: Recipe, number: int = 3) -> np.ndarray:
    """Windows that differ: float32 [number, samples]."""
    random = np.random.default_rng(0)
    time_s = np.arange(recipe.window_samples) / recipe.sample_rate
    tones = [0.4 * np.sin(2 * np.pi * 800 * (each + 1) * time_s) for each in range(number)]
    return (np.array(tones) + random.normal(0, 0.02, (number, len(time_s)))).astype(np.float32)


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """Recordings of three species, two of each, in a folder a species."""
    folder, recipe = tmp_path_factory.mktemp("tones"), Recipe()
    for number, samples in enumerate(audible(recipe, 6)):
        path = folder / "abc"[number % 3] / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, recipe.sample_rate)
    return folder


@pytest.fixture(scope="module")
def birds(tmp_path_factory, real_data) -> Path:
    """Real recordings of three species, two of each, in a folder a species."""
    folder = tmp_path_factory.mktemp("birds")
    for species in sorted((real_data / "birds/train_audio").iterdir())[:3]:
        (folder / species.name).mkdir()
        for path in sorted(species.iterdir())[:2]:
            (folder / species.name / path.name).symlink_to(path)
    return folder


def train_export_predict(backbone: Backbone, data: Path, recipe: Recipe, folder: Path) -> Predictor:
    """The road of train.py with a step of each stage, and the published bundle's predictor.

    runs.publish holds its answers against Keras's.
    """
    source = layouts.DataSource(data=str(data))
    recordings = layouts.read(source)
    prepared = preparation.prepare(recordings, recipe, folder / "p", source.to_dict(), workers=Workers(1))
    one_step = {"head_epochs": 1, "epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "warmup_epochs": 0.0}
    frozen = {"unfreeze": 0} if backbone.kind == "audio" else {}
    recipe = replace(recipe, backbone=backbone.name, **{**one_step, **frozen})
    split = split_fold(prepared, make_folds(recordings, 2), 0, recipe)
    network = open_network(backbone, recipe, split.labels, None, tf.distribute.get_strategy(), workers=1)
    place, history = Place(folder / "fold0", ""), History(folder / "fold0")
    if network.has_head_stage:
        features, _ = network.embed(prepared, recordings, folder / "store")
        assert np.isfinite(features).all() and features.std(axis=0).max() > 0
        assert features.shape == (len(prepared.index), backbone.features or features.shape[1])
        logits = network.fit_head(features, split, place, history)
    if network.is_fine_tuned:
        logits = network.fine_tune(prepared, split, place, history)
    assert ("network" in set(history.table().stage)) == network.is_fine_tuned == (recipe.unfreeze != 0)
    assert runs.publish(place.folder, network, recordings, out_of_fold(logits, split))["float32"] < 1e-3
    core = Predictor([bundle.load(place.folder / "bundle")])
    assert core.recipe.sample_rate == (backbone.sample_rate or recipe.sample_rate)
    windows = audible(core.recipe)
    for given in (windows, np.zeros_like(windows[:1])):
        assert np.isfinite(core.probabilities(given)).all()
    return core


def recipe_for(backbone: Backbone) -> Recipe:
    return Recipe() if backbone.kind == "audio" else SHORT


def in_cache(backbone: Backbone, root: Path, handle: str | None = None) -> Path:
    """Export a module of the backbone's signature to where TensorFlow Hub looks for its handle."""
    folder = backbones.cache_folder(handle or backbone.handle)
    assert folder.parent == root
    module = published(backbone)
    tf.saved_model.save(module, str(folder), signatures={})
    return folder


@pytest.mark.parametrize("name", REGISTRY)
def test_each_backbone_trains_is_exported_and_answers(name, tones, tmp_path, monkeypatch):
    """On a module of the published signature, in the cache under its handle's hash; random weights."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    backbone = backbones.get(name)
    if backbone.handle:
        in_cache(backbone, tmp_path / "hub")
        assert backbones.cached(backbone)[0] == backbone.handle
    train_export_predict(backbone, tones, recipe_for(backbone), tmp_path)


def test_all_of_the_study_s_table_is_in_the_registry():
    assert len(STUDY) == 13
    assert set(STUDY) <= set(REGISTRY)


@pytest.mark.parametrize("name", ["yamnet", "birdnet_stm32"])
def test_a_real_network_of_audio_is_exported_as_it_hears(name, real_data, birds, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
    backbone = backbones.get(name if name in REGISTRY else str(real_data / "hub" / name))
    train_export_predict(backbone, birds, recipe_for(backbone), tmp_path)


def test_a_real_network_of_images_is_exported_as_it_sees(real_data, birds, tmp_path, monkeypatch):
    """Another one is fine-tuned and exported in test_training.py."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
    recipe = replace(SHORT, image_size=(96, 96), unfreeze=0)
    train_export_predict(backbones.get("efficientnet_lite0"), birds, recipe, tmp_path)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
def test_layers_are_in_the_network_s_order_and_parameters_as_listed(name, real_data, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
    layer = hub_modules.HubLayer(hub_modules.load_module(backbones.get(name)))
    features = np.array(layer(np.random.default_rng(0).random((2, 96, 96, 3), np.float32)))
    assert features.shape == (2, 1280)
    assert np.isfinite(features).all()
    assert features.std() > 0
    groups = layer.layer_groups()
    names = [name for name, _ in groups]
    assert sum(len(variables) for _, variables in groups) == len(layer.trainable_variables)
    assert len(groups) == {"mobilenet_v2": 104, "efficientnet_lite0": 98}[name]
    first, last = ("stem_conv", "head_bn") if name == "efficientnet_lite0" else ("Conv1", "Conv_1_bn")
    assert (names[0], names[-1]) == (first, last)
    blocks = [
        int("".join(filter(str.isdigit, each.split("_")[1 if each.startswith("block") else 0]))) for each in names[8:-2]
    ]
    assert blocks == sorted(blocks)
    assert sum(int(np.prod(variable.shape)) for variable in layer.variables) == REGISTRY[name].parameters
    layer.trainable = False
    assert [name for name, _ in layer.layer_groups()] == names, "what is frozen can be unfrozen"


def test_layers_that_a_module_lists_from_its_end_are_put_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    backbone = backbones.get("b0")
    in_cache(backbone, tmp_path)
    module = hub_modules.load_module(backbone)
    layer = hub_modules.HubLayer(module)
    layer(keras.Input((224, 224, 3)))
    assert [name for name, _ in layer.layer_groups()] == ["stem.conv", "top.dense"]
    unused = tf.Variable(1.0)
    function = tf.function(lambda images: module(images, training=False)).get_concrete_function(
        tf.TensorSpec([1, 224, 224, 3], tf.float32)
    )
    dense, kernel = module.trainable_variables
    deep = layer_order.depths(function, [kernel, unused, dense])
    assert deep[1] is None
    assert deep[0] < deep[2]


def test_a_variable_that_the_answer_does_not_depend_on_is_no_layer_to_unfreeze():
    class WithOneToSpare(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = tf.Variable(tf.ones((3, 4)), name="used/kernel")
            self.spare = tf.Variable(tf.ones((3, 4)), name="spare/kernel")

        def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
            return tf.reduce_mean(images, axis=(1, 2)) @ self.used

    layer = hub_modules.HubLayer(WithOneToSpare())
    layer(keras.Input((8, 8, 3)))
    assert [name for name, _ in layer.layer_groups()] == ["used"]


def test_batch_statistics_may_stay_while_weights_train(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    backbone = backbones.get("mobilenet_v2")
    in_cache(backbone, tmp_path)
    images = np.random.default_rng(0).random((4, 224, 224, 3), np.float32)
    for batch_statistics in (True, False):
        layer = hub_modules.HubLayer(hub_modules.load_module(backbone), batch_statistics)
        model = keras.Sequential([layer, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.build((None, 224, 224, 3))
        before = {variable.name: np.array(variable) for variable in layer.variables}
        model.train_on_batch(images, np.ones((4, 1), np.float32))
        moved = {each.name for each in layer.variables if not np.array_equal(before[each.name], np.array(each))}
        assert ("stem.bn.moving_mean" in moved) == batch_statistics
        assert {"stem.conv.kernel", "top.dense.kernel"} <= moved


def test_any_published_version_in_the_cache_does_and_the_newest_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    backbone = backbones.get("mobilenet_v2")
    assert backbone.handle.endswith("mobilenet_v2_100_224/feature_vector/4")
    assert backbones.cached(backbone) is None
    in_cache(backbone, tmp_path)
    assert backbones.cached(backbone)[0].endswith("/4")
    newest = backbone.handle[:-1] + "5"
    folder = in_cache(backbone, tmp_path, newest)
    assert backbones.cached(backbone) == (newest, folder)
    assert newest in model_table.text()
    hub_modules.load_module(backbone)


def test_without_a_network_the_ways_out_are_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    for name in ("b6", "perch"):
        started = time.perf_counter()
        with pytest.raises(UserError) as raised:
            hub_modules.load_module(backbones.get(name))
        assert time.perf_counter() - started < 15
        sentence = str(raised.value)
        for part in (REGISTRY[name].handle, str(tmp_path), "connect this machine once", "set TFHUB_CACHE_DIR"):
            assert part in sentence
        for part in ("--weights FOLDER", f"kagglehub.model_download('{REGISTRY[name].kaggle}')"):
            assert part in sentence
        assert "\n" not in sentence


def test_what_kagglehub_has_kept_is_loaded_without_a_network(tmp_path, monkeypatch):
    """The real kagglehub on the layout of its own cache."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    backbone = backbones.get("b0")
    folder = tmp_path / "kaggle/models" / backbone.kaggle
    tf.saved_model.save(published(backbone), str(folder), signatures={})
    folder.with_name("1.complete").touch()
    assert hub_modules.load_module(backbone)(np.zeros((1, 224, 224, 3), np.float32), training=False).shape == (1, 1280)


def test_what_kagglehub_downloads_is_loaded_the_download_being_mocked_for_want_of_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    backbone = backbones.get("perch")
    tf.saved_model.save(published(backbone), str(tmp_path / "downloaded"), signatures={})
    asked = []
    monkeypatch.setattr("kagglehub.model_download", lambda handle: asked.append(handle) or str(tmp_path / "downloaded"))

    def only_kaggle(host: str) -> None:
        if host != "api.kaggle.com":
            raise OSError("no answer")

    monkeypatch.setattr(hub_modules, "_check_network", only_kaggle)
    assert hasattr(hub_modules.load_module(backbone), "infer_tf")
    assert asked == [backbone.kaggle]


def test_the_models_are_listed_quickly_and_without_tensorflow(tmp_path):
    code = "import sys; from src import model_table; print(model_table.text()); print({'tensorflow', 'keras'} & set(sys.modules))"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 5  # 0.4 s, on a machine of one's own
    lines = done.stdout.splitlines()
    assert lines[-1] == "set()"
    for name, backbone in REGISTRY.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert backbone.handle.rsplit("/", 1)[0] in line
        assert str(backbone.features) in line
    table = model_table.table()
    assert list(table.columns) == ["name", "handle", "input", "features", "parameters", "weights"]
    assert dict(zip(table.name, table.input))["perch"] == "5 s at 32000 Hz"
    assert dict(zip(table.name, table.input))["b6"] == "528x528x3 in [0, 1]"


@pytest.fixture(scope="module")
def lite(tmp_path_factory) -> dict:
    """A LiteRT model that hears 0.5 s of 16 kHz: six features, and logits beside them."""
    folder = tmp_path_factory.mktemp("lite")
    kernel = tf.random.stateless_normal([80, 6], [1, 2])

    def features(waveform: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.relu(tf.matmul(tf.reshape(waveform, [-1, 100, 80]), kernel)), axis=1)

    def both(waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": features(waveform), "logits": features(waveform)[:, :4]}

    def neither(waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"one": features(waveform), "two": features(waveform)[:, :4]}

    paths = {}
    for name, function in (("alone", features), ("both", both), ("neither", neither)):
        module = tf.Module()
        module.call = tf.function(function, input_signature=[tf.TensorSpec([1, 8000], tf.float32, name="waveform")])
        saved = folder / name
        tf.saved_model.save(module, str(saved), signatures=module.call.get_concrete_function())
        paths[name] = folder / f"my {name} model.tflite"
        paths[name].write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())
        paths[f"saved {name}"] = saved
    return {**paths, "features": lambda pieces: np.concatenate([features(piece[None]).numpy() for piece in pieces])}


def test_a_litert_model_by_path_embeds_windows_of_any_length(lite):
    backbone = backbones.get(str(lite["alone"]), sample_rate=16000)
    assert (backbone.kind, backbone.name, backbone.window_seconds) == ("audio", "my_alone_model", 0.5)
    model = audio_backbones.load(backbone)
    assert (model.features, model.graph, model.path) == (6, None, lite["alone"])
    windows = np.random.default_rng(0).normal(0, 0.1, (3, 19000)).astype(np.float32)
    starts = [0, 4000, 8000, 11000]
    expected = np.stack(
        [lite["features"]([window[start : start + 8000] for start in starts]).max(axis=0) for window in windows]
    )
    np.testing.assert_allclose(model.embed(windows), expected, atol=1e-5)
    padded = np.pad(windows[:1, :5000], ((0, 0), (0, 3000)))
    np.testing.assert_allclose(model.embed(windows[:1, :5000]), lite["features"](padded), atol=1e-5)
    saved = audio_backbones.load(backbones.get(str(lite["saved both"]), sample_rate=16000))
    np.testing.assert_allclose(saved.embed(windows), expected, atol=1e-5)


def test_which_output_is_the_embedding_is_told_by_its_name_or_asked_for(lite):
    assert audio_backbones.load(backbones.get(str(lite["both"]), sample_rate=16000)).features == 6
    for name in ("neither", "saved neither"):
        with pytest.raises(UserError, match=r"cannot be told \(.*\[1, 4\].*call that one `embedding`"):
            audio_backbones.load(backbones.get(str(lite[name]), sample_rate=16000))


def test_a_litert_model_by_path_goes_the_whole_road(lite, tones, tmp_path):
    core = train_export_predict(backbones.get(str(lite["both"]), sample_rate=16000), tones, Recipe(), tmp_path)
    assert core.recipe.sample_rate == 16000


def test_a_bundle_of_two_graphs_answers_by_both_and_each_is_checked(lite, tmp_path):
    recipe = Recipe(sample_rate=16000, fmax_hz=8000.0, window_seconds=1.2, hop_seconds=1.2)
    backbone = backbones.get(str(lite["both"]), sample_rate=16000)
    model = audio_backbones.load(backbone)
    head = heads.build(LABELS, model.features, recipe)
    folder = tmp_path / "bundle"
    classifier.export(classifier.over_features(head), folder)
    graphs = (bundle.BACKBONE_FILE, bundle.MODEL_FILE)
    (folder / graphs[0]).write_bytes(model.path.read_bytes())
    written = bundle.write(folder, "mine", LABELS, recipe, {}, chain=model.pieces)
    described = json.loads((folder / "bundle.json").read_text())
    assert described["variants"] == {"float32": list(graphs)}
    assert set(described["sha256"]) == set(graphs)
    assert (described["sub_window_samples"], described["sub_hop_samples"], described["sub_pooling"]) == (
        8000,
        4000,
        "max",
    )

    windows = audible(recipe)
    expected = 1 / (1 + np.exp(-head.predict(model.embed(windows), verbose=0)))
    np.testing.assert_allclose(Predictor([written]).probabilities(windows), expected, atol=1e-5)

    content = (folder / "backbone.tflite").read_bytes()
    (folder / "backbone.tflite").write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"backbone\.tflite: its SHA-256 is not the one"):
        bundle.load(folder)
    (folder / "backbone.tflite").unlink()
    with pytest.raises(UserError, match=r"backbone\.tflite: missing"):
        bundle.load(folder)
    for wrong in (["../backbone.tflite", "model.tflite"], [], ["a", "b", "c"]):
        names = {"variants": {"float32": wrong}, "sha256": dict.fromkeys([*wrong, *graphs], "0")}
        (folder / "bundle.json").write_text(json.dumps({**described, **names}))
        with pytest.raises(UserError, match="variants must name one or two files"):
            bundle.load(folder)
    (folder / "bundle.json").write_text(json.dumps({**described, "sub_pooling": "eval"}))
    with pytest.raises(UserError, match="not a bundle's description"):
        bundle.load(folder)


def test_a_graph_that_does_not_fit_the_one_before_is_said(lite, tmp_path):
    recipe = Recipe(sample_rate=16000, fmax_hz=8000.0)
    classifier.export(classifier.over_features(heads.build(LABELS, 7, recipe)), tmp_path)
    (tmp_path / "backbone.tflite").write_bytes(lite["alone"].read_bytes())
    written = bundle.write(tmp_path, "x", LABELS, recipe, {}, chain=half_overlapping(8000))
    with pytest.raises(UserError, match=r"gives 6 features, and model\.tflite takes 7"):
        Predictor([written])


def test_what_a_path_does_not_say_is_asked_for(lite, tmp_path, real_data):
    with pytest.raises(UserError, match="give --sample-rate HZ"):
        backbones.get(str(lite["alone"]))
    with pytest.raises(UserError, match="give --sample-rate HZ"):
        backbones.get(str(lite["saved alone"]))
    with pytest.raises(UserError, match=r"neither a \.tflite file nor a SavedModel folder"):
        backbones.get(str(tmp_path))
    with pytest.raises(UserError, match=r"no model is called 'b9'; there are tiny, b0, b1.*or the path of"):
        backbones.get("b9")
    with pytest.raises(UserError, match="are for a model given by its path"):
        backbones.get("yamnet", sample_rate=8000)
    stm32 = backbones.get(str(real_data / "hub/birdnet_stm32"))
    assert (stm32.sample_rate, stm32.window_seconds, stm32.features, stm32.name) == (22050, 3.0, 256, "birdnet_stm32")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"damaged\.tflite: LiteRT cannot load it"):
        backbones.get(str(damaged), sample_rate=16000)


def test_a_network_of_images_may_be_given_by_its_path(tmp_path):
    registered = backbones.get("b1")
    module = published(registered)
    call = module.__call__.get_concrete_function(tf.TensorSpec([None, 240, 240, 3], tf.float32), training=False)
    tf.saved_model.save(module, str(tmp_path / "mine"), signatures=call)
    backbone = backbones.get(str(tmp_path / "mine"))
    assert (backbone.kind, backbone.size, backbone.name) == ("image", 240, "mine")
    assert classifier.body(Recipe(), backbone).output.shape == (None, 1280)


def test_images_are_refused_by_a_module_that_is_given_the_wrong_range(tmp_path, monkeypatch):
    """That the modules of these tests check what they are given."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    backbone = backbones.get("b0")
    in_cache(backbone, tmp_path)
    module = hub_modules.load_module(backbone)
    image = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    for wrong in (image * 255, image - 0.5, image / 255):
        with pytest.raises(tf.errors.InvalidArgumentError):
            module(wrong, training=False)
    with pytest.raises(ValueError, match="Could not find matching concrete function"):
        module(image[:, :200], training=False)


def test_pieces_cover_a_window_and_the_last_is_flush_with_its_end():
    for size, samples in ((66150, 110250), (8000, 8000), (8000, 8001), (8000, 100), (0, 500), (3, 10)):
        pieces = half_overlapping(size)
        cut = pieces.cut(np.arange(1, samples + 1, dtype=np.float32))
        assert cut.shape == (len(pieces.starts(samples)), size or samples)
        assert set(range(1, samples + 1)) <= set(cut.ravel().astype(int))
    assert half_overlapping(66150).starts(110250) == [0, 33075, 44100]
    embeddings = np.array([[1.0, 4.0], [3.0, 2.0]], np.float32)
    np.testing.assert_array_equal(Pieces(2, 1).pool(embeddings), [3, 4])
    np.testing.assert_array_equal(Pieces(2, 1, "mean").pool(embeddings), [2, 3])
    assert litert.choose_embedding({"a": (1, 3), "b": (1, 7)}, 7, "x") == "b"
