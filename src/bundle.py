"""A trained model as a folder: LiteRT files (waveform in, probabilities out), `bundle.json` (everything needed to use them),
and README.md, the same for a person.

    model.tflite               float32, whole
    network.tflite             what comes after the front end, in float32: for who makes the image faster (see predictor.py)
    front_end.tflite           the front end alone, in float32, and what comes after it, lighter:
    model_float16.tflite       half as large; probabilities differ by up to 0.03
    model_int8.tflite          in bytes, if that was asked for
    backbone.tflite            a network that was a LiteRT file: on pieces of the window, before the head in model.tflite
    saved_model.pb             float32, whole, for TensorFlow on a Jetson's GPU (see edge/jetson.py), if that was asked for

    bundles = find([Path("runs/b6")])         # a bundle, a fold or a run (all its folds), or several
    bundle.labels, bundle.recipe, bundle.threshold, bundle.thresholds, bundle.calibration
    bundle.graphs("float16")                  # paths of the files that are run one after the other

Nothing in a bundle is executed. No TensorFlow import.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src import card
from src.calibration import Calibration
from src.errors import UserError
from src.files import sha256, write_json, write_text
from src.pieces import POOLINGS, Pieces
from src.recipe import Recipe
from src.soundscape import Decision

SCHEMA = 1
MODEL_FILE = "model.tflite"
BACKBONE_FILE = "backbone.tflite"
FLOAT16_FILE = "model_float16.tflite"
FRONT_END_FILE = "front_end.tflite"
INT8_FILE = "model_int8.tflite"
NETWORK_FILE = "network.tflite"
SAVED_MODEL_FILE = "saved_model.pb"  # TensorFlow's own name for it: the bundle's folder is a SavedModel
FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
CARD_FILE = "README.md"
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says.

    labels: the species' ebird codes in the order of the model's outputs
    threshold: a species is called present where its calibrated probability reaches it
    thresholds: the same with one for each species, in the order of the labels; all equal where one does as well
    calibration: what the model's probabilities go through first
    decision: what decides beside the thresholds
    threshold_source: "default", or what it was fitted on
    scores: out-of-fold figures, by name
    variants: names of the LiteRT files by their precision ("float32", "float16", "int8"), run one after the other
    network: the file of the same as `model.tflite` from the image on; None: there is none
    pieces: how a window is cut for `backbone.tflite`; None: there is no such file
    about: what it was trained on and what it cost, by name
    """

    folder: Path
    name: str
    labels: tuple[str, ...]
    recipe: Recipe
    threshold: float
    thresholds: tuple[float, ...]
    calibration: Calibration
    decision: Decision
    threshold_source: str
    scores: dict
    versions: dict
    variants: Mapping[str, tuple[str, ...]]
    pieces: Pieces | None
    about: dict
    network: Path | None = None

    def graphs(self, precision: str = FLOAT32) -> list[Path]:
        """The LiteRT files of a precision, run one after the other. Raises UserError if the bundle has none."""
        if precision not in self.variants:
            raise UserError(f"{self.folder}: has no {precision} model, but {', '.join(self.variants)}")
        return [self.folder / name for name in self.variants[precision]]

    @property
    def files(self) -> list[str]:
        """Names of all that belongs to it, but the card."""
        network = [self.network.name] if self.network else []
        return ["bundle.json", *sorted({name for names in self.variants.values() for name in names}), *network]


def write(
    folder: Path,
    name: str,
    labels: Sequence[str],
    recipe: Recipe,
    versions: dict,
    chain: Pieces | None = None,
    about: dict | None = None,
) -> Bundle:
    """Write bundle.json and the card beside the LiteRT files that are already in `folder`, with the default threshold.

    chain: how a window is cut for `backbone.tflite`, whose features `model.tflite` takes; None: there is no such file
    about: what the model was trained on and what it cost, for the card
    """
    before = () if chain is None else (BACKBONE_FILE,)
    cut = before or ((FRONT_END_FILE,) if (folder / FRONT_END_FILE).is_file() else ())
    variants = {FLOAT32: (*before, MODEL_FILE), FLOAT16: (*cut, FLOAT16_FILE), INT8: (FRONT_END_FILE, INT8_FILE)}
    variants = {name: files for name, files in variants.items() if all((folder / file).is_file() for file in files)}
    contents = {
        "schema": SCHEMA,
        "name": name,
        "labels": list(labels),
        "threshold": DEFAULT_THRESHOLD,
        "threshold_source": "default",
        "scores": {},
        "versions": versions,
        "variants": {name: list(files) for name, files in variants.items()},
        "sha256": {file: sha256(folder / file) for file in _promised(folder, variants)},
        "about": about or {},
        "recipe": recipe.to_dict(),
    }
    if chain is not None:
        contents.update(sub_window_samples=chain.size, sub_hop_samples=chain.hop, sub_pooling=chain.pooling)
    write_json(folder / "bundle.json", contents)
    write_text(folder / CARD_FILE, card.text(contents))
    return load(folder)


def _promised(folder: Path, variants: dict[str, tuple[str, ...]]) -> list[str]:
    """Names of the files whose SHA-256 bundle.json keeps. That of saved_model.pb is for the Jetson: nobody else reads it."""
    names = {name for files in variants.values() for name in files}
    return sorted(names) + [name for name in (NETWORK_FILE, SAVED_MODEL_FILE) if (folder / name).is_file()]


