"""The listener: what it hears is answered as predict_file answers it, or counted as lost or dropped.

Real parts wherever there is no "fake" in a test's name: the script in a process of its own, where TensorFlow and the
other training libraries cannot be imported; a real LiteRT bundle; a real PortAudio stream from a PulseAudio microphone.
What goes wrong in a forest is in test_listen_faults.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tone
from listening import Listening, length, read_journal, song

from edge.capture import Capture
from edge.journal import DROPPED_WINDOWS, OVERRUN, SCHEDULE, Journal, utc_seconds, utc_text
from edge.listener import Listener
from edge.live import LiveReader, live_path
from edge.player import FilePlayer
from edge.recorder import Recorder
from edge.ring import RingBuffer
from edge.source import Heard, SampleClock, Source
from src.predictor import Predictor, predict_file
from src.recipe import Recipe

HOP = 1.0  # s; short, so that seconds of audio give many windows


def detections_of_predict_file(bundle, path: Path, hop: float, whole_windows_only: bool = False) -> dict:
    """(offset in seconds, species) -> probability, of all that predict_file finds at the bundle's threshold."""
    predictor = Predictor([bundle])
    answer = predict_file(predictor, path, hop)
    return {
        (start, species): probability
        for start, probabilities in zip(answer.start_seconds, answer.probabilities)
        for species, probability in zip(predictor.labels, probabilities)
        if probability >= predictor.threshold
        and not (whole_windows_only and start + answer.window_seconds > answer.seconds)
    }


def assert_same_detections(rows: list[sqlite3.Row], expected: dict) -> None:
    found = {(row["offset_seconds"], row["species"]): row["probability"] for row in rows}
    assert len(found) == len(rows), "a detection is in the journal twice"
    assert found.keys() == expected.keys()
    for key in expected:
        # The same audio in other blocks: on an emulated ARM they were up to 1.03e-4 apart.
        assert found[key] == pytest.approx(expected[key], abs=3e-4), key


def line_of(event: sqlite3.Row, *more: str) -> str:
    """What standard output says of an event."""
    seconds = utc_seconds(event["utc_end"]) - utc_seconds(event["utc_start"])
    words = [event["utc_start"], event["species"], f"{event['probability']:.2f}", f"{seconds:.1f} s", *more]
    return "  ".join(words)


@pytest.fixture
def song_file(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, song(32000), 32000)
    return path


# A recording played through the listener.


@pytest.mark.parametrize(("sample_rate", "channels"), [(22050, 1), (44100, 2)])
def test_a_played_file_gives_the_detections_of_predict_file_and_their_events_on_the_terminal_and_in_the_journal(
    tmp_path, tone_bundle, sample_rate, channels
):
    path = tmp_path / "song.wav"
    gains = np.array([1.0, 0.5][:channels])
    soundfile.write(path, song(sample_rate)[:, None] * gains, sample_rate)

    listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", path, "--speed", 0, "--hop", HOP)
    assert listening.wait() == 0, listening.err

    expected = detections_of_predict_file(tone_bundle, path, HOP)
    assert {species for _, species in expected} == {"low", "mid", "high"}
    rows = listening.rows()
    assert_same_detections(rows, expected)
    assert {(row["model"], row["source"]) for row in rows} == {("tones", str(path))}
    assert listening.count("samples received") == len(song(sample_rate))
    assert listening.count("windows analysed") == 9  # (12.3 s - 5 s) / 1 s, rounded up, and the first
    assert listening.count("windows dropped") == listening.count("samples lost") == 0
    assert "unfitted default" in listening.err

    events = listening.rows("events")
    assert {event["species"] for event in events} == {"low", "mid", "high"}
    assert sorted(listening.out) == sorted(line_of(each, f"at {each['offset_seconds']:.3f} s") for each in events)
    for event in events:
        windows = [row for row in rows if row["event_id"] == event["id"]]
        assert {row["species"] for row in windows} == {event["species"]}
        assert event["closed"] and event["windows"] == len(windows)
        assert event["probability"] == max(row["probability"] for row in windows)
        assert event["utc_start"], event["utc_end"] == (windows[0]["utc_start"], windows[-1]["utc_end"])


