"""The listener alone in a forest, by its command line: whatever fails, it hears again, and its record says what was missed.

Real parts wherever there is no "fake" in a test's name: a PulseAudio server that is killed, stopped and mute, a disk that is
full, a database that another process has locked, a broker that is away. Each part's own faults are in the tests of that part.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, lacking, tone
from ear import children_of
from listening import Listening, length, read_journal, song
from mosquitto import PROGRAM, Mosquitto, free_port, wait_until
from test_keeper import size_now
from test_listen import COUNTING, HOP, FakeMicrophone, FakePredictor, assert_same_detections, detections_of_predict_file
from web_server import numbers, web_server

from edge.capture import Capture
from edge.health import HealthMeter
from edge.journal import (
    CLOCK,
    DROPPED_WINDOWS,
    NO_FRAMES,
    NO_MICROPHONE,
    NOT_RUNNING,
    OVERRUN,
    STOPPED,
    ZEROS,
    Journal,
    read_only,
    utc_seconds,
)
from edge.listener import Listener
from edge.source import Heard, SourceLostError

RATE = 32000


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """49 s: the song four times."""
    path = tmp_path_factory.mktemp("song") / "long.wav"
    soundfile.write(path, np.tile(song(RATE), 4), RATE)
    return path


@pytest.fixture(scope="module")
def whistle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of the low tone."""
    path = tmp_path_factory.mktemp("whistle") / "whistle.wav"
    soundfile.write(path, tone(60, RATE, "low"), RATE)
    return path


def hears(tmp_path: Path, bundle, microphone, *options: object, python_path: str = "") -> Listening:
    """A listener of the virtual microphone, once it hears."""
    arguments = ["--model", bundle.folder, "--device", "pulse", "--hop", HOP, *options]
    listening = Listening(tmp_path, *arguments, env=microphone.env, python_path=python_path)
    listening.wait_until_it_hears()
    return listening


# The microphone.


def test_when_the_sound_server_is_killed_and_restarted_it_is_heard_within_10_s_and_the_gap_and_both_events_are_recorded(
    tmp_path, tone_bundle, virtual_microphone, whistle
):
    listening = hears(tmp_path, tone_bundle, virtual_microphone)
    virtual_microphone.play(whistle)
    listening.wait_for(listening.rows)
    virtual_microphone.kill()
    killed = time.time()
    (gap,) = listening.wait_for(lambda: listening.gaps(STOPPED))
    assert gap["utc_end"] is None
    virtual_microphone.start()
    restarted = time.time()
    virtual_microphone.play(whistle)
    (gap,) = listening.wait_for(lambda: [gap for gap in listening.gaps(STOPPED) if gap["utc_end"]])
    assert abs(utc_seconds(gap["utc_start"]) - killed) < 1
    assert restarted - 0.5 <= utc_seconds(gap["utc_end"]) <= restarted + 10
    listening.wait_for(lambda: [row for row in listening.rows() if row["utc_start"] >= gap["utc_end"]])
    listening.stop()
    before, after = listening.rows("events")
    assert before["closed"] == after["closed"] == 1
    assert utc_seconds(before["utc_end"]) <= utc_seconds(gap["utc_start"]) + 0.1
    assert utc_seconds(gap["utc_end"]) <= utc_seconds(after["utc_start"]) + 0.1


def test_a_microphone_that_gives_zeros_and_one_that_gives_no_frames_are_different_gaps_and_both_end(
    tmp_path, tone_bundle, virtual_microphone, whistle
):
    listening = hears(tmp_path, tone_bundle, virtual_microphone)
    (gap,) = listening.wait_for(lambda: listening.gaps(ZEROS))  # nothing is played
    assert gap["utc_end"] is None
    virtual_microphone.play(whistle)
    listening.wait_for(lambda: listening.gaps(ZEROS)[0]["utc_end"])
    with virtual_microphone.hanging():
        (gap,) = listening.wait_for(lambda: listening.gaps(NO_FRAMES))
        assert gap["utc_end"] is None
    listening.wait_for(lambda: listening.gaps(NO_FRAMES)[0]["utc_end"])
    listening.stop()
    assert length(listening.gaps(ZEROS)[0]) >= 10 and length(listening.gaps(NO_FRAMES)[0]) >= 5


