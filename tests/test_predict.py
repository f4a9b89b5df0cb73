"""predict.py: every row once and in order, whatever the audio; any files; the end of the process tells the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import run, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from src.predictor import Prediction, Predictor, predict_file
from src.soundscape import decide, row_probabilities

RATE = 32000


@pytest.fixture(scope="module")
def forest(tmp_path_factory) -> Path:
    """A competition's test set made of tones: what must be heard when is known."""
    folder = tmp_path_factory.mktemp("forest")
    (folder / "test_audio").mkdir()
    quiet = tone(5, RATE)
    a = np.concatenate([tone(5, RATE, "low"), quiet, tone(5, RATE, "mid", "high"), tone(2.5, RATE, "low")])
    b = np.concatenate([quiet, tone(5, RATE, "high"), quiet, tone(5, RATE, "low")])
    soundfile.write(folder / "test_audio/a.flac", a, RATE)  # 17.5 s: the last row is short
    soundfile.write(folder / "test_audio/b.mp3", b, RATE)
    (folder / "test.csv").write_text(
        "site,row_id,seconds,audio_id\n"
        "site_2,site_2_a_20,20,a\nsite_1,site_1_a_10,10.0,a\nsite_3,site_3_b,,b\n"
        "site_1,site_1_a_5,5,a\nsite_1,site_1_a_15,15,a\n"
    )
    return folder


def answers(path: Path) -> list[tuple[str, str]]:
    table = pd.read_csv(path)
    assert list(table.columns) == ["row_id", "birds"]
    return list(zip(table.row_id, table.birds))


EXPECTED = [
    ("site_2_a_20", "low"),
    ("site_1_a_10", "nocall"),
    ("site_3_b", "high low"),
    ("site_1_a_5", "low"),
    ("site_1_a_15", "high mid"),
]


def test_rows_are_answered_once_in_their_order_with_whole_files_and_short_last_windows(forest, tone_bundle, tmp_path):
    done = run("predict.py", "--model", tone_bundle.folder, "--test-csv", forest / "test.csv", "-o", tmp_path / "s.csv")
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path / "s.csv") == EXPECTED
    assert "threshold 0.5 was never fitted" in done.stderr


def test_missing_broken_and_too_short_audio_is_named_answered_nocall_and_the_status_is_1(forest, tone_bundle, tmp_path):
    for name in ("test.csv", "test_audio"):
        (tmp_path / name).symlink_to(forest / name)
    rows = (forest / "test.csv").read_text() + (
        "site_1,site_1_gone_5,5,gone\nsite_3,site_3_broken,,broken\nsite_1,site_1_a_25,25,a\n"
    )
    (tmp_path / "more.csv").write_text(rows)
    audio = tmp_path / "audio"
    audio.mkdir()
    for path in (forest / "test_audio").iterdir():
        (audio / path.name).symlink_to(path)
    (audio / "broken.mp3").write_bytes(b"this is not audio" * 100)
    done = run(
        "predict.py",
        *("--model", tone_bundle.folder, "--test-csv", tmp_path / "more.csv", "--test-audio", audio),
        *("-o", tmp_path / "s.csv"),
    )
    assert done.returncode == 1
    nothing = [(row, "nocall") for row in ("site_1_gone_5", "site_3_broken", "site_1_a_25")]
    assert answers(tmp_path / "s.csv") == EXPECTED + nothing
    assert "gone: no such audio; its 1 rows are answered nocall" in done.stderr
    assert "broken.mp3: cannot be decoded" in done.stderr
    assert "a.flac: 1 rows lie beyond its 17.5 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_files_and_folders_become_detections_with_their_times(forest, tone_bundle, tmp_path):
    done = run(
        "predict.py", "--model", tone_bundle.folder, forest, forest / "test_audio/a.flac", "-o", tmp_path / "d.csv"
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "d.csv")
    assert list(table.columns) == ["file", "start_s", "end_s", "species", "probability"]
    a = table[table.file.str.endswith("a.flac")]
    found = sorted(zip(a.start_s, a.end_s, a.species))
    assert found == [(0, 5, "low"), (10, 15, "high"), (10, 15, "mid"), (15, 17.5, "low")]
    assert a.probability.between(0.5, 1).all()
    assert table.file.nunique() == 2  # a.flac was named twice and is answered once


