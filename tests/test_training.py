"""Training: that it resumes exactly, that real TF-Hub modules move or stay, what it costs to go wrong, and what is exported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import ROOT, run, run_here

from src import (
    backbones,
    bundle,
    classifier,
    competition,
    devices,
    folds,
    layouts,
    losses,
    networks,
    oof,
    options,
    paths,
    runs,
    splits,
    training,
)
from src.audio import some_windows
from src.checkpoints import Checkpoint
from src.errors import UserError
from src.files import locked
from src.history import History
from src.predictor import Predictor
from src.recipe import preset

FAST = ["--epochs", 2, "--steps-per-epoch", 8, "--batch-size", 16, "--learning-rate", 0.005, "--workers", 2]
REAL = "mobilenet_v2_035"
CHECKPOINT = "checkpoint_network.npz"


def train(
    prepared_sample: dict, output: str, *arguments: object, model: str = "tiny", env: dict | None = None, by=run_here
):
    """Run train.py on fold 0, in the data's working folder."""
    base = ["--fold", 0, "--model", model, "--data", prepared_sample["data"], "-o", output]
    return by("train.py", *base, *FAST, *arguments, env=env, cwd=prepared_sample["folder"])


@pytest.fixture(scope="module")
def trained(prepared_sample) -> Path:
    """The folder of a fold that train.py trained, in a process of its own as one that was killed has."""
    done = train(prepared_sample, "runs/tiny", by=run)
    assert done.returncode == 0, done.stderr
    assert "fold 0: window accuracy" in done.stdout
    assert "training on " in done.stderr
    return prepared_sample["folder"] / "runs/tiny/fold0"


@pytest.fixture(scope="module")
def split(prepared_sample):
    return splits.split_fold(prepared_sample["prepared"], prepared_sample["folds"], 0, preset("default"))


def test_out_of_fold_predictions_cover_the_fold_once(trained, split):
    table = pd.read_parquet(trained / "oof.parquet")
    assert len(table) == split.validation.sum()
    assert set(table.fold) == {0}
    assert table[list(split.labels)].to_numpy().min() >= 0
    assert table[list(split.labels)].to_numpy().max() <= 1
    assert not table.duplicated(["filename", "channel", "start_seconds"]).any()


def test_the_run_says_what_it_was_and_what_it_cost(trained):
    described = json.loads((trained / "run.json").read_text())
    assert "--fold 0 --model tiny" in described["command"]
    assert described["recipe"]["backbone"] == "tiny"
    assert described["export_difference"] < 1e-3
    assert described["cpu_seconds"] > 0
    history = pd.read_csv(trained / "history.csv")
    assert list(history.epoch) == [0, 1]
    assert history[["loss", "val_loss"]].notna().all(axis=None)
    assert len(described["windows"]["sha256"]) == 64
    assert described["machine"]["cores"] >= 1
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard/network"), size_guidance={"tensors": 0})
    events.Reload()
    values = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("val_loss")]
    np.testing.assert_allclose(values, history.val_loss, rtol=1e-5)


def test_a_run_killed_outright_goes_on_and_ends_with_the_very_weights_of_an_undisturbed_one(prepared_sample, trained):
    folder = prepared_sample["folder"] / "runs/resumed/fold0"
    base = ["--fold", 0, "--model", "tiny", "--data", prepared_sample["data"], "-o", "runs/resumed", *FAST]
    command = [sys.executable, str(ROOT / "train.py"), *map(str, base)]
    with open(prepared_sample["folder"] / "killed.log", "w") as log:
        killed = subprocess.Popen(command, cwd=prepared_sample["folder"], stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not (folder / "checkpoint_network.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert len(pd.read_csv(folder / "history.csv")) == 1, "killed in the second epoch"
    assert not (folder / "bundle").exists()

    done = run("train.py", *base, "--resume", cwd=prepared_sample["folder"])
    assert done.returncode == 0, done.stderr
    with np.load(trained / CHECKPOINT) as whole, np.load(folder / CHECKPOINT) as resumed:
        assert sorted(whole.files) == sorted(resumed.files)
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], resumed[name])
    assert len(pd.read_csv(folder / "history.csv")) == 2
    assert (folder / "bundle/model.tflite").read_bytes() == (trained / "bundle/model.tflite").read_bytes()


