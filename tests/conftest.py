"""What several tests need: the project's real audio, a bundle that hears tones, and a microphone without hardware.

Where a machine lacks one of these, its tests are skipped with the reason; in CI (CI=true) they fail instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from microphone import VirtualMicrophone

from src import bundle
from src.bundle import Bundle
from src.recipe import Recipe, preset

# The machines that tests run on are shared: a slow example is no failure.
hypothesis.settings.register_profile("birdcall", deadline=None)
hypothesis.settings.load_profile("birdcall")

ROOT = Path(__file__).resolve().parent.parent
TONES_HZ = {"low": 600.0, "mid": 2500.0, "high": 8000.0}


def lacking(reason: str) -> None:
    """Skip the test, or fail it in CI, where nothing may be skipped unseen."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI must have it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings: $BIRDCALL_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("BIRDCALL_DATA") or ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        lacking(f"no real recordings at {folder} (set BIRDCALL_DATA)")
    return folder


def tone(seconds: float, sample_rate: int, *names: str, amplitude: float = 0.3) -> np.ndarray:
    """The sum of the named tones of TONES_HZ, or silence: float32 [samples]."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    parts = [amplitude * np.sin(2 * np.pi * TONES_HZ[name] * time_s) for name in names]
    return np.sum([0 * time_s, *parts], axis=0).astype(np.float32)


@pytest.fixture(scope="session")
def tone_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real bundle that needs no training: a species for each third of the mel scale, where a tone of TONES_HZ lies.

    The probability is a sigmoid of the loudest mel band of the third, in dB, averaged over the window: above 0.99 for
    a `tone` that fills the window, above 0.5 for one that fills 40 % of it, below 0.05 for silence. Windows are of 5 s
    every 5 s, at 32 kHz and with a high-pass. Shared by all tests: copy its folder before you change anything in it.
    """
    import tensorflow as tf

    from src.predictor import Predictor
    from src.spectrogram import log_mel_graph

    recipe = Recipe(name="tones", highpass_hz=150.0)
    edges = np.linspace(0, recipe.n_mels, len(TONES_HZ) + 1).astype(int)

    class ToneModel(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, recipe.window_samples], tf.float32)])
        def __call__(self, waveform: tf.Tensor) -> tf.Tensor:
            db = log_mel_graph(waveform, recipe)  # (batch, mels, frames)
            thirds = [tf.reduce_max(db[:, low:high], axis=1) for low, high in zip(edges, edges[1:])]
            level = tf.reduce_mean(tf.stack(thirds, axis=1), axis=2)  # (batch, labels)
            return tf.sigmoid((level + 40.0) / 10.0)

    model = ToneModel()
    folder = tmp_path_factory.mktemp("tones") / "fold0" / "bundle"
    saved = tmp_path_factory.mktemp("saved")
    tf.saved_model.save(model, str(saved))
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())
    written = bundle.write(folder, "tones", tuple(TONES_HZ), recipe, {"tensorflow": tf.__version__})

    noise = np.random.default_rng(0).normal(0, 0.001, (2, recipe.window_samples)).astype(np.float32)
    exported = Predictor([written]).probabilities(noise)
    assert 0.1 < exported.mean() < 0.9, "noise must not saturate the model, or the comparison says nothing"
    np.testing.assert_allclose(exported, model(noise).numpy(), atol=1e-4)
    return written


@pytest.fixture
def virtual_microphone() -> Iterator[VirtualMicrophone]:
    """A microphone without hardware; give its `env` to the process that is to hear it."""
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            lacking(f"no {program} (apt-get install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2)")
    # Not under tmp_path: the path of a Unix socket must be short.
    with tempfile.TemporaryDirectory(prefix="birdmic") as folder:
        microphone = VirtualMicrophone(Path(folder))
        try:
            yield microphone
        finally:
            microphone.stop()


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition in small: the built-in sample with 3 recordings a species and soundscapes of 30 s. Do not change it."""
    from src.sample import make_sample

    folder = tmp_path_factory.mktemp("data") / "small"
    make_sample(folder, jobs=2, recordings_per_species=3, soundscape_s=30.0, nocall_kinds=3)
    return folder


@pytest.fixture(scope="session")
def prepared_sample(small_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The small sample prepared with a noisy copy of each window, with three folds, in a working folder of its own.

    returns: folder, data, prepared, folds. Write to the folder under names of your own only.
    """
    from src import folds, layouts, preparation
    from src.workers import Workers

    folder = tmp_path_factory.mktemp("work")
    source = layouts.DataSource(data=str(small_sample))
    recordings = layouts.read(source)
    recipe = preset("default", augment=("noise",))
    windows = folder / "input/prepared/small" / recipe.prepared_id
    prepared = preparation.prepare(recordings, recipe, windows, source.to_dict(), workers=Workers(2))
    table = folds.make_folds(recordings, 3, alike=prepared.alike())
    folds.write_folds(folder / "folds/folds.csv", table)
    return {"folder": folder, "data": small_sample, "prepared": prepared, "folds": table}


def run(script: str, *arguments: object, env: dict | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a script of the repository as a user does; its output as text."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = {**os.environ, **(env or {}), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
