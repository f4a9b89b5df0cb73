"""The study's harness: what is done is not done again, rows are whole, intervals follow their law, a leak is one on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from woods import make_woods

from experiments import results, study
from experiments.results import ALL, Comparison, Results
from experiments.study import Ensemble, Question, Study
from experiments.trials import RANDOM_RECORDINGS, RANDOM_WINDOWS, Bench, Cost, Trial, split
from src.errors import UserError
from src.layouts import DataSource
from src.recipe import preset
from src.shards import Prepared

LABELS = ("aaa", "bbb", "ccc")
STUDIES = ["ablation", "augmentation", "backbones", "front_end", "leak", "optimizers", "vae"]


class BenchWithoutBackbone(Bench):
    """Answers at random, a little right, and counts what it is asked to train."""

    data_digest = "these recordings"

    def __init__(self, pause_s: float = 0.0) -> None:
        super().__init__(DataSource(data="nowhere"), Path("nowhere"))
        self.trained: list[tuple] = []
        self.pause_s = pause_s

    def fold(self, trial: Trial, seed: int, fold: int) -> tuple[pd.DataFrame, Cost]:
        """As Bench.fold."""
        time.sleep(self.pause_s)
        self.trained.append((trial.name, seed, fold))
        random = np.random.default_rng((seed, fold))
        number = np.arange(40)
        code = np.array([*LABELS, "nocall"])[number % 4]
        name = [f"r{fold}-{n // 8}-{n % 4}.ogg" for n in number]
        described = {"filename": name, "channel": 0, "ebird_code": code, "others": "", "secondary": "", "source": name}
        described |= {"fold": fold, "start_seconds": number * 5.0, "audio_seconds": 5.0, "call_score": 1.0}
        answers = {label: 0.4 * (code == label) + 0.6 * random.random(40) for label in LABELS}
        return pd.DataFrame({**described, **answers}), Cost(60.0, 70.0, 30.0, 160)


def small_study(*trials: Trial | Ensemble) -> Study:
    return Study("small", "A small study", (Question("One", trials),))


TRIALS = (Trial("first"), Trial("second", training={"dropout": 0.1}))


def run(made: Study, bench: Bench, seeds: int, output: Path) -> pd.DataFrame:
    study.run(made, [trial for question in made.questions for trial in question.trials], bench, seeds, output)
    return Results(output, made.name).rows


def test_what_is_in_the_table_is_not_run_again_and_what_is_missing_is(tmp_path):
    bench = BenchWithoutBackbone()
    rows = run(small_study(TRIALS[0]), bench, 1, tmp_path)
    assert list(rows.fold) == ["0", "1", "2", "3", "4", ALL]
    assert len(bench.trained) == 5

    bench.trained.clear()
    run(small_study(*TRIALS), bench, 2, tmp_path)
    assert {(name, seed) for name, seed, _ in bench.trained} == {("first", 1), ("second", 0), ("second", 1)}

    bench.trained.clear()
    before = (tmp_path / "small.csv").read_bytes()
    run(small_study(*TRIALS), bench, 2, tmp_path)
    assert not bench.trained
    assert (tmp_path / "small.csv").read_bytes() == before


def test_a_table_is_of_one_set_of_recordings(tmp_path):
    run(small_study(TRIALS[0]), BenchWithoutBackbone(), 1, tmp_path)
    other = BenchWithoutBackbone()
    other.data_digest = "those of another forest"
    with pytest.raises(UserError, match="its rows are of other recordings or labels"):
        run(small_study(TRIALS[0]), other, 1, tmp_path)
    assert not other.trained


def test_rows_of_a_trial_that_is_no_more_or_was_of_another_recipe_are_in_no_table(tmp_path):
    bench = BenchWithoutBackbone()
    run(small_study(*TRIALS), bench, 1, tmp_path)
    changed = Trial("second", training={"dropout": 0.2})
    study.write(small_study(TRIALS[0], changed), Results(tmp_path, "small"), tmp_path)
    text = (tmp_path / "small.md").read_text()
    assert "| second |" not in text and "5 folds," in text


def test_a_trial_whose_recipe_has_changed_is_run_again_in_the_place_of_its_rows(tmp_path):
    bench = BenchWithoutBackbone()
    run(small_study(TRIALS[0]), bench, 1, tmp_path)
    rows = run(small_study(Trial("first", training={"dropout": 0.2})), bench, 1, tmp_path)
    assert len(bench.trained) == 10
    assert len(rows) == 6
    assert rows.changes.unique().tolist() == ['{"dropout": 0.2}']


def test_a_recipe_that_has_gained_a_field_is_the_same_and_a_frozen_one_knows_nothing_of_fine_tuning():
    described = Trial("one").describe()
    del described["recipe"]["call_weight"]
    assert Trial("one").is_of(described)
    more_epochs = {"training": {"epochs": 3}}
    assert Trial("one", **more_epochs).is_of(described)
    assert not Trial("one", training={"head_epochs": 3}).is_of(described)
    fine_tuned = Trial("one", fine_tuned=True)
    assert not fine_tuned.is_of(described)
    assert not Trial("one", fine_tuned=True, **more_epochs).is_of(fine_tuned.describe())
    with pytest.raises(UserError, match=r"trial 'one': .*no_such_field"):
        Trial("one", training={"no_such_field": 1}).describe()


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import test_experiments as t
t.run(t.small_study(*t.TRIALS), t.BenchWithoutBackbone(pause_s=0.1), 2, Path({output!r}))
"""


