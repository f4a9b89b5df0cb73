"""Offline augmentation of a window of audio by audiomentations: the four transforms of the original study.

    shifted, parameters = augment(waveform, "shift", recipe, "XC123.mp3/0/5.0/shift/0")

The name of a copy seeds it, so a copy is the same whoever makes it, in whatever order, on however many cores.
"""

from __future__ import annotations

import random
import zlib

import audiomentations
import numpy as np

from src.recipe import Recipe


def augment(waveform: np.ndarray, entry: str, recipe: Recipe, name: str) -> tuple[np.ndarray, dict]:
    """One augmented copy of a window and the parameters that were drawn for it.

    waveform: float32 array [samples], unit scale, at recipe.sample_rate
    entry: "shift", "pitch", "stretch" or "noise", or several joined by "+", applied in that order
    name: what seeds the copy, with recipe.augment_seed
    returns: float32 array [samples], and {transform: {parameter: value}}
    """
    seed = zlib.crc32(f"{recipe.augment_seed}/{name}".encode())
    # audiomentations draws from both generators; what they held before is given back afterwards.
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        parameters = {}
        for transform_name in entry.split("+"):
            transform = _transform(transform_name, recipe)
            waveform = transform(waveform, recipe.sample_rate)
            drawn = {key: value for key, value in transform.parameters.items() if key != "should_apply"}
            parameters[transform_name] = drawn
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return np.ascontiguousarray(waveform, dtype=np.float32), parameters


def _transform(name: str, recipe: Recipe) -> audiomentations.core.transforms_interface.BaseWaveformTransform:
    if name == "shift":
        limit = recipe.shift_seconds
        return audiomentations.Shift(-limit, limit, shift_unit="seconds", rollover=True, p=1.0)
    # The method of pitch and stretch is audiomentations' default, signalsmith: the other, librosa's phase vocoder, takes as
    # long once it runs, after 25 s of compilation on a fresh machine.
    if name == "pitch":
        limit = recipe.pitch_semitones
        return audiomentations.PitchShift(-limit, limit, p=1.0)
    if name == "stretch":
        limit = recipe.stretch_fraction
        return audiomentations.TimeStretch(1 - limit, 1 + limit, p=1.0)
    amplitude = recipe.noise_amplitude
    return audiomentations.AddGaussianNoise(amplitude, amplitude, p=1.0)
