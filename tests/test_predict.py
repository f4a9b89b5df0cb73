"""predict.py: every row once and in order, whatever the audio; any files; the end of the process tells the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, run, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from src.audio import AudioFile
from src.predictor import Ensemble, Prediction, Predictor, predict_file, predictions
from src.soundscape import Rule, decide, row_probabilities

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
    assert list(table.columns) == ["file", "start_s", "end_s", "species", "probability", "start_utc"]
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


def test_a_file_of_one_frame_or_with_a_mad_header_costs_only_itself(forest, tone_bundle, tmp_path):
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 96000)
    header = bytearray((tmp_path / "one.wav").read_bytes())
    header[24:28] = (2_000_000_000).to_bytes(4, "little")  # the sampling rate
    (tmp_path / "mad.wav").write_bytes(header)
    good = forest / "test_audio/a.flac"
    (tmp_path / "call.m4a").write_bytes(bytes(1000))
    (tmp_path / "notes.txt").write_text("not audio")
    done = run("predict.py", "--model", tone_bundle.folder, tmp_path, good, "-o", tmp_path / "d.csv")
    assert done.returncode == 1
    assert "one.wav: holds no audio" in done.stderr
    assert "mad.wav: cannot be decoded: its header says 2000000000 Hz" in done.stderr
    assert "call.m4a: cannot be decoded: a format that libsndfile does not read; convert it" in done.stderr
    assert "1 files are no audio by their names and are passed over (.txt)" in done.stderr
    assert len(pd.read_csv(tmp_path / "d.csv")) == 4


def test_memory_does_not_grow_with_the_file(tone_bundle, tmp_path):
    """The greatest memory of the whole process, on one minute and on forty, all windows detections and Parquet."""
    noise = np.random.default_rng(0).normal(0, 0.01, 60 * 8000).astype(np.float32)
    peaks = []
    for name, minutes in (("short.flac", 1), ("long.flac", 40)):
        with soundfile.SoundFile(tmp_path / name, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(noise)
        lines = (
            "import resource, subprocess, sys\n"
            f"subprocess.run([sys.executable, 'predict.py', '--model', {str(tone_bundle.folder)!r}, "
            f"{str(tmp_path / name)!r}, '-o', {str(tmp_path / 'd.csv')!r}, '--threshold', '0', '--parquet', "
            f"{str(tmp_path)!r}, '--raven', {str(tmp_path)!r}], check=True, capture_output=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        )
        done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 15  # MiB; forty minutes as float32 at 32 kHz are 293


def test_the_threshold_can_be_given(forest, tone_bundle, tmp_path):
    arguments = ["--model", tone_bundle.folder, forest / "test_audio/a.flac", "-o", tmp_path / "d.csv"]
    run("predict.py", *arguments, "--threshold", 0)
    assert len(pd.read_csv(tmp_path / "d.csv")) == 4 * 3  # all species in all windows


def test_a_path_that_was_mistyped_leaves_the_answers_of_before_alone(forest, tone_bundle, tmp_path):
    answers = tmp_path / "d.csv"
    assert run("predict.py", "--model", tone_bundle.folder, forest / "test_audio/a.flac", "-o", answers).returncode == 0
    before = answers.read_bytes()
    for wrong, reason in ((tmp_path / "nosuch", "no such file"), (tmp_path, "holds no audio files")):
        done = run("predict.py", "--model", tone_bundle.folder, wrong, "-o", answers)
        assert done.returncode == 1 and answers.read_bytes() == before
        assert "no recordings there, and nothing is written" in done.stderr and reason in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either --test-csv or recordings"),
        (["--test-csv", "absent.csv"], "absent.csv: not there"),
        (["."], "holds no audio files"),
        (["x.wav", "--overlap", "5"], "--overlap must lie in [0, 4.9]"),
        (["x.wav", "-o", "."], ".: is not a file that can be replaced"),
        (["x.wav", "-o", "/dev/null"], "/dev/null: is not a file that can be replaced"),
        (["x.wav", "-o", "x.wav"], "x.wav: has the name of a recording"),
        (["x.wav", "-o", "/proc/x.csv"], "/proc/x.csv: cannot be written"),
        (["x.wav", "--threads", "0"], "--threads must be 1 or more"),
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


def test_a_long_file_is_answered_some_windows_at_a_time_as_it_is_all_at_once(forest, tone_bundle, monkeypatch):
    core = Ensemble([tone_bundle])
    path = forest / "test_audio/a.flac"
    whole = predict_file(core, path, hop_seconds=1.0)
    monkeypatch.setattr("src.predictor.WINDOWS_AT_ONCE", 4)
    with AudioFile(path) as audio:
        parts = list(predictions(core, audio, hop_seconds=1.0))
    assert [len(part.start_seconds) for part in parts] == [4, 4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([part.start_seconds for part in parts]), whole.start_seconds)
    np.testing.assert_array_equal(np.concatenate([part.probabilities for part in parts]), whole.probabilities)
    assert parts[-1].seconds == whole.seconds


def test_a_profile_says_where_the_time_went_and_its_stages_add_up(forest, tone_bundle, tmp_path):
    recording = forest / "test_audio/a.flac"
    done = run("predict.py", "--model", tone_bundle.folder, recording, "-o", tmp_path / "d.csv", "--profile")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.partition("CPU seconds\n")[2].splitlines()
    seconds = {line[2:28].strip(): float(line[28:37]) for line in lines}
    together = seconds.pop("together")
    assert {"imports", "decode", "log-mel and network"} <= set(seconds)
    assert sum(seconds.values()) == pytest.approx(together, abs=0.01)
    assert min(seconds.values()) > 0, "no stage is counted in another"
    refused = run("predict.py", "--model", tone_bundle.folder, recording, "--profile", "--jobs", "2", cwd=tmp_path)
    assert refused.returncode == 2 and "--profile sees this process only" in refused.stderr


def prediction(seconds: float, window: float, hop: float, values: np.ndarray | None = None) -> Prediction:
    """A prediction whose windows are as WindowStream cuts them; one species, by default the window's number."""
    number = 1 if seconds <= window else int(np.ceil((seconds - window) / hop)) + 1
    starts = np.arange(number) * hop
    values = np.arange(number, dtype=np.float32) if values is None else values
    return Prediction(starts, values[:, None], window, seconds, "")


