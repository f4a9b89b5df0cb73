"""The journal: what it acknowledges is on the disk; what it cannot write now it writes later, in order, or counts as lost.

Locks are held by real connections of their own. Kills, full disks and other processes are in test_record_faults.py.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import journal as journal_module
from edge import journal_file
from edge.events import EventMerger
from edge.journal import (
    CLOCK,
    DROPPED_WINDOWS,
    NO_FRAMES,
    NOT_RECORDED,
    NOT_RUNNING,
    ZEROS,
    Changes,
    Detection,
    Event,
    Health,
    Journal,
    read_only,
    utc_seconds,
    utc_text,
)
from src.errors import UserError

UTC = 1_795_600_805.0  # 2026-11-25T10:00:05Z
EVENT = Event(1, UTC, UTC + 5, "robin", 0.9, 1, "b6", "usb", 0.0, UTC, 0.0)


def rows(path: Path, table: str = "events") -> list[dict]:
    with closing(read_only(path)) as connection:
        return [dict(row) for row in connection.execute(f"select * from {table} order by id")]


def column(path: Path, name: str, table: str = "events") -> list:
    return [row[name] for row in rows(path, table)]


def opened(number: int) -> Changes:
    """A new event of one window, and its detection."""
    start = UTC + 10 * number
    event = replace(EVENT, id=number, utc_start=start, utc_end=start + 5, offset_seconds=10.0 * number)
    detection = Detection(start, start + 5, "robin", 0.9, "b6", "usb", 10.0 * number, event_id=number)
    return Changes((detection,), (event,))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection writes and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


@pytest.fixture
def said() -> list[str]:
    """What a journal says to its listener."""
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record/journal.sqlite"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call tries again, and hardly waits."""
    monkeypatch.setattr(journal_module, "BUSY_SECONDS", 0.001)
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.0)


# What is written.


def test_an_event_is_a_row_from_its_first_window_on_which_says_how_it_stands(path):
    with Journal(path) as journal:
        merger = EventMerger(2.5, 5.0, "b6", journal.new_event_id)
        stands = []
        for number, probability in enumerate([0.7, 0.9, None, None]):
            found = {} if probability is None else {"robin": probability}
            start = UTC + 2.5 * number
            assert journal.record(merger.push(start, start + 5.0, 2.5 * number, found, "usb"))
            (row,) = rows(path)
            stands.append((row["windows"], row["probability"], row["utc_end"], row["closed"]))
    ends = [utc_text(UTC + 5), utc_text(UTC + 7.5)]
    assert stands == [(1, 0.7, ends[0], 0), (2, 0.9, ends[1], 0), (2, 0.9, ends[1], 0), (2, 0.9, ends[1], 1)]
    what = {"species": "robin", "model": "b6", "source": "usb", "utc_start": "2026-11-25T10:00:05.000Z", "clip": None}
    assert {name: row[name] for name in what} == what
    assert [(each["event_id"], each["offset_seconds"], each["probability"]) for each in rows(path, "detections")] == [
        (row["id"], 0.0, 0.7),
        (row["id"], 2.5, 0.9),
    ]


def test_numbers_go_on_from_run_to_run(path):
    for run_number in range(3):
        with Journal(path) as journal:
            assert journal.new_event_id() == run_number + 1
            assert journal.record(opened(run_number + 1))
            journal.end_gap(journal.begin_gap(UTC, CLOCK, "set by 3 s"), UTC)
    assert column(path, "id", "detections") == column(path, "id", "gaps") == [1, 2, 3]


def test_a_gap_is_open_until_it_ends_and_may_be_explained_then(path):
    with Journal(path) as journal:
        number = journal.begin_gap(UTC, NO_FRAMES, "hangs")
        assert [(row["utc_end"], row["detail"]) for row in rows(path, "gaps")] == [(None, "hangs")]
        assert journal.end_gap(number, UTC + 60, "hung; reopened at the second try")
    (row,) = rows(path, "gaps")
    assert row == {
        "id": number,
        "utc_start": utc_text(UTC),
        "utc_end": utc_text(UTC + 60),
        "cause": "no frames",
        "detail": "hung; reopened at the second try",
    }


