"""What several tests need: the project's real audio, a bundle that hears tones, and a microphone without hardware.

Where a machine lacks one of these, its tests are skipped with the reason; in CI (CI=true) they fail instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from microphone import VirtualMicrophone

from src import bundle
from src.bundle import Bundle
from src.errors import run_script
from src.recipe import Recipe, preset

# The machines that tests run on are shared: a slow example is no failure.
hypothesis.settings.register_profile("birdcall", deadline=None)
hypothesis.settings.load_profile("birdcall")

ROOT = Path(__file__).resolve().parent.parent
TONES_HZ = {"low": 600.0, "mid": 2500.0, "high": 8000.0}
TONES = Recipe(name="tones", highpass_hz=150.0)


# What takes longest, the longest first. Files are handed out in this order when several processes run the tests: a long one
# that comes last keeps one core busy and the others idle.
DEAR_FILES = (
    "test_training.py",
    "test_vae.py",
    "test_many.py",
    "test_docs.py",
    "test_interruptions.py",
    "test_backbones.py",
    "test_workers.py",
    "test_storage.py",
    "test_prepare.py",
    "test_listen.py",
    "test_listen_faults.py",
    "test_evaluate.py",
    "test_windows.py",
    "test_predict.py",
    "test_explore.py",
    "test_experiments.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the dear files first; those that are not named, and the tests of a file, stay in their order."""
    items.sort(key=lambda item: DEAR_FILES.index(item.path.name) if item.path.name in DEAR_FILES else len(DEAR_FILES))


def lacking(reason: str) -> None:
    """Skip the test, or fail it in CI, where nothing may be skipped unseen."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI must have it")
    pytest.skip(reason)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all processes that run the tests. Do not change what is in it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder of its own in there
    folder, mark = root / "shared" / name, root / "shared" / f"{name}.made"
    folder.parent.mkdir(exist_ok=True)
    with open(root / "shared" / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed to make it
            folder.mkdir()
            make(folder)
            mark.touch()
    return folder


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
    return bundle.load(made_once(tmp_path_factory, "tones", make_tone_bundle) / "fold0/bundle")


@pytest.fixture(scope="session")
def tone_bundle_16k(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same at 16 kHz, which cannot hear `high`: its third of the mel scale ends below that tone."""

    def make(folder: Path) -> None:
        make_tone_bundle(folder, Recipe(name="tones16", sample_rate=16000, fmax_hz=7900.0, highpass_hz=150.0))

    return bundle.load(made_once(tmp_path_factory, "tones16", make) / "fold0/bundle")


def make_tone_bundle(folder: Path, recipe: Recipe = TONES) -> None:
    """FOLDER/fold0/bundle, as `tone_bundle` describes it."""
    import tensorflow as tf

    from src.predictor import Predictor
    from src.spectrogram import log_mel_graph

    edges = np.linspace(0, recipe.n_mels, len(TONES_HZ) + 1).astype(int)

    class ToneModel(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, recipe.window_samples], tf.float32)])
        def __call__(self, waveform: tf.Tensor) -> tf.Tensor:
            db = log_mel_graph(waveform, recipe)  # (batch, mels, frames)
            thirds = [tf.reduce_max(db[:, low:high], axis=1) for low, high in zip(edges, edges[1:])]
            level = tf.reduce_mean(tf.stack(thirds, axis=1), axis=2)  # (batch, labels)
            return tf.sigmoid((level + 40.0) / 10.0)

    model = ToneModel()
    fold, saved = folder / "fold0/bundle", folder / "saved"
    tf.saved_model.save(model, str(saved))
    fold.mkdir(parents=True)
    (fold / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())
    written = bundle.write(fold, recipe.name, tuple(TONES_HZ), recipe, {"tensorflow": tf.__version__})

    noise = np.random.default_rng(0).normal(0, 0.001, (2, recipe.window_samples)).astype(np.float32)
    exported = Predictor([written]).probabilities(noise)
    assert 0.1 < exported.mean() < 0.9, "noise must not saturate the model, or the comparison says nothing"
    np.testing.assert_allclose(exported, model(noise).numpy(), atol=1e-4)


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        lacking("a small disk can be mounted by root only")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True, text=True)
    if done.returncode:
        lacking(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition in small: the built-in sample with 3 recordings a species and soundscapes of 30 s. Do not change it."""
    from src.sample import make_sample

    def make(folder: Path) -> None:
        make_sample(folder / "small", jobs=2, recordings_per_species=3, soundscape_s=30.0, nocall_kinds=3)

    return made_once(tmp_path_factory, "data", make) / "small"


@pytest.fixture(scope="session")
def prepared_sample(small_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The small sample prepared with a noisy copy of each window, with three folds, in a working folder of its own.

    returns: folder, data, prepared, folds. Write to the folder under names of your own only.
    """
    from src import folds, layouts, preparation, shards
    from src.workers import Workers

    source = layouts.DataSource(data=str(small_sample))
    recipe = preset("default", augment=("noise",))
    windows, table = Path("input/prepared/small") / recipe.prepared_id, Path("folds/folds.csv")

    def make(folder: Path) -> None:
        recordings = layouts.read(source)
        made = preparation.prepare(recordings, recipe, folder / windows, source.to_dict(), workers=Workers(2))
        folds.write_folds(folder / table, folds.make_folds(recordings, 3, alike=made.alike()))

    # A copy, so that no process meets what the tests of another wrote.
    folder = tmp_path_factory.mktemp("work") / "copy"
    shutil.copytree(made_once(tmp_path_factory, "work", make), folder)
    prepared = shards.open_prepared(folder / windows)
    return {"folder": folder, "data": small_sample, "prepared": prepared, "folds": folds.read_folds(folder / table)}


def run(script: str, *arguments: object, env: dict | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a script of the repository as a user does; its output as text."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = {**os.environ, **(env or {}), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def run_here(script: str, *arguments: object, env: dict | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """As `run`, but in this process, which has TensorFlow imported already: that costs a process several seconds.

    For tests of what a script does and says, its status and the sentence it ends with among that; where a process is the
    point (it is killed, nothing is left of it in memory), `run` it.
    """
    from tensorflow.python.framework import config  # TensorFlow has no public way back

    printed, warned = io.StringIO(), io.StringIO()
    environment, deterministic = dict(os.environ), config.is_op_determinism_enabled()
    command = [str(ROOT / script), *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        patch.chdir(cwd)
        os.environ.update(env or {})
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(warned):
                run_script(importlib.import_module(Path(script).stem).main)
        except SystemExit as left:
            status = left.code
        finally:
            os.environ.clear()
            os.environ.update(environment)
            if not deterministic:
                config.disable_op_determinism()
    return subprocess.CompletedProcess(command, status, printed.getvalue(), warned.getvalue())
