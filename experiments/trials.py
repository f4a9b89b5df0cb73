"""One trial of the study: windows by a recipe, folds by a seed, a backbone with a head; what it answers out of fold, kept.

    trial = Trial("high-pass 1400 Hz", preparing={"highpass_hz": 1400.0})      # differences from the default recipe
    bench = Bench(DataSource("data/birds", nocall="data/nocall"), Path("input/prepared/experiments"))
    table, cost = bench.fold(trial, seed=0, fold=0)                            # trains it, or reads what is kept of it

A frozen backbone's embeddings are made once for all folds and seeds. What is finished is kept under `work` by what it is of,
not by the trial's name, so trials of several studies share it; a training that was killed goes on after its last epoch.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError
from src.files import locked, write_json, write_text
from src.recipe import Recipe, preset

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from src.layouts import DataSource
    from src.networks import Network
    from src.oof import OutOfFold
    from src.shards import Prepared
    from src.splits import Split

N_FOLDS = 5
FEW_FOLDS, FEW_EPOCHS = 2, 6  # of what is fine-tuned, where the default has 5 and 15: hours of two cores, not days
GROUPED, RANDOM_RECORDINGS, RANDOM_WINDOWS = "grouped", "random recordings", "random windows"

# What the head of a frozen backbone never meets: its results stay true when these change.
ONLY_FINE_TUNING = (
    *("background_probability", "background_snr_db", "mixup_probability", "mixup_gain_db", "gain_db", "high_loss_db"),
    *("mask_probability", "mask_frames", "mask_mels", "roll", "batch_statistics", "backbone_rate", "learning_rate"),
    *("weight_decay", "warmup_epochs", "epochs", "steps_per_epoch"),
)


@dataclass(frozen=True)
class Trial:
    """A condition of the study.

    preparing, training: fields of the recipe that differ from the default, those that shape the windows and all others
    backbone: a name of the registry, or a path; fine_tuned: whether it learns, or only its head does
    split: GROUPED by source, or one that leaks: RANDOM_RECORDINGS, RANDOM_WINDOWS
    folds: how many of the five are validated
    logistic: scikit-learn's logistic regression on the embeddings in place of the recipe's head, to be measured against
    """

    name: str
    preparing: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "mobilenet_v2_035"
    fine_tuned: bool = False
    split: str = GROUPED
    folds: int = N_FOLDS
    logistic: bool = False

    @property
    def changes(self) -> dict[str, Any]:
        """How its recipe differs from the default's, the backbone aside."""
        return {**self.preparing, **self.training}

    def recipe(self, seed: int) -> Recipe:
        """The whole recipe. Raises UserError if it knows no such field."""
        backbone = Path(self.backbone).name
        frozen = {} if self.fine_tuned else {"unfreeze": 0}
        try:
            return replace(preset("default"), **{**frozen, **self.changes, "backbone": backbone, "seed": seed})
        except TypeError as error:
            raise UserError(f"trial {self.name!r}: {error}") from error

    def describe(self) -> dict:
        """What shapes its results, the seed aside: as JSON has it."""
        recipe = json.loads(json.dumps(self.recipe(0).to_dict()))
        described = {"recipe": recipe, "split": self.split, "fine_tuned": self.fine_tuned}
        return {**described, "logistic": True} if self.logistic else described

    def is_of(self, described: Mapping) -> bool:
        """Whether results that were described so are this trial's, whatever fields the recipe has gained since."""
        try:
            other = _shaping(Recipe.from_dict(described["recipe"]), self.fine_tuned)
        except (UserError, KeyError):
            return False
        own = self.split, self.fine_tuned, self.logistic, _shaping(self.recipe(0), self.fine_tuned)
        return (described["split"], described["fine_tuned"], described.get("logistic", False), other) == own