def test_after_a_kill_every_row_is_whole_and_the_rest_is_done_as_if_nothing_had_been(tmp_path):
    told = {"root": str(ROOT), "tests": str(ROOT / "tests"), "output": str(tmp_path / "killed")}
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(**told)], stderr=subprocess.DEVNULL)
    table = tmp_path / "killed/small.csv"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not table.is_file() or len(pd.read_csv(table)) < 7):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = Results(tmp_path / "killed", "small").rows
    assert 7 <= len(left) < 24
    assert not left.isna().any().any()

    bench = BenchWithoutBackbone()
    rows = run(small_study(*TRIALS), bench, 2, tmp_path / "killed")
    undisturbed = run(small_study(*TRIALS), BenchWithoutBackbone(), 2, tmp_path / "undisturbed")
    # A fold whose seed was not finished is read again for the figures of all; here reading and training are one.
    assert len(bench.trained) <= 20 - 5 * int((left.fold == ALL).sum())
    by = ["trial", "seed", "fold"]
    pd.testing.assert_frame_equal(
        rows.sort_values(by).reset_index(drop=True), undisturbed.sort_values(by).reset_index(drop=True)
    )


def test_an_ensemble_is_the_mean_of_its_members_probabilities_and_of_the_same_windows_only(tmp_path):
    bench = BenchWithoutBackbone()
    rows = run(small_study(*TRIALS, Ensemble("both", ("first", "second"))), bench, 1, tmp_path)
    both, first = (rows[(rows.trial == name) & (rows.fold == ALL)].iloc[0] for name in ("both", "first"))
    assert both.window_accuracy == pytest.approx(first.window_accuracy)  # its members answer alike
    assert both.cpu_seconds == 2 * first.cpu_seconds
    one = bench.fold(TRIALS[0], 0, 0)[0]
    np.testing.assert_allclose(study.mean_of([one, one.assign(aaa=one.aaa + 0.2)]).aaa, one.aaa + 0.1)
    with pytest.raises(UserError, match="the same windows"):
        study.mean_of([one, one[::-1].reset_index(drop=True)])


