"""A run's folder: what a fold was and cost, and its bundle, published once it is shown to say what Keras says.

runs/<model>/fold<k>/run.json       recipe, command, versions, cost
runs/<model>/fold<k>/oof.parquet    out-of-fold predictions (see oof.py)
runs/<model>/fold<k>/bundle/        what goes to the field
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src import bundle, storage
from src.audio import AudioError, AudioFile, file_windows
from src.errors import UserError
from src.files import write_json
from src.predictor import Predictor
from src.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from src.training import Split

EXPORT_TOLERANCE = 1e-3  # greatest difference in probability between Keras and the exported graph
CHECKED_WINDOWS = 16


def versions() -> dict[str, str]:
    """Versions of what shapes a model."""
    packages = ("tensorflow", "keras", "tensorflow-hub", "numpy", "librosa", "soxr", "ai-edge-litert")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def begin(folder: Path) -> None:
    """Remove what an earlier training of this fold left: it is not to stand beside the weights of the new one."""
    for name in ("checkpoint.npz", "history.csv", "oof.parquet", "run.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "bundle", ignore_errors=True)


def publish(
    folder: Path,
    listener: keras.Model,
    labels: Sequence[str],
    recipe: Recipe,
    recordings: pd.DataFrame,
    oof: pd.DataFrame,
) -> float:
    """Export the network to folder/bundle, once its answers on real audio of the fold are shown to be Keras's.

    recordings: columns filename, path; oof: the fold's windows, whose recordings are listened to
    returns: the greatest difference in probability. Raises UserError if it exceeds EXPORT_TOLERANCE or is not a number;
    no bundle is published then.
    """
    from src import classifier

    part = folder / ".bundle.part"
    shutil.rmtree(part, ignore_errors=True)
    classifier.export(listener, part)
    exported = bundle.write(part, recipe.backbone, labels, recipe, versions())
    path_of = dict(zip(recordings.filename, recordings.path))
    waveforms = []
    for filename in oof.filename.unique():
        if filename in path_of and len(waveforms) < CHECKED_WINDOWS:
            waveforms += [window[0] for window in _windows(path_of[filename], recipe, "mono").values()]
    if not waveforms:
        raise UserError(f"{folder}: no recording of this fold is there to check the export on; is --data right?")
    waveforms = np.stack(waveforms[:CHECKED_WINDOWS])
    expected = listener.predict(waveforms, verbose=0)
    difference = float(np.abs(Predictor([exported]).probabilities(waveforms) - expected).max())
    if not difference <= EXPORT_TOLERANCE:
        raise UserError(f"{part}: the exported graph differs from Keras by {difference:.3g}; it is not published")
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    part.rename(folder / "bundle")
    return difference


def _windows(path: str, recipe: Recipe, channels: str, starts: set[float] | None = None) -> dict[float, np.ndarray]:
    """A recording's windows by their start in seconds, float32 [channels, samples]; none if it cannot be read.

    starts: which ones; None: the first CHECKED_WINDOWS
    """
    found: dict[float, np.ndarray] = {}
    try:
        with storage.local_copy(path) as local, AudioFile(local) as audio:
            for window in file_windows(audio, recipe, channels):
                if starts is None or window.start_seconds in starts:
                    found[window.start_seconds] = window.samples
                if len(found) == (CHECKED_WINDOWS if starts is None else len(starts)):
                    break
    except (AudioError, FileNotFoundError):
        return {}
    return found


def write_run(
    folder: Path,
    source: dict,
    weights: Path | None,
    recipe: Recipe,
    model: keras.Model,
    split: Split,
    history: pd.DataFrame,
    started: tuple[float, float],
    export_difference: float,
) -> None:
    """Keep what this fold was, in run.json; written last, so it says that the fold is finished.

    source: where the recordings are, as layouts.DataSource gives it
    weights: where the backbone's came from, if not from its handle; started: perf_counter and process_time at the start
    """
    write_json(
        folder / "run.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "source": source,
            "weights": str(weights or ""),
            "recipe": recipe.to_dict(),
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "parameters": model.count_params(),
            "train_windows": int(split.train.sum()),
            "validation_windows": int(split.validation.sum()),
            "split": split.digest,
            "export_difference": export_difference,
            "wall_seconds": round(time.perf_counter() - started[0], 1),
            "cpu_seconds": round(time.process_time() - started[1], 1),
            "training_cpu_seconds": round(float(history.cpu_seconds.sum()), 1),  # all epochs, resumed or not
        },
    )


def is_finished(folder: Path, recipe: Recipe, split: Split, weights: Path | None) -> bool:
    """Whether the fold in `folder` is trained whole, with this recipe and these weights, on this split."""
    try:
        described = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        same = Recipe.from_dict(described["recipe"]) == recipe
        same = same and (described["split"], described["weights"]) == (split.digest, str(weights or ""))
        return same and bool(bundle.load(folder / "bundle")) and (folder / "oof.parquet").is_file()
    except (OSError, ValueError, KeyError, UserError):
        return False


def source_of(folder: Path) -> dict:
    """Where the recordings of a fold are, as layouts.DataSource gives it; {} if it does not say."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError):
        return {}


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
        core = Predictor([bundle.load(folder / "bundle")])
        oof = pd.read_parquet(folder / "oof.parquet")
        oof = oof[oof.filename.isin(path_of)]
        for filename in oof.filename.drop_duplicates().sample(frac=1, random_state=0)[:per_fold]:
            rows = oof[oof.filename == filename]
            windows = _windows(path_of[filename], core.recipe, core.recipe.channels, set(rows.start_seconds))
            for start, channel, expected in zip(rows.start_seconds, rows.channel, rows[list(core.labels)].to_numpy()):
                if start in windows:
                    answered.append(core.probabilities(windows[start][channel : channel + 1])[0])
                    predicted.append(expected)
    return np.array(answered), np.array(predicted)