def test_each_event_has_a_clip_of_its_best_window_and_without_clip_seconds_none_is_made(
    tmp_path, tone_bundle, song_file
):
    options = ["--model", tone_bundle.folder, "--input", song_file, "--speed", 0, "--hop", HOP]
    listening = Listening(tmp_path, *options, "--clip-seconds", 7)
    assert listening.wait() == 0, listening.err
    events = listening.rows("events")
    assert len(events) == listening.count("clips kept") == 3 and listening.count("clips lost") == 0
    for event in events:
        clip, rate = soundfile.read(listening.record / "clips" / event["clip"])
        assert rate == 32000 and 5 <= len(clip) / rate <= 7
        assert np.abs(clip).max() > 0.2, "the tone is in it"

    (tmp_path / "silent").mkdir()
    listening = Listening(tmp_path / "silent", *options, "--clip-seconds", 0)
    assert listening.wait() == 0, listening.err
    assert not (listening.record / "clips").exists() and listening.rows("events")[0]["clip"] is None


def test_a_real_soundscape_played_gives_the_detections_of_predict_file(tmp_path, tone_bundle, real_data):
    path = next((real_data / "birdsong-recognition/example_test_audio").glob("BLKFR*.mp3"))
    listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", path, "--speed", 0)
    assert listening.wait() == 0, listening.err
    expected = detections_of_predict_file(tone_bundle, path, tone_bundle.recipe.hop_seconds)
    assert expected
    assert_same_detections(listening.rows(), expected)


def test_the_time_of_a_played_file_runs_from_the_moment_of_listening_at_any_speed(tmp_path, tone_bundle, song_file):
    began = time.time()
    listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", song_file, "--speed", 8, "--hop", HOP)
    assert listening.wait() == 0
    ended = time.time()
    assert ended - began > 12.3 / 8
    rows = listening.rows()
    for row in rows:
        start = utc_seconds(row["utc_start"])
        assert began <= start - row["offset_seconds"] <= ended
        assert utc_seconds(row["utc_end"]) - start == pytest.approx(5, abs=0.002)
        assert start - row["offset_seconds"] == pytest.approx(
            utc_seconds(rows[0]["utc_start"]) - rows[0]["offset_seconds"], abs=0.002
        )


def test_the_recordings_of_a_folder_are_heard_one_after_the_other_and_a_truncated_one_is_named_with_status_1(
    tmp_path, tone_bundle
):
    folder = tmp_path / "night"
    folder.mkdir()
    soundfile.write(folder / "a.wav", song(32000), 32000)
    soundfile.write(folder / "b.wav", song(44100), 44100)
    whole = (folder / "b.wav").read_bytes()
    (folder / "b.wav").write_bytes(whole[: len(whole) * 3 // 4])
    listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", folder, "--speed", 0, "--hop", HOP)
    assert listening.wait() == 1
    assert f"{folder / 'b.wav'}: truncated: 9.2 s of 12.3 s could be read" in listening.err
    rows = listening.rows()
    for name in ("a.wav", "b.wav"):
        expected = detections_of_predict_file(tone_bundle, folder / name, HOP)
        assert_same_detections([row for row in rows if row["source"] == str(folder / name)], expected)
    events = listening.rows("events")
    assert {row["source"] for row in events if row["species"] == "low"} == {
        str(folder / "a.wav"),
        str(folder / "b.wav"),
    }


def test_duration_stops_after_so_much_audio_and_record_keeps_just_that(tmp_path, tone_bundle, song_file):
    record = tmp_path / "made" / "heard.wav"
    options = ["--input", song_file, "--speed", 0, "--hop", HOP, "--duration", 7.5, "--record", record]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options)
    assert listening.wait() == 0, listening.err
    heard, rate = soundfile.read(record, dtype="float32")
    assert rate == 32000 and soundfile.info(record).subtype == "FLOAT"
    np.testing.assert_array_equal(heard, soundfile.read(song_file, dtype="float32")[0][: round(7.5 * rate)])
    assert_same_detections(listening.rows(), detections_of_predict_file(tone_bundle, record, HOP))


@pytest.mark.parametrize("gone", ["its reader", "the room on its disk"])
def test_without_a_standard_output_it_goes_on_and_says_so_once(tmp_path, tone_bundle, song_file, gone):
    options = ["--input", song_file, "--speed", 0, "--hop", HOP]
    whole = Listening(tmp_path / "whole", "--model", tone_bundle.folder, *options)
    if gone == "its reader":
        reader, out = os.pipe()
        os.close(reader)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options, stdout=out)
    os.close(out)
    assert listening.wait() == whole.wait() == 0, listening.err
    assert listening.err.count("standard output takes no lines") == 1
    assert_same_detections(listening.rows(), detections_of_predict_file(tone_bundle, song_file, HOP))
    assert len(listening.rows("events")) == len(whole.rows("events")) > 1


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_it_as_kill_does_but_not_under_nohup(tmp_path, tone_bundle, song_file, ignored):
    options = ["--model", tone_bundle.folder, "--input", song_file, "--speed", 4 if ignored else 1]
    listening = Listening(tmp_path, *options, prefix=["nohup"] if ignored else ["env", "--default-signal=HUP"])
    listening.wait_until_it_listens()
    listening.wait_for(listening.rows)
    listening.signal(signal.SIGHUP)
    assert listening.wait() == 0, listening.err
    (gap,) = listening.gaps("not running")
    assert gap["detail"] == ("all was heard that was asked for" if ignored else "stopped by SIGHUP")