def test_the_paired_interval_is_student_s_widened_for_folds_that_share_recordings():
    # By hand: differences 1, 2, 3 have mean 2 and variance 1; t(2) at 97.5 % is 4.3027.
    mean, half = results.paired_interval([1, 2, 3], [1, 1, 1], held_out=0.0)
    assert (mean, half) == (pytest.approx(2), pytest.approx(4.3027 / np.sqrt(3), rel=1e-4))
    assert results.t_interval([1, 2, 3]) == (pytest.approx(2), pytest.approx(half))
    assert results.paired_interval([1, 2, 3], [1, 1, 1], 0.25)[1] == pytest.approx(
        4.3027 * np.sqrt(1 / 3 + 1 / 4), rel=1e-4
    )
    assert results.paired_interval([1, 4], [3, 1], 0.25)[0] == pytest.approx(1.75)
    assert np.isnan(results.paired_interval([1], [1], 0.25)[1])


def rows_of(differences: list[float]) -> pd.DataFrame:
    """Five folds of a reference at 0.5 and of a trial that differs by these."""
    table = []
    for fold, change in enumerate(differences):
        for trial, value in (("reference", 0.5), ("trial", 0.5 + change)):
            found = dict.fromkeys(results.FIGURES, value)
            table.append({"trial": trial, "seed": 0, "fold": str(fold), **found, "validated_recordings": 50})
    return pd.DataFrame(table)


def test_the_verdict_is_better_or_worse_only_where_the_interval_leaves_out_zero():
    comparison = Comparison("", "reference", ("reference", "trial"))
    told = {
        "recordings better, windows better": [0.1, 0.11, 0.09, 0.1, 0.1],
        "recordings worse, windows worse": [-0.1, -0.11, -0.09, -0.1, -0.1],
        "cannot be told": [0.1, -0.05, 0.1, 0.0, 0.02],
    }
    for said, differences in told.items():
        assert results.verdict(rows_of(differences), "trial", comparison) == said
    # Folds of other windows have nothing to do with each other: pairs are then the seeds' figures of all folds.
    assert results.verdict(rows_of([0.1] * 5), "trial", replace(comparison, by_seed=True)) == "cannot be told"


def test_a_person_s_words_are_kept_when_the_table_is_written_anew(tmp_path):
    path = tmp_path / "small.md"
    results.write_markdown(path, "# first\n")
    assert path.read_text() == "# first\n"
    path.write_text(path.read_text() + f"\n{results.BY_HAND}\n\nNoise does not help.\n")
    results.write_markdown(path, "# second\n")
    assert path.read_text() == f"# second\n\n{results.BY_HAND}\n\nNoise does not help.\n"


@pytest.fixture(scope="module")
def index_only() -> tuple[Prepared, pd.DataFrame]:
    """An index of windows without images, and its recordings: 3 species, 6 sources each with 2 recordings of 4 windows."""
    recordings, windows = [], []
    for number in range(36):
        code = LABELS[number % 3]
        name = f"{code}/{number}.ogg"
        recordings.append({"filename": name, "ebird_code": code, "source": f"s{number // 6}-{code}", "fault": ""})
        for start in range(4):
            window = {"window": len(windows), "shard": 0, "row": len(windows), "filename": name, "ebird_code": code}
            window |= {"others": "", "secondary": "", "channel": 0, "start_seconds": 5.0 * start, "transform": ""}
            windows.append({**window, "background": "", "call_score": 1.0, "parent": len(windows)})
    recordings = pd.DataFrame(recordings)
    status = pd.DataFrame({"filename": recordings.filename, "digest": recordings.filename})
    return Prepared(Path(), preset("default"), LABELS, pd.DataFrame(windows), status), recordings


def shared(found, what: str) -> set:
    """Sources or recordings that are on both sides."""
    return set(found.windows[what][found.train]) & set(found.windows[what][found.validation])