def test_a_health_line_has_what_is_known_and_null_for_the_rest(path):
    health = Health(UTC, UTC - 60, level_dbfs=-41.5, received=1_920_000, dropped=0)
    with Journal(path) as journal:
        assert journal.write_health(health)
    (row,) = rows(path, "health")
    assert list(row) == ["id", *Health.__dataclass_fields__]
    assert (row["utc"], row["level_dbfs"], row["received"], row["dropped"]) == (utc_text(UTC), -41.5, 1_920_000, 0)
    assert row["temperature_c"] is None and row["lost"] is None


def test_clips_are_set_and_cleared_from_another_thread_and_outlive_changes_of_the_event(path):
    with Journal(path) as journal:
        journal.record(opened(1))
        other = threading.Thread(target=journal.set_clip, args=(1, "robin/a.flac"))
        other.start()
        other.join()
        closed = replace(EVENT, windows=7, closed=True)
        assert journal.record(Changes(events=(closed,)))
        assert [(row["clip"], row["windows"]) for row in rows(path)] == [("robin/a.flac", 7)]
        journal.clear_clip("robin/a.flac")
        assert journal.flush()
        assert column(path, "clip") == [None]


def test_names_that_are_no_utf_8_are_written_as_what_is_printable_of_them(path):
    odd = replace(EVENT, source="caf\udce9.wav", species="../x\ud800")
    with Journal(path) as journal:
        assert journal.record(Changes(events=(odd,)))
    (row,) = rows(path)
    assert (row["source"], row["species"]) == ("caf\\udce9.wav", "../x\\ud800")


def test_what_is_acknowledged_is_flushed_to_the_disk(path):
    # FULL is 2: in WAL mode SQLite then calls fsync before a commit returns. That a disk keeps its word is not ours to test.
    with Journal(path) as journal:
        assert journal._connection.execute("pragma synchronous").fetchone() == (2,)
        assert journal._connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_times_are_utc_to_the_millisecond_and_back():
    assert utc_text(UTC + 0.0004) == "2026-11-25T10:00:05.000Z"
    assert utc_text(UTC + 0.9996) == "2026-11-25T10:00:06.000Z"
    assert utc_seconds("2026-11-25T10:00:05.250Z") == UTC + 0.25


# What cannot be written now.


def test_while_another_writes_rows_wait_in_order_and_are_written_when_it_is_done(path, said):
    with Journal(path, said.append) as journal:
        assert journal.record(opened(1))
        with locked(path):
            began = time.monotonic()
            assert not any([journal.record(opened(number)) for number in range(2, 40)])
            journal.begin_gap(UTC, NO_FRAMES)
            journal.set_clip(1, "robin/a.flac")
            # Only one of those calls has waited for the lock: were it each, the listener would fall behind.
            assert time.monotonic() - began < 10 * journal_module.BUSY_SECONDS
            assert column(path, "id") == [1], "readers go on"
            assert journal.waiting == 2 * 38 + 2
        time.sleep(journal_module.RETRY_SECONDS)
        assert journal.record(Changes())
        assert journal.waiting == journal.lost_rows == 0
        assert column(path, "id") == column(path, "id", "detections") == list(range(1, 40))
        assert column(path, "clip")[0] == "robin/a.flac"
    assert ["locked" in text for text in said] == [True, False], "one sentence when it begins, one when it is over"


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["window", "gap", "end", "health", "clip", "lock", "unlock"]), max_size=30))
def test_whenever_others_lock_it_every_row_is_there_once_and_in_order_at_the_end(steps):
    events, gaps, open_gaps, health, clips = [], [], [], 0, 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "BUSY_SECONDS", 0.001)
        patch.setattr(journal_module, "RETRY_SECONDS", 0.0)
        path = Path(folder) / "journal.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as other, Journal(path, lambda _: None) as journal:
            for step in steps:
                if step == "window":
                    events.append(journal.new_event_id())
                    acknowledged = journal.record(opened(events[-1]))
                    assert acknowledged == (not other.in_transaction)
                elif step == "gap":
                    gaps.append(journal.begin_gap(UTC, NO_FRAMES))
                    open_gaps.append(gaps[-1])
                elif step == "end" and open_gaps:
                    journal.end_gap(open_gaps.pop(), UTC + 1)
                elif step == "health":
                    health += 1
                    journal.write_health(Health(UTC, UTC))
                elif step == "clip" and events:
                    clips += 1
                    journal.set_clip(events[-1], f"robin/{clips}")
                elif step == "lock" and not other.in_transaction:
                    other.execute("begin immediate")
                elif step == "unlock" and other.in_transaction:
                    other.execute("commit")
            if other.in_transaction:
                other.execute("commit")
        assert column(path, "id") == column(path, "event_id", "detections") == events
        assert column(path, "id", "gaps") == gaps
        assert [row["id"] for row in rows(path, "gaps") if row["utc_end"] is None] == sorted(open_gaps)
        assert len(rows(path, "health")) == health
        assert clips == 0 or f"robin/{clips}" in column(path, "clip")


