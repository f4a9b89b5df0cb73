"""Training batches: every window once an epoch, the same for the same seed, and what the on-line mixing does to sound."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from src import datasets, mixing, shards
from src.recipe import Recipe, preset
from src.spectrogram import from_bytes

CALM = {
    "background_probability": 0.0,
    "mixup_probability": 0.0,
    "gain_db": 0.0,
    "high_loss_db": 0.0,
    "mask_probability": 0.0,
    "roll": False,
}
EVERYTHING = {name: getattr(preset("default"), name) for name in CALM}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> shards.Prepared:
    """40 windows in 5 shards; the first column of each holds its number."""
    recipe = Recipe(window_seconds=0.1, hop_seconds=0.1, n_mels=16, n_fft=1024)
    mels, frames = recipe.image_shape
    folder = tmp_path_factory.mktemp("stored")
    (folder / "shards").mkdir()
    rows = []
    generator = np.random.default_rng(0)
    for shard in range(5):
        images = generator.integers(60, 200, (8, mels, frames)).astype(np.uint8)
        images[:, :, 0] = (np.arange(8) + 8 * shard)[:, None]
        images.tofile(folder / "shards" / f"shard-{shard:05d}.bin")
        rows += [{"window": 8 * shard + row, "shard": shard, "row": row} for row in range(8)]
    return shards.Prepared(folder, recipe, ("a", "b"), pd.DataFrame(rows), pd.DataFrame())


def numbers_of(db: np.ndarray, recipe: Recipe) -> list[int]:
    return [round(float(value)) for value in (db[:, 0, 0] - recipe.floor_db) * 255 / recipe.range_db]


def batches(
    stored: shards.Prepared,
    epoch: int = 0,
    steps: int = 5,
    batch_size: int = 8,
    background=None,
    workers: int = 2,
    **changes,
):
    recipe = preset("default", batch_size=batch_size, **{**CALM, **changes})
    targets = np.stack([np.arange(40) % 2, 1 - np.arange(40) % 2], axis=1).astype(np.float32)
    keep, none = np.ones(40, bool), np.zeros(40, bool)
    background = none if background is None else background
    dataset = datasets.training_batches(stored, keep, targets, background, recipe, epoch, steps, workers)
    return [(db.numpy(), target.numpy()) for db, target in dataset]


def test_plain_batches_are_the_kept_windows_in_order(stored):
    keep = np.arange(40) % 3 == 0
    db = np.concatenate(list(datasets.plain_batches(stored, keep, 5).as_numpy_iterator()))
    assert numbers_of(db, stored.recipe) == list(np.flatnonzero(keep))


@pytest.mark.parametrize("at_once", [3, 64])
def test_windows_are_read_from_the_middle_of_shards_and_from_some_shards_only(stored, monkeypatch, at_once):
    monkeypatch.setattr(datasets, "RECORDS_AT_ONCE", at_once)
    keep = np.isin(np.arange(40), [11, 12, 14, 30, 31, 39])
    for seed in (None, 3):
        read = [(number, bytes_) for number, bytes_ in datasets.read(stored, keep, seed).as_numpy_iterator()]
        assert sorted(number for number, _ in read) == list(np.flatnonzero(keep))
        for number, bytes_ in read:
            shard = np.fromfile(stored.shard_path(number // 8), np.uint8).reshape(8, -1)
            assert bytes_ == shard[number % 8].tobytes()


def test_an_epoch_holds_every_window_once_with_its_own_target_shuffled_across_shards(stored):
    made = batches(stored)
    numbers = [number for db, _ in made for number in numbers_of(db, stored.recipe)]
    assert sorted(numbers) == list(range(40))
    assert numbers != list(range(40))
    assert len({number // 8 for number in numbers[:8]}) >= 3  # the first batch is of several shards
    for db, target in made:
        assert list(target[:, 0]) == [number % 2 for number in numbers_of(db, stored.recipe)]


def test_the_same_epoch_is_the_same_to_the_bit_with_more_workers_and_another_is_not(stored):
    background = np.arange(40) < 8
    made = (
        batches(stored, epoch, background=background, workers=n, **EVERYTHING) for epoch, n in ((0, 1), (0, 4), (1, 1))
    )
    first, again, other = made
    for (db, target), (same_db, same_target) in zip(first, again):
        np.testing.assert_array_equal(db, same_db)
        np.testing.assert_array_equal(target, same_target)
    assert not np.array_equal(first[0][0], other[0][0])
    assert all(np.isfinite(db).all() for db, _ in first)


def test_more_steps_than_windows_go_round_again(stored):
    made = batches(stored, steps=12)
    numbers = [number for db, _ in made for number in numbers_of(db, stored.recipe)]
    assert len(numbers) == 96
    assert min(np.bincount(numbers, minlength=40)) >= 2


def test_mixup_adds_powers_and_unites_labels(stored):
    made = batches(stored, mixup_probability=1.0, mixup_gain_db=0.0)
    calm = batches(stored)
    for (mixed, union), (db, target) in zip(made, calm):
        np.testing.assert_array_equal(union, np.maximum(target, np.roll(target, 1, axis=0)))
        power, other = 10 ** (db / 10), np.roll(10 ** (db / 10), 1, axis=0)
        gain = power.mean((1, 2), keepdims=True) / other.mean((1, 2), keepdims=True)
        np.testing.assert_allclose(mixed, 10 * np.log10(power + gain * other), atol=0.01)


def test_background_is_mixed_in_at_the_signal_to_noise_ratio_that_was_asked_for(stored):
    background = np.arange(40) < 8
    made = batches(stored, background=background, background_probability=1.0, background_snr_db=(6.0, 6.0))
    for (noisy, target), (db, calm_target) in zip(made, batches(stored)):
        np.testing.assert_array_equal(target, calm_target)
        power, added = 10 ** (db / 10), 10 ** (noisy / 10) - 10 ** (db / 10)
        snr_db = 10 * np.log10(power.mean((1, 2)) / added.mean((1, 2)))
        np.testing.assert_allclose(snr_db, 6.0, atol=0.05)


@pytest.mark.parametrize(("backgrounds", "held", "different"), [(3, 2048, 3), (20, 5, 5)])
def test_fewer_backgrounds_than_a_batch_go_round_and_of_more_some_are_held(
    stored, monkeypatch, backgrounds, held, different
):
    monkeypatch.setattr(datasets, "SHUFFLE_WINDOWS", held)
    background = np.arange(40) < backgrounds
    sounds = 10 ** (np.concatenate(list(datasets.plain_batches(stored, background, 8))) / 10)
    heard = set()
    mixed = batches(stored, background=background, background_probability=1.0, background_snr_db=(0.0, 0.0))
    for (noisy, _), (db, _) in zip(mixed, batches(stored)):
        added = 10 ** (noisy / 10) - 10 ** (db / 10)
        likeness = np.einsum("bmf,nmf->bn", added, sounds) / np.linalg.norm(sounds, axis=(1, 2))
        assert (likeness.max(axis=1) / np.linalg.norm(added, axis=(1, 2)) > 0.999).all()
        heard |= set(likeness.argmax(axis=1))
    assert len(heard) == different


def test_what_is_to_be_background_and_is_not_there_is_left_out(stored):
    for (db, _), (calm, _) in zip(batches(stored, background_probability=1.0), batches(stored)):
        np.testing.assert_array_equal(db, calm)


def test_gain_moves_all_by_as_much_and_high_loss_only_the_upper_half(stored):
    (db, _), (loud, _) = batches(stored)[0], batches(stored, gain_db=4.0)[0]
    moved = loud - db
    inside = (loud > -79) & (loud < 39)
    for window in range(8):
        values = moved[window][inside[window]]
        assert values.std() < 1e-3
        assert abs(values.mean()) <= 4
    (softer, _) = batches(stored, high_loss_db=20.0)[0]
    np.testing.assert_allclose(softer[:, :8], np.maximum(db[:, :8], -80), atol=1e-4)
    lost = db[:, -1, 1:].mean(axis=1) - softer[:, -1, 1:].mean(axis=1)
    assert lost.max() > 3
    assert lost.max() <= 20


def test_masks_hide_a_span_with_the_mean_and_nothing_else(stored):
    masks = {"mask_probability": 1.0, "mask_frames": 0.5, "mask_mels": 0.25}
    (db, _), (masked, _) = batches(stored)[0], batches(stored, **masks)[0]
    changed = ~np.isclose(db, masked, atol=1e-4)
    assert 0 < changed.mean() < 0.7
    for window in range(8):
        np.testing.assert_allclose(masked[window][changed[window]], db[window].mean(), atol=1e-4)
        # Away from the hidden frames, whole bands are hidden or not, and the other way round.
        frames, mels = changed[window].all(axis=0), changed[window].all(axis=1)
        assert (changed[window] == frames[None, :] | mels[:, None]).mean() > 0.98
        for span in (frames, mels):
            assert np.abs(np.diff(span.astype(int))).sum() <= 2


def test_roll_turns_a_window_round_in_time(stored):
    (db, _), (rolled, _) = batches(stored)[0], batches(stored, roll=True)[0]
    shifts = []
    for before, after in zip(db, rolled):
        same = [shift for shift in range(before.shape[1]) if np.array_equal(np.roll(before, shift, axis=1), after)]
        assert len(same) == 1
        shifts += same
    assert len(set(shifts)) > 1


def test_all_together_are_what_numpy_makes_of_the_same_numbers():
    recipe = preset("default", mask_probability=1.0, mask_frames=0.5)
    size, (mels, frames) = 8, (16, 21)
    generator = np.random.default_rng(0)
    stored, noise = generator.integers(30, 250, (2, size, mels, frames)).astype(np.uint8)
    target = (generator.random((size, 5)) < 0.3).astype(np.float32)
    draw = mixing.Draw(7, tf.constant(3), size)
    made, made_target = mixing.augmented(
        tf.constant(stored), tf.constant(target), tf.constant(noise), recipe, recipe, draw
    )

    def drawn(name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return draw.uniform(name, low, high).numpy().astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        return values.mean((1, 2), keepdims=True)

    def power(windows: np.ndarray) -> np.ndarray:
        return 10 ** (from_bytes(windows.astype(np.float64), recipe) / 10)

    shifts = drawn("roll", 0, frames).astype(int)[:, 0, 0]
    sound = power(np.stack([np.roll(window, shift, axis=1) for window, shift in zip(stored, shifts)]))
    other = np.roll(sound, 1, axis=0)
    two = drawn("mixup") < recipe.mixup_probability
    louder = 10 ** (drawn("mixup gain", -6, 6) / 10)
    sound = sound + two * louder * other * mean(sound) / mean(other)
    noisy = drawn("background") < recipe.background_probability
    ratio = 10 ** (drawn("background snr", *recipe.background_snr_db) / 10)
    sound = sound + noisy * power(noise) * mean(sound) / mean(power(noise)) / ratio
    db = 10 * np.log10(sound) + drawn("gain", -6, 6)
    slope = np.maximum(np.linspace(-1, 1, mels), 0)[None, :, None]
    db = np.clip(db - (drawn("far") < 0.5) * drawn("high loss", 0, 20) * slope, -80, 40)
    hidden = np.zeros(db.shape, bool)
    for name, length, greatest, axis in (("frames", frames, 0.5, 2), ("mels", mels, 0.1, 1)):
        width = drawn(f"mask {name} width", 0, greatest) * length
        first = drawn(f"mask {name} first") * (length - width)
        place = np.arange(length).reshape([1, 1, -1] if axis == 2 else [1, -1, 1])
        hidden |= (place >= first) & (place < first + width)
    np.testing.assert_allclose(made, np.where(hidden, mean(db), db), atol=1e-3)
    union = np.maximum(target, np.roll(target, 1, axis=0))
    np.testing.assert_array_equal(made_target, np.where(two[:, :, 0], union, target))
    assert 0 < two.sum() < size, "some mixed, some not"
    assert 0 < noisy.sum() < size


def test_targets_are_looked_up_whatever_they_are():
    targets = np.array([[0, 0, 0], [1, 0, 0.3], [0, 0.5, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    numbers = [4, 0, 1, 1, 2]
    np.testing.assert_array_equal(datasets._lookup(targets)(tf.constant(numbers, tf.int64)), targets[numbers])
    np.testing.assert_array_equal(datasets._lookup(0 * targets)(tf.constant(numbers, tf.int64)), np.zeros((5, 3)))


def test_bytes_become_decibels_in_tensorflow_as_in_numpy(stored):
    values = np.arange(256, dtype=np.uint8)
    by_tf = mixing.decibel(tf.constant(values), stored.recipe).numpy()
    np.testing.assert_allclose(by_tf, from_bytes(values.astype(np.float32), stored.recipe), atol=1e-5)
