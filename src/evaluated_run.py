"""One run evaluated whole: its out-of-fold windows read, its soundscapes mixed and answered, and what was found written.

done = evaluate_run(Path("runs/b6"), Settings())       # also keeps calibration and thresholds in its bundles
write(done)                                            # evaluation.json, per_species.csv, confusions.csv, errors.csv, figures
done.found.scores, done.oof, done.soundscapes, done.remarks
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src import (
    answered_soundscapes,
    augment,
    bundle,
    evaluation,
    evaluation_figures,
    layouts,
    runs,
    storage,
    validation_soundscapes,
)
from src import oof as out_of_fold
from src.answered_soundscapes import Heard
from src.audio import some_windows
from src.bundle import Bundle
from src.competition import PUBLIC_NOCALL_SHARE
from src.errors import UserError
from src.evaluation import Evaluation
from src.files import sha256, write_json, written_whole
from src.oof import OutOfFold
from src.predictor import Predictor
from src.recipe import Recipe
from src.validation_soundscapes import Minute, Options

TIMED_WINDOWS = 8  # answered to know what a window costs
TIMED_SECONDS = 1.0  # at least, so that the clock's steps do not matter


@dataclass(frozen=True)
class Settings:
    """What evaluate.py was asked for.

    draws: of the bootstrap; data: where the recordings are now, "" for where training found them
    minutes: of soundscapes a fold, 0 for none; background: a folder for all folds, "" for what each held out
    keep_audio: a folder for the soundscapes as WAV, or None
    """

    nocall_share: float = PUBLIC_NOCALL_SHARE
    draws: int = 200
    seed: int = 0
    data: str = ""
    minutes: int = 30
    background: str = ""
    keep_audio: Path | None = None


@dataclass(frozen=True)
class EvaluatedRun:
    """A run and what was found.

    soundscapes: the answered ones of each fold; none where they could not be made
    kept: what the thresholds were fitted on, in words; remarks: sentences for the person
    """

    run: Path
    folders: list[Path]
    bundles: list[Bundle]
    oof: OutOfFold
    soundscapes: list[Heard]
    found: Evaluation
    kept: str
    recordings: pd.DataFrame | None
    remarks: list[str] = field(default_factory=list)

    @property
    def names(self) -> str:
        """Its folds."""
        return ", ".join(folder.name for folder in self.folders)


def evaluate_run(run: Path, settings: Settings) -> EvaluatedRun:
    """Evaluate a run, or one fold of it. Raises UserError, with the run's name, for what makes that impossible."""
    folders = evaluation.folds_of(run)
    runs.check_alike(folders)
    bundles = bundle.find([folder / "bundle" for folder in folders])
    oof = out_of_fold.read(folders, bundles[0].labels)
    remarks: list[str] = []
    recordings = _recordings(folders, settings, remarks)
    heard: list[Heard] = []
    if settings.minutes:
        for rank, (folder, one) in enumerate(zip(folders, bundles)):
            try:
                of_fold = _soundscapes(folder, one, recordings, settings, (rank, len(folders)))
            except UserError as error:
                if settings.background:  # which was asked for
                    raise
                remarks.append(f"{folder}: {error}")
                of_fold = None
            if of_fold is not None:
                heard.append(of_fold)
        if recordings is not None and len(heard) < len(folders):
            remarks.append(
                f"{run}: no soundscapes were mixed, for want of held-out recordings without birds; thresholds are fitted on "
                "clips, weighted to --nocall-share (see prepare.py --nocall, or --background FOLDER)"
            )
    if len(heard) < len(folders):
        heard = []  # a threshold of some folds' soundscapes would not be of all
    soundscapes = answered_soundscapes.answers(heard, oof.labels) if heard else None
    try:
        found = evaluation.evaluate(oof, settings.nocall_share, soundscapes, settings.draws, settings.seed)
    except UserError as error:
        raise UserError(f"{run}: {error}") from error
    kept = evaluation.keep(folders, found, ", ".join(folder.name for folder in folders))
    bundles = bundle.find([folder / "bundle" for folder in folders])
    remarks += _doubts(run, found, len(folders), heard)
    done = EvaluatedRun(run, folders, bundles, oof, heard, found, kept, recordings, remarks)
    remarks.append(_checked(done))
    return done