def test_of_more_rows_than_may_wait_the_oldest_are_given_up_counted_and_recorded_as_a_gap(path, said, impatient):
    with Journal(path, said.append, most_waiting=10) as journal:
        with locked(path):
            for number in range(1, 21):  # two rows each
                assert not journal.record(opened(number))
                assert journal.waiting <= 10
        assert journal.flush()
        kept = column(path, "id")
        assert kept == column(path, "event_id", "detections")
        assert kept[-1] == 20 and len(kept) == 5
        assert journal.lost_rows == 30
    (gap,) = rows(path, "gaps")
    assert (gap["cause"], gap["detail"]) == (NOT_RECORDED, "30 rows")
    lost = sorted(set(range(1, 21)) - set(kept))
    assert (gap["utc_start"], gap["utc_end"]) == (utc_text(UTC + 10 * lost[0] + 5), utc_text(UTC + 10 * lost[-1] + 5))


def test_an_event_whose_first_rows_were_given_up_is_whole_again_with_its_next_window(path, impatient):
    with Journal(path, lambda _: None, most_waiting=4) as journal:
        with locked(path):
            journal.record(opened(1))
            number = journal.begin_gap(UTC, NO_FRAMES)
            for later in range(2, 6):
                journal.record(opened(later))
        journal.record(Changes(events=(replace(EVENT, windows=9, closed=True),)))
        journal.end_gap(number, UTC + 60)
        assert journal.flush()
    assert {row["id"]: row["windows"] for row in rows(path)}[1] == 9
    assert [row["utc_start"] for row in rows(path, "gaps") if row["cause"] == NO_FRAMES] == [utc_text(UTC)]


def test_an_event_whose_last_row_was_given_up_is_closed_with_the_gap_and_one_that_goes_on_is_not(path, impatient):
    with Journal(path, lambda _: None, most_waiting=6) as journal:
        for number in (1, 2, 3):
            assert journal.record(opened(number))
        assert journal.record(Changes(events=(replace(EVENT, id=3, closed=True),)))
        with locked(path):
            assert not journal.write_health(Health(UTC, UTC))  # it is on its way, and not given up
            journal.record(Changes(events=(replace(EVENT, closed=True),)))
            for _ in range(10):
                journal.write_health(Health(UTC, UTC))
        assert journal.flush()
        assert journal.lost_rows > 0
        assert {row["id"]: row["closed"] for row in rows(path)} == {1: 1, 2: 0, 3: 1}
        assert journal.record(Changes(events=(replace(EVENT, id=2, windows=2, closed=True),)))
    assert column(path, "closed") == [1, 1, 1]


def test_a_gap_whose_end_was_given_up_ends_where_rows_were_lost_and_one_that_goes_on_does_not(path, impatient):
    with Journal(path, lambda _: None, most_waiting=6) as journal:
        ended, going_on = journal.begin_gap(UTC, NO_FRAMES), journal.begin_gap(UTC, ZEROS)
        with locked(path):
            assert not journal.write_health(Health(UTC, UTC))
            journal.end_gap(ended, UTC + 60)
            for _ in range(10):
                journal.write_health(Health(UTC + 90, UTC + 30))
        assert journal.flush()
        ends = {row["cause"]: row["utc_end"] for row in rows(path, "gaps")}
        assert ends[NO_FRAMES] == utc_text(UTC + 60) and ends[ZEROS] is None
        assert journal.end_gap(going_on, UTC + 200)


FILES = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm")


