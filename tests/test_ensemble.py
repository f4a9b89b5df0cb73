"""Several bundles at once: a recording is decoded once, whatever each hears; their mean, and their votes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, TONES_HZ, run, tone

import predict
from src import audio, bundle
from src.bundle import Bundle
from src.errors import UserError
from src.predictor import MEAN, VOTES, Ensemble, Predictor, predict_file
from src.recipe import Recipe


@pytest.fixture(scope="module")
def dawn(tmp_path_factory) -> Path:
    """23 s in stereo at 44.1 kHz: low, nothing, mid and high, low, high."""
    folder = tmp_path_factory.mktemp("dawn")
    calls = [tone(5, 44100, *names) for names in (["low"], [], ["mid", "high"], ["low"])] + [tone(3, 44100, "high")]
    left = np.concatenate(calls)
    soundfile.write(folder / "dawn.wav", np.stack([left, 0.8 * left], axis=1), 44100)
    return folder / "dawn.wav"


def changed(of: Bundle, folder: Path, **changes: object) -> Bundle:
    """A copy of a bundle with other fields in its bundle.json."""
    shutil.copytree(of.folder, folder)
    contents = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**contents, "threshold_source": "a test", **changes}))
    return bundle.load(folder)


class Stream:
    """In place of a Predictor: a bundle of one species, whose probability is the mean of a window's samples."""

    combine = MEAN

    def __init__(self, window: float, hop: float, sample_rate: int = 100, bundles: int = 1) -> None:
        front_end = {"n_fft": 16, "hop_length": 8, "n_mels": 4, "fmin_hz": 0.0, "fmax_hz": sample_rate / 2}
        self.recipe = Recipe(sample_rate=sample_rate, window_seconds=window, hop_seconds=hop, **front_end)
        self.bundles = [None] * bundles

    def each(self, windows: np.ndarray) -> np.ndarray:
        assert windows.shape[1] == self.recipe.window_samples
        return np.repeat(windows.mean(axis=1, dtype=np.float32)[None, :, None], len(self.bundles), axis=0)


class Together:
    """In place of an Ensemble."""

    def __init__(self, *streams: Stream, combine: str = MEAN) -> None:
        self.streams, self.recipe, self.combine = list(streams), streams[0].recipe, combine


def stairs(path: Path, seconds: int, rate: int = 1000) -> Path:
    """A recording whose samples are n/100 in second n. Slow enough for no resampler to be heard."""
    soundfile.write(path, np.repeat(np.arange(seconds) / 100, rate), rate, "FLOAT")
    return path


# One decoding.


def test_a_recording_is_decoded_once_and_cut_once_for_all_bundles_that_hear_the_same(
    tone_bundle, tone_bundle_16k, dawn, monkeypatch
):
    decoded, cut = [], []

    class CountedFile(audio.AudioFile):
        def blocks(self, block_seconds=audio.BLOCK_SECONDS):
            for block in super().blocks(block_seconds):
                decoded.append(len(block))
                yield block

    class CountedStream(audio.WindowStream):
        def __init__(self, sample_rate, recipe, *more):
            cut.append(recipe.sample_rate)
            super().__init__(sample_rate, recipe, *more)

    monkeypatch.setattr("src.predictor.AudioFile", CountedFile)
    monkeypatch.setattr(audio, "WindowStream", CountedStream)
    ensemble = Ensemble([tone_bundle, tone_bundle_16k, tone_bundle])
    found = predict_file(ensemble, dawn)
    assert sum(decoded) == 23 * 44100
    assert sorted(cut) == [16000, 32000]
    assert found.probabilities.shape == (5, 3)
    assert ensemble.name == "tones+tones16"


