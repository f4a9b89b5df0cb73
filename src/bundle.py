"""A trained model as a folder: `model.tflite` (waveform in, probabilities out) and `bundle.json` (everything needed to use it).

    bundles = find([Path("runs/b6")])         # a bundle, a fold or a run (all its folds), or several
    bundle.labels, bundle.recipe, bundle.threshold, bundle.model_path

Nothing in a bundle is executed. No TensorFlow import.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError
from src.files import sha256, write_json
from src.recipe import Recipe

SCHEMA = 1
MODEL_FILE = "model.tflite"
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says.

    labels: the species' ebird codes in the order of the model's outputs
    threshold: a species is called present where its probability reaches it
    threshold_source: "default", or what it was fitted on
    scores: out-of-fold figures, by name
    """

    folder: Path
    name: str
    labels: tuple[str, ...]
    recipe: Recipe
    threshold: float
    threshold_source: str
    scores: dict
    versions: dict

    @property
    def model_path(self) -> Path:
        """The LiteRT file."""
        return self.folder / MODEL_FILE


def write(folder: Path, name: str, labels: Sequence[str], recipe: Recipe, versions: dict) -> Bundle:
    """Write bundle.json beside the `model.tflite` that is already in `folder`, with the default threshold."""
    contents = {
        "schema": SCHEMA,
        "name": name,
        "labels": list(labels),
        "threshold": DEFAULT_THRESHOLD,
        "threshold_source": "default",
        "scores": {},
        "versions": versions,
        "sha256": {MODEL_FILE: sha256(folder / MODEL_FILE)},
        "recipe": recipe.to_dict(),
    }
    write_json(folder / "bundle.json", contents)
    return load(folder)


def update(bundle: Bundle, threshold: float, threshold_source: str, scores: dict) -> None:
    """Keep a fitted threshold and the scores it gives in the bundle."""
    path = bundle.folder / "bundle.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents.update(threshold=threshold, threshold_source=threshold_source, scores=scores)
    write_json(path, contents)


def load(folder: Path) -> Bundle:
    """Read a bundle and check it. Raises UserError that names the file and what is wrong with it."""
    path = folder / "bundle.json"
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if contents["schema"] != SCHEMA:
            raise UserError(
                f"{path}: schema {contents['schema']}, and this software reads {SCHEMA}; export the bundle again"
            )
        bundle = Bundle(
            folder=folder,
            name=str(contents["name"]),
            labels=tuple(str(label) for label in contents["labels"]),
            recipe=Recipe.from_dict(contents["recipe"]),
            threshold=float(contents["threshold"]),
            threshold_source=str(contents["threshold_source"]),
            scores=dict(contents["scores"]),
            versions=dict(contents["versions"]),
        )
        promised = contents["sha256"][MODEL_FILE]
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; a bundle is the folder `bundle` that train.py writes in a fold"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a bundle's description ({type(error).__name__}: {error})") from error
    if not bundle.labels or len(set(bundle.labels)) != len(bundle.labels):
        raise UserError(f"{path}: labels must be there, each once")
    if not (math.isfinite(bundle.threshold) and 0 <= bundle.threshold <= 1):
        raise UserError(f"{path}: threshold must lie in [0, 1], not {bundle.threshold}")
    if not bundle.model_path.is_file():
        raise UserError(f"{bundle.model_path}: missing; copy the whole bundle folder")
    if sha256(bundle.model_path) != promised:
        raise UserError(
            f"{bundle.model_path}: its SHA-256 is not the one in bundle.json: damaged or replaced; copy it again"
        )
    return bundle


def find(paths: Sequence[Path]) -> list[Bundle]:
    """The bundles that `--model` names: each path is a bundle, a fold of a run, or a run, which stands for all its folds.

    Raises UserError if a path holds none, or if their labels differ.
    """
    bundles = []
    for path in paths:
        folders = [folder for folder in (path, path / "bundle") if (folder / "bundle.json").is_file()]
        if not folders:
            folders = sorted(file.parent for file in path.glob("fold*/bundle/bundle.json"))
        if not folders:
            raise UserError(
                f"{path}: no bundle there; give a bundle, a fold (runs/b6/fold0) or a run (runs/b6) that train.py wrote"
            )
        bundles += [load(folder) for folder in folders]
    for bundle in bundles[1:]:
        if bundle.labels != bundles[0].labels:
            raise UserError(f"{bundle.folder} and {bundles[0].folder} answer for different species: not one ensemble")
    return bundles