def update(
    bundle: Bundle,
    threshold: float,
    threshold_source: str,
    scores: dict,
    thresholds: Sequence[float] | None = None,
    calibration: Calibration | None = None,
    decision: Decision | None = None,
) -> None:
    """Keep a fitted threshold and the scores it gives in the bundle; None: no thresholds of the species, no calibration,
    nothing that decides beside them."""
    path = bundle.folder / "bundle.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents.update(threshold=threshold, threshold_source=threshold_source, scores=scores)
    for name, value in (
        ("thresholds", None if thresholds is None else [float(value) for value in thresholds]),
        ("calibration", None if calibration is None else calibration.to_dict()),
        ("decision", None if decision is None else decision.to_dict()),
    ):
        contents.pop(name, None)
        if value is not None:
            contents[name] = value
    write_json(path, contents)
    write_text(bundle.folder / CARD_FILE, card.text(contents))


def load(folder: Path) -> Bundle:
    """Read a bundle and check it. Raises UserError that names the file and what is wrong with it."""
    path = folder / "bundle.json"
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if contents["schema"] != SCHEMA:
            raise UserError(
                f"{path}: schema {contents['schema']}, and this software reads {SCHEMA}; export the bundle again"
            )
        labels = tuple(str(label) for label in contents["labels"])
        threshold = float(contents["threshold"])
        # Bundles of an earlier version, and those never evaluated, have neither.
        thresholds = contents.get("thresholds", [threshold] * len(labels))
        calibration = contents.get("calibration", Calibration().to_dict())
        variants = contents.get("variants", {FLOAT32: contents.get("graphs", [MODEL_FILE])})
        variants = {str(name): tuple(str(file) for file in files) for name, files in variants.items()}
        bundle = Bundle(
            folder=folder,
            name=str(contents["name"]),
            labels=labels,
            recipe=Recipe.from_dict(contents["recipe"]),
            threshold=threshold,
            thresholds=tuple(float(value) for value in thresholds),
            calibration=Calibration.from_dict(calibration, len(labels)),
            decision=Decision.from_dict(contents.get("decision", {})),
            threshold_source=str(contents["threshold_source"]),
            scores=dict(contents["scores"]),
            versions=dict(contents["versions"]),
            variants=variants,
            pieces=_pieces(contents) if "sub_window_samples" in contents else None,
            about=dict(contents.get("about", {})),
            network=folder / NETWORK_FILE if NETWORK_FILE in contents["sha256"] else None,
        )
        promised = {file: contents["sha256"][file] for files in variants.values() for file in files}
        if NETWORK_FILE in contents["sha256"]:
            promised[NETWORK_FILE] = contents["sha256"][NETWORK_FILE]
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
    if len(bundle.thresholds) != len(bundle.labels):
        raise UserError(f"{path}: has {len(bundle.thresholds)} thresholds for {len(bundle.labels)} species")
    for label, value in zip(bundle.labels, bundle.thresholds):
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise UserError(f"{path}: the threshold of {label} must lie in [0, 1], not {value}")
    for files in (variants.get(FLOAT32, ()), *variants.values()):
        if len(files) not in (1, 2) or any(Path(file).name != file for file in files):
            raise UserError(
                f"{path}: variants must name one or two files of the folder, not {', '.join(files) or 'none'}"
            )
    if bundle.pieces is not None and any(len(files) != 2 for files in variants.values()):
        raise UserError(f"{path}: a model on pieces of the window has a {BACKBONE_FILE} and a {MODEL_FILE}")
    for file, digest in promised.items():
        _check(folder / file, digest)
    return bundle


def _pieces(contents: dict) -> Pieces:
    pieces = Pieces(int(contents["sub_window_samples"]), int(contents["sub_hop_samples"]), contents["sub_pooling"])
    if pieces.size < 0 or pieces.hop < 1 or pieces.pooling not in POOLINGS:
        raise ValueError(f"pieces of {pieces.size} samples every {pieces.hop}, pooled by {pieces.pooling}")
    return pieces


def _check(file: Path, promised: str) -> None:
    if not file.is_file():
        raise UserError(f"{file}: missing; copy the whole bundle folder")
    if sha256(file) != promised:
        raise UserError(f"{file}: its SHA-256 is not the one in bundle.json: damaged or replaced; copy it again")


def find(paths: Sequence[Path]) -> list[Bundle]:
    """The bundles that `--model` names: each path is a bundle, a fold of a run, or a run, which stands for all its folds.

    Raises UserError if a path holds none, or if their labels differ.
    """
    bundles: list[Bundle] = []
    known: set[Path] = set()  # who is named twice has one voice all the same
    for path in paths:
        folders = [folder for folder in (path, path / "bundle") if (folder / "bundle.json").is_file()]
        if not folders:
            folders = sorted(file.parent for file in path.glob("fold*/bundle/bundle.json"))
        if not folders:
            if not path.exists():
                raise UserError(f"{path}: no such folder; give a bundle, a fold or a run that train.py wrote (runs/b6)")
            raise UserError(
                f"{path}: no bundle there; give a bundle, a fold (runs/b6/fold0) or a run (runs/b6) that train.py wrote"
            )
        absent = [fold.name for fold in sorted(path.glob("fold*")) if fold / "bundle" not in folders]
        if absent and len(folders) > 1:
            print(f"{path}: {', '.join(absent)} without a bundle; {len(folders)} folds answer", file=sys.stderr)
        bundles += [load(folder) for folder in folders if folder.resolve() not in known]
        known |= {folder.resolve() for folder in folders}
    for bundle in bundles[1:]:
        if bundle.labels != bundles[0].labels:
            raise UserError(f"{bundle.folder} and {bundles[0].folder} answer for different species: not one ensemble")
    return bundles