def fine_tuned(name: str, training: Mapping[str, Any], backbone: str = Trial.backbone) -> Trial:
    """A trial of a backbone's fine-tuning: FEW_EPOCHS on FEW_FOLDS."""
    numbers = {"epochs": FEW_EPOCHS, **training}
    return Trial(f"{name}, fine-tuned", training=numbers, backbone=backbone, fine_tuned=True, folds=FEW_FOLDS)


def _shaping(recipe: Recipe, fine_tuned: bool) -> Recipe:
    ignored = () if fine_tuned else ONLY_FINE_TUNING
    return replace(recipe, seed=0, **{name: getattr(preset("default"), name) for name in ignored})


@dataclass(frozen=True)
class Cost:
    """What a fold took: training in CPU and wall seconds; the windows and their embeddings, shared with others; its windows."""

    cpu_seconds: float
    seconds: float
    windows_cpu_seconds: float
    training_windows: int


class Bench:
    """Where trials are run: the recordings, the folder that keeps what is made of them, one loaded TensorFlow."""

    def __init__(self, source: DataSource, work: Path, workers: int = 2) -> None:
        self.source = source
        self.work = work
        self.workers = workers
        self._frozen: tuple[tuple, Network] | None = None

    @cached_property
    def recordings(self) -> pd.DataFrame:
        """The table of recordings."""
        from src import layouts

        return layouts.read(self.source)

    @cached_property
    def data_digest(self) -> str:
        """What the recordings are, wherever they lie: their names, labels and sizes, as hexadecimal digits."""
        from src.shards import labelled

        names = zip(self.recordings.filename, labelled(self.recordings), self.recordings.path.map(_bytes))
        return sha256("\n".join(sorted(" ".join(map(str, row)) for row in names)).encode()).hexdigest()[:16]

    @cached_property
    def _strategy(self) -> Any:
        """TensorFlow, started once and quietly."""
        from src import quiet

        with quiet.native_stderr():
            from src import devices

            return devices.start()

    def fold(self, trial: Trial, seed: int, fold: int) -> tuple[pd.DataFrame, Cost]:
        """The table of out-of-fold predictions of one fold and its cost; trained if it is not kept."""
        import pandas as pd

        folder = self.folder(trial, seed, fold)
        with locked(folder / ".lock"):
            if not (folder / "cost.json").is_file():
                self._train(trial, seed, fold, folder)
        cost = Cost(**json.loads((folder / "cost.json").read_text(encoding="utf-8")))
        return pd.read_parquet(folder / "oof.parquet"), cost

    def folder(self, trial: Trial, seed: int, fold: int) -> Path:
        """Where what is made of a fold is kept."""
        return self._store(trial) / f"seed{seed}" / f"fold{fold}"

    def _store(self, trial: Trial) -> Path:
        """The folder that keeps this trial's results, under whatever name they were made."""
        described = {**trial.describe(), "recordings": self.data_digest}
        runs = self.work / "runs"
        for path in sorted(runs.glob(f"{Path(trial.backbone).name}-*/trial.json")):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept.get("recordings") == self.data_digest and trial.is_of(kept):
                return path.parent
        digest = sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:10]
        folder = runs / f"{Path(trial.backbone).name}-{digest}"
        write_json(folder / "trial.json", described)
        return folder

    def _train(self, trial: Trial, seed: int, fold: int, folder: Path) -> None:
        from src import oof, training
        from src.history import History

        recipe = trial.recipe(seed)
        prepared, preparing = self.prepare(recipe)
        found = split(trial, prepared, self.recordings, recipe, seed, fold)
        settings = f"{recipe!r} {found.digest}"
        _begin(folder, settings)
        varying = 0.0
        if recipe.vae_copies:
            prepared, varying = self._vary(prepared, found, recipe, folder)
            found = split(trial, prepared, self.recordings, recipe, seed, fold)
        network = self._network(trial, recipe, found.labels)
        embeddings, embedding = self._embed(network, prepared)

        from src.networks import Place

        place, history = Place(folder, settings), History(folder)
        if trial.logistic:
            logits, spent = regress(embeddings, found)
        else:
            logits = network.fit_head(embeddings, found, place, history)
            if trial.fine_tuned:
                logits = network.fine_tune(prepared, found, place, history)
            spent = history.table()  # by the epoch, so that those of a run that was killed are in it
        oof.write(folder, training.out_of_fold(logits, found))
        cost = Cost(
            round(float(spent.cpu_seconds.sum()) + varying, 2),
            round(float(spent.seconds.sum()), 2),
            round(preparing + embedding, 2),
            int(found.train.sum()),
        )
        write_json(folder / "cost.json", asdict(cost))
        for path in folder.glob("checkpoint_*"):
            path.unlink()
        for name in ("tensorboard", "vae"):
            shutil.rmtree(folder / name, ignore_errors=True)

    def prepare(self, recipe: Recipe) -> tuple[Prepared, float]:
        """The windows of a recipe, made if they are not there, and the CPU seconds that this once took."""
        from src import paths, preparation, shards, storage
        from src.workers import Workers

        folder = paths.prepared_folder(storage.place(str(self.work)), storage.place(self.source.data), recipe)
        costs = self.work / "costs" / f"{recipe.prepared_id}.json"
        if costs.is_file() and (folder / "prepared.json").is_file():
            return shards.open_prepared(folder), json.loads(costs.read_text())
        started = time.process_time()
        source, workers = self.source.to_dict(), Workers(jobs=1)  # one: of others the CPU seconds are not seen
        prepared = preparation.prepare(self.recordings, recipe, folder, source, workers=workers)
        spent = round(time.process_time() - started, 2)
        write_json(costs, spent)
        return prepared, spent

    def _vary(self, prepared: Prepared, found: Split, recipe: Recipe, folder: Path) -> tuple[Prepared, float]:
        """The windows with an autoencoder's variants of them, and the CPU seconds of both.

        An autoencoder is trained once for all trials that have the same windows to learn from.
        """
        from src import vae_windows

        kept = self.work / "vae" / sha256(vae_windows.settings_of(prepared, found, recipe).encode()).hexdigest()[:12]
        with locked(kept / ".lock"):
            vae_windows.trained(prepared, found, recipe, kept, self.workers)
        started = time.process_time()
        extended = vae_windows.extended(prepared, found, recipe, folder, workers=self.workers, trained_in=kept)
        return extended, vae_windows.cpu_seconds(kept) + time.process_time() - started

    def _network(self, trial: Trial, recipe: Recipe, labels: tuple[str, ...]) -> Network:
        """The trial's network before it has learned. A frozen one is opened once for all seeds and folds."""
        strategy = self._strategy
        import keras

        from src import backbones, networks

        backbone = backbones.get(trial.backbone)
        what = (trial.backbone, recipe.image_size, recipe.level_bands, recipe.image_shape, labels)
        if self._frozen and (trial.fine_tuned or self._frozen[0] != what):
            self._frozen = None
        if trial.fine_tuned or not self._frozen:
            gc.collect()
            keras.backend.clear_session()
            opened = networks.open_network(backbone, recipe, labels, None, strategy, self.workers)
            if trial.fine_tuned:
                return opened
            self._frozen = what, opened
        keras.utils.set_random_seed(recipe.seed)  # as open_network does: no trial depends on those before it
        return replace(self._frozen[1], recipe=recipe, head=None, whole=None)

    def _embed(self, network: Network, prepared: Prepared) -> tuple[np.ndarray, float]:
        """What the backbone as it is published makes of the windows, and the CPU seconds that this once took."""
        from src import paths, storage

        store = paths.embeddings_folder(storage.place(str(self.work)), storage.place(self.source.data))
        return network.embed(prepared, self.recordings, store)


