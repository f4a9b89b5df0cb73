"""One answer, whichever way it is asked for: Keras, the float32 and float16 bundles, a window at a time, batched, in odd
blocks, and through the listener. On all real soundscapes and ten real recordings, with a real pretrained module.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge.capture import Capture
from edge.journal import Journal
from edge.listener import Listener
from edge.player import Recordings
from src import bundle
from src.audio import AudioFile, file_windows
from src.bundle import FLOAT16, Bundle
from src.litert import Graph
from src.predictor import Predictor, predict_file

ALIKE, ALIKE_IN_FLOAT16 = 1e-4, 3e-2  # of probabilities
RECORDINGS = 10
PIECE_SECONDS = 12.0  # of a recording, for the blocks' law: two windows and a short one


@dataclass(frozen=True)
class Both:
    """A bundle, what Keras says of the windows of each recording, and those windows."""

    bundle: Bundle
    windows: dict[Path, np.ndarray]  # float32 [windows, samples]
    keras: dict[Path, np.ndarray]  # float32 [windows, labels]


@pytest.fixture(scope="module")
def paths(real_data) -> list[Path]:
    """Every soundscape, and a recording of each of ten species, of whatever rate and channels."""
    soundscapes = sorted((real_data / "birdsong-recognition/example_test_audio").glob("*.mp3"))
    species = sorted((real_data / "birds/train_audio").iterdir())[::2][:RECORDINGS]
    recordings = [sorted(folder.glob("*.mp3"))[0] for folder in species]
    assert len(soundscapes) == 2 and len(recordings) == RECORDINGS
    return soundscapes + recordings


@pytest.fixture(scope="module")
def both(paths, prepared_sample, real_data, tmp_path_factory) -> Both:
    """A real MobileNetV2 with a head that was trained, on the sample's birds, and exported as train.py does it."""
    folder = tmp_path_factory.mktemp("parity")
    prepared = prepared_sample["prepared"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
        from src import backbones, classifier, devices, lighter, networks, splits, training
        from src.history import History
        from src.recipe import changed, preset

        recipe = changed(preset("default"), backbone="mobilenet_v2_035", image_size=(128, 313), unfreeze=0)
        recipe = recipe.on_windows_of(prepared.recipe)
        split = splits.split_fold(prepared, prepared_sample["folds"], 0, recipe)
        network = networks.open_network(backbones.get(recipe.backbone), recipe, split.labels, None, devices.start())
        embeddings, _ = network.embed(prepared, None, folder / "embeddings")
    network.fit_head(embeddings, split, networks.Place(folder, "parity"), History(folder))
    windows = {path: windows_of(path, recipe) for path in paths}
    listener = network.listener()
    classifier.export(listener, folder / "bundle")
    lighter.export(network, listener, folder / "bundle")
    keras_says = training.answers(listener)
    said = {path: np.concatenate([keras_says(each[None]).numpy() for each in found]) for path, found in windows.items()}
    return Both(bundle.write(folder / "bundle", "parity", split.labels, recipe, {}), windows, said)


def windows_of(path: Path, recipe) -> np.ndarray:
    with AudioFile(path) as audio:
        return np.stack([window.samples[0] for window in file_windows(audio, recipe)])


def test_the_answers_compared_are_worth_comparing(both):
    said = np.concatenate(list(both.keras.values()))
    assert len(said) > 200
    assert said.std(axis=0).max() > 0.1, "a network that says the same of every window agrees with anything"


def test_one_window_at_a_time_the_float32_bundle_says_what_keras_says(both, paths):
    core = Predictor([both.bundle])
    for path in paths:
        np.testing.assert_allclose(
            core.probabilities(both.windows[path]), both.keras[path], atol=ALIKE, err_msg=path.name
        )


def test_the_float16_bundle_says_it_nearly(both, paths):
    core = Predictor([both.bundle], precision=FLOAT16)
    for path in paths:
        said = core.probabilities(both.windows[path])
        np.testing.assert_allclose(said, both.keras[path], atol=ALIKE_IN_FLOAT16, err_msg=path.name)


def test_without_scipy_as_on_a_small_box_the_whole_graph_says_the_same(both, paths, monkeypatch):
    assert both.bundle.network is not None, "or there is nothing to tell apart"
    monkeypatch.setattr("src.predictor._has_scipy", lambda: False)
    core = Predictor([both.bundle])
    for path in paths[::3]:
        np.testing.assert_allclose(
            core.probabilities(both.windows[path]), both.keras[path], atol=ALIKE, err_msg=path.name
        )


@pytest.mark.parametrize("size", [3, 16])
def test_batched_the_graph_says_what_it_says_of_each_window(both, paths, size):
    graph = Graph(both.bundle.graphs()[0], (size, both.bundle.recipe.window_samples))
    for path in paths:
        windows, said = both.windows[path], both.keras[path]
        for first in range(0, len(windows) - size + 1, size):
            batch = slice(first, first + size)
            np.testing.assert_allclose(graph.run(windows[batch]), said[batch], atol=ALIKE, err_msg=path.name)


@pytest.mark.parametrize("block_seconds", [0.237, 7.77])
def test_streamed_in_odd_blocks_a_recording_is_answered_alike(both, paths, block_seconds):
    core = Predictor([both.bundle])
    for path in paths:
        found = predict_file(core, path, block_seconds=block_seconds)
        np.testing.assert_allclose(found.probabilities, both.keras[path], atol=ALIKE, err_msg=path.name)


def test_through_the_listener_a_recording_is_answered_alike(both, paths, tmp_path):
    core = Predictor([both.bundle])
    for number, path in enumerate(paths):
        heard = heard_by_the_listener(core, path, tmp_path / str(number))
        np.testing.assert_allclose(heard, both.keras[path], atol=ALIKE, err_msg=path.name)


def heard_by_the_listener(core: Predictor, path: Path, folder: Path) -> np.ndarray:
    """What listen.py --input writes into its journal with a threshold of 0: float [windows, labels]."""
    folder.mkdir()
    recordings = Recordings(path, speed=0)
    with Journal(folder / "journal.sqlite") as journal, Capture(recordings.next, journal) as capture:
        Listener(capture, core, 0.0, core.recipe.hop_seconds, journal).run(threading.Event())
    with sqlite3.connect(folder / "journal.sqlite") as connection:
        rows = connection.execute("select offset_seconds, species, probability from detections").fetchall()
    said = {(start, species): probability for start, species, probability in rows}
    starts = sorted({start for start, _ in said})
    return np.array([[said[start, label] for label in core.labels] for start in starts])


@pytest.fixture(scope="module")
def pieces(paths, tmp_path_factory) -> list[Path]:
    """The beginnings of three of them, of different rates, as WAV."""
    folder = tmp_path_factory.mktemp("pieces")
    by_rate = {soundfile.info(path).samplerate: path for path in paths}
    assert len(by_rate) > 1, "of several rates, so that there is something to resample"
    found = []
    for rate, path in sorted(by_rate.items()):
        samples, _ = soundfile.read(path, frames=round(PIECE_SECONDS * rate), dtype="float32")
        found.append(folder / f"{rate}.wav")
        soundfile.write(found[-1], samples, rate, subtype="FLOAT")
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 9), block_seconds=st.floats(0.001, 2 * PIECE_SECONDS))
@example(place=0, block_seconds=0.001)
@example(place=1, block_seconds=5.0)
def test_no_size_of_the_blocks_changes_an_answer(both, pieces, place, block_seconds):
    core, path = Predictor([both.bundle]), pieces[place % len(pieces)]
    whole = predict_file(core, path, block_seconds=1000)
    cut = predict_file(core, path, block_seconds=block_seconds)
    np.testing.assert_array_equal(cut.start_seconds, whole.start_seconds)
    np.testing.assert_allclose(cut.probabilities, whole.probabilities, atol=ALIKE)