def test_rows_that_could_not_be_written_in_the_end_make_the_status_1(tmp_path, tone_bundle, song_file):
    listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", song_file, "--speed", 8)
    listening.wait_for(lambda: listening.journal.exists() and "threshold" in listening.err)
    with closing(sqlite3.connect(listening.journal, isolation_level=None, timeout=10)) as other:
        other.execute("begin immediate")
        assert listening.wait() == 1
    assert "rows could not be written (database is locked) and are lost" in listening.err


def test_a_recording_at_a_low_rate_is_heard_and_what_it_lacks_is_said(tmp_path, tone_bundle):
    soundfile.write(tmp_path / "low.wav", tone(12, 8000, "low"), 8000)
    options = ["--input", tmp_path / "low.wav", "--speed", 0]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options)
    assert listening.wait() == 0, listening.err
    assert "low.wav has nothing above 4 kHz, and the model looks for birds up to 16 kHz" in listening.err
    assert {row["species"] for row in listening.rows()} == {"low"}


def test_threshold_is_the_least_probability_of_a_detection(tmp_path, tone_bundle, song_file):
    options = ["--input", song_file, "--speed", 0, "--hop", HOP, "--threshold", 0.99]
    listening = Listening(tmp_path, "--model", tone_bundle.folder.parent, *options)  # a fold stands for its bundle
    assert listening.wait() == 0
    rows = listening.rows()
    assert rows and all(row["probability"] >= 0.99 for row in rows)
    assert "unfitted" not in listening.err


def test_each_species_has_the_bundle_s_own_threshold(tmp_path, tone_bundle, song_file):
    folder = tmp_path / "bundle"
    shutil.copytree(tone_bundle.folder, folder)
    contents = json.loads((folder / "bundle.json").read_text())
    contents.update(threshold_source="a test", thresholds=[1.0, 0.5, 1.0])
    (folder / "bundle.json").write_text(json.dumps(contents))
    listening = Listening(tmp_path, "--model", folder, "--input", song_file, "--speed", 0, "--hop", HOP)
    assert listening.wait() == 0, listening.err
    assert {row["species"] for row in listening.rows()} == {"mid"}
    assert "one for each species" in listening.err


def test_only_the_species_of_a_list_are_reported(tmp_path, tone_bundle, song_file):
    (tmp_path / "list.txt").write_text("high  # a warbler\nnosuch\n")
    options = ["--input", song_file, "--speed", 0, "--hop", HOP, "--species", tmp_path / "list.txt"]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options)
    assert listening.wait() == 0, listening.err
    assert {row["species"] for row in listening.rows()} == {"high"}
    assert "the model does not know nosuch" in listening.err


def test_outside_the_hours_nothing_is_analysed_and_that_is_a_gap(tmp_path, tone_bundle, song_file):
    now = datetime.now(timezone.utc)
    hours = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    options = ["--input", song_file, "--speed", 0, "--hop", HOP, "--schedule", hours]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options)
    assert listening.wait() == 0, listening.err
    assert listening.rows() == [] and listening.count("windows analysed") == 0
    (gap,) = listening.gaps(SCHEDULE)
    assert gap["detail"] == hours and gap["utc_end"]
    assert (
        f"outside the hours ({hours}): listening goes on at {now + timedelta(hours=2):%Y-%m-%dT%H:%M}" in listening.err
    )


