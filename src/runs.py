"""A run's folder: what a fold was and cost, and its bundle, published once it is shown to say what Keras says.

runs/<model>/fold<k>/run.json       recipe, command, versions, commit, what it was trained on, cost
runs/<model>/fold<k>/oof.parquet    out-of-fold predictions (see oof.py)
runs/<model>/fold<k>/bundle/        what goes to the field
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src import bundle
from src.audio import some_windows
from src.bundle import BACKBONE_FILE
from src.errors import UserError
from src.files import write_json
from src.litert import Graph
from src.predictor import Predictor

if TYPE_CHECKING:
    from src.networks import Network, Place
    from src.recipe import Recipe
    from src.shards import Prepared
    from src.splits import Split

EXPORT_TOLERANCE = 1e-3  # greatest difference in probability between Keras and the exported graph
FLOAT16_TOLERANCE = 3e-2
CHECKED_WINDOWS = 16  # two a recording
RANGED_WINDOWS = 64  # by which int8's ranges are set


def versions() -> dict[str, str]:
    """Versions of what shapes a model."""
    packages = ("tensorflow", "keras", "tensorflow-hub", "numpy", "librosa", "soxr", "ai-edge-litert")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def commit() -> str:
    """The commit of this software's repository, with "+changes" if files differ from it; "" outside of one."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def begin(folder: Path) -> None:
    """Remove what an earlier training of this fold left: it is not to stand beside the weights of the new one."""
    for name in ("history.csv", "history.png", "oof.parquet", "run.json", "vae.json", "vae.png"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("checkpoint*.npz"):
        path.unlink()
    for name in ("bundle", "tensorboard", "vae"):
        shutil.rmtree(folder / name, ignore_errors=True)
    remove_parts(folder)


def remove_parts(folder: Path) -> None:
    """Take away half-written checkpoints of a training that was killed."""
    for path in folder.glob(".checkpoint_*.part.npz"):
        path.unlink()


def has_begun(folder: Path) -> bool:
    """Whether there is a finished epoch to go on after."""
    return any(folder.glob("checkpoint_*.npz"))


def publish(
    folder: Path,
    network: Network,
    recordings: pd.DataFrame,
    oof: pd.DataFrame,
    about: dict | None = None,
    learned: pd.DataFrame | None = None,
    saved_model: bool = False,
) -> dict[str, float]:
    """Export the network to folder/bundle, once its answers on real audio of the fold are shown to be Keras's.

    recordings: columns filename, path; oof: the fold's windows, whose recordings are listened to
    about: for the bundle's card; learned: windows of the training side, to export in bytes, too, by the ranges they give
    saved_model: also as a SavedModel, for a Jetson
    returns: the greatest difference in probability, by precision. Raises UserError if float32's exceeds EXPORT_TOLERANCE or is
    not a number; no bundle is published then. A float16 that exceeds FLOAT16_TOLERANCE is left out, and said to be.
    """
    from src import classifier, devices, lighter

    part = folder / ".bundle.part"
    shutil.rmtree(part, ignore_errors=True)
    listener, recipe = network.listener(), network.bundle_recipe
    if saved_model and network.is_chain:
        raise UserError(
            f"--saved-model: {network.backbone.name} is a .tflite file, which no SavedModel holds; leave it out"
        )
    waveforms = _waveforms(oof.filename.unique(), recordings, recipe, CHECKED_WINDOWS)
    if not len(waveforms):
        raise UserError(f"{folder}: no recording of this fold is there to check the export on; is --data right?")
    examples = None
    if learned is not None:
        examples = _waveforms(
            learned.filename.drop_duplicates().sample(frac=1, random_state=0), recordings, recipe, RANGED_WINDOWS
        )
    classifier.export(listener, part)
    lighter.export(network, listener, part, examples)
    if saved_model:
        classifier.export_saved_model(listener, part)
    if network.is_chain:
        shutil.copyfile(network.audio.path, part / BACKBONE_FILE)
    chain = network.audio.pieces if network.is_chain else None
    name, labels, used = network.backbone.name, network.labels, versions()
    exported = bundle.write(part, name, labels, recipe, used, chain, about)
    # On the processor and in full precision, as it will be asked: a GPU's shorter floats differ by more than is allowed here.
    with devices.exact():
        expected = np.asarray(listener(network.audio.embed(waveforms) if network.is_chain else waveforms))
    differences = {
        precision: float(np.abs(Predictor([exported], precision=precision).probabilities(waveforms) - expected).max())
        for precision in exported.variants
    }
    if saved_model:
        saved = classifier.saved_answers(part, waveforms)
        differences[bundle.FLOAT32] = max(differences[bundle.FLOAT32], float(np.abs(saved - expected).max()))
    if exported.network is not None:  # the core asked that one; who has no SciPy asks the whole graph
        graph = Graph(part / bundle.MODEL_FILE, (1, recipe.window_samples))
        said = np.concatenate([graph.run(waveform[None]) for waveform in waveforms])
        differences[bundle.FLOAT32] = max(differences[bundle.FLOAT32], float(np.abs(said - expected).max()))
    if not differences[bundle.FLOAT32] <= EXPORT_TOLERANCE:
        difference = differences[bundle.FLOAT32]
        raise UserError(f"{part}: the exported graph differs from Keras by {difference:.3g}; it is not published")
    if not differences[bundle.FLOAT16] <= FLOAT16_TOLERANCE:
        difference = differences.pop(bundle.FLOAT16)
        print(f"float16 differs from Keras by {difference:.3g}: it is left out of the bundle", file=sys.stderr)
        (part / bundle.FLOAT16_FILE).unlink()
        bundle.write(part, name, labels, recipe, used, chain, about)
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    part.rename(folder / "bundle")
    return differences


def _waveforms(names: Iterable[str], recordings: pd.DataFrame, recipe: Recipe, most: int) -> np.ndarray:
    """The first two windows of recordings until there are `most`: float32 [windows, samples]; who is absent is left out."""
    path_of = dict(zip(recordings.filename, recordings.path))
    found: list[np.ndarray] = []
    for name in names:
        if name in path_of and len(found) < most:
            found += [window[0] for window in some_windows(path_of[name], recipe, most=2).values()]
    return np.array(found[:most])


def about(prepared: Prepared, network: Network, split: Split, fold: int, training_cpu_seconds: float) -> dict[str, str]:
    """What a bundle's card says of the training, by name."""
    learned = split.windows[split.train]
    recordings, sources = learned.filename.nunique(), learned.source.nunique()
    return {
        "data": Path(prepared.source.get("data", "unknown")).name,
        "recordings": f"{recordings} of {sources} sources, {len(learned)} windows; fold {fold} was held out",
        "network": f"{network.backbone.name}, {network.parameters or 'an unknown number of'} parameters",
        "backbone": network.backbone.handle or Path(network.backbone.path).name or "none: it began at random",
        "cost": f"{training_cpu_seconds:.0f} CPU seconds",
        "trained": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write_run(
    place: Place,
    prepared: Prepared,
    network: Network,
    split: Split,
    started: tuple[float, float],
    cpu_seconds: tuple[float, float],
    export_differences: dict[str, float],
) -> None:
    """Keep what this fold was, in run.json; written last, so it says that the fold is finished.

    started: perf_counter and process_time at the start
    cpu_seconds: of all epochs, resumed or not, and of the embeddings and variants they learned from, whenever made; and of the
        embeddings alone, which other folds share
    """
    write_json(
        place.folder / "run.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "source": prepared.source,
            "settings": place.settings,
            "recipe": network.recipe.to_dict(),
            "backbone": network.identity,
            "versions": versions(),
            "commit": commit(),
            "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
            "windows": {"folder": str(prepared.folder), "sha256": prepared.digest},
            "parameters": network.parameters or None,
            "train_windows": int(split.train.sum()),
            "validation_windows": int(split.validation.sum()),
            "split": split.digest,
            "export_difference": export_differences[bundle.FLOAT32],
            "export_differences": export_differences,
            "wall_seconds": round(time.perf_counter() - started[0], 1),
            "cpu_seconds": round(time.process_time() - started[1], 1),
            "training_cpu_seconds": round(cpu_seconds[0], 1),
            "embedding_cpu_seconds": round(cpu_seconds[1], 1),
        },
    )


def is_finished(folder: Path, settings: str, int8: bool = False) -> bool:
    """Whether the fold in `folder` is trained whole, with these settings; int8: and exported in bytes, too."""
    try:
        same = described(folder).get("settings") == settings
        variants = bundle.load(folder / "bundle").variants
        return same and (folder / "oof.parquet").is_file() and (not int8 or bundle.INT8 in variants)
    except (OSError, UserError):
        return False


def check_alike(folders: Sequence[Path]) -> None:
    """Raise UserError if folds of a run were trained by different recipes or on other windows: they are no one model's."""
    known = {}
    for folder in folders:
        one = described(folder)
        if "recipe" in one and "windows" in one:
            known[folder] = {**one["recipe"], "prepared windows": one["windows"].get("sha256")}
    for folder, one in known.items():
        first, expected = next(iter(known.items()))
        for name in sorted(expected.keys() | one.keys()):
            if one.get(name) != expected.get(name):
                raise UserError(
                    f"{folder} and {first} are no one run: {name} is {one.get(name)} in one and {expected.get(name)} in the "
                    "other; train them alike, or give them one by one"
                )


def source_of(folder: Path) -> dict:
    """Where the recordings of a fold are, as layouts.DataSource gives it; {} if it does not say."""
    return described(folder).get("source", {})


def described(folder: Path) -> dict:
    """What run.json says of a fold; {} if it is not there or damaged."""
    try:
        found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def compare_with_bundle(
    folders: Sequence[Path], recordings: pd.DataFrame, per_fold: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Hold each fold's bundle against its out-of-fold predictions on the audio of some recordings: the whole road again.

    recordings: columns filename, path; what is not among them or cannot be read is left out
    returns: what the bundles answered and what was predicted, float arrays [windows, labels]. They differ by what storing
        windows as bytes rounds away.
    """
    path_of = dict(zip(recordings.filename, recordings.path))
    answered, predicted = [], []
    for folder in folders:
        core = Predictor([bundle.load(folder / "bundle")], calibrated=False)
        oof = pd.read_parquet(folder / "oof.parquet")
        oof = oof[oof.filename.isin(path_of)]
        for filename in oof.filename.drop_duplicates().sample(frac=1, random_state=0)[:per_fold]:
            rows = oof[oof.filename == filename]
            windows = some_windows(path_of[filename], core.recipe, core.recipe.channels, set(rows.start_seconds))
            for start, channel, expected in zip(rows.start_seconds, rows.channel, rows[list(core.labels)].to_numpy()):
                if start in windows:
                    answered.append(core.probabilities(windows[start][channel : channel + 1])[0])
                    predicted.append(expected)
    return np.array(answered), np.array(predicted)