def test_a_bundle_has_three_precisions_that_agree_and_a_card(prepared_sample, trained):
    again = train(prepared_sample, "runs/int8", "--int8", "--saved-model", "--epochs", 1, "--steps-per-epoch", 1)
    assert again.returncode == 0, again.stderr
    assert "in int8: window accuracy" in again.stdout
    made = bundle.load(prepared_sample["folder"] / "runs/int8/fold0/bundle")
    assert list(made.variants) == ["float32", "float16", "int8"]
    sizes = {name: sum(path.stat().st_size for path in made.graphs(name)) for name in made.variants}
    assert sizes["float16"] < 0.75 * sizes["float32"]
    wav = layouts.read(layouts.DataSource(data=str(prepared_sample["data"]))).path.iloc[0]
    windows = np.concatenate(list(some_windows(wav, made.recipe).values()))
    answers = {name: Predictor([made], precision=name).probabilities(windows) for name in made.variants}
    np.testing.assert_allclose(answers["float16"], answers["float32"], atol=3e-2)
    assert np.abs(answers["int8"] - answers["float32"]).mean() < 0.05
    assert not np.array_equal(answers["int8"], answers["float32"])
    np.testing.assert_allclose(classifier.saved_answers(made.folder, windows), answers["float32"], atol=1e-4)
    assert not (trained / "bundle/saved_model.pb").exists(), "only where it was asked for"
    text = (made.folder / "README.md").read_text()
    for part in ("tiny: 12 species by ear", "fold 0 was held out", "CPU seconds", r"model\_int8.tflite", "MIT licence"):
        assert part.replace("\\", "") in text.replace("\\", ""), part
    with pytest.raises(UserError, match="has no int8 model, but float32, float16"):
        Predictor([bundle.load(trained / "bundle")], precision="int8")


def test_a_checkpoint_of_other_options_windows_or_folds_is_not_gone_on_with(prepared_sample, trained, split):
    with np.load(trained / CHECKPOINT) as stored:
        settings = str(stored["settings"])
    assert split.digest in settings
    for part in (split.digest, "learning_rate=0.005"):
        other = settings.replace(part, "another")
        assert other != settings
        named = r" \(learning_rate=0.005\)" if "learning" in part else ""
        with pytest.raises(UserError, match=f"is of a training with other options{named}, windows or folds"):
            Checkpoint(trained, "network", other).restore([])
    drawn = folds.make_folds(competition.read_recordings(prepared_sample["data"]), 3, seed=5)
    assert splits.split_fold(prepared_sample["prepared"], drawn, 0, preset("default")).digest != split.digest


def test_a_damaged_checkpoint_is_a_sentence(prepared_sample, trained):
    folder = prepared_sample["folder"] / "runs/damaged/fold0"
    folder.mkdir(parents=True)
    (folder / CHECKPOINT).write_bytes((trained / CHECKPOINT).read_bytes()[:5000])
    done = train(prepared_sample, "runs/damaged", "--resume", by=run)
    assert done.returncode == 1
    assert "--restart trains anew" in done.stderr
    assert "checkpoint_network.npz is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_went_wrong_with_a_loss_or_with_memory_is_a_sentence(prepared_sample):
    recipe = preset("default", learning_rate=1e30, epochs=1, steps_per_epoch=8, batch_size=16, warmup_epochs=0.0)
    split = splits.split_fold(prepared_sample["prepared"], prepared_sample["folds"], 0, recipe)
    network = networks.open_network(backbones.get("tiny"), recipe, split.labels, None, tf.distribute.get_strategy())
    folder = prepared_sample["folder"] / "runs/diverged/fold0"
    with pytest.raises(UserError, match=r"the loss became .* in epoch 0; try a smaller --learning-rate"):
        network.fine_tune(prepared_sample["prepared"], split, networks.Place(folder, ""), History(folder))
    assert not (folder / CHECKPOINT).exists()

    with (
        pytest.raises(UserError, match="out of memory with batches of 64 windows; try --batch-size 32"),
        devices.memory(64),
    ):
        tf.zeros([1 << 50])


def test_early_stopping_leaves_the_very_network_that_was_best_on_the_next_fold(prepared_sample, tmp_path):
    """Weights and the moving statistics of batch norm, which no gradient moves, averaged or not."""
    prepared = prepared_sample["prepared"]
    for average in (0.0, 0.9):
        recipe = preset(
            "default", learning_rate=0.3, epochs=12, steps_per_epoch=4, batch_size=16, patience=1, average=average
        )
        split = splits.split_fold(prepared, prepared_sample["folds"], 0, recipe)
        network = networks.open_network(backbones.get("tiny"), recipe, split.labels, None, tf.distribute.get_strategy())
        history = History(tmp_path / str(average))
        network.fine_tune(prepared, split, networks.Place(tmp_path / str(average), ""), history)
        watched = history.table().watch_loss
        assert watched.argmin() < len(watched) - 1, "or nothing was to be taken back"
        answer = training.answers(network.whole)
        logits = training.predict_logits(answer, prepared, split.watch, 16, 1)
        left = float(tf.reduce_mean(losses.crossentropy(split.targets[split.watch], logits, 0.0)))
        assert left == pytest.approx(watched.min(), rel=1e-3)