def test_without_the_named_microphone_it_waits_says_which_there_are_and_that_is_a_gap(
    tmp_path, tone_bundle, virtual_microphone
):
    options = ["--model", tone_bundle.folder, "--device", "nosuch"]
    listening = Listening(tmp_path, *options, env=virtual_microphone.env)
    (gap,) = listening.wait_for(
        lambda: listening.journal.exists() and listening.err.count("nosuch") and gaps(listening)
    )
    assert gap["cause"] == NO_MICROPHONE and gap["utc_end"] is None
    listening.stop()
    assert "no microphone is called 'nosuch'; there are 'pulse'" in listening.err
    assert listening.gaps(NO_MICROPHONE)[0]["utc_end"]


def gaps(listening: Listening) -> list[sqlite3.Row]:
    return listening.rows("gaps")


def test_while_a_fake_microphone_is_away_the_event_that_went_on_is_over_in_the_journal(tmp_path):
    class Unplugged(FakeMicrophone):
        def read(self) -> Heard:
            heard = super().read()
            if heard is None:
                raise SourceLostError(STOPPED, "it was unplugged")
            return heard

    microphone, stop = Unplugged(ring_frames=10_000, seconds=4), threading.Event()
    path = tmp_path / "journal.sqlite"
    Journal(path).close()

    def listen() -> None:
        with Journal(path) as journal, Capture(lambda: microphone, journal) as capture:
            Listener(capture, FakePredictor(None), 0.5, 0.5, journal).run(stop)

    listening = threading.Thread(target=listen)
    listening.start()
    try:
        wait_until(lambda: [row for row in read_journal(path, "events") if row["closed"]], seconds=10)
        (gap,) = read_journal(path, "gaps")
        assert gap["cause"] == STOPPED and gap["utc_end"] is None
    finally:
        stop.set()
        listening.join()
    (event,) = read_journal(path, "events")
    assert event["windows"] == 7 and utc_seconds(event["utc_end"]) == microphone.utc(4000)


def test_what_is_wrong_with_the_level_of_a_fake_microphone_is_said_once_until_it_changes(tmp_path):
    class Gauge(FakeMicrophone):
        """Gives one second after the other, of 1000 frames each."""

        def __init__(self, *seconds: np.ndarray) -> None:
            super().__init__(ring_frames=10_000, seconds=len(seconds))
            self.samples = np.concatenate(seconds).astype(np.float32)[:, None]

        def speak(self, seconds: float) -> None:
            first = self.ring.written
            self.ring.write(self.samples[first : first + round(seconds * 1000)])
            self._left = len(self.samples) - self.ring.written

    fine, number = np.full(1000, 0.1), np.arange(1000)
    clipping, worse = np.where(number % 100 == 0, 1.0, fine), np.where(number % 50 == 0, 1.0, fine)
    silent, more_so = (number % 2) / 32768, (number % 8 == 0) / 32768
    microphone = Gauge(fine, clipping, worse, clipping, fine, worse, silent, more_so, 0 * fine, 0 * fine, fine)
    said: list[str] = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        sources = iter([microphone])
        meter = HealthMeter(tmp_path, period_seconds=1.0, monotonic=lambda: microphone.ring.written / 1000)
        with Capture(lambda: next(sources, None), journal, said.append) as capture:
            listener = Listener(capture, FakePredictor(None), 0.5, 0.5, journal, meter=meter, say=said.append)
            listener.run(threading.Event())
    lines = [number for number, text in enumerate(said) if text.startswith("input -")]
    remarks = [
        (lines.index(number - 1), text.split(":")[0]) for number, text in enumerate(said) if "the input " in text
    ]
    clips, is_silent, is_dead = "the input clips", "the input is silent", "the input is all zeros"
    assert remarks == [(1, clips), (5, clips), (6, is_silent), (8, is_dead)]
    assert all(f"clipped {share}.00%" in said[line] for line, share in zip(lines, "01210200000"))


