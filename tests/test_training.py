"""Training: what it learns from, that it resumes exactly, that real TF-Hub modules move or stay, and what is exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run

from src import competition, folds, layouts, oof, preparation, runs
from src.errors import UserError
from src.recipe import preset
from src.workers import Workers

FAST = ["--epochs", 2, "--steps-per-epoch", 8, "--batch-size", 16, "--learning-rate", 0.005, "--workers", 2]
REAL = "mobilenet_v2_035"


@pytest.fixture(scope="module")
def data(small_sample, tmp_path_factory) -> dict:
    """The small sample prepared, with three folds, in a working folder of its own."""
    folder = tmp_path_factory.mktemp("work")
    source = layouts.DataSource(data=str(small_sample))
    recordings = layouts.read(source)
    recipe = preset("default", augment=("noise",))
    windows = folder / "input/prepared/small" / recipe.prepared_id
    prepared = preparation.prepare(recordings, recipe, windows, source.to_dict(), workers=Workers(2))
    table = folds.make_folds(recordings, 3, alike=prepared.alike())
    folds.write_folds(folder / "folds/folds.csv", table)
    return {"folder": folder, "data": small_sample, "prepared": prepared, "folds": table}


def train(data: dict, output: str, *arguments: object, model: str = "tiny", env: dict | None = None):
    """Run train.py on fold 0, in the data's working folder."""
    base = ["--fold", 0, "--model", model, "--data", data["data"], "-o", output]
    return run("train.py", *base, *FAST, *arguments, env=env, cwd=data["folder"])


@pytest.fixture(scope="module")
def trained(data) -> Path:
    """The folder of a fold that train.py trained."""
    done = train(data, "runs/tiny")
    assert done.returncode == 0, done.stderr
    assert "fold 0: window accuracy" in done.stdout
    assert "training on " in done.stderr
    return data["folder"] / "runs/tiny/fold0"


@pytest.fixture(scope="module")
def split(data):
    from src import training

    return training.split_fold(data["prepared"], data["folds"], 0, preset("default"))


def test_validation_is_the_fold_s_own_unaugmented_windows_and_training_all_of_the_others(data, split):
    windows = split.windows
    of_fold = set(data["folds"].filename[data["folds"].fold == 0])
    assert set(windows.filename[split.validation]) <= of_fold
    assert (windows["transform"][split.validation] == "").all()
    assert not set(windows.filename[split.train]) & of_fold
    assert (windows["transform"][split.train] == "noise").any()
    assert (windows.ebird_code[split.background] == "nocall").all()
    assert not (split.background & ~split.train).any()


def test_targets_hold_the_primary_species_the_secondary_ones_and_nothing_for_nocall(split):
    windows = split.windows
    assert (split.targets[(windows.ebird_code == "nocall").to_numpy()] == 0).all()
    primary = windows.ebird_code.map({code: number for number, code in enumerate(split.labels)})
    birds = primary.notna().to_numpy()
    assert (split.targets[birds, primary[birds].astype(int)] == 1).all()
    with_secondary = (windows.secondary != "").to_numpy()
    assert with_secondary.any()
    assert (split.targets[with_secondary] == 0.5).any(axis=1).all()


def test_a_copy_over_a_background_that_is_validated_is_not_learned_from(data, split):
    from dataclasses import replace

    from src import training

    prepared = data["prepared"]
    copies = (prepared.index["transform"] == "noise") & (prepared.index.ebird_code != "nocall")
    validated = split.windows.filename[split.validation & (split.windows.ebird_code == "nocall").to_numpy()].iloc[0]
    taught = split.windows.filename[split.background].iloc[0]
    for clip, kept in ((f"rain/{validated}", 0), (taught, int((copies & split.train).sum()))):
        over = prepared.index.assign(background=np.where(copies, clip, ""))
        again = training.split_fold(replace(prepared, index=over), data["folds"], 0, preset("default"))
        assert int((copies & again.train).sum()) == kept


def test_others_labelled_in_the_very_window_are_taught_as_the_primary_species_is(data, split):
    from dataclasses import replace

    from src import training

    index = data["prepared"].index.copy()
    first, second = data["prepared"].labels[:2]
    row = int(np.flatnonzero(index.ebird_code == first)[0])
    index.loc[row, ["others", "secondary"]] = [second, ""]
    again = training.split_fold(replace(data["prepared"], index=index), data["folds"], 0, preset("default"))
    np.testing.assert_array_equal(np.flatnonzero(again.targets[row] == 1), [0, 1])