def _recordings(folders: Sequence[Path], settings: Settings, remarks: list[str]) -> pd.DataFrame | None:
    """The recordings that the folds were trained on; None, and a remark, where they are not there."""
    source = runs.source_of(folders[0])
    if settings.data:
        source = {**source, "data": storage.absolute(settings.data)}
    if not source:
        remarks.append(
            f"{folders[0] / 'run.json'} does not say where its recordings are: no soundscapes, no spectrograms"
        )
        return None
    try:
        return layouts.read(layouts.DataSource.from_dict(source))
    except (UserError, OSError, TypeError, KeyError) as error:
        if settings.data:
            raise UserError(f"--data {settings.data}: the recordings are not there: {error}") from error
        remarks.append(
            f"the recordings are not where they were in training ({error}), so no soundscapes are mixed, no errors drawn "
            "and the bundles not checked on them; see --data"
        )
        return None


def _soundscapes(
    folder: Path, one: Bundle, recordings: pd.DataFrame | None, settings: Settings, share: tuple[int, int]
) -> Heard | None:
    """A fold's answered soundscapes, mixed anew only if something about them changed; None where they cannot be made."""
    options = Options(settings.minutes, settings.nocall_share, seed=settings.seed)
    digests = [sha256(folder / "oof.parquet"), *(sha256(graph) for graph in one.graphs())]
    made = f"{options} {settings.background} {share if settings.background else ''} {' '.join(digests)}"
    heard = answered_soundscapes.read(folder, made)
    if recordings is None or (heard is not None and settings.keep_audio is None):
        return heard
    # By the recipe of the prepared windows: all that were trained on them hear the same soundscapes, at whatever rate.
    recipe = Recipe.from_dict(runs.described(folder).get("recipe") or one.recipe.to_dict())
    if settings.background and recipe.background:
        _check_unheard(Path(settings.background), recipe)
    windows = pd.read_parquet(folder / "oof.parquet")
    material = validation_soundscapes.material_of(windows, recordings, settings.background, share)
    if material is None:
        return None
    mixed = validation_soundscapes.minutes(material, recipe, options)
    if settings.keep_audio:
        mixed = _written(mixed, settings.keep_audio / folder.name, recipe)
    shown = tqdm(mixed, total=options.minutes, unit="minute", desc=f"soundscapes of {folder.name}")
    heard = answered_soundscapes.ask(shown, recipe, Predictor([one], calibrated=False), int(windows.fold.iloc[0]))
    answered_soundscapes.write(folder, heard, made)
    return heard


@functools.lru_cache(maxsize=1)  # all folds ask the same, and the clips are decoded to know
def _check_unheard(background: Path, recipe: Recipe) -> None:
    """Raise UserError if the clips are those that training copies were mixed over."""
    digest = augment.find_clips(background, recipe)[0].digest
    if digest.rsplit("-", 1)[-1] == recipe.background.rsplit("-", 1)[-1]:
        raise UserError(f"--background {background}: the model learned from copies over these very clips; give others")


def _written(mixed: Iterable[Minute], folder: Path, recipe: Recipe) -> Iterator[Minute]:
    for minute in mixed:
        validation_soundscapes.write_audio(folder, minute, recipe)
        yield minute


def _doubts(run: Path, found: Evaluation, folds: int, heard: Sequence[Heard]) -> list[str]:
    """What a person should know before believing the figures."""
    scores, remarks = found.scores, []
    if folds == 1:
        remarks.append(f"{run}: one fold only; what is fitted was judged on other sources of the same fold")
        if any(each.shares_backgrounds for each in heard):
            remarks.append(
                f"{run}: too few of its recordings without birds were held out for soundscapes to be judged on others than "
                "those that were fitted on; more folds, or --background FOLDER, mend that"
            )
    if not found.fitted_elsewhere:
        remarks.append(
            f"{run}: nothing to fit on but what is judged, so the scores flatter and no interval means anything"
        )
    elif folds > 1:
        remarks.append(
            "thresholds are of one fold's model each; predict.py, given the run, takes the mean of its folds' probabilities"
        )
    if scores["row_f1_fitted_on_itself"] <= scores["row_f1_all_nocall"] + 1e-6:
        remarks.append("no threshold does better than answering nocall everywhere: the model has learned too little")
    if not scores["nocall_windows"] and "soundscape_row_f1" not in scores:
        remarks.append(
            "no window without birds was validated: the threshold knows nothing of empty rows; see prepare.py --nocall"
        )
    return remarks