def test_an_unreadable_file_among_others_costs_only_itself(forest, tone_bundle, tmp_path):
    (tmp_path / "empty.wav").touch()
    good = forest / "test_audio/a.flac"
    done = run("predict.py", "--model", tone_bundle.folder, tmp_path / "empty.wav", good, "-o", tmp_path / "d.csv")
    assert done.returncode == 1
    assert f"{tmp_path / 'empty.wav'}: is an empty file" in done.stderr
    assert len(pd.read_csv(tmp_path / "d.csv")) == 4


def test_the_threshold_can_be_given(forest, tone_bundle, tmp_path):
    arguments = ["--model", tone_bundle.folder, forest / "test_audio/a.flac", "-o", tmp_path / "d.csv"]
    run("predict.py", *arguments, "--threshold", 0)
    assert len(pd.read_csv(tmp_path / "d.csv")) == 4 * 3  # all species in all windows


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either --test-csv or recordings"),
        (["--test-csv", "absent.csv"], "absent.csv: not there"),
        (["."], "holds no audio files"),
        (["x.wav", "--overlap", "5"], "--overlap must lie in [0, 5)"),
        (["x.wav", "--threshold", "2"], "--threshold is a probability"),
    ],
)
def test_a_user_s_mistake_is_a_sentence_and_no_traceback(tone_bundle, tmp_path, arguments, sentence):
    done = run("predict.py", "--model", tone_bundle.folder, *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_is_answered_alike_whatever_the_blocks_it_is_read_in(forest, tone_bundle, real_data):
    core = Predictor([tone_bundle])
    real = next((real_data / "birds/train_audio").glob("*/*.mp3"))
    for path in (forest / "test_audio/b.mp3", real):
        whole, cut = predict_file(core, path, block_seconds=1000), predict_file(core, path, block_seconds=0.37)
        np.testing.assert_array_equal(whole.start_seconds, cut.start_seconds)
        np.testing.assert_allclose(whole.probabilities, cut.probabilities, atol=2e-4)


def prediction(seconds: float, window: float, hop: float, values: np.ndarray | None = None) -> Prediction:
    """A prediction whose windows are as WindowStream cuts them; one species, by default the window's number."""
    number = 1 if seconds <= window else int(np.ceil((seconds - window) / hop)) + 1
    starts = np.arange(number) * hop
    values = np.arange(number, dtype=np.float32) if values is None else values
    return Prediction(starts, values[:, None], window, seconds, "")


def test_windows_of_five_seconds_answer_rows_one_to_one():
    np.testing.assert_array_equal(row_probabilities(prediction(20, 5, 5), np.array([5.0, 20.0, 10.0]))[:, 0], [0, 3, 1])


def test_overlapping_windows_that_cover_a_row_are_averaged():
    # Windows of 10 s every 5 s: the row from 5 to 10 s lies in the windows from 0 and from 5 s; the first row in one.
    rows = row_probabilities(prediction(30, 10, 5), np.array([5.0, 10.0, 30.0]))[:, 0]
    np.testing.assert_allclose(rows, [0, 0.5, 4])


def test_a_row_that_no_window_covers_takes_those_that_touch_it_by_their_share():
    # Windows of 3 s every 3 s: the row from 0 to 5 s holds 3 s of the first and 2 s of the second.
    np.testing.assert_allclose(row_probabilities(prediction(9, 3, 3), np.array([5.0]))[:, 0], [0.4])


def test_a_whole_file_takes_each_species_maximum_and_a_row_past_the_end_nothing():
    whole = prediction(12, 5, 5, np.array([0.2, 0.9, 0.4], np.float32))
    rows = row_probabilities(whole, np.array([np.nan, 15.0, 20.0]))[:, 0]
    np.testing.assert_allclose(rows, [0.9, 0.4, np.nan])
    assert decide(rows[:, None], ["a"], 0.4) == [{"a"}, {"a"}, set()]


@settings(max_examples=60)
@given(st.floats(0.5, 60), st.sampled_from([(5, 5), (5, 2.5), (10, 5), (3, 3), (2, 1)]), st.floats(0, 1))
def test_a_row_s_answer_lies_between_its_windows_and_every_row_with_audio_has_one(seconds, window_and_hop, value):
    window, hop = window_and_hop
    made = prediction(seconds, window, hop)
    ends = np.arange(5, seconds + 5, 5.0)
    rows = row_probabilities(made, ends)[:, 0]
    assert np.isfinite(rows).all()
    assert ((rows >= 0) & (rows <= len(made.start_seconds) - 1 + 1e-6)).all()
    constant = prediction(seconds, window, hop, np.full(len(made.start_seconds), value, np.float32))
    np.testing.assert_allclose(row_probabilities(constant, ends), value, atol=1e-6)