def test_the_hours_of_a_recording_that_tells_its_time_are_those_of_its_time(tmp_path, tone_bundle, song_file):
    soundfile.write(tmp_path / "20230514_120000.wav", *soundfile.read(song_file), subtype="FLOAT")
    inside, outside = "12:00-13:00", "13:00-14:00"
    for hours in (inside, outside):
        (tmp_path / hours).mkdir()
        options = ["--input", tmp_path / "20230514_120000.wav", "--speed", 0, "--hop", HOP, "--schedule", hours]
        listening = Listening(tmp_path / hours, "--model", tone_bundle.folder, *options)
        assert listening.wait() == 0, listening.err
        if hours == inside:
            assert_same_detections(listening.rows(), detections_of_predict_file(tone_bundle, song_file, HOP))
            assert listening.rows()[0]["utc_start"].startswith("2023-05-14T12:00:") and not listening.gaps(SCHEDULE)
        else:
            (gap,) = listening.gaps(SCHEDULE)
            assert gap["utc_start"].startswith("2023-05-14T12:00:00") and length(gap) == pytest.approx(12.3, abs=0.2)


# A microphone.


def test_a_microphone_gives_the_detections_of_predict_file_on_its_recording_and_loses_nothing(
    tmp_path, tone_bundle, virtual_microphone, song_file
):
    record = tmp_path / "heard.wav"
    options = ["--device", virtual_microphone.device, "--hop", HOP, "--duration", 8, "--record", record]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options, env=virtual_microphone.env)
    listening.wait_until_it_hears()
    played = time.time()
    virtual_microphone.play(song_file)
    live = LiveReader(live_path(listening.record))
    _, columns, _ = listening.wait_for(lambda: (found := live.since(None))[1] and found)
    assert len(columns) % 96 == 0, "the page sees what is heard"
    assert listening.wait() == 0, listening.err

    heard, rate = soundfile.read(record, dtype="float32")
    assert rate == 32000  # the bundle's, which the microphone takes
    assert listening.count("samples received") == len(heard) == 8 * rate
    assert listening.count("samples lost") == listening.count("input overflows") == 0
    assert listening.count("windows analysed") == 4 and listening.count("windows dropped") == 0

    rows = listening.rows()
    assert {row["species"] for row in rows} == {"low"}
    assert_same_detections(rows, detections_of_predict_file(tone_bundle, record, HOP, whole_windows_only=True))
    assert listening.out == [line_of(event) for event in listening.rows("events")]

    # The tone begins 1 s after its file: the journal dates that sample by the clock on the wall.
    onset = np.flatnonzero(np.abs(heard) > 0.05)[0] / rate
    for row in rows:
        dated = utc_seconds(row["utc_start"]) + onset - row["offset_seconds"]
        assert played + 1 - 0.1 <= dated <= played + 1 + 1.5

    health = listening.rows("health")
    assert sum(row["received"] for row in health) == len(heard) and sum(row["analysed"] for row in health) == 4
    assert health[-1]["latency_p95_s"] < 5 and -11 < health[-1]["peak_dbfs"] < -4  # of one tone, or two


def test_ctrl_c_ends_listening_with_a_summary_and_a_whole_journal_and_recording(
    tmp_path, tone_bundle, virtual_microphone, song_file
):
    record = tmp_path / "heard.wav"
    # Other than the bundle's rate: the resampler is in the way, too.
    options = ["--device", "PULSE", "--channel", 1, "--sample-rate", 44100, "--hop", HOP, "--record", record]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options, env=virtual_microphone.env)
    listening.wait_until_it_hears()
    virtual_microphone.play(song_file)
    listening.wait_for(listening.rows)
    assert listening.rows("events")[0]["closed"] == 0, "it goes on"
    listening.signal(signal.SIGINT)
    assert listening.wait(5) == 0, listening.err
    assert soundfile.info(record).channels == 1 and soundfile.info(record).samplerate == 44100
    assert listening.count("samples received") == soundfile.info(record).frames
    rows = listening.rows()
    assert listening.count("detections") == len(rows) >= 1
    assert_same_detections(rows, detections_of_predict_file(tone_bundle, record, HOP, whole_windows_only=True))
    assert all(event["closed"] for event in listening.rows("events"))
    (gap,) = listening.gaps("not running")
    assert (gap["utc_end"], gap["detail"]) == (None, "stopped by SIGINT")


