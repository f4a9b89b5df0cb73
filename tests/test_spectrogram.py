"""One front end: NumPy for preparation, TensorFlow for the exported graph, and librosa as the judge of both."""

from __future__ import annotations

import numpy as np
import pytest

from src.audio import AudioFile, file_windows
from src.recipe import preset
from src.spectrogram import from_bytes, log_mel, log_mel_graph, mel_filters, to_bytes


def real_windows(real_data, recipe) -> list[np.ndarray]:
    """Waveforms of real birds and real soundscapes, float32 [samples]."""
    paths = sorted((real_data / "birds/train_audio").glob("*/*.mp3"))[::60]
    paths += sorted((real_data / "birdsong-recognition/example_test_audio").glob("*.mp3"))
    windows = []
    for path in paths:
        with AudioFile(path) as audio:
            windows += [window.samples[0] for window in file_windows(audio, recipe)][:4]
    return windows


@pytest.mark.parametrize("name", ["default", "study2020"])
def test_numpy_and_graph_agree_to_a_thousandth_of_the_range_on_real_audio(real_data, name):
    recipe = preset(name)
    windows = np.stack(real_windows(real_data, recipe))
    by_numpy = np.stack([log_mel(window, recipe) for window in windows])
    by_graph = log_mel_graph(windows, recipe).numpy()
    assert by_numpy.shape[1:] == recipe.image_shape
    assert by_numpy.std() > 5  # real spectrograms, not a constant that anything agrees with
    assert np.abs(by_numpy - by_graph).max() < 1e-3 * recipe.range_db


@pytest.mark.parametrize("name", ["default", "study2020"])
def test_librosa_gives_the_same_spectrogram(real_data, name):
    import librosa

    recipe = preset(name)
    for window in real_windows(real_data, recipe)[:6]:
        mel = librosa.feature.melspectrogram(
            y=window,
            sr=recipe.sample_rate,
            n_fft=recipe.n_fft,
            hop_length=recipe.hop_length,
            n_mels=recipe.n_mels,
            fmin=recipe.fmin_hz,
            fmax=recipe.fmax_hz,
            pad_mode="constant",
        )
        expected = 10 * np.log10(np.maximum(mel, 10 ** (recipe.floor_db / 10)))
        expected = np.minimum(expected, recipe.floor_db + recipe.range_db)
        assert np.abs(log_mel(window, recipe) - expected).max() < 1e-3 * recipe.range_db


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_mels": 64, "fmin_hz": 0.0}, {"fmin_hz": 1000.0, "n_mels": 40}, {"fmax_hz": 3500.0, "n_mels": 30}],
)
@pytest.mark.parametrize("name", ["default", "study2020"])
def test_mel_filters_are_librosa_s_to_the_bit(name, changes):
    import librosa

    recipe = preset(name, **changes)
    expected = librosa.filters.mel(
        sr=recipe.sample_rate, n_fft=recipe.n_fft, n_mels=recipe.n_mels, fmin=recipe.fmin_hz, fmax=recipe.fmax_hz
    )
    assert mel_filters(recipe).dtype == expected.dtype
    np.testing.assert_array_equal(mel_filters(recipe), expected)


def test_silence_is_the_floor_and_no_nan():
    recipe = preset("default")
    silence = np.zeros(recipe.window_samples, np.float32)
    np.testing.assert_allclose(log_mel(silence, recipe), recipe.floor_db, atol=1e-3)
    np.testing.assert_allclose(log_mel_graph(silence[None], recipe).numpy(), recipe.floor_db, atol=1e-3)
    assert (to_bytes(log_mel(silence, recipe), recipe) == 0).all()


def test_every_mel_band_of_both_recipes_holds_a_frequency_bin():
    assert mel_filters(preset("default")).shape == (128, 1025)
    assert mel_filters(preset("study2020")).shape == (224, 2049)
    with pytest.raises(ValueError, match="narrower than a frequency bin"):
        mel_filters(preset("default", n_mels=400, n_fft=512))


def test_bytes_keep_decibels_to_half_a_step(real_data):
    recipe = preset("default")
    db = log_mel(real_windows(real_data, recipe)[0], recipe)
    assert (
        np.abs(from_bytes(to_bytes(db, recipe).astype(np.float32), recipe) - db).max()
        <= recipe.range_db / 255 / 2 + 1e-4
    )


def test_the_study_s_images_are_224_by_625():
    assert preset("study2020").image_shape == (224, 625)
    assert preset("default").image_shape == (128, 313)