def test_bundles_of_two_sample_rates_answer_the_mean_of_what_each_answers_alone(tone_bundle, tone_bundle_16k, dawn):
    alone = [predict_file(Predictor([one]), dawn) for one in (tone_bundle, tone_bundle_16k)]
    wide, narrow = (one.probabilities for one in alone)
    assert wide[2, 2] > 0.9 and narrow[2, 2] < 0.2, "they differ: one does not hear 8 kHz"
    both = predict_file(Ensemble([tone_bundle, tone_bundle_16k]), dawn)
    np.testing.assert_allclose(both.probabilities, (wide + narrow) / 2, atol=1e-6)
    np.testing.assert_array_equal(both.start_seconds, alone[0].start_seconds)
    assert (both.seconds, both.window_seconds) == (23.0, 5.0)
    # Two of one kind and one of the other: each bundle counts alike, not each kind of audio.
    three = predict_file(Ensemble([tone_bundle, tone_bundle_16k, tone_bundle]), dawn, hop_seconds=2.5)
    wide, narrow = (
        predict_file(Predictor([one]), dawn, hop_seconds=2.5).probabilities for one in (tone_bundle, tone_bundle_16k)
    )
    np.testing.assert_allclose(three.probabilities, (2 * wide + narrow) / 3, atol=1e-6)


def test_one_bundle_alone_answers_as_its_predictor_does_to_the_last_bit(tone_bundle, dawn):
    alone, whole = predict_file(Predictor([tone_bundle]), dawn), predict_file(Ensemble([tone_bundle]), dawn)
    np.testing.assert_array_equal(alone.probabilities, whole.probabilities)


def test_longer_windows_of_another_bundle_are_averaged_onto_the_shortest_by_the_seconds_they_share(tmp_path):
    path = stairs(tmp_path / "stairs.wav", 20)
    five, ten = Stream(5, 5), Stream(10, 5, sample_rate=200)
    # Of windows of 10 s every 5 s the row from 0 to 5 s is in the first alone, the one from 5 to 10 s in two.
    long = [0.045, (0.045 + 0.095) / 2, (0.095 + 0.145) / 2, 0.145]
    short = [0.02, 0.07, 0.12, 0.17]
    np.testing.assert_allclose(predict_file(Together(ten), path).probabilities[:, 0], [0.045, 0.095, 0.145], atol=1e-4)
    found = predict_file(Together(five, ten), path)
    np.testing.assert_allclose(found.probabilities[:, 0], (np.array(short) + long) / 2, atol=1e-4)
    assert found.window_seconds == 5
    each = predict_file(Together(five, ten, combine=VOTES), path)
    np.testing.assert_allclose(each.probabilities[:, :, 0], [short, long], atol=1e-4)


def test_an_overlap_that_is_given_is_the_same_share_of_every_window(tmp_path):
    path = stairs(tmp_path / "stairs.wav", 20)
    found = predict_file(Together(Stream(5, 5), Stream(10, 10)), path, hop_seconds=2.5)
    assert found.start_seconds.tolist() == [0, 2.5, 5, 7.5, 10, 12.5, 15]
    # Windows of 10 s every 5 s: the one from 7.5 to 12.5 s shares 2.5, 5 and 2.5 s with three of them.
    long = (2.5 * 0.045 + 5 * 0.095 + 2.5 * 0.145) / 10
    short = (0.07 / 2 + 0.08 + 0.09 + 0.10 + 0.11 + 0.12 / 2) / 5
    np.testing.assert_allclose(found.probabilities[3, 0], (short + long) / 2, atol=2e-4)


@pytest.mark.parametrize("order", [1, -1])
def test_a_window_of_one_sample_that_another_rate_rounds_away_is_left_out(tmp_path, order):
    soundfile.write(tmp_path / "a.wav", np.full(24001, 0.5), 4800, "FLOAT")
    alone = [Stream(5, 5, 3200), Stream(5, 5, 1600)]
    assert [len(predict_file(Together(one), tmp_path / "a.wav").start_seconds) for one in alone] == [2, 1]
    found = predict_file(Together(*alone[::order]), tmp_path / "a.wav")
    assert found.start_seconds.tolist() == [0] and found.probabilities.shape == (1, 1)


def test_a_file_too_short_for_one_of_the_rates_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(2, 0.5), 96000)
    with pytest.raises(audio.AudioError, match="2 frames are no sample at 16000 Hz"):
        predict_file(Together(Stream(5, 5, 32000), Stream(5, 5, 16000)), tmp_path / "a.wav")


def test_what_asks_window_by_window_is_told_who_takes_bundles_that_hear_different_audio(tone_bundle, tone_bundle_16k):
    with pytest.raises(UserError, match=r"hear different audio \(sample_rate\).* predict.py takes them together"):
        Predictor([tone_bundle, tone_bundle_16k])