def test_a_quiet_window_teaches_no_species_and_is_a_background_only_where_there_is_no_better(data, split):
    from dataclasses import replace

    from src import training

    index = data["prepared"].index.copy()
    row = int(np.flatnonzero(split.train & (index.ebird_code != "nocall").to_numpy() & (index["transform"] == ""))[0])
    index.loc[row, ["ebird_code", "secondary"]] = ["nocall", index.ebird_code[row]]
    again = training.split_fold(replace(data["prepared"], index=index), data["folds"], 0, preset("default"))
    assert (again.targets[row] == 0).all()
    assert not again.background[row]
    birds_only = index[(index.ebird_code != "nocall") | (index.index == row)]
    alone = training.split_fold(replace(data["prepared"], index=birds_only), data["folds"], 0, preset("default"))
    assert list(alone.windows.window[alone.background]) == [row]


def test_a_leaking_split_is_refused_before_anything_is_trained(data):
    from src import training

    table = data["folds"].copy()
    source = table.source[table.fold == 1].value_counts().index[0]
    table.loc[table.index[table.source == source][0], "fold"] = 0
    with pytest.raises(UserError, match=f"source {source} are in more than one"):
        training.split_fold(data["prepared"], table, 0, preset("default"))


def test_a_fold_that_does_not_exist_is_named(data):
    from src import training

    with pytest.raises(UserError, match="fold 9 does not exist; folds are 0, 1, 2"):
        training.split_fold(data["prepared"], data["folds"], 9, preset("default"))


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


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(data, trained):
    """An epoch, the end of the process, and the second epoch with --resume, against both at once."""
    folder = data["folder"] / "runs/resumed/fold0"
    stop_after_one = (
        "import sys, src.training as training\n"
        "kept = training._save\n"
        "def save(*arguments):\n"
        "    kept(*arguments)\n"
        "    sys.exit(9)\n"
        "training._save = save\n"
        "import runpy\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = data["folder"] / "killed.py"
    from conftest import ROOT

    script.write_text(stop_after_one.replace("sys.argv[0]", repr(str(ROOT / "train.py"))))
    base = ["--fold", 0, "--model", "tiny", "--data", data["data"], "-o", "runs/resumed", *FAST]
    killed = run(str(script), *base, cwd=data["folder"])
    assert killed.returncode == 9, killed.stderr
    assert len(pd.read_csv(folder / "history.csv")) == 1
    assert not (folder / "bundle").exists()

    other = run("train.py", *base, "--learning-rate", 0.5, "--resume", cwd=data["folder"])
    assert other.returncode == 1
    assert "is of a training with other options, windows or folds" in other.stderr
    drawn = folds.make_folds(competition.read_recordings(data["data"]), 3, seed=5, alike=data["prepared"].alike())
    folds.write_folds(data["folder"] / "other.csv", drawn)
    leaking = run("train.py", *base, "--folds", "other.csv", cwd=data["folder"])
    assert leaking.returncode == 1
    assert "is of a training with other options, windows or folds" in leaking.stderr

    done = run("train.py", *base, "--resume", cwd=data["folder"])
    assert done.returncode == 0, done.stderr
    with np.load(trained / "checkpoint.npz") as whole, np.load(folder / "checkpoint.npz") as resumed:
        assert sorted(whole.files) == sorted(resumed.files)
        assert str(whole["settings"]) == str(resumed["settings"])
        for name in set(whole.files) - {"settings"}:
            np.testing.assert_allclose(whole[name], resumed[name], rtol=1e-4, atol=1e-5)
    assert len(pd.read_csv(folder / "history.csv")) == 2


def test_a_damaged_checkpoint_is_a_sentence(data, trained):
    folder = data["folder"] / "runs/damaged/fold0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.npz").write_bytes((trained / "checkpoint.npz").read_bytes()[:5000])
    done = train(data, "runs/damaged", "--resume")
    assert done.returncode == 1
    assert "--restart trains anew" in done.stderr
    assert "checkpoint.npz cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_weights_are_one_sentence_with_the_handle_the_cache_and_three_ways_out(data, tmp_path):
    done = train(data, "runs/b6", model="b6", env={"TFHUB_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "https://tfhub.dev/tensorflow/efficientnet/b6/feature-vector/1" in sentence
    assert str(tmp_path) in sentence
    for way in ("connect this machine once", "set TFHUB_CACHE_DIR", "--weights FOLDER"):
        assert way in sentence
    assert "Traceback" not in done.stderr


def test_an_unknown_model_and_missing_windows_are_sentences(tmp_path):
    from src import backbones, paths

    with pytest.raises(UserError, match="no model is called 'b9'; there are tiny, b0, b1"):
        backbones.get("b9")
    with pytest.raises(UserError, match=r"run python prepare\.py --data .*nothing"):
        paths.find_prepared(tmp_path, tmp_path / "nothing")


def test_the_registry_has_the_study_s_models_with_exact_handles_and_published_sizes():
    from src.backbones import REGISTRY

    sizes = {name: backbone.size for name, backbone in REGISTRY.items()}
    assert sizes == {
        "tiny": 0,
        **dict(b0=224, b1=240, b2=260, b3=300, b4=380, b5=456, b6=528, b7=600),
        **dict(efficientnet_lite0=224, inception_v3=299, mobilenet_v2=224, mobilenet_v2_140=224),
        **dict(mobilenet_v2_035=224, resnet_v2_152=224, pnasnet=331),
    }
    assert REGISTRY["b6"].handle == "https://tfhub.dev/tensorflow/efficientnet/b6/feature-vector/1"
    assert REGISTRY["pnasnet"].handle == "https://tfhub.dev/google/imagenet/pnasnet_large/feature_vector/4"
    assert REGISTRY["resnet_v2_152"].handle == "https://tfhub.dev/google/imagenet/resnet_v2_152/feature_vector/4"


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "efficientnet_lite0"])
def test_the_hash_of_a_handle_is_the_cache_s_folder(real_data, name, monkeypatch):
    from src import backbones

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
    assert (backbones.cache_folder(backbones.get(name).handle) / "saved_model.pb").is_file()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_real_module_is_fine_tuned_or_frozen_and_its_bundle_says_what_keras_says(
    data, real_data, freeze, monkeypatch
):
    import keras

    from src import bundle, classifier, training
    from src.audio import AudioFile, file_windows
    from src.predictor import Predictor

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
    changes = {"backbone": REAL, "image_size": (96, 96), "epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
    recipe = preset("default", freeze=freeze, warmup_epochs=0.0, **changes)
    split = training.split_fold(data["prepared"], data["folds"], 0, recipe)
    model = classifier.build(recipe, split.labels)
    backbone = model.get_layer("backbone")
    before = [np.array(variable) for variable in backbone.variables]
    kinds = ["batch statistics" if "moving" in variable.name else "weights" for variable in backbone.variables]
    assert kinds.count("weights") > 100
    output = data["folder"] / f"runs/real{freeze}/fold0"
    training.fit(model, data["prepared"], split, recipe, output)
    moved = [not np.array_equal(old, np.array(new)) for old, new in zip(before, backbone.variables)]
    for kind in ("weights", "batch statistics"):
        share = np.mean([flag for flag, of in zip(moved, kinds) if of == kind])
        assert share == 0 if freeze else share > 0.9, kind

    if freeze:
        return  # exporting is no different
    listener = classifier.with_front_end(model, recipe)
    classifier.export(listener, output / "bundle")
    core = Predictor([bundle.write(output / "bundle", REAL, split.labels, recipe, {})])
    (soundscape,) = (real_data / "birdsong-recognition/example_test_audio").glob("ORANGE*.mp3")
    with AudioFile(soundscape) as audio:
        windows = np.stack([window.samples[0] for window in file_windows(audio, recipe)][:12])
    expected = keras.ops.convert_to_numpy(listener(windows))
    assert expected.std() > 0
    assert np.abs(core.probabilities(windows) - expected).max() < 1e-3
    silence = core.probabilities(np.zeros((1, recipe.window_samples), np.float32))
    assert np.isfinite(silence).all()


def test_evaluate_scores_the_run_fits_the_threshold_and_puts_it_into_the_bundle(data, trained):
    done = run("evaluate.py", "runs/tiny", "--data", data["data"], cwd=data["folder"])
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
    assert kept["threshold_source"] == "out-of-fold windows of fold0"
    assert "of these windows, from the recordings: mean difference" in done.stdout
    assert len(pd.read_csv(trained.parent / "per_species.csv")) == 12
    assert (trained.parent / "evaluation.png").stat().st_size > 10_000


def test_the_bundle_on_the_recordings_says_what_the_stored_windows_gave_and_of_the_same_window(data, trained):
    """The whole road twice: recording -> shard -> Keras, and recording -> bundle. Other windows would not do."""
    answered, predicted = runs.compare_with_bundle([trained], competition.read_recordings(data["data"]))
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


def test_the_same_command_again_keeps_the_finished_fold_and_its_fitted_threshold(data, trained):
    run("evaluate.py", "runs/tiny", cwd=data["folder"])
    before = {path.name: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    again = train(data, "runs/tiny")
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


def test_windows_that_do_not_match_the_folds_are_refused(data):
    from src import training

    with pytest.raises(UserError, match="are in no fold"):
        training.split_fold(data["prepared"], data["folds"][:-3], 0, preset("default"))