def test_a_journal_that_comes_back_to_its_path_with_its_log_loses_nothing(path, tmp_path):
    """A USB disk that drops and is mounted again: meanwhile the listener writes a journal under the mount point."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with Journal(path, lambda _: None) as journal:
        for number in range(1, 21):
            assert journal.record(opened(number))
        for name in FILES:  # before its log is written into it
            shutil.copy(path.with_name(name), disk)
        for name in FILES:
            path.with_name(name).unlink()
        assert journal.record(opened(21))
        for name in FILES:
            os.replace(disk / name, path.with_name(name))
        assert journal.record(opened(22))
    assert column(path, "id") == [*range(1, 21), 22]


def test_a_journal_of_which_one_file_after_the_other_is_moved_away_keeps_what_was_acknowledged_since(path, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    with Journal(path, lambda _: None) as journal:
        assert journal.record(opened(1))
        os.replace(path, away / path.name)
        assert journal.record(opened(2))  # a new one
        for name in FILES[1:]:
            os.replace(path.with_name(name), away / name)
        assert journal.record(opened(3)) and column(path, "id") == [2, 3]


def test_numbers_go_on_above_what_was_published_of_a_journal_that_was_deleted(path):
    with Journal(path) as journal:
        journal._connection.execute("insert into published values ('webhook', 52, 7)")
    with Journal(path) as journal:
        assert journal.new_event_id() == 53


def test_a_damage_that_a_fake_large_file_hides_until_it_is_read_sets_it_aside_at_the_start(path, monkeypatch):
    with Journal(path) as journal:
        assert journal.record(opened(1))

    def damaged(_: Journal) -> float:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(Journal, "last_sign_of_life", damaged)
    with Journal(path, lambda _: None) as journal:
        assert journal.resume(UTC) is None
        assert journal.record(opened(2))
    assert len(list(path.parent.glob("journal.damaged-*.sqlite"))) == 1 and column(path, "id") == [2]


def test_a_disk_that_does_not_say_what_is_there_is_not_one_from_which_the_journal_was_deleted():
    class FakePath:
        def stat(self) -> None:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        journal_file.identity(FakePath())


def test_a_row_that_sqlite_cannot_hold_is_left_out_alone(path, said, impatient):
    with Journal(path, said.append) as journal:
        with locked(path):
            journal.record(opened(1))
            journal.record(Changes(events=(replace(EVENT, id=2, probability=float("nan")),)))
            journal.write_health(Health(UTC, UTC, received=2**70))
            journal.record(opened(3))
        assert journal.flush()
        assert journal.lost_rows == 2 and journal.waiting == 0
    assert column(path, "id") == [1, 3]
    assert sum("left out" in text for text in said) == 2
    assert [row["detail"] for row in rows(path, "gaps")] == ["2 rows"]


def test_numbers_of_numpy_are_written_as_numbers(path):
    with Journal(path) as journal:
        journal.record(Changes(events=(replace(EVENT, probability=np.float32(0.5), offset_seconds=np.float64(2.5)),)))
        journal.write_health(Health(UTC, UTC, level_dbfs=np.float32(-40.5), received=np.int64(9)))
    assert [(row["probability"], row["offset_seconds"]) for row in rows(path)] == [(0.5, 2.5)]
    assert [(row["level_dbfs"], row["received"]) for row in rows(path, "health")] == [(-40.5, 9)]


def test_at_the_end_it_tries_for_a_second_and_says_how_many_rows_are_lost(path, said):
    journal = Journal(path, said.append)
    with locked(path):
        journal.record(opened(1))
        began = time.monotonic()
        journal.close()
    assert time.monotonic() - began < 3
    assert said[-1].startswith(f"{path}: 2 rows could not be written")


# From one listener to the next.


def test_a_new_journal_has_no_sign_of_life_and_no_gap(path):
    with Journal(path) as journal:
        assert journal.last_sign_of_life() is None
        assert journal.resume(UTC) is None
    assert not rows(path, "gaps")


@pytest.mark.parametrize("last", ["health", "detection", "gap"])
def test_the_last_sign_of_life_is_the_time_of_the_newest_row(path, last):
    with Journal(path) as journal:
        for kind, utc in [("health", UTC), ("detection", UTC + 1), ("gap", UTC + 2), (last, UTC + 60)]:
            if kind == "health":
                journal.write_health(Health(utc, utc - 60))
            elif kind == "gap":
                journal.end_gap(journal.begin_gap(utc - 9, NO_FRAMES), utc)
            else:
                journal.record(Changes((Detection(utc - 5, utc, "robin", 0.9, "b6", "usb", 0.0),)))
        assert journal.last_sign_of_life() == UTC + 60


def test_after_a_crash_events_and_gaps_are_closed_and_the_time_until_now_is_a_gap(path):
    with Journal(path) as journal:
        journal.record(opened(1))
        journal.begin_gap(UTC + 20, NO_FRAMES)
        journal.write_health(Health(UTC + 120, UTC + 60))
    with Journal(path) as journal:
        assert column(path, "closed") == [0], "opening it changes nothing: only the listener resumes"
        assert journal.resume(UTC + 500) == UTC + 120
    assert column(path, "closed") == [1]
    frames, running = rows(path, "gaps")
    assert (frames["utc_start"], frames["utc_end"]) == (utc_text(UTC + 20), utc_text(UTC + 120))
    assert running["cause"] == NOT_RUNNING and "killed" in running["detail"]
    assert (running["utc_start"], running["utc_end"]) == (utc_text(UTC + 120), utc_text(UTC + 500))


def test_after_a_clean_end_the_gap_runs_from_that_very_moment(path):
    with Journal(path) as journal:
        journal.write_health(Health(UTC, UTC - 60))
        journal.begin_gap(UTC + 10, NO_FRAMES)
        assert journal.suspend(UTC + 30, "stopped by SIGTERM")
    assert [row["utc_end"] for row in rows(path, "gaps")] == [utc_text(UTC + 30), None], "and is open meanwhile"
    with Journal(path) as journal:
        assert journal.resume(UTC + 500) == UTC + 30
        assert journal.suspend(UTC + 600, "stopped by Ctrl-C")
    gaps = [row for row in rows(path, "gaps") if row["cause"] == NOT_RUNNING]
    assert [(row["utc_start"], row["utc_end"], row["detail"]) for row in gaps] == [
        (utc_text(UTC + 30), utc_text(UTC + 500), "stopped by SIGTERM"),
        (utc_text(UTC + 600), None, "stopped by Ctrl-C"),
    ]


def test_where_the_clock_was_not_set_after_a_power_cut_the_gap_has_no_length_and_says_why(path):
    with Journal(path) as journal:
        journal.write_health(Health(UTC, UTC - 60))
    with Journal(path) as journal:
        journal.resume(UTC - 3600)
    (gap,) = rows(path, "gaps")
    assert gap["utc_start"] == gap["utc_end"] == utc_text(UTC)
    assert "the clock is 3600 s behind" in gap["detail"]


# What is no journal of ours.


def test_a_file_that_is_no_database_at_all_is_set_aside_and_left_as_it_is(tmp_path, said):
    path = tmp_path / "journal.sqlite"
    path.write_text("not a journal " * 100)
    with pytest.raises(UserError, match=r"journal\.sqlite: cannot be read as a journal"):
        read_only(path)
    with Journal(path, said.append) as journal:
        assert journal.record(opened(journal.new_event_id()))
    (aside,) = path.parent.glob("journal.damaged-*")
    assert aside.read_text() == "not a journal " * 100
    assert len(said) == 1 and aside.name in said[0]


@pytest.mark.parametrize("statement", ["create table detections (id integer)", "pragma user_version = 2"])
def test_a_database_of_another_version_is_refused_and_left_as_it_is(tmp_path, statement):
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
        other.commit()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"journal\.sqlite: cannot be used as the journal: it was written by another"):
        Journal(path)
    with pytest.raises(UserError, match="is no journal of this version"):
        read_only(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "record").write_text("a file")
    with pytest.raises(UserError, match=r"the journal cannot be made: .*; choose another folder"):
        Journal(tmp_path / "record/journal.sqlite")


# A file that is damaged.


def damage(path: Path, seed: int) -> None:
    """Overwrite the middle of the database, as a memory card does that has lost power."""
    pages = path.stat().st_size // 4096
    with open(path, "r+b") as file:
        for page in range(1, pages):
            file.seek(4096 * page)
            file.write(np.random.default_rng(seed + page).bytes(2048))


def zero(path: Path, begin: int, end: int) -> None:
    """Overwrite bytes [begin, end) with zeros."""
    with open(path, "r+b") as file:
        file.seek(begin)
        file.write(bytes(end - begin))


DAMAGES = {
    "pages": lambda path: damage(path, seed=1),
    "100 bytes of zeros": lambda path: zero(path, 0, 100),
    "a page of zeros": lambda path: zero(path, 0, 4096),
    "zeros behind the header": lambda path: zero(path, 100, 4096),
    "nothing but zeros": lambda path: zero(path, 0, path.stat().st_size),
    "another version in a damaged file": lambda path: [damage(path, seed=1), zero(path, 60, 64)],
    **{f"cut to {size}": lambda path, size=size: os.truncate(path, size) for size in (45056, 6000, 4096, 100)},
}


@pytest.fixture
def old(path: Path) -> Path:
    """The journal of a listener before, with events 1 to 199."""
    with Journal(path) as journal:
        for number in range(1, 200):
            journal.record(opened(number))
    return path


@pytest.mark.parametrize(
    ("damaged", "checked_bytes"),  # a file that is read whole, and one that is too large for that
    [(damaged, size) for damaged in DAMAGES for size in (2e8, 0) if size or "another version" not in damaged],
)
def test_a_damaged_journal_is_set_aside_at_the_start_and_a_new_one_begun(
    old, said, damaged, checked_bytes, monkeypatch
):
    monkeypatch.setattr(journal_file, "CHECKED_BYTES", checked_bytes)
    DAMAGES[damaged](old)
    content = old.read_bytes()
    with Journal(old, said.append) as journal:
        assert journal.resume(UTC) is None
        number = journal.new_event_id()
        assert journal.record(opened(number))
    assert column(old, "id") == [number] and number > 199, "or who drops repeated ids would drop it"
    (aside,) = old.parent.glob("journal.damaged-*.sqlite")
    assert aside.read_bytes() == content
    assert [text for text in said if aside.name in text]
    with Journal(old, said.append) as journal:
        assert journal.new_event_id() == number + 1
    assert len(list(old.parent.glob("journal.damaged-*"))) == len(said) == 1, "the new one stays"


def test_after_a_damage_ids_go_on_even_where_the_clock_stands_at_1970_or_nothing_was_heard_before_the_next_start(
    old, said, monkeypatch
):
    zero(old, 4096 * 3, 4096 * 4)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    for _ in range(2):
        with Journal(old, said.append) as journal:
            assert journal.new_event_id() == 200
    assert len(said) == 1


def test_damage_is_told_by_its_code_and_before_python_3_11_by_what_sqlite_says(old):
    found = []
    for damaged in ("cut to 4096", "a page of zeros"):
        DAMAGES[damaged](old)
        with closing(sqlite3.connect(old)) as connection, pytest.raises(sqlite3.DatabaseError) as raised:
            connection.execute("select max(id) from events")
        found += [raised.value, sqlite3.DatabaseError(*raised.value.args)]
    assert [journal_file.is_damage(error) for error in found] == [True] * 4
    for error in (sqlite3.OperationalError("database is locked"), OSError("malformed"), UserError("malformed")):
        assert not journal_file.is_damage(error)


@pytest.mark.parametrize("damaged", ["pages", "a page of zeros", "nothing but zeros", "cut to 4096"])
def test_a_journal_that_is_damaged_while_it_is_written_is_set_aside_and_numbers_go_on(old, said, damaged):
    with Journal(old, said.append) as journal:
        DAMAGES[damaged](old)
        journal._connection.execute("pragma shrink_memory")  # what is in memory is sound
        for _ in range(20):
            assert journal.record(opened(journal.new_event_id()))
    assert column(old, "id")[-1] == 219 and min(column(old, "id")) >= 200
    assert len(list(old.parent.glob("journal.damaged-*.sqlite"))) == len(said) == 1


class FakeRename:
    """A disk that lets nothing be renamed for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = True
        rename = Path.rename

        def fake(path: Path, target: Path) -> Path:
            if self.fails:
                raise OSError(errno.EROFS, "Read-only file system")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fake)