def test_a_slow_fake_network_on_a_microphone_drops_windows_which_are_counted_and_a_gap_and_loses_no_sample(
    tmp_path, tone_bundle, virtual_microphone, whistle
):
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import json, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from src.bundle import load\n"
        "from src.predictor import Predictor\n"
        f"predictor = Predictor([load(Path({str(tone_bundle.folder)!r}))])\n"
        "samples = predictor.recipe.window_samples\n"
        "print(json.dumps({'samples': samples, 'labels': len(predictor.labels)}), flush=True)\n"
        "while window := sys.stdin.buffer.read(4 * samples):\n"
        "    time.sleep(1.5)\n"
        "    answer = predictor.probabilities(np.frombuffer(window, np.float32)[None])[0]\n"
        "    sys.stdout.buffer.write(answer.astype(np.float32).tobytes())\n"
        "    sys.stdout.buffer.flush()\n"
    )
    options = ["--network", f"{sys.executable} {slow}", "--hop", 0.5, "--duration", 12]
    listening = hears(tmp_path, tone_bundle, virtual_microphone, *options)
    virtual_microphone.play(whistle)
    assert listening.wait() == 0, listening.err
    analysed, dropped = listening.count("windows analysed"), listening.count("windows dropped")
    assert dropped > analysed > 2 and analysed + dropped == (12 - 5) / 0.5 + 1
    assert listening.count("samples received") == 12 * RATE and listening.count("samples lost") == 0
    (gap,) = listening.gaps(DROPPED_WINDOWS)
    assert gap["detail"] == f"windows passed over for newer ones: {dropped}" and length(gap) > 5
    assert "windows are dropped: the model is slower than the hop" in listening.err
    assert {row["species"] for row in listening.rows("events")} == {"low"}


def test_when_the_process_that_hears_is_held_up_what_was_not_answered_is_a_gap_and_what_follows_keeps_its_true_time(
    tmp_path, tone_bundle, virtual_microphone, whistle
):
    listening = hears(tmp_path, tone_bundle, virtual_microphone)
    virtual_microphone.play(whistle)
    listening.wait_for(listening.rows)
    (child,) = children_of(listening.process.pid, "portaudio.py")
    os.kill(child, signal.SIGSTOP)
    held_up = time.time()
    time.sleep(4)  # PulseAudio keeps that much for a client; what comes late is not answered, a newer window is
    os.kill(child, signal.SIGCONT)
    resumed = time.time()
    listening.wait_for(lambda: utc_seconds(listening.rows()[-1]["utc_start"]) > resumed)
    listening.stop()
    gap = next(gap for gap in listening.gaps(DROPPED_WINDOWS) + listening.gaps(OVERRUN))
    assert utc_seconds(gap["utc_start"]) < resumed and held_up < utc_seconds(gap["utc_end"]) < resumed + 6
    began = [utc_seconds(row["utc_start"]) - row["offset_seconds"] for row in listening.rows()]
    assert max(began) - min(began) < 0.1


def test_a_fake_clock_that_is_set_by_an_hour_is_a_gap_and_events_before_and_after_have_the_time_of_their_clock(
    tmp_path, tone_bundle, virtual_microphone, whistle
):
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock/prelude.py").write_text(
        "import os, time\n"
        "true = time.time\n"
        f"time.time = lambda: true() + 3600 * os.path.exists({str(tmp_path / 'set')!r})\n"
    )
    listening = hears(tmp_path, tone_bundle, virtual_microphone, python_path=str(tmp_path / "clock"))
    virtual_microphone.play(whistle)
    listening.wait_for(listening.rows)
    (tmp_path / "set").touch()
    set_at = time.time()
    listening.wait_for(lambda: listening.gaps(CLOCK))
    listening.wait_for(lambda: utc_seconds(listening.rows()[-1]["utc_start"]) > set_at + 3600)
    listening.stop()
    (gap,) = listening.gaps(CLOCK)
    assert gap["detail"].startswith("set forward by 3600.")
    assert abs(utc_seconds(gap["utc_start"]) - set_at) < 1 and abs(length(gap) - 3600) < 0.1
    before, after = listening.rows("events")
    assert utc_seconds(before["utc_end"]) <= set_at + 1 and before["closed"]
    assert utc_seconds(after["utc_start"]) > set_at + 3600 - 5.5 and after["closed"]
    assert listening.count("samples lost") == listening.count("windows dropped") == 0


def test_what_a_fake_speech_detector_hears_is_neither_recorded_nor_kept_and_is_a_gap(tmp_path):
    class FakeSpeech:
        """Hears somebody from 10 s to 12 s."""

        def heard(self, window: np.ndarray) -> bool:
            return window[-1] >= 10_000 and window[0] < 12_000

    source = iter([FakeMicrophone(ring_frames=10_000, seconds=20)])
    with Journal(tmp_path / "journal.sqlite") as journal, Capture(lambda: next(source, None), journal) as capture:
        listener = Listener(capture, FakePredictor(None), 0.5, 0.5, journal, speech=FakeSpeech())
        listener.run(threading.Event())
    with closing(read_only(tmp_path / "journal.sqlite")) as connection:
        starts = [start for (start,) in connection.execute("select offset_seconds from detections")]
        events = connection.execute("select offset_seconds, windows from events order by id").fetchall()
        ((begin, end, detail),) = connection.execute("select utc_start, utc_end, detail from gaps").fetchall()
    # Windows of 1 s: speech is in those that begin from 9.5 to 11.5 s; those from 8.5 to 12.5 s touch them.
    assert starts == [*np.arange(0, 8.5, 0.5), *np.arange(13, 19.5, 0.5)]
    assert [tuple(event) for event in events] == [(0.0, 17), (13.0, 13)]
    assert (utc_seconds(begin) - 1e6, utc_seconds(end) - 1e6) == (8.5, 13.5)
    assert detail == "windows with speech or beside it: 9" and listener.analysis.withheld == 9
    assert COUNTING.window_seconds == 1.0


