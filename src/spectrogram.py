"""The front end: a window of audio to its log-mel spectrogram, in NumPy for preparation and in TensorFlow for the exported graph.

Both give, in dB, 10 log10 of mel power (librosa's Slaney filters on the power of a Hann-windowed, centred, zero-padded
Fourier transform), limited to [floor_db, floor_db + range_db]. A test holds them together on real audio: a model is trained
on the first and answers in the field through the second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from src.recipe import Recipe

if TYPE_CHECKING:
    import tensorflow as tf

# Transformed at once: what lies between a window and its spectrogram stays in the cache and costs no pages of memory, and a
# spectrogram less than half. A multiple of what the transform takes at once, so that each frame is computed as ever.
FRAMES = 64
# Slaney's mel scale.
HZ_A_MEL, LINEAR_HZ, LOG_STEP = 200.0 / 3, 1000.0, np.log(6.4) / 27


def mel_filters(recipe: Recipe) -> np.ndarray:
    """Mel filters as float32 [mels, 1 + n_fft // 2], area-normalised. Raises ValueError if a band holds no frequency bin.

    To the bit those of librosa.filters.mel, whose import would cost every process that makes windows two seconds.
    """
    mels = np.linspace(_mel(recipe.fmin_hz), _mel(recipe.fmax_hz), recipe.n_mels + 2)
    edges = np.where(mels < LINEAR_HZ / HZ_A_MEL, HZ_A_MEL * mels, _logarithmic_hz(mels))
    rising, falling = edges[:-2, None], edges[2:, None]
    bins = np.fft.rfftfreq(recipe.n_fft, 1 / recipe.sample_rate)
    widths = np.diff(edges)[:, None]
    triangles = np.minimum((bins - rising) / widths[:-1], (falling - bins) / widths[1:])
    filters = np.maximum(0, triangles).astype(np.float32)
    filters *= 2 / (falling - rising)
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"mel bands {empty.tolist()} are narrower than a frequency bin: fewer n_mels or a longer n_fft"
        )
    return filters


def _mel(hertz: float) -> float:
    """Slaney's scale: linear up to LINEAR_HZ, logarithmic above."""
    linear = hertz / HZ_A_MEL
    return linear if hertz < LINEAR_HZ else LINEAR_HZ / HZ_A_MEL + np.log(hertz / LINEAR_HZ) / LOG_STEP


def _logarithmic_hz(mels: np.ndarray) -> np.ndarray:
    return LINEAR_HZ * np.exp(LOG_STEP * (mels - LINEAR_HZ / HZ_A_MEL))


@lru_cache(maxsize=4)
def _tables(recipe: Recipe) -> tuple:
    from scipy.sparse import csr_matrix

    # Periodic Hann, as librosa and tf.signal have it. A mel matrix is 98 % zeros: sparse, it costs a quarter.
    hann = np.hanning(recipe.n_fft + 1)[:-1].astype(np.float32)
    return hann, csr_matrix(mel_filters(recipe))


def log_mel(waveform: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Log-mel spectrogram of one window, by NumPy.

    waveform: float32 array [samples], unit scale, at recipe.sample_rate
    returns: float32 array [mels, frames] in dB within [floor_db, floor_db + range_db]
    """
    import scipy.fft

    hann, filters = _tables(recipe)
    padded = np.pad(waveform.astype(np.float32, copy=False), recipe.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, recipe.n_fft)[:: recipe.hop_length]  # (frames, n_fft)
    mel = np.empty((recipe.n_mels, len(frames)), np.float32)
    for first in range(0, len(frames), FRAMES):
        part = slice(first, first + FRAMES)
        spectrum = scipy.fft.rfft(frames[part] * hann, axis=-1)  # (frames, bins)
        mel[:, part] = filters @ (spectrum.real**2 + spectrum.imag**2).T
    lowest = 10 ** (recipe.floor_db / 10)
    return np.minimum(10 * np.log10(np.maximum(mel, lowest)), recipe.floor_db + recipe.range_db).astype(np.float32)


def image(db: np.ndarray, level_bands: bool) -> np.ndarray:
    """What an image network sees of a log-mel spectrogram: classifier.Image by NumPy, held to it by the parity test.

    db: float32 array [mels, frames]; returns: float32 array [mels, frames], in [0, 1]
    """
    if level_bands:
        db = db - db.mean(axis=1, keepdims=True)
    centred = db - db.mean()
    deviation = np.sqrt(np.square(centred).mean())
    return np.clip((centred / (deviation + np.float32(1.0)) + np.float32(2.0)) / np.float32(6.0), 0.0, 1.0)


def log_mel_graph(waveform: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """The same by TensorFlow, for the exported graph: float32 (batch, samples) -> float32 (batch, mels, frames) in dB."""
    import tensorflow as tf

    half = recipe.n_fft // 2
    padded = tf.pad(waveform, [[0, 0], [half, half]])
    spectrum = tf.signal.stft(padded, recipe.n_fft, recipe.hop_length, recipe.n_fft)  # (batch, frames, bins)
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    mel = tf.matmul(power, tf.constant(mel_filters(recipe).T))  # (batch, frames, mels)
    lowest = 10 ** (recipe.floor_db / 10)
    db = tf.math.log(tf.maximum(mel, lowest)) * np.float32(10 / np.log(10))
    return tf.transpose(tf.minimum(db, recipe.floor_db + recipe.range_db), [0, 2, 1])


def to_bytes(db: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Log-mel in dB as uint8 for storage, in steps of range_db / 255 (0.47 dB by default)."""
    return np.round((db - recipe.floor_db) * (255 / recipe.range_db)).clip(0, 255).astype(np.uint8)


def from_bytes(stored: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The inverse of `to_bytes`, as float32 in dB; for arrays and tensors alike once they are float."""
    return stored * np.float32(recipe.range_db / 255) + np.float32(recipe.floor_db)