def test_memory_does_not_grow_with_the_file_for_an_ensemble_that_votes(tone_bundle, tone_bundle_16k, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.01, 60 * 8000).astype(np.float32)
    peaks = []
    for name, minutes in (("short.flac", 1), ("long.flac", 12)):
        with soundfile.SoundFile(tmp_path / name, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(noise)
        models = ["--model", str(tone_bundle.folder), "--model", str(tone_bundle_16k.folder), "--combine", "votes"]
        command = ["predict.py", *models, str(tmp_path / name), "-o", str(tmp_path / "d.csv"), "--threads", "1"]
        lines = (
            "import resource, subprocess, sys\n"
            f"subprocess.run([sys.executable, *{command!r}], check=True, capture_output=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        )
        done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 15  # MiB; twelve minutes as float32 at 32 kHz are 88


# Votes.


@pytest.fixture(scope="module")
def three(tone_bundle, tone_bundle_16k, tmp_path_factory) -> list[Bundle]:
    """Two that hear all tones, one of which wants to be sure of `mid`, and one that does not hear `high`."""
    folder = tmp_path_factory.mktemp("three")
    return [
        changed(tone_bundle, folder / "a"),
        changed(tone_bundle, folder / "b", thresholds=[0.5, 1.0, 0.5]),
        changed(tone_bundle_16k, folder / "c", thresholds=[0.5, 1.0, 0.5]),
    ]


def test_a_species_counts_where_more_than_half_of_the_bundles_answer_it_by_their_own_thresholds(three, dawn, tmp_path):
    models = [option for one in three for option in ("--model", str(one.folder))]
    found = {}
    for combine in ("mean", "votes"):
        output = tmp_path / combine / "d.csv"
        assert predict.main([*models, "--combine", combine, str(dawn), "-o", str(output)]) == 0
        table = pd.read_csv(output)
        found[combine] = set(zip(table.start_s, table.species))
        assert table.probability.between(0, 1).all()
    low, high = {(0, "low"), (15, "low")}, {(10, "high"), (20, "high")}
    assert found["votes"] == low | high, "two of three have high, one of three mid"
    # The mean of their thresholds for mid is 0.83, which a mean of three nearly sure ones reaches.
    assert (10, "mid") in found["mean"]
    # A tie is no majority, and one bundle's majority is itself.
    for some, expected in ((three[:2], low | high), (three[1:], low), (three[:1], low | high | {(10, "mid")})):
        ensemble = Ensemble(some, combine=VOTES)
        counted = ensemble.rule().counted(predict_file(ensemble, dawn).probabilities)
        assert {(5 * row, tuple(TONES_HZ)[column]) for row, column in np.argwhere(counted)} == expected


def test_votes_answer_the_rows_of_a_test_csv_and_a_whole_file_by_each_bundle_s_greatest(three, dawn, tmp_path):
    (tmp_path / "test.csv").write_text("row_id,seconds,audio_id\nr_15,15,dawn\nr_99,99,dawn\nr_10,10,dawn\nr,,dawn\n")
    models = [option for one in three for option in ("--model", one.folder)]
    rows = ["--test-csv", tmp_path / "test.csv", "--test-audio", dawn.parent, "-o", tmp_path / "s.csv"]
    done = run("predict.py", *models, "--combine", "votes", *rows)
    assert done.returncode == 1, "a row lies beyond the audio"
    assert "1 rows lie beyond its 23.0 s" in done.stderr
    table = pd.read_csv(tmp_path / "s.csv")
    assert list(zip(table.row_id, table.birds)) == [
        ("r_15", "high"), ("r_99", "nocall"), ("r_10", "nocall"), ("r", "high low"),
    ]  # fmt: skip


def test_what_is_given_on_the_command_line_overrules_every_voter(three, dawn):
    ensemble = Ensemble(three, combine=VOTES)
    said = predict_file(ensemble, dawn).probabilities
    assert ensemble.rule(threshold=0.0).counted(said).all()
    assert ensemble.rule(threshold=0.0, given={"most": 2}).counted(said).sum(axis=1).tolist() == [2] * 5
    only_mid = np.array([False, True, False])
    assert ensemble.rule(threshold=0.0, allowed=only_mid).counted(said).tolist() == [[False, True, False]] * 5
    assert not ensemble.rule(given={"strict": 50.0}).counted(said).any()