# The disk and the database.


def test_while_the_disk_is_full_it_goes_on_listening_and_once_there_is_room_all_is_recorded(
    tmp_path, tone_bundle, small_disk, long_song
):
    options = ["--model", tone_bundle.folder, "--input", long_song, "--speed", 5, "--hop", HOP, "--free-gb", 0]
    listening = Listening(tmp_path, *options, record=small_disk / "record")
    listening.wait_until_it_listens()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 16))
    listening.wait_for(lambda: "takes no rows now" in listening.err)
    filler.unlink()
    listening.wait_for(lambda: "takes rows again" in listening.err)
    assert listening.wait() == 0, listening.err
    assert_same_detections(listening.rows(), detections_of_predict_file(tone_bundle, long_song, HOP))
    assert all(event["closed"] for event in listening.rows("events"))


def test_while_another_process_has_locked_the_database_it_goes_on_listening_and_all_is_recorded_later(
    tmp_path, tone_bundle, long_song
):
    options = ["--model", tone_bundle.folder, "--input", long_song, "--speed", 8, "--hop", HOP]
    listening = Listening(tmp_path, *options)
    listening.wait_until_it_listens()
    with closing(sqlite3.connect(listening.journal, isolation_level=None, timeout=10)) as other:
        other.execute("begin immediate")
        listening.wait_for(lambda: "takes no rows now" in listening.err)
        time.sleep(1)
        other.execute("rollback")
    assert listening.wait() == 0, listening.err
    assert_same_detections(listening.rows(), detections_of_predict_file(tone_bundle, long_song, HOP))


def test_clips_take_no_more_than_keep_gb_which_leaves_the_best_of_each_species_and_every_event(tmp_path, tone_bundle):
    rng = np.random.default_rng(0)
    heard = rng.normal(0, 0.0005, 45 * 5 * RATE)  # a clip of 5 s is some 130 kB
    for number in range(45):  # each species 15 times, and 10 s between them
        species, amplitude = tone_bundle.labels[number % 3], 0.001 * rng.uniform(1, 8)
        heard[number * 5 * RATE : (number + 1) * 5 * RATE] += tone(5, RATE, species, amplitude=amplitude)
    soundfile.write(tmp_path / "forest.wav", heard, RATE)
    options = ["--input", tmp_path / "forest.wav", "--speed", 0, "--clip-seconds", 5, "--keep-gb", 0.001]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options)
    clips = listening.record / "clips"

    def taken() -> int:
        return sum(size_now(path) for path in clips.rglob("*.flac"))

    while listening.process.poll() is None:
        assert taken() <= 1_000_000
        time.sleep(0.01)
    assert listening.wait() == 0, listening.err
    assert 700_000 < taken() <= 1_000_000
    rows = listening.rows("events")
    assert listening.count("clips kept") > len(list(clips.rglob("*.flac"))) and listening.count("clips lost") == 0
    assert {row["clip"] for row in rows if row["clip"]} == {
        str(path.relative_to(clips)) for path in clips.rglob("*.flac")
    }
    assert [row["offset_seconds"] for row in rows] == [5.0 * number for number in range(45)]
    for species in tone_bundle.labels:
        worth = {(round(row["probability"], 2), row["id"]): row["clip"] for row in rows if row["species"] == species}
        assert len({probability for probability, _ in worth}) > 5 and worth[max(worth)]


# The broker.