def test_kill_ends_the_playing_of_a_file_with_a_summary_and_a_whole_journal(tmp_path, tone_bundle, song_file):
    options = ["--input", song_file, "--speed", 4, "--hop", HOP]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options)
    listening.wait_until_it_listens()
    listening.wait_for(listening.rows)
    listening.signal(signal.SIGTERM)
    assert listening.wait(5) == 0, listening.err
    assert listening.count("detections") == len(listening.rows()) >= 1
    assert listening.count("samples received") < 12 * 32000


def test_list_devices_names_the_microphones(tmp_path, virtual_microphone):
    listening = Listening(tmp_path, "--list-devices", env=virtual_microphone.env)
    assert listening.wait() == 0
    assert any(line[2:].startswith("pulse  ") for line in listening.out)
    assert not listening.record.exists()


# What a user can do wrong ends in one sentence.


def test_without_portaudio_a_microphone_is_refused_with_the_package_to_install_and_a_file_plays(
    tmp_path, tone_bundle, song_file
):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    options = {"python_path": str(tmp_path)}
    listening = Listening(tmp_path, "--model", tone_bundle.folder, **options)
    assert listening.wait() == 1
    assert "apt-get install libportaudio2" in listening.err.splitlines()[-1]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", song_file, "--speed", 0, **options)
    assert listening.wait() == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model", "BUNDLE", "--input", "nosuch.wav"], "error: nosuch.wav: No such file or directory"),
        (["--model", "BUNDLE", "--input", "text.wav"], "error: text.wav: cannot be decoded: "),
        (["--model", "nosuch", "--input", "song.wav"], "error: nosuch: no such folder; "),
        (["--model", "BUNDLE", "--input", "song.wav", "--hop", 6], "error: --hop 6 must lie "),
        (["--model", "BUNDLE", "--input", "song.wav", "-o", "text.wav"], "error: text.wav: the record cannot be kept"),
        (["--model", "BUNDLE", "--input", "song.wav", "--schedule", "noon"], "error: --schedule 'noon': is none of"),
        (["--model", "BUNDLE", "--input", "song.wav", "--schedule", "day"], "error: --schedule day goes by the sun"),
        (["--model", "BUNDLE", "--input", "song.wav", "--species", "nosuch"], "error: nosuch: cannot be read"),
        (["--model", "BUNDLE", "--input", "song.wav", "--privacy", "text.wav"], "error: text.wav: "),
        (["--model", "BUNDLE", "--input", "song.wav", "--mqtt", "a b"], "error: --mqtt 'a b' is no broker's address"),
        (["--model", "BUNDLE", "--input", "song.wav", "--webhook", "nowhere"], "error: --webhook "),
        (["--model", "BUNDLE", "--input", "ftp://user:secret@host/x"], "error: ftp://host/x: is neither a file nor"),
        (
            ["--model", "BUNDLE", "--input", "song.wav", "--record", "song.wav/a.wav"],
            "error: song.wav/a.wav: the recording",
        ),
    ],
)
def test_what_is_missing_or_unfit_is_named_in_a_sentence_with_status_1(
    tmp_path, tone_bundle, song_file, options, sentence
):
    (tmp_path / "text.wav").write_text("no audio, and no journal either " * 100)
    options = [tone_bundle.folder if option == "BUNDLE" else option for option in options]
    listening = Listening(tmp_path, *options)
    assert listening.wait() == 1
    assert [line for line in listening.err.splitlines() if line.startswith("error: ")][-1].startswith(sentence)
    assert "Traceback" not in listening.err and "secret" not in listening.err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--model", "x", "--speed", "2"],
        ["--model", "x", "--input", "x.wav", "--utc-offset", "30"],
        ["--model", "x", "--input", ""],
        ["--model", "x", "-o", ""],
        ["--model", "x", "--input", "http://radio/", "--speed", "2"],
        ["--model", "x", "--input", "a.wav", "--device", "usb"],
        ["--model", "x", "--input", "a.wav", "--record", "./a.wav"],
        ["--model", "x", "--record", "a.mp3"],
        ["--model", "x", "--record", "a.wav", "--privacy", "speech.tflite"],
        ["--model", "x", "--hop", "0"],
        ["--model", "x", "--channel", "0"],
        ["--model", "x", "--duration", "inf"],
        ["--model", "x", "--threshold", "nan"],
        ["--model", "x", "--free-gb", "nan"],
        ["--model", "x", "--mqtt-user", "birds"],
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_opened(tmp_path, options):
    listening = Listening(tmp_path, *options)
    assert listening.wait() == 2
    assert "listen.py: error: " in listening.err
    assert not listening.record.exists()