@pytest.mark.usefixtures("impatient")
def test_a_damaged_journal_that_a_fake_disk_does_not_let_be_renamed_is_set_aside_when_it_does(old, said, monkeypatch):
    disk = FakeRename(monkeypatch)
    with Journal(old, said.append) as journal:
        DAMAGES["a page of zeros"](old)
        journal._connection.execute("pragma shrink_memory")
        for number in range(200, 205):
            assert not journal.record(opened(number))
        disk.fails = False
        assert journal.record(opened(205))
    assert column(old, "id") == list(range(200, 206))
    assert [
        re.search("cannot be renamed: Read-only file system|is now|takes rows again", text)[0] for text in said
    ] == [
        "cannot be renamed: Read-only file system",
        "is now",
        "takes rows again",
    ]


@pytest.mark.usefixtures("impatient")
def test_where_no_new_journal_can_be_opened_for_a_while_by_a_fake_fault_it_is_opened_later(old, said, monkeypatch):
    fails, really_open = [True], journal_file.open_journal

    def fake(*arguments: object) -> tuple:
        if fails[0]:
            raise sqlite3.OperationalError("database or disk is full")
        return really_open(*arguments)

    with Journal(old, said.append) as journal:
        monkeypatch.setattr(journal_file, "open_journal", fake)
        DAMAGES["a page of zeros"](old)
        journal._connection.execute("pragma shrink_memory")
        assert not any(journal.record(opened(number)) for number in range(200, 205))
        assert list(journal.clips()) == journal.events_without_clip(utc_text(UTC)) == []
        fails[0] = False
        assert journal.record(opened(205))
    assert column(old, "id") == list(range(200, 206))