def test_options_that_change_nothing_for_a_network_are_named():
    import argparse

    parser = argparse.ArgumentParser()
    options.add_training(parser)

    def told(model: str, *given: str) -> str:
        return options.drop_unread(parser.parse_args(given), backbones.get(model))

    assert "tiny is a network of our own" in told("tiny", "--image-size", "64", "64")
    assert "--image-size, --unfreeze will change nothing" in told("tiny", "--image-size", "64", "64", "--unfreeze", "3")
    assert "yamnet hears audio" in told("yamnet", "--epochs", "3")
    assert "b0 sees images and is frozen: --epochs" in told("b0", "--freeze", "--epochs", "3")
    assert told("b0", "--epochs", "3", "--image-size", "64", "64") == ""
    b0, given = backbones.get("b0"), parser.parse_args(["--freeze", "--epochs", "3"])
    options.drop_unread(given, b0)
    same = options.training_recipe(parser.parse_args(["--freeze"]), preset("default"), b0)
    assert options.training_recipe(given, preset("default"), b0) == same, "and it is the same training"


def test_options_that_make_no_sense_are_a_sentence_before_any_work(prepared_sample):
    import argparse

    parser = argparse.ArgumentParser()
    options.add_training(parser)

    def refused(model: str, *given: str) -> str:
        with pytest.raises(UserError) as caught:
            options.training_recipe(parser.parse_args(given), preset("default"), backbones.get(model))
        return str(caught.value)

    assert "seed must be 0 or more" in refused("tiny", "--seed", "-1")
    assert "a seed must be below 2**32" in refused("tiny", "--seed", str(2**32))
    assert "--int8: yamnet hears audio" in refused("yamnet", "--int8")
    done = train(prepared_sample, "runs/none", "--workers", 0)
    assert done.returncode == 2 and "'0' is no number from 1 up" in done.stderr


def test_windows_of_another_folder_of_the_same_name_are_not_taken_for_the_data_s(prepared_sample, tmp_path):
    root = prepared_sample["folder"] / "input/prepared"
    same = tmp_path / "small"  # a link to the very folder is the folder
    same.symlink_to(prepared_sample["data"])
    assert paths.find_prepared(root, same) == paths.find_prepared(root, prepared_sample["data"])
    other = tmp_path / "other/small"
    other.mkdir(parents=True)
    with pytest.raises(UserError, match=f"was prepared from {prepared_sample['data']}, not from {other}"):
        paths.find_prepared(root, other)


def test_a_second_training_of_a_folder_waits_for_the_first_and_finds_it_done(prepared_sample, trained):
    with ExitStack() as first:
        first.enter_context(locked(trained / ".lock"))
        threading.Timer(0.5, first.pop_all().close).start()
        second = train(prepared_sample, "runs/tiny")
    assert "waiting for another process that holds" in second.stderr
    assert "is trained already with these settings" in second.stderr


def test_other_clips_than_the_copies_were_mixed_over_are_refused(prepared_sample):
    import argparse

    parser = argparse.ArgumentParser()
    options.add_training(parser)
    nocall = prepared_sample["data"] / "nocall"
    with pytest.raises(UserError, match="holds other clips than the copies were mixed over"):
        options.clips_of(
            parser.parse_args(["--background", str(nocall)]), preset("default", background="nocall-00000000")
        )