def test_help_answers_in_under_a_second_with_commands_to_run(tmp_path):
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy with something else
        began = time.monotonic()
        listening = Listening(tmp_path, "--help")
        assert listening.wait() == 0
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 1
    assert any(line.strip().startswith("python edge/listen.py --model") for line in listening.out)


def test_in_these_tests_the_box_has_no_tensorflow(tmp_path):
    env = Listening(tmp_path, "--help").env
    imported = subprocess.run([sys.executable, "-c", "import tensorflow"], env=env, capture_output=True, text=True)
    assert imported.returncode == 1 and "tensorflow is not on the box" in imported.stderr


# The loop by itself, with fakes for what cannot be made slow or late at will.

COUNTING = Recipe(sample_rate=1000, window_seconds=1.0, hop_seconds=0.5, fmin_hz=50.0, fmax_hz=500.0, n_fft=256)


class FakeMicrophone:
    """A live source of frames that hold their own number, at 1000 Hz; they lie in its ring until they are read."""

    name = "fake"
    live = True
    sample_rate = 1000
    channels = 1
    overflows = 0

    def __init__(self, ring_frames: int, seconds: float) -> None:
        self.ring = RingBuffer(ring_frames, 1)
        self._left = round(seconds * 1000)

    def speak(self, seconds: float) -> None:
        """Time passes while nobody reads."""
        first = self.ring.written
        count = min(round(seconds * 1000), self._left)
        self._left -= count
        self.ring.write(np.arange(first, first + count, dtype=np.float32)[:, None])

    def read(self) -> Heard | None:
        if not self._left and not self.ring.waiting:
            return None
        self.speak(0.05)
        return Heard(*self.ring.read(), self)

    def close(self) -> None:
        pass

    def utc(self, frame: float) -> float:
        return 1_000_000.0 + frame / 1000

    def age(self, frame: float) -> float:
        return (self.ring.written - frame) / 1000


class FakePredictor:
    """Finds "bird" in every window and takes `seconds` of the microphone's time over each."""

    labels = ("bird",)
    recipe = COUNTING
    name = "fake"

    def __init__(self, microphone: FakeMicrophone | None, *seconds: float) -> None:
        self.microphone = microphone
        self.seconds = seconds
        self.windows: list[np.ndarray] = []

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        self.windows.append(windows[0])
        if self.microphone:
            self.microphone.speak(self.seconds[min(len(self.windows), len(self.seconds)) - 1])
        return np.ones((1, 1), np.float32)


def listen_with_fakes(tmp_path: Path, source: Source, predictor, hop: float, recorder=None) -> Listener:
    sources = iter([source])
    with Journal(tmp_path / "journal.sqlite") as journal, Capture(lambda: next(sources, None), journal) as capture:
        listener = Listener(capture, predictor, 0.5, hop, journal, recorder=recorder)
        listener.run(threading.Event())
    return listener


