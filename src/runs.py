"""A run's folder: its recipe, what it cost, its out-of-fold predictions, and the check that its export says the same.

runs/<model>/fold<k>/run.json       recipe, command, versions, cost
runs/<model>/fold<k>/oof.parquet    out-of-fold predictions
runs/<model>/fold<k>/bundle/        what goes to the field
"""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from src.audio import AudioFile, file_windows
from src.bundle import Bundle
from src.bundle import load as load_bundle
from src.competition import NOCALL
from src.errors import UserError
from src.files import write_json, written_whole
from src.metrics import mean_by, top1
from src.predictor import Predictor
from src.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from src.backbones import Backbone
    from src.training import Split

EXPORT_TOLERANCE = 1e-3  # greatest difference in probability between Keras and the exported graph
CHECKED_WINDOWS = 16


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions as arrays.

    windows: what each window is: filename, ebird_code, source, fold, ...
    probabilities: float32 array [windows, labels]
    primary: int array [windows], -1 for nocall
    secondary: bool array [windows, labels]
    """

    labels: tuple[str, ...]
    windows: pd.DataFrame
    probabilities: np.ndarray
    primary: np.ndarray
    secondary: np.ndarray


def training_recipe(prepared: Recipe, **changes: Any) -> Recipe:
    """The prepared windows' recipe with the training's numbers; a change of None leaves what was there."""
    return replace(prepared, **{key: value for key, value in changes.items() if value is not None})


def default_rate(backbone: Backbone, freeze: bool | None) -> float:
    """Learning rate where none is given: pretrained weights that are to be kept in mind take smaller steps."""
    return 3e-4 if backbone.handle and not freeze else 1e-3


def use_gpu_politely() -> None:
    """Let TensorFlow take a GPU's memory as it needs it, instead of all at once."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def versions() -> dict[str, str]:
    """Versions of what shapes a model."""
    packages = ("tensorflow", "keras", "tensorflow-hub", "numpy", "librosa", "soxr", "ai-edge-litert")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def write_oof(folder: Path, oof: pd.DataFrame) -> None:
    """Keep the out-of-fold predictions."""
    with written_whole(folder / "oof.parquet") as temporary:
        oof.to_parquet(temporary, index=False)


def read_oof(folders: Sequence[Path], labels: Sequence[str]) -> OutOfFold:
    """The out-of-fold predictions of some folds together. Raises UserError if one is absent or of other species."""
    tables = []
    for folder in folders:
        try:
            table = pd.read_parquet(folder / "oof.parquet")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / 'oof.parquet'}: cannot be read ({error}); train this fold again") from error
        if list(table.columns[-len(labels) :]) != list(labels):
            raise UserError(f"{folder / 'oof.parquet'}: answers for other species than the other folds; train it again")
        tables.append(table)
    return as_arrays(pd.concat(tables, ignore_index=True), labels)


def as_arrays(oof: pd.DataFrame, labels: Sequence[str]) -> OutOfFold:
    """A table of out-of-fold predictions as arrays."""
    column = {code: number for number, code in enumerate(labels)}
    secondary = np.zeros((len(oof), len(labels)), bool)
    for row, codes in enumerate(oof.secondary):
        for code in codes.split():
            if code in column:
                secondary[row, column[code]] = True
    primary = oof.ebird_code.map(lambda code: -1 if code == NOCALL else column[code]).to_numpy(int)
    probabilities = oof[list(labels)].to_numpy(np.float32)
    return OutOfFold(tuple(labels), oof.drop(columns=list(labels)), probabilities, primary, secondary)


def accuracies(oof: OutOfFold) -> tuple[float, float]:
    """(window accuracy, recording accuracy) on windows of birds: share whose likeliest species is the labelled one."""
    birds = oof.primary >= 0
    by_window = top1(oof.probabilities[birds], oof.primary[birds])
    filenames = oof.windows.filename.to_numpy()[birds]
    names, means = mean_by(oof.probabilities[birds], filenames)
    first = pd.Series(oof.primary[birds], index=filenames).groupby(level=0).first().loc[names].to_numpy()
    return by_window, top1(means, first)


def check_export(listener: keras.Model, exported: Bundle, recordings: pd.DataFrame, oof: pd.DataFrame) -> float:
    """Greatest difference in probability between Keras and the bundle on real audio of the fold.

    Raises UserError if it exceeds EXPORT_TOLERANCE, or if anything is not a number.
    """
    path_of = dict(zip(recordings.filename, recordings.path))
    windows = []
    for filename in oof.filename.unique():
        if filename in path_of and len(windows) < CHECKED_WINDOWS:
            with AudioFile(Path(path_of[filename])) as audio:
                windows += [window.samples[0] for window in file_windows(audio, exported.recipe)]
    waveforms = np.stack(windows[:CHECKED_WINDOWS])
    expected = listener.predict(waveforms, verbose=0)
    difference = float(np.abs(Predictor([exported]).probabilities(waveforms) - expected).max())
    if not difference <= EXPORT_TOLERANCE:
        raise UserError(f"{exported.folder}: the exported graph differs from Keras by {difference:.3g}; do not use it")
    return difference


def write_run(
    folder: Path,
    recipe: Recipe,
    model: keras.Model,
    split: Split,
    history: pd.DataFrame,
    started: tuple[float, float],
    export_difference: float,
) -> None:
    """Keep what this fold was, in run.json. `started`: perf_counter and process_time at the start."""
    write_json(
        folder / "run.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "recipe": recipe.to_dict(),
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "parameters": model.count_params(),
            "train_windows": int(split.train.sum()),
            "validation_windows": int(split.validation.sum()),
            "export_difference": export_difference,
            "wall_seconds": round(time.perf_counter() - started[0], 1),
            "cpu_seconds": round(time.process_time() - started[1], 1),
            "training_cpu_seconds": round(float(history.cpu_seconds.sum()), 1),  # all epochs, resumed or not
        },
    )


def summary(oof: pd.DataFrame, labels: Sequence[str], fold: int, folder: Path, started: tuple[float, float]) -> str:
    """What a person wants to read when a fold is done."""
    window, recording = accuracies(as_arrays(oof, labels))
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    return (
        f"fold {fold}: window accuracy {window:.3f}, recording accuracy {recording:.3f} "
        f"({len(oof)} windows); {wall:.0f} s, {cpu:.0f} CPU s\n{folder / 'bundle'}"
    )


def compare_with_bundle(
    folders: Sequence[Path], recordings: pd.DataFrame, per_fold: int = 10
) -> tuple[int, float, float]:
    """Hold each fold's bundle against its out-of-fold predictions on the audio of some recordings: the whole road again.

    They differ by what storing windows as bytes rounds away. Returns (windows compared, mean and greatest difference).
    """
    path_of = dict(zip(recordings.filename, recordings.path))
    differences = []
    for folder in folders:
        core = Predictor([load_bundle(folder / "bundle")])
        oof = pd.read_parquet(folder / "oof.parquet")
        for filename in oof.filename.drop_duplicates().sample(frac=1, random_state=0)[:per_fold]:
            rows = oof[(oof.filename == filename)]
            with AudioFile(Path(path_of[filename])) as audio:
                windows = {w.start_seconds: w.samples for w in file_windows(audio, core.recipe, core.recipe.channels)}
            for start, channel, expected in zip(rows.start_seconds, rows.channel, rows[list(core.labels)].to_numpy()):
                answered = core.probabilities(windows[start][channel : channel + 1])[0]
                differences.append(np.abs(answered - expected).max())
    return len(differences), float(np.mean(differences)), float(np.max(differences))