def test_missing_weights_are_one_sentence_with_the_handle_the_cache_and_three_ways_out(prepared_sample, tmp_path):
    done = train(prepared_sample, "runs/b6", model="b6", env={"TFHUB_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "https://tfhub.dev/tensorflow/efficientnet/b6/feature-vector/1" in sentence
    assert str(tmp_path) in sentence
    for way in ("connect this machine once", "set TFHUB_CACHE_DIR", "--weights FOLDER"):
        assert way in sentence
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("how", "unfreeze", "batch_statistics"),
    [
        ("all layers", -1, False),
        ("batches' statistics", -1, True),
        ("the last six layers", 6, False),
    ],
)
def test_of_a_real_module_there_moves_what_is_unfrozen_and_its_bundle_says_what_keras_says(
    prepared_sample, real_data, how, unfreeze, batch_statistics, monkeypatch
):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
    prepared = prepared_sample["prepared"]
    changes = {"image_size": (96, 96), "epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "head_epochs": 3}
    recipe = preset(
        "default", backbone=REAL, unfreeze=unfreeze, batch_statistics=batch_statistics, warmup_epochs=0.0, **changes
    )
    split = splits.split_fold(prepared, prepared_sample["folds"], 0, recipe)
    strategy = tf.distribute.get_strategy()
    network = networks.open_network(backbones.get(REAL), recipe, split.labels, None, strategy)
    output = prepared_sample["folder"] / "runs" / how / "fold0"
    place, history = networks.Place(output, how), History(output)
    store = paths.embeddings_folder(prepared_sample["folder"] / "input/prepared", prepared_sample["data"])
    kept = {path: path.stat().st_mtime_ns for path in store.rglob("*.npy")}
    embeddings, _ = network.embed(prepared, None, store)
    assert kept in ({}, {path: path.stat().st_mtime_ns for path in store.rglob("*.npy")}), "embedded once"
    network.fit_head(embeddings, split, place, history)
    layer = network.body.get_layer("backbone")
    assert len(layer.layer_groups()) > 50
    last = {variable.name for _, variables in layer.layer_groups()[-6:] for variable in variables}
    before = {variable.path: np.array(variable) for variable in layer.variables}
    logits = network.fine_tune(prepared, split, place, history)
    moved = {variable.name: not np.array_equal(before[variable.path], variable) for variable in layer.variables}
    weights = {name for name in moved if "moving" not in name}
    statistics = set(moved) - weights
    assert len(weights) > 100
    wanted = last if how == "the last six layers" else weights
    assert len(wanted - {name for name in weights if moved[name]}) <= 0.1 * len(wanted)
    assert not any(moved[name] for name in weights - wanted)
    assert np.mean([moved[name] for name in statistics]) == (0 if not batch_statistics else pytest.approx(1, abs=0.1))

    if how != "all layers":
        return  # exporting is no different
    table = training.out_of_fold(logits, split)
    recordings = layouts.read(layouts.DataSource.from_dict(prepared.source))
    assert runs.publish(output, network, recordings, table)["float32"] < 1e-3
    core = Predictor([bundle.load(output / "bundle")])
    silence = core.probabilities(np.zeros((1, recipe.window_samples), np.float32))
    assert np.isfinite(silence).all()


def test_a_head_on_embeddings_recognises_more_than_chance_in_seconds(prepared_sample, real_data):
    """The same embeddings as above: nothing is computed again."""
    env = {"TFHUB_CACHE_DIR": str(real_data / "hub")}
    options = ["--freeze", "--image-size", 96, 96, "--head-epochs", 10]
    done = train(prepared_sample, "runs/head", *options, model=REAL, env=env)
    assert done.returncode == 0, done.stderr
    assert "embedding" not in done.stderr
    accuracy = float(done.stdout.split("recording accuracy ")[1].split()[0])
    assert accuracy > 2 / 12
    history = pd.read_csv(prepared_sample["folder"] / "runs/head/fold0/history.csv")
    assert set(history.stage) == {"head"}
    described = json.loads((prepared_sample["folder"] / "runs/head/fold0/run.json").read_text())
    assert described["recipe"]["unfreeze"] == 0
    assert (prepared_sample["folder"] / "runs/head/fold0/history.png").stat().st_size > 5000


def test_a_module_that_gives_no_features_or_takes_no_images_is_a_sentence(tmp_path):
    class Maps(tf.train.Checkpoint):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32), tf.TensorSpec([], tf.bool)])
        def __call__(self, images, training=False):
            return images

    plain = tmp_path / "plain"
    tf.saved_model.save(Maps(), str(plain))
    with pytest.raises(UserError, match="not a module of TF-Hub's second format"):
        classifier.body(preset("default", image_size=(8, 8)), backbones.get("b0"), plain)
    listed = Maps()
    listed.variables = listed.trainable_variables = [tf.Variable(0.0)]
    tf.saved_model.save(listed, str(tmp_path))
    for size, complaint in (((8, 8), r"not \(batch, features\): not a headless model"), ((16, 16), "--image-size")):
        with pytest.raises(UserError, match=complaint):
            classifier.body(preset("default", image_size=size), backbones.get("b0"), tmp_path)


