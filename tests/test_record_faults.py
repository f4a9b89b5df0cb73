"""The record under faults, replayed: killed in the act, a full disk, a database that others hold, a card that is read-only.

Real processes and real file systems: a small tmpfs is mounted where the tests may do so.
"""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import record_writer
import soundfile
from conftest import ROOT, run
from listening import Listening, song

from edge.events import Changes, Detection, Event
from edge.folder import RecordFolder
from edge.journal import NO_FRAMES, NOT_RUNNING, Journal, read_only, utc_seconds
from edge.keeper import Keeper
from edge.shelf import Clip, free_the_disk
from src.errors import UserError

KILLS = 50
UTC = 1_795_600_805.0  # 2026-11-25T10:00:05Z
EVENT = Event(1, UTC, UTC + 1, "robin", 0.9, 1, "b6", "usb", 1.0, UTC, 1.0, closed=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recorded(number: int) -> Changes:
    """An event of one window, and its detection."""
    event = replace(EVENT, id=number, utc_start=UTC + 10 * number, utc_end=UTC + 10 * number + 1)
    detection = Detection(event.utc_start, event.utc_end, "robin", 0.9, "b6", "usb", 1.0, event_id=number)
    return Changes((detection,), (event,))


def files(folder: Path) -> set[str]:
    """All files in a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Killed.


class Writers:
    """Processes that write a record, one at a time (see record_writer.py)."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._said: list[tuple] = []
        command = [sys.executable, str(ROOT / "tests/record_writer.py")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self._server = subprocess.Popen(command, env=environment, **pipes)

    def start(self, folder: RecordFolder, seed: int, windows: int = 10**9) -> int:
        """Begin to write; returns the process."""
        self._server.stdin.write(f"{folder.path} {seed} {windows}\n".encode())
        self._said = []
        what, self._process = self._words()
        assert what == "pid"
        return self._process

    def hear(self, number: int) -> None:
        """Return when it has said so much."""
        while len(self._said) < number:
            self._said.append(self._words())

    def wait(self) -> tuple[int, list[tuple[str, int, int]]]:
        """Wait for its end; returns its exit status, and all that it said was acknowledged."""
        while not self._said or self._said[-1][0] != "end":
            self._said.append(self._words())
        *said, (_, status) = self._said
        self._process = None
        return status, said

    def stop(self) -> None:
        """End the server, and a writer that a test has left."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()

    def _words(self) -> tuple:
        """The next that it says, in 30 s at most."""
        assert select.select([self._server.stdout], [], [], 30)[0], "it says nothing"
        what, *figures = self._server.stdout.readline().split()
        return (what.decode(), *map(int, figures))


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.stop()


class Acknowledged:
    """All that writers were told is safe."""

    def __init__(self) -> None:
        self.events: dict[int, tuple[int, bool]] = {}  # windows, closed
        self.gaps: set[int] = set()
        self.detections = 0

    def add(self, said: list[tuple[str, int, int]]) -> None:
        for what, number, figure in said:
            if what in ("event", "closed"):
                self.events[number] = (figure, what == "closed")
            elif what == "gap":
                self.gaps.add(number)
        self.detections += max((figure for what, _, figure in said if what == "detections"), default=0)


def test_after_fifty_kills_in_the_act_all_that_was_acknowledged_is_there_and_every_clip_is_whole(tmp_path, writers):
    folder, safe, chance = RecordFolder(tmp_path / "record"), Acknowledged(), random.Random(0)
    half_written = 0
    for number in range(KILLS):
        process = writers.start(folder, number)
        # Just after an acknowledgement, in whatever comes next, or while it cleans up after the one before.
        when = chance.choice(["heard", "heard", "later", "later", "first"])
        if when != "first":
            writers.hear(chance.randrange(1, 30))
        if when != "heard":
            time.sleep(chance.uniform(0.0, 0.02))
        os.kill(process, signal.SIGKILL)
        status, said = writers.wait()
        assert status == -signal.SIGKILL, "it has not ended by itself"
        safe.add(said)
        half_written += any(folder.clips.glob("*/.*"))
        assert_whole(folder, safe)
    assert half_written, "one at least was killed in the middle of a clip"

    newest = max(safe.events)
    writers.start(folder, KILLS, windows=40)
    status, said = writers.wait()
    assert status == 0
    safe.add(said)
    assert_whole(folder, safe)
    with closing(read_only(folder.journal)) as journal:
        clips = {row["clip"] for row in journal.execute("select clip from events where clip is not null")}
        left_open = journal.execute("select count(*) from events where not closed and id <= ?", (newest,)).fetchone()[0]
        gaps = [row["cause"] for row in journal.execute("select cause from gaps")]
    assert clips == files(folder.clips), "rows and clips agree, and nothing half done is left"
    assert left_open == 0, "what the killed ones left open is closed"
    assert gaps.count(NOT_RUNNING) > KILLS / 2


def assert_whole(folder: RecordFolder, safe: Acknowledged) -> None:
    """The database is sound, has at least what was acknowledged, and no clip is half a clip."""
    if not folder.journal.exists():
        assert not safe.events
        return
    with closing(sqlite3.connect(folder.journal)) as journal:
        assert journal.execute("pragma integrity_check").fetchall() == [("ok",)]
        if not safe.events:
            return
        found = {row[0]: row[1:] for row in journal.execute("select id, windows, closed from events")}
        for event_id, (windows, closed) in safe.events.items():
            assert found[event_id][0] >= windows and found[event_id][1] >= closed
        assert safe.gaps <= {row[0] for row in journal.execute("select id from gaps")}
        assert journal.execute("select count(*) from detections").fetchone()[0] >= safe.detections
        of_events = "select id, windows, (select count(*) from detections where event_id = events.id) from events"
        assert all(windows == number for _, windows, number in journal.execute(of_events)), "windows are all or none"
    for clip in folder.clips.glob("*/[!.]*.flac"):
        samples, rate = soundfile.read(clip)
        assert rate == record_writer.RATE and record_writer.WINDOW * rate <= len(samples) <= record_writer.CLIP * rate


def test_a_second_listener_on_a_folder_refuses_with_a_sentence_and_may_have_it_when_the_first_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from edge.folder import RecordFolder; from src.errors import run_script\n"
        "def main():\n"
        "    with RecordFolder(Path(sys.argv[1])).held():\n"
        "        print('held', flush=True)\n"
        "        time.sleep(float(sys.argv[2]))\n"
        "    return 0\n"
        "run_script(main)"
    )

    def listener(seconds: int) -> subprocess.Popen:
        command = [sys.executable, "-c", script, str(tmp_path / "record"), str(seconds)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = listener(60)
    assert first.stdout.readline() == "held\n"
    out, err = (second := listener(0)).communicate(timeout=20)
    assert (second.returncode, out) == (1, "")
    assert err == (
        f"error: {tmp_path}/record: another listener (process {first.pid}) records there;"
        " stop that one, or choose another folder with -o\n"
    )
    first.kill()
    first.communicate()
    out, err = (third := listener(0)).communicate(timeout=20)
    assert (third.returncode, out, err) == (0, "held\n", "")


# A disk that is full.


def fill(disk: Path, leave: int = 0) -> Path:
    """A file of somebody else that takes all room but `leave` bytes."""
    path = disk / "filler"
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while (free := shutil.disk_usage(disk).free - leave) > 0:  # others may write meanwhile
            file.write(bytes(free))
    return path


def test_while_the_disk_is_full_rows_wait_and_are_written_in_order_when_there_is_room(small_disk):
    said = []
    with Journal(small_disk / "journal.sqlite", said.append) as journal:
        assert journal.record(recorded(1))
        filler = fill(small_disk)
        acknowledged = [journal.record(recorded(number)) for number in range(2, 300)]
        assert not acknowledged[-1]
        gap = journal.begin_gap(UTC, NO_FRAMES)
        assert not journal.end_gap(gap, UTC + 1)
        filler.unlink()
        wait_for(journal.flush)
        with closing(read_only(journal.path)) as reader:
            assert [row[0] for row in reader.execute("select id from events order by id")] == list(range(1, 300))
            assert [row[0] for row in reader.execute("select event_id from detections order by id")] == list(
                range(1, 300)
            )
            assert reader.execute("select count(*) from gaps").fetchone()[0] == 1
            assert reader.execute("pragma integrity_check").fetchone()[0] == "ok"
        assert journal.waiting == journal.lost_rows == 0
    assert [re.search("disk is full|takes rows again", text)[0] for text in said] == [
        "disk is full",
        "takes rows again",
    ]


def test_a_listener_that_starts_on_a_full_disk_ends_with_a_sentence_that_says_so(small_disk):
    path = small_disk / "journal.sqlite"
    with Journal(path) as journal:
        journal.record(recorded(1))
    fill(small_disk)
    with pytest.raises(
        UserError, match=r"journal\.sqlite: cannot be used as the journal: .*; the disk is full: make room"
    ):
        Journal(path)


def clip(species: str, number: int, probability: float, size: int = 200_000) -> Clip:
    return Clip.of(species, UTC + number, probability, size)


def shelved(folder: RecordFolder) -> None:
    """Clips of 200 kB: three of the robin, two of the wren, one of the owl."""
    for each in (*(clip("robin", n, 0.5 + n / 10) for n in range(3)), *(clip("wren", n, 0.5) for n in range(2))):
        (folder.clips / each.relative).parent.mkdir(parents=True, exist_ok=True)
        (folder.clips / each.relative).write_bytes(bytes(each.size))
    (folder.clips / "owl").mkdir()
    (folder.clips / clip("owl", 0, 0.1).relative).write_bytes(bytes(200_000))


@pytest.mark.parametrize(("free", "gone"), [(0, 0), (100_000, 1), (500_000, 3), (1e9, 3)])
def test_on_a_full_disk_the_clips_that_are_worth_least_make_room_before_the_start_and_never_the_best_of_a_species(
    small_disk, free, gone
):
    folder = RecordFolder(small_disk / "record")
    shelved(folder)
    before, filler = files(folder.clips), fill(small_disk)
    assert free_the_disk(folder.clips, free) == gone
    order = [clip("robin", 0, 0.5), clip("robin", 1, 0.6), clip("wren", 0, 0.5)]
    left = before - {each.relative for each in order[:gone]}
    assert files(folder.clips) == left
    filler.unlink()
    assert free_the_disk(folder.clips / "nosuch", free) == 0


def test_a_listener_that_starts_on_a_disk_full_of_clips_listens(small_disk, tmp_path, tone_bundle):
    folder = RecordFolder(small_disk / "record")
    with Journal(folder.journal) as journal:
        for number in range(3):
            journal.record(Changes(events=(replace(EVENT, id=number + 1, utc_start=UTC + number),)))
            journal.set_clip(number + 1, clip("robin", number, 0.5 + number / 10).relative)
    shelved(folder)
    fill(small_disk)
    soundfile.write(tmp_path / "song.wav", song(32_000), 32_000)
    options = ["--model", tone_bundle.folder, "--input", "song.wav", "--speed", 0, "--free-gb", 0.0005]
    listening = Listening(tmp_path, *options, record=folder.path)
    assert listening.wait() == 0, listening.err
    assert "3 clips were deleted" in listening.err
    assert listening.count("events") > 0
    assert [row["clip"] is not None for row in listening.rows("events")][:3] == [False, False, True]


def test_a_listener_killed_while_the_disk_is_full_finds_all_that_was_acknowledged(small_disk, writers):
    folder, safe = RecordFolder(small_disk / "record"), Acknowledged()
    process = writers.start(folder, 0)
    wait_for(lambda: folder.clips.is_dir() and any(folder.clips.glob("*/*")))
    filler = fill(small_disk)
    time.sleep(0.3)
    os.kill(process, signal.SIGKILL)
    _, said = writers.wait()
    safe.add(said)
    assert safe.events
    filler.unlink()
    assert_whole(folder, safe)
    with Journal(folder.journal, lambda _: None) as journal:
        assert journal.resume(time.time()) is not None and journal.waiting == 0


def test_a_full_disk_stops_clips_and_not_listening_and_they_go_on_when_there_is_room(small_disk):
    rate, said = 8000, []
    heard = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * rate).astype(np.float32)
    folder = RecordFolder(small_disk / "record")
    with (
        Journal(folder.journal, lambda _: None) as journal,
        Keeper(folder.clips, journal, 1.0, 2.0, keep_bytes=1e9, free_bytes=0.0, say=said.append) as keeper,
    ):

        def keep(number: int, species: str) -> None:
            keeper.hear(heard, number * len(heard), rate)
            offset = number * len(heard) / rate + 5.0
            event = replace(EVENT, id=number, species=species, best_offset_seconds=offset, utc_start=UTC + number)
            journal.record(Changes(events=(event,)))
            keeper.closed(event)
            wait_for(lambda: keeper.kept + keeper.lost + keeper.passed_over == number)

        keep(1, "robin")
        filler = fill(small_disk, leave=20_000)  # less than a clip
        keep(2, "wren")
        keep(3, "owl")
        assert (keeper.kept, keeper.lost) == (1, 2)
        keep(4, "robin")  # not worth less than the robin that is there, which makes room
        assert (keeper.kept, keeper.lost) == (2, 2)
        filler.unlink()
        keep(5, "wren")
        assert (keeper.kept, keeper.lost) == (3, 2)
        wait_for(journal.flush)
    assert [re.search("cannot be kept now|are kept again", text)[0] for text in said] == [
        "cannot be kept now",
        "are kept again",
    ]
    with closing(read_only(folder.journal)) as reader:
        clips = {row["id"]: row["clip"] for row in reader.execute("select id, clip from events")}
    assert sorted(number for number, clip in clips.items() if clip) == [4, 5]
    assert files(folder.clips) == {clip for clip in clips.values() if clip}


def test_a_full_disk_ends_neither_the_log_nor_what_is_logged(small_disk, capsys):
    folder = RecordFolder(small_disk / "record")
    with folder.held(), folder.logged():
        print("before", file=sys.stderr)
        filler = fill(small_disk)
        for number in range(2000):
            print(f"line {number} " + "x" * 100, file=sys.stderr)
        filler.unlink()
        print("after", file=sys.stderr)
    assert "line 1999 " in capsys.readouterr().err
    lines = folder.log.read_text().splitlines()
    assert lines[0].endswith(" before") and lines[-1].endswith(" after")


def test_the_record_of_a_card_that_cannot_be_written_is_exported(small_disk):
    folder = RecordFolder(small_disk / "record")
    with Journal(folder.journal) as journal:
        journal.record(recorded(1))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = run("edge/journal.py", "export", folder.path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


# Held by others.


def test_while_another_process_holds_the_database_the_listener_goes_on_and_the_rows_follow(tmp_path):
    path, said = tmp_path / "journal.sqlite", []
    hold = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin exclusive');"
        "print('held', flush=True); sys.stdin.readline(); c.execute('commit')"
    )
    with Journal(path, said.append) as journal:
        assert journal.record(recorded(1))
        command = [sys.executable, "-c", hold, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout.readline() == "held\n"
            began = time.monotonic()
            assert not any([journal.record(recorded(number)) for number in range(2, 30)])
            assert time.monotonic() - began < 5
            other.stdin.write("\n")
            other.stdin.close()
        wait_for(journal.flush)
    with closing(read_only(path)) as reader:
        assert [row[0] for row in reader.execute("select id from events")] == list(range(1, 30))


def test_a_listener_that_starts_while_another_process_holds_the_database_resumes_when_it_lets_go(tmp_path):
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.record(recorded(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        with Journal(path, lambda _: None) as journal:
            assert journal.resume(UTC + 500) == utc_seconds("2026-11-25T10:00:16.000Z")
            assert journal.new_event_id() == 2
            assert not journal.record(recorded(2))
            other.execute("rollback")
            wait_for(journal.flush)
    with closing(read_only(path)) as reader:
        assert reader.execute("select count(*) from events").fetchone()[0] == 2
        assert reader.execute("select cause from gaps").fetchone()[0] == NOT_RUNNING


def test_a_reader_that_never_ends_does_not_stop_the_listener(tmp_path):
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal, closing(read_only(path)) as reader:
        journal.record(recorded(1))
        reader.execute("begin")
        assert reader.execute("select count(*) from events").fetchone()[0] == 1
        assert all(journal.record(recorded(number)) for number in range(2, 60))
        assert reader.execute("select count(*) from events").fetchone()[0] == 1, "it still reads what was then"
