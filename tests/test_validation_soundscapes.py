"""Soundscapes with truth: what is mixed is what the truth says, of held-out recordings, in the shares that were asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import TONES_HZ
from tone_run import CODES, RATE, make_tone_run

from src import answered_soundscapes, layouts, runs
from src.answered_soundscapes import Heard, answers, ask
from src.calibration import Calibration
from src.errors import UserError
from src.predictor import Predictor, predict_file
from src.recipe import preset
from src.soundscape import row_probabilities
from src.validation_soundscapes import ROWS, Options, _noise, material_of, minutes, write_audio


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory, tone_bundle) -> Path:
    return make_tone_run(tmp_path_factory.mktemp("soundscapes"), tone_bundle)


@pytest.fixture(scope="module")
def recordings(tone_run) -> pd.DataFrame:
    return layouts.read(layouts.DataSource.from_dict(runs.source_of(tone_run / "fold0")))


@pytest.fixture(scope="module")
def windows(tone_run) -> pd.DataFrame:
    return pd.read_parquet(tone_run / "fold0/oof.parquet")


@pytest.fixture(scope="module")
def material(windows, recordings):
    return material_of(windows, recordings)


OPTIONS = Options(minutes=10, nocall_share=0.5, snr_db=(10.0, 20.0))


@pytest.fixture(scope="module")
def mixed(material, tone_bundle):
    return list(minutes(material, tone_bundle.recipe, OPTIONS))


def heard_seconds(samples: np.ndarray, code: str, rate: int) -> float:
    """For how long a tone stands out of the noise, by the power at its frequency in frames of 50 ms."""
    frames = samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)
    power = np.abs(np.fft.rfft(frames * np.hanning(1600), axis=1)) ** 2
    own = round(TONES_HZ[code] * 1600 / rate)
    return float((power[:, own] > 400 * np.median(power, axis=1)).sum() * 0.05)


def test_only_what_the_fold_held_out_is_in_its_soundscapes(material, windows):
    held_out = set(windows.filename)
    assert set(material.calls.filename) | set(material.backgrounds.filename) <= held_out
    assert set(material.backgrounds.filename) == {f"rain{number}.wav" for number in range(0, 8, 2)}
    assert "nocall" not in set(material.calls.ebird_code)


def test_each_row_holds_the_species_that_its_truth_says_and_no_other(mixed, tone_bundle):
    rate, told = tone_bundle.recipe.sample_rate, 0
    for minute in mixed:
        for row, samples in zip(minute.rows.itertuples(), minute.samples.reshape(ROWS, -1)):
            for code in CODES:
                seconds = heard_seconds(samples, code, rate)
                if code in row.truth.split():
                    assert seconds >= 0.3, (minute.number, row, code)
                    told += 1
                elif code not in row.maybe.split():
                    assert seconds == 0, (minute.number, row, code)
    assert told > 60


def test_rows_without_birds_have_the_share_that_was_asked_for_and_nothing_may_be_in_them(mixed):
    rows = pd.concat([minute.rows for minute in mixed])
    assert (rows.truth == "").mean() == OPTIONS.nocall_share
    assert (rows.maybe[rows.truth == ""] == "").all()
    assert rows.truth.str.split().str.len().max() > 1, "several at once are among them"


def test_some_calls_run_on_into_the_next_row_with_birds(material, tone_bundle):
    found = list(minutes(material, tone_bundle.recipe, Options(minutes=6, nocall_share=0.0, snr_db=(10.0, 20.0))))
    running_on = 0
    for minute in found:
        image = minute.samples.reshape(ROWS, -1)
        edge = round(0.2 * tone_bundle.recipe.sample_rate)
        for before, after in zip(image, image[1:]):
            both = np.concatenate([before[-edge:], after[:edge]])
            rate = tone_bundle.recipe.sample_rate
            running_on += any(heard_seconds(both, code, rate) > 0.35 for code in CODES)
    assert running_on > 0, "a tone sounds through the edge of two rows"


def test_a_row_without_birds_is_of_the_background_that_fills_most_of_it():
    recipe = preset("default")
    pieces = [
        np.full(round(seconds * recipe.sample_rate), level, np.float32) for level, seconds in ((1, 7), (2, 4), (3, 9))
    ]
    noise, places = _noise(pieces, recipe, np.random.default_rng(3))
    assert len(places) == ROWS and len(set(places)) == 3
    for samples, place in zip(noise.reshape(ROWS, -1), places):
        share = [(np.round(samples) == level).mean() for level in (1, 2, 3)]
        assert place == int(np.argmax(share))


def test_a_folder_of_backgrounds_is_dealt_out_to_the_folds(windows, recordings, tone_run):
    nocall = str(tone_run.parent.parent / "nocall")
    none_known = recordings[recordings.ebird_code != "nocall"]
    sources = [set(material_of(windows, none_known, nocall, share=(rank, 2)).backgrounds.source) for rank in (0, 1)]
    assert sources[0] and sources[1] and not sources[0] & sources[1]


def test_the_secondary_species_of_a_recording_may_be_there_and_its_source_is_kept(mixed):
    rows = pd.concat([minute.rows for minute in mixed])
    of_high = rows[rows.origins.str.contains("someone 0 with high")]
    assert len(of_high)
    assert all("low" in (row.maybe + " " + row.truth).split() for row in of_high.itertuples())
    for row in rows.itertuples():
        assert [name.split()[-1] for name in json.loads(row.origins)] == row.truth.split()


def test_a_minute_is_of_one_part_of_the_sources(mixed, material):
    part_of = dict(zip(material.calls.source, material.calls.part))
    for minute in mixed:
        origins = {name for row in minute.rows.origins for name in json.loads(row)}
        assert {part_of[name] for name in origins} == set(minute.rows.part)
    assert len({part for minute in mixed for part in minute.rows.part}) > 1


def test_the_same_seed_mixes_the_same_and_another_does_not(material, tone_bundle, mixed):
    again, other = (
        next(iter(minutes(material, tone_bundle.recipe, Options(10, 0.5, (10.0, 20.0), seed)))) for seed in (0, 1)
    )
    np.testing.assert_array_equal(again.samples, mixed[0].samples)
    assert again.rows.equals(mixed[0].rows)
    assert not np.array_equal(other.samples, mixed[0].samples)


def test_a_model_that_hears_tones_finds_them_and_the_answers_are_arrays(mixed, tone_bundle):
    heard = ask(mixed, tone_bundle.recipe, Predictor([tone_bundle], calibrated=False), fold=0)
    rows = answers([heard], CODES)
    assert rows.probabilities.shape == rows.present.shape == (10 * ROWS, 3)
    assert rows.weight.sum() == pytest.approx(1)
    assert set(rows.group) == {f"part{part}" for part in heard.rows.part}
    assert rows.probabilities[rows.present].mean() > rows.probabilities[~rows.present & ~rows.maybe].mean() + 0.2
    assert (rows.examples <= 2).all(), "two sources of each species are held out, however often they are mixed in"
    both = answers([heard, Heard(heard.rows.assign(fold=1), heard.windows.assign(fold=1))], CODES)
    assert set(both.group) == {"fold0", "fold1"}
    np.testing.assert_array_equal(np.bincount(both.windows.file), 20 * [2 * ROWS - 1])
    assert both.file.max() == both.windows.file.max() == 19


def test_windows_that_overlap_give_the_rows_that_predict_would_give_at_half_the_hop(mixed, tone_bundle, tmp_path):
    """Calibrated window by window, as a bundle with the same calibration answers the minute as a file."""
    heard = ask(mixed[:3], tone_bundle.recipe, Predictor([tone_bundle], calibrated=False), fold=0)
    rows, calibration = answers([heard], CODES), Calibration(0.5, 0.4, (0.0, -1.0, 1.0))
    found = rows.overlapping(dict.fromkeys(set(rows.group), calibration))
    calibrated = Predictor(
        [replace(tone_bundle, calibration=calibration, recipe=replace(tone_bundle.recipe, highpass_hz=0))]
    )
    for minute in mixed[:3]:
        soundfile.write(tmp_path / "minute.wav", minute.samples, RATE, "FLOAT")
        said = predict_file(calibrated, tmp_path / "minute.wav", hop_seconds=2.5)
        expected = row_probabilities(said, 5.0 * np.arange(1, ROWS + 1))
        np.testing.assert_allclose(found[rows.file == minute.number], expected, atol=1e-5)
    plain = calibration.apply(rows.probabilities)
    assert np.abs(found - plain).max() > 0.03, "they are not the windows of the rows"


def test_a_window_is_asked_once_and_a_model_whose_windows_overlap_by_half_has_no_more_of_them(mixed, tone_bundle):
    class Counting:
        labels = CODES

        def __init__(self, **changes) -> None:
            self.recipe, self.asked = replace(tone_bundle.recipe, **changes), 0

        def probabilities(self, windows: np.ndarray) -> np.ndarray:
            self.asked += len(windows)
            return np.full((len(windows), 3), 0.25, np.float32)

    once = Counting()
    assert len(ask(mixed[:1], tone_bundle.recipe, once, fold=0).windows) == once.asked == 2 * ROWS - 1
    half = Counting(window_seconds=10.0)
    assert ask(mixed[:1], tone_bundle.recipe, half, fold=0).windows is None
    assert half.asked == ROWS - 1


def test_a_model_of_another_sample_rate_hears_the_same_soundscapes(mixed, tone_bundle, tone_bundle_16k):
    wide, narrow = (ask(mixed, tone_bundle.recipe, Predictor([one]), fold=0) for one in (tone_bundle, tone_bundle_16k))
    assert wide.rows.drop(columns=list(CODES)).equals(narrow.rows.drop(columns=list(CODES)))
    low = wide.rows.truth.str.contains("low")
    assert narrow.rows.low[low].mean() > narrow.rows.low[~low].mean() + 0.1
    assert np.ptp(narrow.rows.high) < 0.1 < np.ptp(wide.rows.high), "8 kHz is not to be heard at 16 kHz"


def test_where_too_few_backgrounds_are_held_out_parts_share_them_and_that_is_known(
    windows, recordings, tone_run, tone_bundle
):
    predictor = Predictor([tone_bundle])
    all_of_them = pd.concat([windows, pd.read_parquet(tone_run / "fold1/oof.parquet")])
    for held_out, shared in ((all_of_them, False), (windows, True)):
        mixed = minutes(material_of(held_out, recordings), tone_bundle.recipe, Options(minutes=4))
        assert ask(mixed, tone_bundle.recipe, predictor, fold=0).shares_backgrounds == shared


def test_what_was_kept_is_known_again_only_if_it_was_made_so_and_is_there_whole(mixed, tone_bundle, tmp_path):
    heard = ask(mixed[:2], tone_bundle.recipe, Predictor([tone_bundle]), fold=3)
    answered_soundscapes.write(tmp_path, heard, "so")
    again = answered_soundscapes.read(tmp_path, "so")
    assert again.rows.equals(heard.rows) and again.windows.equals(heard.windows) and again.fold == 3
    assert answered_soundscapes.read(tmp_path, "otherwise") is None
    (tmp_path / answered_soundscapes.WINDOWS_FILE).unlink()
    assert answered_soundscapes.read(tmp_path, "so") is None
    answered_soundscapes.write(tmp_path, Heard(heard.rows, None), "so")
    assert answered_soundscapes.read(tmp_path, "so").windows is None


def test_other_backgrounds_are_taken_less_what_the_model_learned_from(windows, recordings, tmp_path, tone_run):
    nocall = tone_run.parent.parent / "nocall"
    taken = material_of(windows, recordings, str(nocall))
    assert set(taken.backgrounds.filename) == {f"rain{number}.wav" for number in range(0, 8, 2)}
    (tmp_path / "own").mkdir()
    soundfile.write(tmp_path / "own/rain1.wav", np.zeros(32000, np.float32), 32000)
    with pytest.raises(UserError, match="may have been learned from"):
        material_of(windows, recordings, str(tmp_path / "own"))


def test_without_backgrounds_or_without_recordings_there_are_none(windows, recordings):
    assert material_of(windows, recordings[recordings.ebird_code != "nocall"]) is None
    assert material_of(windows, recordings[:0]) is None


def test_a_minute_can_be_listened_to(mixed, tone_bundle, tmp_path):
    write_audio(tmp_path, mixed[0], tone_bundle.recipe)
    samples, rate = soundfile.read(tmp_path / "minute0.wav")
    assert rate == 32000 and len(samples) == 60 * rate and np.abs(samples).max() <= 1
    assert len(pd.read_csv(tmp_path / "minute0.csv")) == ROWS
