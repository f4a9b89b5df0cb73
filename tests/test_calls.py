"""Which windows of a recording call: what scores, what does not, and which windows are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import calls
from src.recipe import preset
from src.spectrogram import log_mel, to_bytes

RECIPE = preset("default")
RATE = RECIPE.sample_rate


def image_of(waveform: np.ndarray) -> np.ndarray:
    return to_bytes(log_mel(waveform.astype(np.float32), RECIPE), RECIPE)


def hiss(seed: int = 0, level: float = 0.003) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, RECIPE.window_samples)


def song(level: float = 0.1) -> np.ndarray:
    """Six whistles of a third of a second that fall from 5 to 3 kHz."""
    time_s = np.arange(RECIPE.window_samples) / RATE
    place = time_s % 0.8
    phase = 2 * np.pi * (5000 * place - 3000 * place**2)
    return np.where(place < 0.33, level * np.sin(phase), 0.0)


def score(waveform: np.ndarray, beside: list[np.ndarray] | None = None) -> float:
    """A window's score in a recording of itself and of windows beside it, hiss by default."""
    beside = [hiss(seed) for seed in range(1, 6)] if beside is None else beside
    floor = calls.NoiseFloor(RECIPE)
    for other in (waveform, *beside):
        floor.add(image_of(other), 5.0)
    return calls.call_score(image_of(waveform), floor.median(), RECIPE)


def test_song_scores_far_above_hiss():
    assert score(hiss() + song()) > 8
    assert score(hiss()) < 0.5
    assert score(np.zeros(RECIPE.window_samples)) == 0


def test_a_louder_song_scores_higher_and_gain_does_not_matter():
    assert score(hiss() + song(0.1)) > score(hiss() + song(0.01)) + 2
    beside = [hiss(seed) for seed in range(1, 6)]
    loud = score(4 * (hiss() + song()), [4 * other for other in beside])
    assert loud == pytest.approx(score(hiss() + song(), beside), abs=0.3)


def test_a_click_scores_little_though_it_is_loud():
    click = hiss()
    click[80000:80020] += 0.9
    assert score(click) < 0.1 * score(hiss() + song())


def test_a_hum_that_never_stops_is_part_of_the_floor():
    hum = 0.1 * np.sin(2 * np.pi * 3000 * np.arange(RECIPE.window_samples) / RATE)
    with_hum = [hiss(seed) + hum for seed in range(1, 6)]
    assert score(hiss() + hum, with_hum) < 0.5
    assert score(hiss() + hum + song(), with_hum) > 5


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_noise_floor_is_the_median_of_all_frames_however_they_are_cut(windows, seed):
    recipe = preset("default", n_mels=4, fmin_hz=500.0)
    images = np.random.default_rng(seed).integers(0, 256, (windows, 4, 313)).astype(np.uint8)
    floor = calls.NoiseFloor(recipe)
    for image in images:
        floor.add(image, 5.1)
    frames = np.sort(np.concatenate(list(images), axis=1), axis=1)
    lower = frames[:, (frames.shape[1] - 1) // 2]
    np.testing.assert_array_equal(floor.median(), lower)


def test_padding_does_not_lower_the_floor():
    short = hiss()
    short[2 * RATE :] = 0
    floor = calls.NoiseFloor(RECIPE)
    floor.add(image_of(short), 2.0)
    whole = calls.NoiseFloor(RECIPE)
    whole.add(image_of(hiss()), 5.0)
    assert np.abs(floor.median().astype(int) - whole.median()).max() <= 3


scores_of_a_recording = st.lists(st.floats(0, 40), min_size=1, max_size=30)


@given(scores_of_a_recording, st.integers(0, 8), st.floats(0, 0.9))
def test_the_best_are_kept_in_the_order_of_time_and_no_window_is_call_and_nocall(scores, number, share):
    kept, quiet = calls.choose(scores, preset("default", windows_per_recording=number, quiet_share=share))
    assert kept == sorted(kept)
    loud = [score for score in scores if score >= 0.1 * max(scores)] if number else scores
    assert len(kept) == min(number or len(scores), len(loud))
    rejected = set(range(len(scores))) - set(kept)
    assert all(scores[window] <= min(scores[k] for k in kept) for window in rejected)
    assert set(quiet) <= rejected
    assert len(quiet) <= round(share * len(scores))
    assert all(scores[window] <= 0.1 * max(scores) for window in quiet)


def test_quiet_windows_are_the_quietest():
    recipe = preset("default", windows_per_recording=2, quiet_share=0.25)
    kept, quiet = calls.choose([0.2, 9.0, 0.0, 0.5, 12.0, 5.0, 0.1, 4.0], recipe)
    assert (kept, quiet) == ([1, 4], [2, 6])