def test_evaluate_scores_the_run_fits_the_threshold_and_puts_it_into_the_bundle(prepared_sample, trained):
    done = run_here("evaluate.py", "runs/tiny", "--data", prepared_sample["data"], cwd=prepared_sample["folder"])
    assert done.returncode == 0, done.stderr
    described = json.loads((trained.parent / "evaluation.json").read_text())
    for name in (
        "row_f1",
        "row_f1_all_nocall",
        "window_accuracy",
        "recording_accuracy",
        "class_mean_average_precision",
    ):
        assert 0 <= described[name] <= 1
        assert name in done.stdout
    kept = json.loads((trained / "bundle/bundle.json").read_text())
    assert kept["threshold"] == described["threshold"]
    assert kept["threshold_source"].startswith("soundscapes of held-out calls of fold0; one for ")
    assert "of these windows, from the recordings: mean difference" in done.stdout
    assert len(pd.read_csv(trained.parent / "per_species.csv")) == 12
    assert (trained.parent / "evaluation.png").stat().st_size > 10_000


def test_the_bundle_on_the_recordings_says_what_the_stored_windows_gave_and_of_the_same_window(
    prepared_sample, trained
):
    """The whole road twice: recording -> shard -> Keras, and recording -> bundle. Other windows would not do."""
    answered, predicted = runs.compare_with_bundle([trained], competition.read_recordings(prepared_sample["data"]))
    assert len(answered) > 10
    difference = np.abs(answered - predicted).mean()
    mixed_up = np.abs(np.roll(answered, 1, axis=0) - predicted).mean()
    assert difference < 0.2 * mixed_up
    assert np.abs(np.roll(answered, 1, axis=1) - predicted).mean() > 5 * difference


def test_a_cross_fitted_score_is_honest_where_one_fitted_on_itself_flatters():
    """Probabilities that say nothing: fitted on itself a threshold finds luck, cross-fitted it cannot keep it."""
    from src import evaluation

    generator = np.random.default_rng(0)
    flattered, honest = [], []
    for _ in range(12):
        table = pd.DataFrame(
            {
                "filename": [f"{n}.mp3" for n in range(40)],
                "source": [f"s{n % 10}" for n in range(40)],
                "ebird_code": generator.choice(["a", "b", "nocall"], 40),
                "others": "",
                "secondary": "",
                "a": generator.random(40),
                "b": generator.random(40),
            }
        )
        scores = evaluation.evaluate(oof.as_arrays(table, ["a", "b"]), nocall_share=0.5).scores
        flattered.append(scores["row_f1_fitted_on_itself"])
        honest.append(scores["row_f1"])
    assert np.mean(honest) < np.mean(flattered) - 0.005


def test_the_same_command_again_keeps_the_finished_fold_and_its_fitted_threshold(prepared_sample, trained):
    run_here("evaluate.py", "runs/tiny", "--no-soundscapes", cwd=prepared_sample["folder"])
    before = {path.name: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    again = train(prepared_sample, "runs/tiny")
    assert again.returncode == 0
    assert "is trained already with these settings; --restart trains anew" in again.stderr
    assert {path.name: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_folds_that_were_drawn_anew_in_between_are_not_pooled(trained, split, tmp_path):
    for fold in ("fold0", "fold1"):
        shutil.copytree(trained, tmp_path / "run" / fold)
    with pytest.raises(UserError, match="is validated by more than one fold"):
        oof.read([tmp_path / "run/fold0", tmp_path / "run/fold1"], split.labels)


def test_a_submission_is_scored_beside_all_nocall(tmp_path):
    (tmp_path / "truth.csv").write_text("row_id,birds\nr1,amecro\nr2,amecro amerob\nr3,nocall\n")
    (tmp_path / "mine.csv").write_text("row_id,birds\nr3,nocall\nr1,amecro\nr2,amecro bird666\n")
    done = run("evaluate.py", "--submission", tmp_path / "mine.csv", "--truth", tmp_path / "truth.csv")
    assert "row F1      0.8333" in done.stdout
    assert "all nocall  0.3333" in done.stdout
    (tmp_path / "short.csv").write_text("row_id,birds\nr1,amecro\n")
    short = run("evaluate.py", "--submission", tmp_path / "short.csv", "--truth", tmp_path / "truth.csv")
    assert short.returncode == 1
    assert "lacks 2 rows" in short.stderr