def _bytes(path: str) -> int:
    return Path(path).stat().st_size if Path(path).is_file() else -1


def regress(embeddings: np.ndarray, found: Split) -> tuple[np.ndarray, pd.DataFrame]:
    """Multinomial logistic regression of scikit-learn, its regularisation the default, on standardised embeddings.

    A window's class is its primary species; windows without birds are not learned from, as a notebook would have it.
    Returns the validated windows' logits, float64 array [windows, labels], and what it cost, a row as of History.
    """
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    cpu, wall = time.process_time(), time.perf_counter()
    train = found.train & (found.primary >= 0)
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    head.fit(embeddings[train], found.primary[train])
    said = np.full((int(found.validation.sum()), len(found.labels)), 1e-6)
    said[:, head.classes_] = np.clip(head.predict_proba(embeddings[found.validation]), 1e-6, 1 - 1e-6)
    spent = {"cpu_seconds": [time.process_time() - cpu], "seconds": [time.perf_counter() - wall]}
    return np.log(said / (1 - said)), pd.DataFrame(spent)


def _begin(folder: Path, settings: str) -> None:
    """Keep what a killed training left if it was this very training, else clear it away."""
    path = folder / "settings.txt"
    if path.is_file() and path.read_text(encoding="utf-8") == settings:
        return
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.name != ".lock":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_text(path, settings)