def test_a_slow_fake_model_on_a_fake_microphone_answers_the_newest_window_and_drops_the_rest_which_is_a_gap(tmp_path):
    microphone = FakeMicrophone(ring_frames=10_000, seconds=60)
    predictor = FakePredictor(microphone, 1.75)  # s for each window, of which there is one every 0.5 s
    listener = listen_with_fakes(tmp_path, microphone, predictor, hop=0.5)

    starts = [row["offset_seconds"] for row in read_journal(tmp_path / "journal.sqlite")]
    assert [window[0] / 1000 for window in predictor.windows] == starts
    analysis = listener.analysis
    assert analysis.analysed == len(starts) > 25
    assert analysis.analysed + analysis.dropped == (60 - 1) / 0.5 + 1  # every whole window is in one of the two counts
    (health,) = read_journal(tmp_path / "journal.sqlite", "health")
    assert (health["analysed"], health["dropped"], health["lost"]) == (analysis.analysed, analysis.dropped, 0)
    # Nothing queues up: the window was the newest, so its answer comes after a hop, the model and a poll at most.
    assert health["latency_p95_s"] < 1.75 + 0.5 + 0.051
    (gap,) = read_journal(tmp_path / "journal.sqlite", "gaps")
    assert gap["cause"] == DROPPED_WINDOWS
    assert gap["detail"] == f"windows passed over for newer ones: {analysis.dropped}"
    assert gap["utc_start"] == utc_text(microphone.utc(500)) and length(gap) > 55


def test_a_slow_fake_model_on_a_file_makes_the_file_wait_and_drops_nothing(tmp_path):
    class SlowPredictor(FakePredictor):
        def probabilities(self, windows):
            time.sleep(0.02)  # twice the hop, at this speed
            return super().probabilities(windows)

    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(10_000), 1000)
    predictor = SlowPredictor(None)
    analysis = listen_with_fakes(tmp_path, FilePlayer(path, speed=50), predictor, hop=0.5).analysis
    assert analysis.dropped == 0 and analysis.analysed == len(predictor.windows) == (10 - 1) / 0.5 + 1


def test_after_a_loss_the_windows_of_a_fake_microphone_are_whole_and_in_their_true_place(tmp_path, capsys):
    microphone = FakeMicrophone(ring_frames=3000, seconds=20)
    predictor = FakePredictor(microphone, 0, 0, 4.321, 0)  # at the third window it takes longer than the ring holds
    record = tmp_path / "heard.wav"
    with Recorder(record) as recorder:
        listener = listen_with_fakes(tmp_path, microphone, predictor, 0.5, recorder)

    lost = microphone.ring.lost
    assert lost == 4321 + 50 - 3000  # a poll came on top
    assert listener.received + lost == 20_000
    assert f"lost {lost} frames (1.37 s)" in capsys.readouterr().err
    (gap,) = [row for row in read_journal(tmp_path / "journal.sqlite", "gaps") if row["cause"] == OVERRUN]
    assert gap["detail"] == f"{lost} frames" and length(gap) == pytest.approx(lost / 1000)

    rows = read_journal(tmp_path / "journal.sqlite")
    assert len(rows) == len(predictor.windows)
    for row, window in zip(rows, predictor.windows):
        first = round(row["offset_seconds"] * 1000)
        np.testing.assert_array_equal(window, np.arange(first, first + 1000))  # no gap, no silence inside
        assert row["utc_start"] == utc_text(microphone.utc(first))
    assert rows[-1]["offset_seconds"] >= 18.5

    heard, _ = soundfile.read(record, dtype="float32")  # silence stands for what was lost
    numbers = np.arange(20_000)
    numbers[heard == 0] = 0
    np.testing.assert_array_equal(heard, numbers)
    assert (heard == 0).sum() == lost + 1


def test_a_fake_microphones_partial_window_is_not_answered_at_the_end(tmp_path):
    microphone = FakeMicrophone(ring_frames=3000, seconds=2.7)
    predictor = FakePredictor(microphone, 0)
    listen_with_fakes(tmp_path, microphone, predictor, hop=0.5)
    assert [window[0] for window in predictor.windows] == [0, 500, 1000, 1500]


# The clock of a microphone.


def test_the_clock_dates_frames_by_the_blocks_that_came_least_late():
    clock = SampleClock(1000)
    rng = np.random.default_rng(0)
    for block in range(1, 200):
        clock.note(block * 100, 5000 + block * 0.1 + rng.uniform(0.003, 0.8))
    assert clock.utc(10_000) == pytest.approx(5010, abs=0.03)


def test_the_clock_follows_a_sound_card_that_strays():
    clock = SampleClock(1000)
    for second in range(1, 3600):  # the card is slow by 100 ppm: after an hour, by 0.36 s
        clock.note(second * 1000, 5000 + second * 1.0001)
    assert clock.utc(3_600_000) == pytest.approx(5000 + 3600.36, abs=0.02)
