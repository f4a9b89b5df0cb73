"""The four transforms of the study do what their names say, and are the same whoever makes them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from src.augment import augment
from src.recipe import preset

RATE = 32000


def chirp_at(second: float) -> np.ndarray:
    """Silence with a short 3 kHz tone that begins at `second`: float32 [5 s]."""
    waveform = np.zeros(5 * RATE, np.float32)
    first, length = round(second * RATE), RATE // 2
    waveform[first : first + length] = 0.3 * np.sin(2 * np.pi * 3000 * np.arange(length) / RATE) * np.hanning(length)
    return waveform


def loudest_hz(waveform: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * RATE / len(waveform))


def centre_seconds(waveform: np.ndarray) -> float:
    energy = waveform.astype(float) ** 2
    return float((energy * np.arange(len(energy))).sum() / energy.sum() / RATE)


def sounding_seconds(waveform: np.ndarray) -> float:
    envelope = np.convolve(waveform**2, np.ones(320) / 320, "same")
    return float((envelope > envelope.max() * 0.05).sum() / RATE)


@pytest.mark.parametrize("copy", range(4))
def test_shift_moves_by_at_most_half_a_second_and_keeps_all_else(copy):
    waveform = chirp_at(2.0)
    shifted, parameters = augment(waveform, "shift", preset("default"), f"a/{copy}")
    moved = centre_seconds(shifted) - centre_seconds(waveform)
    assert 0 < abs(moved) <= 0.5
    assert moved == pytest.approx(parameters["shift"]["shift_amount"], abs=0.01)
    assert loudest_hz(shifted) == pytest.approx(3000, abs=5)


@pytest.mark.parametrize("copy", range(4))
def test_pitch_moves_by_at_most_two_semitones_and_keeps_duration(copy):
    waveform = chirp_at(2.0)
    changed, parameters = augment(waveform, "pitch", preset("default"), f"a/{copy}")
    semitones = 12 * np.log2(loudest_hz(changed) / loudest_hz(waveform))
    assert 0 < abs(semitones) <= 2.1
    assert semitones == pytest.approx(parameters["pitch"]["num_semitones"], abs=0.1)
    assert sounding_seconds(changed) == pytest.approx(sounding_seconds(waveform), rel=0.25)
    assert changed.shape == waveform.shape


@pytest.mark.parametrize("copy", range(4))
def test_stretch_changes_duration_by_at_most_a_fifth_and_keeps_pitch(copy):
    waveform = chirp_at(2.0)
    changed, parameters = augment(waveform, "stretch", preset("default"), f"a/{copy}")
    rate = parameters["stretch"]["rate"]
    assert 0.8 <= rate <= 1.2
    assert centre_seconds(changed) == pytest.approx(centre_seconds(waveform) / rate, rel=0.03)
    assert loudest_hz(changed) == pytest.approx(3000, rel=0.01)
    assert changed.shape == waveform.shape


@pytest.mark.parametrize("amplitude", [0.005, 0.015, 0.24])
def test_noise_has_the_amplitude_that_was_asked_for(amplitude):
    noisy, parameters = augment(chirp_at(2.0), "noise", preset("default", noise_amplitude=(amplitude, amplitude)), "a")
    assert parameters["noise"]["amplitude"] == pytest.approx(amplitude)
    assert (noisy - chirp_at(2.0)).std() == pytest.approx(amplitude, rel=0.02)


def test_a_copy_is_the_same_whatever_was_drawn_before_and_leaves_the_generators_alone():
    recipe = preset("default")
    first, _ = augment(chirp_at(1.0), "shift+pitch+stretch+noise", recipe, "a/0")
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.rand()
    random.seed(7)
    np.random.seed(7)
    second, parameters = augment(chirp_at(1.0), "shift+pitch+stretch+noise", recipe, "a/0")
    np.testing.assert_array_equal(first, second)
    assert (random.random(), np.random.rand()) == expected
    assert set(parameters) == {"shift", "pitch", "stretch", "noise"}


def test_another_name_or_seed_gives_another_copy():
    copies = [
        augment(chirp_at(1.0), "noise", preset("default", augment_seed=seed), name)[0]
        for seed, name in [(0, "a"), (0, "b"), (1, "a")]
    ]
    assert not np.array_equal(copies[0], copies[1])
    assert not np.array_equal(copies[0], copies[2])


def test_what_another_thread_draws_while_a_transform_is_loaded_changes_nothing(monkeypatch):
    from src import augment as module

    waveform, recipe = chirp_at(2.0), preset("default")
    alone = augment(waveform, "shift+noise", recipe, "a")
    load = module._transform

    def interrupted(name, recipe):
        random.random()
        np.random.random()
        return load(name, recipe)

    monkeypatch.setattr(module, "_transform", interrupted)
    again = augment(waveform, "shift+noise", recipe, "a")
    np.testing.assert_array_equal(alone[0], again[0])
    assert alone[1] == again[1]