def test_a_random_split_of_windows_leaks_one_of_recordings_too_and_grouped_folds_do_not(index_only):
    prepared, recordings = index_only
    recipe = preset("default")
    seen = []
    for fold in range(5):
        grouped, by_recording, by_window = (
            split(Trial("one", split=kind), prepared, recordings, recipe, 0, fold)
            for kind in ("grouped", RANDOM_RECORDINGS, RANDOM_WINDOWS)
        )
        assert not shared(grouped, "source")
        assert shared(by_recording, "source")
        assert not shared(by_recording, "filename")
        assert shared(by_window, "filename")
        for found in (grouped, by_recording, by_window):
            assert not (found.train & found.validation).any()
            assert set(found.windows.filename) <= set(recordings.filename)
        seen.append(by_window.validation)
    assert (np.sum(seen, axis=0) == 1).all(), "each window is validated once"
    with pytest.raises(UserError, match="no split is called 'by luck'"):
        split(Trial("one", split="by luck"), prepared, recordings, recipe, 0, 0)


def test_a_seed_draws_other_folds(index_only):
    prepared, recordings = index_only
    sides = [split(Trial("one"), prepared, recordings, preset("default"), seed, 0).validation for seed in (0, 1)]
    assert (sides[0] != sides[1]).any()


def test_a_small_network_is_tried_frozen_and_fine_tuned_and_what_is_kept_serves_every_study(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    backbone = small_network(tmp_path / "smallnet")
    data = make_woods(tmp_path / "woods", 15, 6.0)
    few = {"head_epochs": 2, "epochs": 1}
    common = {"preparing": {"n_mels": 32}, "backbone": str(backbone), "folds": 2}
    frozen, tuned = Trial("frozen", training=few, **common), Trial("tuned", training=few, fine_tuned=True, **common)
    bench = Bench(DataSource(data=str(data)), tmp_path / "work")
    made = replace(small_study(frozen, tuned), name="first")
    rows = run(made, bench, 1, tmp_path / "docs")
    assert len(rows) == 6
    assert rows[["window_accuracy", "recording_accuracy", "row_f1", "cpu_seconds"]].notna().all().all()
    folders = sorted((tmp_path / "work/runs").iterdir())
    assert len(folders) == 2, "a frozen and a fine-tuned one"
    assert not list((tmp_path / "work").rglob("checkpoint_*"))

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("oof.parquet")}
    assert len(kept) == 4
    other = replace(small_study(replace(frozen, name="the same under another name")), name="second")
    again = run(other, Bench(DataSource(data=str(data)), tmp_path / "work"), 1, tmp_path / "docs")
    assert again.window_accuracy.tolist() == rows[rows.trial == "frozen"].window_accuracy.tolist()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("oof.parquet")} == kept
    text = (tmp_path / "docs/first.md").read_text()
    assert "| **frozen** (reference) |" in text
    assert "| tuned |" in text


def small_network(folder: Path) -> Path:
    """A SavedModel as a path may name it: images of 64 by 64 to 8 features, with random weights that train."""
    import tensorflow as tf

    module = tf.train.Checkpoint()
    kernel = tf.Variable(tf.random.stateless_normal([16, 16, 3, 8], [0, 1], stddev=0.05), name="kernel")

    @tf.function(autograph=False)
    def call(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(images, kernel, 16, "SAME")), axis=[1, 2])

    images = tf.TensorSpec([None, 64, 64, 3], tf.float32)
    signature, _ = (call.get_concrete_function(images, training=training) for training in (False, True))
    module.__call__ = call
    module.trainable_variables = module.variables = [kernel]
    tf.saved_model.save(module, str(folder), signatures=signature)
    return folder


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_how_it_is_run_at_once_and_all_its_trials_have_recipes_and_names(name):
    command = [sys.executable, "-X", "importtime", "-m", f"experiments.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert f"python -m experiments.{name} --data $DATA/birds --nocall $DATA/nocall" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "pandas", "tensorflow"}
    module = __import__(f"experiments.{name}", fromlist=["STUDY"])
    trials = [trial for question in module.STUDY.questions for trial in question.trials]
    assert len({trial.name for trial in trials}) == len(trials)
    for trial in trials:
        if isinstance(trial, Trial):
            assert trial.recipe(3).seed == 3
    assert module.STUDY.name == name