def test_events_of_the_time_when_the_broker_was_down_reach_it_when_it_is_back(tmp_path, tone_bundle, long_song):
    if PROGRAM is None:
        lacking("no mosquitto (apt-get install mosquitto)")
    broker = Mosquitto(tmp_path)
    try:
        heard = broker.subscribe("birdcall/event")
        broker.kill()
        options = ["--model", tone_bundle.folder, "--input", long_song, "--speed", 4, "--hop", HOP]
        listening = Listening(tmp_path, *options, "--mqtt", broker.address)
        closed = listening.wait_for(lambda: [row for row in events(listening) if row["closed"]])
        assert not heard
        broker.start()
        wait_until(lambda: {message.json["id"] for message in heard} >= {event["id"] for event in closed})
        assert listening.wait() == 0, listening.err
        wait_until(lambda: len(heard) >= len(listening.rows("events")))
        assert sorted({message.json["id"] for message in heard}) == [row["id"] for row in listening.rows("events")]
    finally:
        broker.stop()


def events(listening: Listening) -> list[sqlite3.Row]:
    return listening.rows("events") if "threshold" in listening.err else []


def test_each_event_is_posted_to_a_web_address_though_its_server_was_away_at_first(tmp_path, tone_bundle, long_song):
    port = free_port()
    options = ["--model", tone_bundle.folder, "--input", long_song, "--speed", 4, "--hop", HOP]
    listening = Listening(tmp_path, *options, "--webhook", f"http://127.0.0.1:{port}/birds")
    listening.wait_for(lambda: [row for row in events(listening) if row["closed"]])
    with web_server(port) as server:
        assert listening.wait() == 0, listening.err
        assert numbers(server.taken) == [row["id"] for row in listening.rows("events")]
        assert {posted["species"] for posted in server.taken if posted["kind"] == "event"} == set(tone_bundle.labels)


# The process.


def test_sigterm_flushes_all_that_was_heard_within_2_s(tmp_path, tone_bundle, virtual_microphone, whistle):
    listening = hears(tmp_path, tone_bundle, virtual_microphone)
    virtual_microphone.play(whistle)
    listening.wait_for(listening.rows)
    assert listening.rows("events")[0]["closed"] == 0
    listening.signal(signal.SIGTERM)
    wait_until(lambda: listening.gaps(NOT_RUNNING), seconds=2)
    assert listening.wait(10) == 0, listening.err
    (event,) = listening.rows("events")
    assert event["closed"] and event["windows"] == len(listening.rows())
    assert (listening.record / "clips" / event["clip"]).is_file()
    assert [row["detail"] for row in listening.gaps(NOT_RUNNING)] == ["stopped by SIGTERM"]


def test_after_sigkill_a_new_start_closes_what_was_open_and_records_since_when_nobody_listened(
    tmp_path, tone_bundle, virtual_microphone, whistle
):
    listening = hears(tmp_path, tone_bundle, virtual_microphone)
    virtual_microphone.play(whistle)
    listening.wait_for(listening.rows)
    listening.signal(signal.SIGKILL)
    listening.wait()
    last = listening.rows()[-1]
    assert listening.rows("events")[-1]["closed"] == 0

    listening = hears(tmp_path, tone_bundle, virtual_microphone)
    (gap,) = listening.gaps(NOT_RUNNING)
    assert (gap["utc_start"], gap["detail"].split(":")[0]) == (last["utc_end"], "without a word before")
    assert listening.rows("events")[0]["closed"] == 1
    listening.stop()
    second = listening.gaps(NOT_RUNNING)[1:]
    assert [row["detail"] for row in second] == ["stopped by SIGTERM"]


def test_a_second_listener_on_a_folder_refuses_and_the_first_goes_on(tmp_path, tone_bundle, long_song):
    options = ["--model", tone_bundle.folder, "--input", long_song, "--speed", 8, "--hop", HOP]
    first = Listening(tmp_path, *options)
    first.wait_until_it_listens()
    (tmp_path / "second").mkdir()
    second = Listening(tmp_path / "second", *options, record=first.record)
    assert second.wait() == 1
    assert second.err.splitlines()[-1] == (
        f"error: {first.record}: another listener (process {first.process.pid}) records there;"
        " stop that one, or choose another folder with -o"
    )
    assert first.wait() == 0, first.err
    assert_same_detections(first.rows(), detections_of_predict_file(tone_bundle, long_song, HOP))


def test_systemd_is_told_when_it_listens_that_it_lives_and_when_it_stops(tmp_path, tone_bundle, long_song):
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "800000"}
        listening = Listening(tmp_path, "--model", tone_bundle.folder, "--input", long_song, env=env)
        assert systemd.recv(1000) == b"READY=1"
        assert "threshold" in listening.err
        assert [systemd.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        listening.signal(signal.SIGTERM)
        while (told := systemd.recv(1000)) != b"STOPPING=1":
            assert told == b"WATCHDOG=1"
        assert listening.wait() == 0, listening.err