def test_at_the_start_a_damaged_journal_that_a_fake_disk_does_not_let_be_renamed_is_a_sentence(old, monkeypatch):
    FakeRename(monkeypatch)
    DAMAGES["a page of zeros"](old)
    with pytest.raises(
        UserError, match=r"journal\.sqlite: .* is damaged, and cannot be renamed: Read-only file system"
    ):
        Journal(old)


# A file that somebody takes away.


@pytest.mark.parametrize("away", ["deleted", "moved", "all deleted", "folder deleted"])
def test_a_journal_that_is_deleted_or_moved_while_it_is_written_is_begun_anew_and_numbers_go_on(old, said, away):
    moved = old.parent.with_name("moved.sqlite")
    with Journal(old, said.append) as journal:
        assert journal.record(opened(journal.new_event_id()))
        gap = journal.begin_gap(UTC, NO_FRAMES)
        if away == "deleted":
            old.unlink()
        elif away == "moved":
            old.rename(moved)
        elif away == "all deleted":
            for path in old.parent.iterdir():
                path.unlink()
        else:
            shutil.rmtree(old.parent)
        for _ in range(3):
            assert journal.record(opened(journal.new_event_id()))
        assert journal.end_gap(gap, UTC + 5)
        assert column(old, "id") == [201, 202, 203]
    assert column(old, "id") == [201, 202, 203]
    assert [(row["cause"], row["utc_start"]) for row in rows(old, "gaps")] == [(NO_FRAMES, utc_text(UTC))]
    assert ["deleted or replaced" in text for text in said] == [True]
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    if away == "moved":
        assert column(moved, "id") == list(range(1, 201)), "with what was in the log beside it"