def test_windows_of_five_seconds_answer_rows_one_to_one():
    np.testing.assert_array_equal(row_probabilities(prediction(20, 5, 5), np.array([5.0, 20.0, 10.0]))[:, 0], [0, 3, 1])


def test_overlapping_windows_are_averaged_by_the_seconds_they_share_with_a_row():
    # Windows of 5 s every 2.5 s: the row from 5 to 10 s is window 2, and half of windows 1 and 3.
    rows = row_probabilities(prediction(30, 5, 2.5, np.arange(11, dtype=np.float32) ** 2), np.array([10.0]))[:, 0]
    np.testing.assert_allclose(rows, [(4 * 5 + 1 * 2.5 + 9 * 2.5) / 10])
    # Windows of 10 s every 5 s: it lies in the windows from 0 and from 5 s; the first row in one.
    rows = row_probabilities(prediction(30, 10, 5), np.array([5.0, 10.0, 30.0]))[:, 0]
    np.testing.assert_allclose(rows, [0, 0.5, 4])
    # Windows of 3 s every 3 s: the row from 0 to 5 s holds 3 s of the first and 2 s of the second.
    np.testing.assert_allclose(row_probabilities(prediction(9, 3, 3), np.array([5.0]))[:, 0], [0.4])


def test_overlap_changes_what_a_row_is_answered(forest, tone_bundle):
    core = Predictor([tone_bundle])
    plain = row_probabilities(predict_file(core, forest / "test_audio/a.flac"), np.array([5.0, 10.0]))
    overlapping = row_probabilities(
        predict_file(core, forest / "test_audio/a.flac", hop_seconds=2.5), np.array([5.0, 10.0])
    )
    assert plain[1, 0] < 0.05  # the silence after the low tone
    assert overlapping[1, 0] > 0.1  # a window that begins in the tone says so


def test_a_whole_file_takes_each_species_maximum_and_a_row_past_the_end_nothing():
    whole = prediction(12, 5, 5, np.array([0.2, 0.9, 0.4], np.float32))
    rows = row_probabilities(whole, np.array([np.nan, 15.0, 20.0]))[:, 0]
    np.testing.assert_allclose(rows, [0.9, 0.4, np.nan])
    assert decide(rows[:, None], ["a"], Rule(0.4)) == [{"a"}, {"a"}, set()]


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