def _checked(done: EvaluatedRun) -> str:
    """How far the bundles' answers to some recordings, not calibrated, are from the out-of-fold predictions."""
    if done.recordings is None:
        return "the bundles were not checked on recordings"
    answered, predicted = runs.compare_with_bundle(done.folders, done.recordings)
    if not len(answered):
        return f"{done.run}: none of the folds' recordings can be read: the bundles are not checked on them"
    difference = np.abs(answered - predicted).max(axis=1)
    return (
        f"the bundles' answers to {len(answered)} of these windows, from the recordings: "
        f"mean difference {difference.mean():.4f}, greatest {difference.max():.3f}; prepared windows are kept in steps "
        "of a few tenths of a dB, recordings are not"
    )


def write(done: EvaluatedRun) -> int:
    """Write the run's evaluation.json, tables and figures. Returns how many errors could be drawn."""
    found = done.found
    finite = {name: value for name, value in found.scores.items() if np.isfinite(value)}
    described = {
        "folds": done.names,
        "threshold": found.threshold,
        "threshold_source": done.kept,
        "thresholds": dict(zip(done.oof.labels, found.thresholds.tolist())),
        "calibration": found.fitted.calibration.to_dict(),
        **finite,
        "intervals": {name: list(pair) for name, pair in found.intervals.items() if np.isfinite(pair).all()},
        "decisions": json.loads(found.decisions.to_json(orient="records")),
        "chosen": found.chosen,
        "decision": found.decision.to_dict(),
        "remarks": done.remarks,
    }
    write_json(done.run / "evaluation.json", described)
    for name in ("per_species", "confusions", "errors"):
        with written_whole(done.run / f"{name}.csv") as temporary:
            getattr(found, name).to_csv(temporary, index=False)
    evaluation_figures.evaluation(done.run / "evaluation.png", found)
    return evaluation_figures.errors(done.run / "errors.png", found.errors, done.recordings, done.bundles[0].recipe)


def cost(done: EvaluatedRun) -> dict[str, float]:
    """What the run costs: parameters, CPU ms a window of one exported fold now, MB of its files, CPU s of training all folds.

    NaN for what run.json does not say.
    """
    described = [runs.described(folder) for folder in done.folders]
    first, nothing = done.bundles[0], float("nan")
    return {
        "parameters": described[0].get("parameters") or nothing,
        "cpu_ms_a_window": _cpu_ms(done),
        "model_mb": sum(graph.stat().st_size for graph in first.graphs()) / 1e6,
        # The embeddings of all windows are made once, whatever each fold learns from them.
        "training_cpu_s": sum(
            one.get("training_cpu_seconds", nothing) - one.get("embedding_cpu_seconds", 0.0) for one in described
        )
        + max(one.get("embedding_cpu_seconds", 0.0) for one in described),
        "whole_cpu_s": sum(one.get("cpu_seconds", nothing) for one in described),
    }


def _cpu_ms(done: EvaluatedRun) -> float:
    """CPU time of a window, waveform to probabilities, one thread, in ms: of real windows, or of noise where there are none."""
    core = Predictor(done.bundles[:1], threads=1)
    path_of = {} if done.recordings is None else dict(zip(done.recordings.filename, done.recordings.path))
    windows = np.random.default_rng(0).normal(0, 0.01, (TIMED_WINDOWS, core.recipe.window_samples)).astype(np.float32)
    for filename in done.oof.windows.filename.unique():
        read = some_windows(path_of[filename], core.recipe, most=TIMED_WINDOWS) if filename in path_of else {}
        if read:
            windows = np.concatenate(list(read.values()))
            break
    core.probabilities(windows[:1])  # the first answer pays for what is set up once
    answered, started = 0, time.process_time()
    while time.process_time() - started < TIMED_SECONDS:
        core.probabilities(windows)
        answered += len(windows)
    return 1000 * (time.process_time() - started) / answered