def test_a_journal_that_is_deleted_while_another_reads_it_is_begun_anew_without_what_the_reader_holds(old, said):
    with closing(read_only(old)) as reader, Journal(old, said.append) as journal:
        reader.execute("begin")
        assert reader.execute("select count(*) from events").fetchone()[0] == 199
        assert journal.record(opened(200))
        old.unlink()
        assert journal.record(opened(201)) and journal.record(opened(202))
        assert column(old, "id") == [201, 202]
        assert reader.execute("select count(*) from events").fetchone()[0] == 199
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert column(old, "id") == [201, 202]


def test_another_journal_put_in_the_place_of_this_one_is_written_with_numbers_above_its_own(old, tmp_path, said):
    other = tmp_path / "other.sqlite"
    with Journal(other) as journal:
        for number in range(1000, 1010):
            journal.record(opened(number))
    with Journal(old, said.append) as journal:
        assert journal.record(opened(journal.new_event_id()))
        other.replace(old)
        assert journal.write_health(Health(UTC, UTC))
        assert journal.record(opened(journal.new_event_id()))
    assert column(old, "id") == list(range(1000, 1011))
    assert column(old, "id", "detections")[-1] == 201


# Readers, and CSV.


def test_a_reader_sees_what_is_acknowledged_at_once_and_can_change_nothing(path):
    with Journal(path) as journal, closing(read_only(path)) as reader:
        for number in range(1, 4):
            journal.record(opened(number))
            assert reader.execute("select count(*) from events").fetchone()[0] == number
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("delete from events")
    with pytest.raises(UserError, match="no journal there"):
        read_only(path.with_name("nosuch.sqlite"))
    assert not path.with_name("nosuch.sqlite").exists()