def split(trial: Trial, prepared: Prepared, recordings: pd.DataFrame, recipe: Recipe, seed: int, fold: int) -> Split:
    """The two sides of a fold as the trial wants them. `windows` names files and sources as they are, however it was drawn."""
    from src import folds
    from src.splits import split_fold

    usable = recordings[recordings.fault == ""].reset_index(drop=True)
    if trial.split == GROUPED:
        return split_fold(prepared, folds.make_folds(usable, N_FOLDS, seed, prepared.alike()), fold, recipe)
    if trial.split == RANDOM_RECORDINGS:
        drawn = usable.assign(source=usable.filename)
        found = split_fold(prepared, folds.make_folds(drawn, N_FOLDS, seed), fold, recipe)
    elif trial.split == RANDOM_WINDOWS:
        # Each window, with its copies, passes for a recording of its own.
        index = prepared.index
        alone = index.assign(filename=index.filename + "#" + index.parent.astype(str))
        drawn = alone.drop_duplicates("filename").assign(source=lambda rows: rows.filename).reset_index(drop=True)
        found = split_fold(replace(prepared, index=alone), folds.make_folds(drawn, N_FOLDS, seed), fold, recipe)
    else:
        raise UserError(f"trial {trial.name!r}: no split is called {trial.split!r}")
    source_of = dict(zip(usable.filename, usable.source))
    filename = prepared.index.filename
    return replace(found, windows=found.windows.assign(filename=filename, source=filename.map(source_of)))


def figures(found: OutOfFold) -> dict[str, float]:
    """How good out-of-fold predictions are.

    row_f1: with a threshold fitted on other folds, on other sources where there is one fold only
    bird_auroc: how well the greatest probability tells windows of birds from those of recordings without birds
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from src import fitting, metrics
    from src.competition import PUBLIC_NOCALL_SHARE
    from src.oof import accuracies

    by_window, by_recording = accuracies(found)
    answers = fitting.of_clips(found, PUBLIC_NOCALL_SHARE)
    threshold = np.ones(len(answers.group))
    for group, fitted in fitting.cross_fitted(answers, answers, uncalibrated=True).items():
        threshold[answers.group == group] = fitted.threshold
    f1 = metrics.clip_row_f1(found.probabilities, found.present, found.secondary, threshold)
    birds = found.primary >= 0
    sure = birds | (found.windows.secondary == "").to_numpy()  # in a quiet window of a recording a bird may be
    told_apart = roc_auc_score(birds[sure], found.probabilities[sure].max(axis=1)) if not birds[sure].all() else np.nan
    return {
        "window_accuracy": by_window,
        "recording_accuracy": by_recording,
        "class_mean_average_precision": metrics.class_mean_average_precision(
            found.probabilities, found.present, ~found.secondary
        ),
        "row_f1": float(np.average(f1, weights=answers.weight)),
        "bird_auroc": float(told_apart),
        "validated_windows": int(birds.sum()),
        "validated_recordings": int(found.windows.filename[birds].nunique()),
    }
