"""Augmentation by an autoencoder: that it learns, what variants are, that it never meets what is validated, that it resumes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run_here

from src import checkpoints, datasets, options, shards, splits, storage, vae, vae_figures, vae_windows
from src.errors import UserError
from src.files import sha256, write_json
from src.recipe import Recipe, preset
from src.spectrogram import from_bytes

WINDOWS, SHARDS, FOLDS = 48, 4, 3
SMALL = vae.Design(widths=(24, 32), crop_frames=40, batch=4, learning_rate=4e-3)


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """What is tested in this process is a network that learns in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae_windows, "Design", lambda: SMALL)
        yield


@pytest.fixture(scope="module")
def chirps(tmp_path_factory) -> tuple[shards.Prepared, pd.DataFrame]:
    """48 windows of noise with rising ("up") or falling ("down") chirps, a few without, in 4 shards; and folds of them."""
    folder = tmp_path_factory.mktemp("chirps")
    (folder / "shards").mkdir()
    recipe = Recipe(window_seconds=1.0, hop_seconds=1.0, n_mels=36)  # neither side is a multiple of a cell
    mels, frames = recipe.image_shape
    generator = np.random.default_rng(0)
    rows, images = [], []
    for number in range(WINDOWS):
        code = ("up", "down", "up", "down", "up", "nocall")[number % 6]
        image = generator.normal(60, 4, (mels, frames))
        for first in generator.integers(0, frames - 24, 2) if code != "nocall" else ():
            low, steps = generator.integers(0, 8), np.arange(20)
            band = low + steps if code == "up" else low + 20 - steps
            for width in range(7):
                image[band + width, first + steps] = 140
        images.append(image.clip(0, 255).astype(np.uint8))
        rows.append(
            {"window": number, "shard": number * SHARDS // WINDOWS, "filename": f"{number}.ogg", "ebird_code": code}
        )
    index = pd.DataFrame(rows)
    index["row"] = index.groupby("shard").cumcount()
    texts = {"others": "", "secondary": "", "transform": "", "parameters": "{}", "background": ""}
    index = index.assign(**texts, channel=0, start_seconds=0.0, audio_seconds=1.0, call_score=10.0, parent=index.window)
    contents = []
    for shard in range(SHARDS):
        path = folder / "shards" / f"shard-{shard:05d}.bin"
        np.stack(images)[index.shard == shard].tofile(path)
        contents.append(sha256(path)[:8])
    write_json(folder / "prepared.json", {"contents": contents})
    table = pd.DataFrame({"filename": index.filename, "source": index.filename, "fold": index.window // 6 % FOLDS})
    prepared = shards.Prepared(folder, recipe, ("down", "up"), index, pd.DataFrame(), contents=tuple(contents))
    return prepared, table


def recipe_of(**changes) -> Recipe:
    return preset("default", **{"vae_copies": 2, "vae_epochs": 2, **changes})


def all_db(prepared: shards.Prepared) -> np.ndarray:
    keep = np.ones(len(prepared.index), bool)
    return np.concatenate(list(datasets.plain_batches(prepared, keep, 16).as_numpy_iterator()))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("shard-*.bin"))}


@pytest.fixture(scope="module")
def learned(chirps, tmp_path_factory) -> dict:
    """An autoencoder that has learned enough, and what was made with it."""
    prepared, table = chirps
    recipe, folder = recipe_of(vae_epochs=16, vae_spread=2.0), tmp_path_factory.mktemp("learned")
    split = splits.split_fold(prepared, table, 0, recipe)
    extended = vae_windows.extended(prepared, split, recipe, folder)
    return {
        "prepared": prepared,
        "split": split,
        "recipe": recipe,
        "folder": folder,
        "extended": extended,
        "folds": table,
    }


def test_it_learns_far_more_than_band_means_and_its_latent_is_in_use(learned):
    described = json.loads((learned["folder"] / "vae.json").read_text())
    for side in ("trained on", "validated"):
        found = described[side]
        assert found["autoencoder_loud_db"] < 0.5 * found["band_means_loud_db"]
        assert found["nats_a_cell"] > 1
        assert max(found["nats_of_each_latent"]) > 0.2
    assert (learned["folder"] / "vae.png").stat().st_size > 20_000
    history = pd.read_csv(learned["folder"] / "vae/history.csv")
    assert len(history) == learned["recipe"].vae_epochs
    assert history.error_db.iloc[-1] < 0.8 * history.error_db.iloc[0]


def test_variants_differ_from_their_window_and_each_other_and_are_nearer_to_it_than_to_others(learned):
    extended, split = learned["extended"], learned["split"]
    db, index = all_db(extended), extended.index
    nearest = []
    for parent, family in index[index["transform"] == "vae"].groupby("parent"):
        first, second = db[family.window]
        assert np.abs(first - second).mean() > 0.1
        others = np.abs(db[: len(split.windows)] - first).mean(axis=(1, 2))
        assert others[parent] > 0.1
        assert others[parent] < np.median(others)
        nearest.append(others.argmin() == parent)
    assert np.mean(nearest) > 0.7  # a network of some 100 steps takes some of the like for each other


def test_the_extended_windows_read_back_and_are_all_on_the_training_side(learned):
    extended, prepared, split = (learned[name] for name in ("extended", "prepared", "split"))
    index, made = extended.index, (extended.index["transform"] == "vae").to_numpy()
    birds = vae_windows.originals(split) & (prepared.index.ebird_code != "nocall").to_numpy()
    assert list(index.parent[made]) == list(np.flatnonzero(birds).repeat(2))
    assert list(index.window) == list(range(len(index)))
    assert len(extended.contents) == index.shard.nunique()
    kept = ["filename", "ebird_code", "others", "secondary", "channel", "start_seconds", "call_score"]
    pd.testing.assert_frame_equal(
        index.loc[made, kept].reset_index(drop=True), index.loc[index.parent[made], kept].reset_index(drop=True)
    )
    again = splits.split_fold(extended, learned["folds"], 0, learned["recipe"])
    assert (again.train == np.concatenate([split.train, np.ones(made.sum(), bool)])).all()
    assert not (again.validation & made).any()
    assert not (again.background & made).any()
    extended.check_unchanged()
    assert extended.digest == prepared.digest, "or folds, each with variants of its own, would be of no one run"

    for row, db in zip(index.itertuples(), all_db(extended)):
        path, size = extended.shard_path(row.shard), extended.window_bytes
        assert path.is_relative_to(learned["folder"] if row.transform else prepared.folder)
        stored = np.frombuffer(path.read_bytes(), np.uint8, size, row.row * size)
        np.testing.assert_array_equal(db.ravel(), from_bytes(stored.astype(np.float32), extended.recipe))


def test_without_moving_the_latent_and_with_all_the_residue_a_variant_is_the_window(learned):
    network = vae_windows.trained(learned["prepared"], learned["split"], learned["recipe"], learned["folder"])
    db = all_db(learned["prepared"])[:3]
    generators = [np.random.default_rng(number) for number in range(3)]
    same = vae_windows.variants(network, db, generators, recipe_of(vae_spread=0.0, vae_residue=1.0))
    np.testing.assert_allclose(same, db, atol=1e-3)
    moved = vae_windows.variants(network, db, generators, recipe_of(vae_residue=1.0))
    assert np.abs(moved - db).mean() > 0.1


def test_variants_lie_between_what_the_window_says_and_the_prior():
    mean, deviation = np.float32([2.0, 2.0, 0.0]), np.float32([0.01, 0.5, 1.0])
    for spread, expected in ((0.0, mean), (1.0, mean), (1e4, 0 * mean)):
        centre, width = vae_windows.near(mean, deviation, spread)
        np.testing.assert_allclose(centre, expected, atol=1e-3)
        np.testing.assert_allclose(width, min(spread, 1.0) * deviation if spread <= 1 else 1.0, rtol=1e-3)
    centre, width = vae_windows.near(mean, deviation, 4.0)
    np.testing.assert_allclose(width[0], 4 * deviation[0], rtol=1e-2)
    np.testing.assert_allclose(width[2], 1.0)


def test_added_shards_lie_in_their_own_folder_though_the_others_are_fetched(learned):
    class Cache:
        def in_order(self, paths: list[str], names: list[str]) -> list[str]:
            return [f"fetched {path.rsplit('/', 1)[1]}" for path in paths]

    extended = learned["extended"]
    remote = replace(extended, folder=storage.place("memory://bucket/windows"), cache=Cache())
    first, own = extended.added.first, learned["folder"] / "vae/shards"
    assert list(remote.local_shards([first + 1, 2, first, 0])) == [
        str(own / f"shard-{first + 1:05d}.bin"),
        "fetched shard-00002.bin",
        str(own / f"shard-{first:05d}.bin"),
        "fetched shard-00000.bin",
    ]


def test_blurring_keeps_as_many_numbers_as_the_latent():
    design = vae.Design()  # not the small one
    assert np.prod(vae_figures.BLOCK) == design.cell**2 / design.latents
    db = np.random.default_rng(0).normal(0, 1, (2, 5, 7)).astype(np.float32)
    blurred = vae_figures.blurred(db)
    assert blurred.shape == db.shape
    np.testing.assert_allclose(blurred[:, 0, 0], db[:, :2, :2].mean(axis=(1, 2)), rtol=1e-5)


def test_what_is_validated_or_watched_may_be_anything_and_the_weights_are_the_same(chirps, tmp_path):
    prepared, table = chirps
    recipe = recipe_of(patience=2, vae_epochs=1)
    split = splits.split_fold(prepared, table, 0, recipe)
    assert split.watch.any()
    vae_windows.trained(prepared, split, recipe, tmp_path / "clean")
    poisoned = replace(prepared, folder=tmp_path / "other")
    shutil.copytree(prepared.folder, poisoned.folder)
    for shard in range(SHARDS):
        images = np.fromfile(poisoned.shard_path(shard), np.uint8).reshape(-1, prepared.window_bytes)
        images[~split.train[prepared.index.shard == shard]] = 255
        images.tofile(poisoned.shard_path(shard))
    vae_windows.trained(poisoned, split, recipe, tmp_path / "dirty")
    with np.load(tmp_path / "clean/checkpoint_vae.npz") as one, np.load(tmp_path / "dirty/checkpoint_vae.npz") as other:
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


def test_interrupted_in_an_epoch_and_in_a_shard_it_goes_on_to_the_same_bytes(chirps, tmp_path, monkeypatch):
    prepared, table = chirps
    recipe = recipe_of()
    split = splits.split_fold(prepared, table, 1, recipe)
    whole = vae_windows.extended(prepared, split, recipe, tmp_path / "whole")

    save = checkpoints.Checkpoint.save

    def die_after_saving(self, *arguments):
        save(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "save", die_after_saving)
    with pytest.raises(KeyboardInterrupt):
        vae_windows.extended(prepared, split, recipe, tmp_path / "killed")
    monkeypatch.undo()
    variants = vae_windows.variants

    def die_in_the_second_shard(*arguments):
        if files_of(tmp_path / "killed"):
            raise KeyboardInterrupt
        return variants(*arguments)

    monkeypatch.setattr(vae_windows, "variants", die_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        vae_windows.extended(prepared, split, recipe, tmp_path / "killed")
    assert len(files_of(tmp_path / "killed")) == 1
    monkeypatch.undo()
    resumed = vae_windows.extended(prepared, split, recipe, tmp_path / "killed")
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "killed")
    assert whole.contents == resumed.contents

    monkeypatch.setattr(vae_windows, "trained", lambda *_: pytest.fail("all is there"))
    vae_windows.extended(prepared, split, recipe, tmp_path / "killed")
    monkeypatch.undo()
    other = vae_windows.extended(prepared, split, replace(recipe, vae_spread=1.0), tmp_path / "killed")
    assert other.contents != whole.contents
    with pytest.raises(UserError, match="of a training with other options, windows or folds"):
        vae_windows.extended(prepared, split, replace(recipe, vae_epochs=3), tmp_path / "killed")


def test_a_loss_that_is_no_number_is_a_sentence(chirps, tmp_path, monkeypatch):
    prepared, table = chirps
    monkeypatch.setattr(vae_windows, "Design", lambda: replace(SMALL, learning_rate=1e30))
    split = splits.split_fold(prepared, table, 0, recipe_of())
    with pytest.raises(UserError, match=r"the autoencoder's loss became .* in epoch .; try another --seed"):
        vae_windows.trained(prepared, split, recipe_of(vae_epochs=4), tmp_path)


@pytest.mark.parametrize("changes", [{"vae_copies": -1}, {"vae_epochs": 0}, {"vae_spread": -1.0}, {"vae_residue": 1.5}])
def test_numbers_that_make_no_sense_are_named(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        recipe_of(**changes)


def test_train_with_an_autoencoder_from_the_command_line(prepared_sample, monkeypatch):
    monkeypatch.setattr(vae_windows, "Design", vae.Design)  # the one that users get
    base = ["--fold", 0, "--model", "tiny", "--data", prepared_sample["data"], "-o", "runs/vae", "--workers", 2]
    base += ["--epochs", 1, "--steps-per-epoch", 2, "--batch-size", 8, "--augment", "vae", "--vae-epochs", 1]
    done = run_here("train.py", *base, cwd=prepared_sample["folder"])
    assert done.returncode == 0, done.stderr
    folder = prepared_sample["folder"] / "runs/vae/fold0"
    assert (folder / "vae.png").stat().st_size > 20_000
    described = json.loads((folder / "run.json").read_text())
    assert described["recipe"]["vae_copies"] == 1
    split = splits.split_fold(prepared_sample["prepared"], prepared_sample["folds"], 0, preset("default"))
    birds = vae_windows.originals(split) & (split.windows.ebird_code != "nocall").to_numpy()
    assert described["train_windows"] == split.train.sum() + birds.sum()
    again = run_here("train.py", *base, cwd=prepared_sample["folder"])
    assert "is trained already with these settings" in again.stderr


def test_a_network_of_audio_cannot_hear_variants():
    import argparse

    from src.backbones import get

    parser = argparse.ArgumentParser()
    options.add_training(parser)
    with pytest.raises(UserError, match="yamnet hears audio"):
        options.training_recipe(parser.parse_args(["--augment", "vae"]), preset("default"), get("yamnet"))
    for option in ("--vae-copies", "--vae-epochs", "--vae-spread"):
        with pytest.raises(UserError, match=f"{option} is of --augment vae"):
            options.training_recipe(parser.parse_args([option, "2"]), preset("default"), get("tiny"))
