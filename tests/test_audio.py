"""From a file to windows: which windows there are, that blocks do not change them, and what bad files cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from src.audio import AudioError, AudioFile, Highpass, Resampler, WindowStream, file_windows
from src.recipe import Recipe


def small_recipe(window: int = 50, hop: int = 20, sample_rate: int = 100, **changes) -> Recipe:
    """A recipe whose windows and hops are counted in samples of a low rate."""
    front_end = {"n_fft": 16, "hop_length": 8, "n_mels": 4, "fmin_hz": 0.0, "fmax_hz": sample_rate / 2}
    return Recipe(
        sample_rate=sample_rate,
        window_seconds=window / sample_rate,
        hop_seconds=hop / sample_rate,
        **front_end,
        **changes,
    )


def windows_of(audio: np.ndarray, sample_rate: int, recipe: Recipe, sizes: list[int]) -> list:
    """Push `audio` in blocks of the given sizes, again and again, and collect the windows."""
    stream = WindowStream(sample_rate, recipe)
    windows, place, turn = [], 0, 0
    while place < len(audio):
        block = audio[place : place + sizes[turn % len(sizes)]]
        windows += stream.push(block[:, None])
        place += len(block)
        turn += 1
    return windows + list(stream.finish())


@given(
    samples=st.integers(1, 400),
    window=st.integers(1, 90),
    hop_share=st.floats(0.01, 1.0),
    sizes=st.lists(st.integers(1, 130), min_size=1, max_size=4),
)
def test_windows_cover_all_audio_in_order_and_pad_only_the_last(samples, window, hop_share, sizes):
    hop = max(1, int(window * hop_share))
    audio = np.arange(1, samples + 1, dtype=np.float32)
    windows = windows_of(audio, 100, small_recipe(window, hop), sizes)

    expected = 1 if samples <= window else math.ceil((samples - window) / hop) + 1
    assert len(windows) == expected
    for number, one in enumerate(windows):
        start = number * hop
        inside = audio[start : start + window]
        assert one.start_seconds == pytest.approx(start / 100)
        assert one.audio_seconds == pytest.approx(len(inside) / 100)
        np.testing.assert_array_equal(one.samples[0], np.pad(inside, (0, window - len(inside))))
        assert len(inside) == window or number == expected - 1


@settings(deadline=None, max_examples=25)
@given(
    rate=st.sampled_from([8000, 22050, 32000, 44100, 48000]),
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=3),
    seconds=st.floats(0.2, 2.5),
)
def test_resampled_and_filtered_windows_do_not_depend_on_the_cut_into_blocks(rate, sizes, seconds):
    recipe = Recipe(sample_rate=16000, window_seconds=1.0, hop_seconds=0.5, fmax_hz=8000.0, highpass_hz=300.0)
    audio = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    whole, cut = windows_of(audio, rate, recipe, [len(audio)]), windows_of(audio, rate, recipe, sizes)
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut):
        np.testing.assert_allclose(one.samples, other.samples, atol=2e-6)


@given(
    frames=st.integers(1, 5000), rates=st.sampled_from([(44100, 32000), (48000, 32000), (22050, 32000), (8000, 32000)])
)
@settings(deadline=None)
def test_resampling_gives_as_many_samples_as_the_time_needs(frames, rates):
    resampler = Resampler(*rates, channels=1)
    block = np.zeros((frames, 1), np.float32)
    given_back = len(resampler.push(block)) + len(resampler.push(block[:0], last=True))
    assert given_back == round(frames * rates[1] / rates[0])


def test_a_tone_survives_resampling_in_level_and_place():
    rate, tone_hz = 44100, 3000.0
    audio = np.sin(2 * np.pi * tone_hz * np.arange(5 * rate) / rate).astype(np.float32)
    (window,) = windows_of(audio, rate, Recipe(), [4410])
    expected = np.sin(2 * np.pi * tone_hz * np.arange(5 * 32000) / 32000)
    np.testing.assert_allclose(window.samples[0][1000:-1000], expected[1000:-1000], atol=1e-3)


@pytest.mark.parametrize(
    ("tone_hz", "greatest_db", "least_db"), [(300, -60, None), (700, -55, None), (2800, 0.1, -0.1)]
)
def test_the_high_pass_of_1400_hz_removes_what_lies_below_and_keeps_what_lies_above(tone_hz, greatest_db, least_db):
    rate = 22050
    tone = np.sin(2 * np.pi * tone_hz * np.arange(2 * rate) / rate).astype(np.float32)[:, None]
    highpass = Highpass(1400.0, rate, 1)
    filtered = np.concatenate([highpass.push(tone), highpass.push(tone[:0], last=True)])
    assert len(filtered) == len(tone)
    middle = slice(rate // 2, -rate // 2)
    gain_db = 20 * np.log10(np.sqrt((filtered[middle] ** 2).mean() / (tone[middle] ** 2).mean()))
    assert gain_db <= greatest_db
    assert least_db is None or gain_db >= least_db


def test_the_high_pass_does_not_delay():
    impulse = np.zeros((4000, 1), np.float32)
    impulse[2000] = 1
    highpass = Highpass(1000.0, 22050, 1)
    filtered = np.concatenate([highpass.push(impulse), highpass.push(impulse[:0], last=True)])
    assert np.abs(filtered[:, 0]).argmax() == 2000


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_stereo_is_averaged_or_split(tmp_path, suffix):
    rate = 32000
    time = np.arange(6 * rate) / rate
    stereo = np.stack([0.4 * np.sin(2 * np.pi * 1000 * time), 0.2 * np.sin(2 * np.pi * 4000 * time)], axis=1)
    soundfile.write(tmp_path / f"stereo.{suffix}", stereo, rate)
    with AudioFile(tmp_path / f"stereo.{suffix}") as audio:
        split = list(file_windows(audio, Recipe(), "split"))
    with AudioFile(tmp_path / f"stereo.{suffix}") as audio:
        mono = list(file_windows(audio, Recipe(), "mono"))
    assert [window.samples.shape[0] for window in split] == [2, 2]
    for both, mean in zip(split, mono):
        np.testing.assert_allclose(both.samples.mean(axis=0), mean.samples[0], atol=1e-6)
    assert not audio.fault


BAD = {
    "empty.mp3": (b"", "empty"),
    "text.mp3": (b"not audio at all, only words " * 40, "cannot be decoded"),
    "header.wav": (b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00", "cannot be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_without_audio_is_an_error_that_says_why(tmp_path, name):
    content, reason = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=reason):
        AudioFile(tmp_path / name)


def test_missing_files_and_folders_are_errors_that_say_so(tmp_path):
    with pytest.raises(AudioError, match="No such file"):
        AudioFile(tmp_path / "absent.wav")
    (tmp_path / "folder.mp3").mkdir()
    with pytest.raises(AudioError, match="folder"):
        AudioFile(tmp_path / "folder.mp3")


def test_a_wav_without_frames_is_an_error(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1)), 32000)
    with pytest.raises(AudioError, match="no audio"), AudioFile(tmp_path / "none.wav") as audio:
        list(audio.blocks())


def test_a_truncated_mp3_is_read_as_far_as_it_goes_and_flagged(small_sample):
    status = {}
    for path in sorted(small_sample.glob("train_audio/*/*.mp3")):
        try:
            with AudioFile(path) as audio:
                list(audio.blocks())
                status[path.name] = audio.fault
        except AudioError as error:
            status[path.name] = f"failed {error}"
    faulty = sorted(reason for reason in status.values() if reason)
    assert len(faulty) == 2  # the undecodable one and the truncated one, of all the sample's recordings
    assert faulty[0].startswith("failed cannot be decoded")
    assert faulty[1].startswith("truncated: ")


def test_samples_that_are_not_numbers_become_silence_and_are_flagged(tmp_path):
    broken = np.full(8000, 0.1, np.float32)
    broken[100:200] = np.nan
    broken[300] = np.inf
    soundfile.write(tmp_path / "nan.wav", broken, 8000, subtype="FLOAT")
    with AudioFile(tmp_path / "nan.wav") as audio:
        block = np.concatenate(list(audio.blocks()))
    assert np.isfinite(block).all()
    assert "not numbers" in audio.fault


@pytest.mark.parametrize(("suffix", "share", "kept_s"), [("wav", 0.5, 6.0), ("flac", 0.5, 5.0), ("mp3", 0.4, 4.0)])
def test_a_file_cut_in_the_middle_is_read_to_half_a_second_of_its_end_and_flagged(tmp_path, suffix, share, kept_s):
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 12 * 32000), 32000)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    with AudioFile(path) as audio:
        frames = sum(len(block) for block in audio.blocks())
    assert audio.fault.startswith(("truncated", "broken after"))
    assert frames / 32000 >= kept_s - 0.5
    assert frames == audio.frames_read


@pytest.mark.parametrize("block_seconds", [10.0, 0.7])
def test_an_mp3_read_in_blocks_is_the_mp3_read_at_once(real_data, block_seconds):
    (path,) = (real_data / "birdsong-recognition/example_test_audio").glob("BLKFR*.mp3")
    whole, _ = soundfile.read(path, dtype="float32")
    with AudioFile(path) as audio:
        blocks = np.concatenate(list(audio.blocks(block_seconds)))[:, 0]
    np.testing.assert_allclose(blocks, whole, atol=1e-6)


def test_a_hop_of_no_sample_is_refused():
    with pytest.raises(ValueError, match="hop_seconds"):
        WindowStream(32000, Recipe(), hop_seconds=0.0)


def test_the_real_recordings_are_read_whole(real_data):
    for path in sorted(Path(real_data / "birds/train_audio").glob("*/*.mp3"))[::9]:
        with AudioFile(path) as audio:
            windows = list(file_windows(audio, Recipe()))
        assert audio.fault == "", path.name
        assert len(windows) == max(1, math.ceil(audio.seconds_read / 5 - 1e-6))