def test_gaps_that_go_on_when_the_clock_is_set_end_at_the_old_time_and_begin_at_the_new_those_of_windows_stay(path):
    with Journal(path) as journal:
        hung, dropped = journal.begin_gap(UTC, NO_FRAMES, "hung"), journal.begin_gap(UTC, DROPPED_WINDOWS)
        assert journal.clock_set(UTC + 10, UTC - 90)
        assert journal.end_gap(hung, UTC - 80) and journal.end_gap(dropped, UTC + 5)
    found = [(row["cause"], row["utc_start"], row["utc_end"], row["detail"]) for row in rows(path, "gaps")]
    assert found == [
        (NO_FRAMES, utc_text(UTC), utc_text(UTC + 10), "hung"),
        (DROPPED_WINDOWS, utc_text(UTC), utc_text(UTC + 5), ""),
        (NO_FRAMES, utc_text(UTC - 90), utc_text(UTC - 80), "hung"),
    ]


def exported(path: Path, *options: object) -> list[dict]:
    done = run("edge/journal.py", "export", path.parent, *options)
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture
def a_night(path: Path) -> Iterator[Path]:
    """Ten events 10 s apart, a gap and a health line, of a listener that goes on."""
    with Journal(path) as journal:
        for number in range(10):
            journal.record(opened(number + 1))
        odd = 'Grive "litorne", dite\nla grande'
        journal.record(Changes(events=(replace(EVENT, id=11, utc_start=UTC + 200, species=odd, source="a,b;c"),)))
        journal.end_gap(journal.begin_gap(UTC, NO_FRAMES, "hung"), UTC + 1)
        journal.write_health(Health(UTC + 60, UTC, level_dbfs=-40.0))
        yield path


def test_csv_has_all_columns_and_quotes_what_needs_it_while_the_listener_goes_on(a_night, tmp_path):
    written = tmp_path / "new folder/events.csv"
    done = run("edge/journal.py", "export", a_night.parent, "-o", written)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "11 rows of events\n")
    with open(written, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert found == exported(a_night), "the same on the terminal"
    as_text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows(a_night)]
    assert found == as_text
    assert found[-1]["species"] == 'Grive "litorne", dite\nla grande'


def test_a_species_that_looks_like_a_formula_is_text_in_a_spreadsheet(path):
    with Journal(path) as journal:
        journal.record(Changes(events=(replace(EVENT, id=1, species='=HYPERLINK("http://evil.example","wren")'),)))
    assert [row["species"] for row in exported(path)] == ['\'=HYPERLINK("http://evil.example","wren")']


@pytest.mark.parametrize(("table", "number"), [("detections", 10), ("gaps", 1), ("health", 1)])
def test_csv_of_the_other_tables(a_night, table, number):
    found = exported(a_night, "--table", table)
    assert len(found) == number and list(found[0]) == list(rows(a_night, table)[0])


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--since", "2026-11-25T10:01:45Z"], [10, 11]),
        (["--until", "2026-11-25T10:00:25"], [1]),
        (["--since", "2026-11-25T11:00:35+01:00", "--until", "2026-11-25T10:00:55.001Z"], [3, 4, 5]),
        (["--since", "2026-11-25", "--until", "2026-11-26"], list(range(1, 12))),
        (["--since", "2026-11-26"], []),
    ],
)
def test_since_and_until_are_a_day_or_a_time_in_utc_the_first_in_the_second_out(a_night, options, numbers):
    assert [int(row["id"]) for row in exported(a_night, *options)] == numbers


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nosuch"], "error: nosuch/journal.sqlite: no journal there; name the folder"),
        (["record", "--since", "gestern"], "error: 'gestern' is no day and no time; write 2026-11-25 or"),
        (["record", "-o", "record/journal.sqlite"], "error: record/journal.sqlite: is the journal itself"),
        (["record", "-o", "record"], "error: record: is not a file that can be replaced"),
        (["empty"], "error: empty/journal.sqlite: is no journal of this version"),
    ],
)
def test_a_mistake_is_a_sentence_and_status_1(a_night, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/journal.sqlite").touch()
    before = rows(a_night)
    done = run("edge/journal.py", "export", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence) and len(done.stderr.splitlines()) == 1
    assert rows(a_night) == before


def test_help_has_commands_to_copy():
    for arguments in (["--help"], ["export", "--help"]):
        done = run("edge/journal.py", *arguments)
        assert done.returncode == 0
        assert "python edge/journal.py export edge/record -o events.csv" in done.stdout
