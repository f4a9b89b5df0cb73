"""Training batches: every window once an epoch, the same for the same seed, and what the on-line mixing does to sound."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from src import datasets, shards
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


def batches(stored: shards.Prepared, epoch: int = 0, steps: int = 5, batch_size: int = 8, background=None, **changes):
    recipe = preset("default", batch_size=batch_size, **{**CALM, **changes})
    targets = np.stack([np.arange(40) % 2, 1 - np.arange(40) % 2], axis=1).astype(np.float32)
    keep, none = np.ones(40, bool), np.zeros(40, bool)
    background = none if background is None else background
    dataset = datasets.training_batches(stored, keep, targets, background, recipe, epoch, steps)
    return [(db.numpy(), target.numpy()) for db, target in dataset]


def test_plain_batches_are_the_kept_windows_in_order(stored):
    keep = np.arange(40) % 3 == 0
    db = np.concatenate(list(datasets.plain_batches(stored, keep, 5).as_numpy_iterator()))
    assert numbers_of(db, stored.recipe) == list(np.flatnonzero(keep))


def test_an_epoch_holds_every_window_once_with_its_own_target_shuffled_across_shards(stored):
    made = batches(stored)
    numbers = [number for db, _ in made for number in numbers_of(db, stored.recipe)]
    assert sorted(numbers) == list(range(40))
    assert numbers != list(range(40))
    assert len({number // 8 for number in numbers[:8]}) >= 3  # the first batch is of several shards
    for db, target in made:
        assert list(target[:, 0]) == [number % 2 for number in numbers_of(db, stored.recipe)]


def test_the_same_epoch_is_the_same_to_the_bit_and_another_is_not(stored):
    everything = {name: getattr(preset("default"), name) for name in CALM}
    background = np.arange(40) < 8
    first, again, other = (batches(stored, epoch, background=background, **everything) for epoch in (0, 0, 1))
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
    (db, _), (masked, _) = batches(stored)[0], batches(stored, mask_probability=1.0, mask_frames=0.5, mask_mels=0.25)[0]
    changed = ~np.isclose(db, masked, atol=1e-4)
    assert 0 < changed.mean() < 0.7
    means = db.mean((1, 2))
    for window in range(8):
        # the second mask fills with the mean of what the first left, which differs a little
        assert np.abs(masked[window][changed[window]] - means[window]).max(initial=0) < 12


def test_roll_turns_a_window_round_in_time(stored):
    (db, _), (rolled, _) = batches(stored)[0], batches(stored, roll=True)[0]
    np.testing.assert_allclose(np.sort(db, axis=2), np.sort(rolled, axis=2), atol=1e-5)
    assert not np.allclose(db, rolled)


def test_bytes_become_decibels_in_tensorflow_as_in_numpy(stored):
    values = np.arange(256, dtype=np.uint8)
    by_tf = datasets._decibel(tf.constant(values), stored.recipe).numpy()
    np.testing.assert_allclose(by_tf, from_bytes(values.astype(np.float32), stored.recipe), atol=1e-5)
