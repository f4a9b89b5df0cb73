"""The listener's memory: a SQLite file of events, gaps and health that outlives kills, power cuts, locks and full disks.

    python edge/journal.py export edge/record -o events.csv                                # all events so far
    python edge/journal.py export edge/record --table detections --since 2026-11-25        # a day and all after it, to the terminal
    python edge/journal.py export edge/record --table gaps --since 2026-11-01 --until 2026-12-01 -o gaps.csv
    sqlite3 edge/record/journal.sqlite "select utc_start, species, probability from events order by id desc limit 10"

Times are UTC: 2026-11-25T10:00:05.000Z; so are --since and --until, a day or a time. The listener may go on meanwhile.

For programs:

    with Journal(folder.journal) as journal:
        journal.resume(time.time())              # closes what a crash left open, records the gap "not running"
        journal.record(merger.push(...))         # True: committed and flushed; False: it waits in memory, in order
    with closing(read_only(folder.journal)) as connection: ...           # any other process
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.events import Changes, Detection, Event
from src.errors import UserError, run_script

VERSION = 1
SCHEMA = """
create table if not exists events (
    id integer primary key,         -- in the order in which they began; they end in another
    utc_start text not null,        -- of the first window, as 2026-11-22T10:00:05.000Z
    utc_end text not null,          -- of the last window so far
    species text not null,          -- the model's label
    probability real not null,      -- of the best window
    windows integer not null,       -- in which it was found
    model text not null,
    source text not null,           -- the microphone's name, or the file or stream played
    offset_seconds real not null,   -- of the first window, since the source's first frame
    closed integer not null,        -- 0 while it goes on
    clip text                       -- relative to clips/; null: none
);
create table if not exists detections (
    id integer primary key,
    event_id integer,
    utc_start text not null,
    utc_end text not null,
    species text not null,
    probability real not null,
    model text not null,
    source text not null,
    offset_seconds real not null
);
create table if not exists gaps (
    id integer primary key,
    utc_start text not null,
    utc_end text,                   -- null while it goes on
    cause text not null,            -- one of CAUSES
    detail text not null
);
create table if not exists health (
    id integer primary key,
    utc text not null,
    utc_start text not null,        -- of the stretch it is about, about a minute
    level_dbfs real, peak_dbfs real, clipped_share real, zero_share real,
    received integer, lost integer, overflows integer,              -- samples in this stretch
    analysed integer, dropped integer, withheld integer,            -- windows in it
    latency_p50_s real, latency_p95_s real,                         -- end of a window to its answer
    disk_free_bytes integer, clips_bytes integer, clips_lost integer,
    temperature_c real, resident_bytes integer, cpu_share real      -- null where it is not known
);
create table if not exists published (
    sink text primary key,
    event_id integer,
    health_id integer
);
create index if not exists events_by_start on events (utc_start);
create index if not exists events_by_clip on events (clip) where clip is not null;
"""

NO_MICROPHONE = "no microphone"  # absent at boot, or after it was unplugged
STOPPED = "stopped"  # the stream ended: unplugged, the sound server died
NO_FRAMES = "no frames"  # the stream hangs
ZEROS = "zeros"  # frames come, and all are zero
OVERRUN = "overrun"  # the ring or PortAudio lost frames; detail: how many
DROPPED_WINDOWS = "dropped windows"  # the model is slower than the hop
SCHEDULE = "schedule"  # outside the hours asked for
NOT_RUNNING = "not running"  # from the last sign of life of the process before to the start of this one
CLOCK = "clock"  # the wall clock was set; detail: by how much
PRIVACY = "privacy"  # somebody spoke
NOT_RECORDED = "not recorded"  # it listened, but the journal could not be written for longer than memory holds rows
CAUSES = (NO_MICROPHONE, STOPPED, NO_FRAMES, ZEROS, OVERRUN, DROPPED_WINDOWS, SCHEDULE, NOT_RUNNING, CLOCK, PRIVACY)
CAUSES += (NOT_RECORDED,)


@dataclass(frozen=True)
class Health:
    """How the listener did in a stretch of about a minute, a row of the table of that name. None: not known."""

    utc: float  # s since 1970
    utc_start: float
    level_dbfs: float | None = None
    peak_dbfs: float | None = None
    clipped_share: float | None = None
    zero_share: float | None = None
    received: int | None = None
    lost: int | None = None
    overflows: int | None = None
    analysed: int | None = None
    dropped: int | None = None
    withheld: int | None = None
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    disk_free_bytes: int | None = None
    clips_bytes: int | None = None
    clips_lost: int | None = None
    temperature_c: float | None = None
    resident_bytes: int | None = None
    cpu_share: float | None = None


def utc_text(seconds: float) -> str:
    """Seconds since 1970 as `2026-11-22T10:00:05.000Z`, to the nearest millisecond."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, timezone.utc):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def utc_seconds(text: str) -> float:
    """What `utc_text` wrote, as seconds since 1970."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that reads the journal and cannot change it, rows by name; a listener may write meanwhile.

    Close it soon, or what the listener writes piles up in journal.sqlite-wal. Raises UserError where there is no journal.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no journal there; name the folder that listen.py -o was given")
    wal = path.with_name(path.name + "-wal")
    # Where nobody writes and the folder cannot be written either, as on a card in a locked reader, SQLite could not keep
    # the file that readers share; nothing can change there, so it need not.
    modes = ["mode=ro", *([] if wal.exists() else ["immutable=1"])]
    for mode in modes:
        connection = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=5.0)
        connection.row_factory = sqlite3.Row
        try:
            (version,) = connection.execute("pragma user_version").fetchone()
        except sqlite3.Error as error:
            connection.close()
            if mode == modes[-1]:
                raise UserError(f"{path}: cannot be read as a journal: {error}") from error
            continue
        if version == VERSION:
            return connection
        connection.close()
        raise UserError(f"{path}: is no journal of this version of listen.py, which is {VERSION}, but {version}")
    raise AssertionError(modes)


BUSY_SECONDS = 0.25  # how long a window's rows wait for a database that is locked, at most; then in memory
RETRY_SECONDS = 1.0  # between two tries
CLOSE_SECONDS = 1.0  # of trying at the end
UNITS_AT_ONCE = 500  # in one transaction, of what has waited
MOST_WAITING = 20_000  # rows in memory: seven hours of two species in every window of 5 s, some 20 MB

EVENT_COLUMNS = ("id", "utc_start", "utc_end", "species", "probability", "windows", "model", "source")
EVENT_COLUMNS += ("offset_seconds", "closed")
# Whole rows each time, so that one which was lost is made good by the next. Not an upsert, which SQLite has since 3.24
# and Ubuntu 18.04 has not.
WRITE_EVENT = (
    f"insert or replace into events ({', '.join(EVENT_COLUMNS)}, clip)"
    f" values ({', '.join('?' * len(EVENT_COLUMNS))}, (select clip from events where id = ?))"
)
WRITE_DETECTION = "insert into detections values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
WRITE_GAP = "insert or replace into gaps values (?, ?, ?, ?, ?)"
WRITE_HEALTH = f"insert into health values ({', '.join('?' * (1 + len(fields(Health))))})"


@dataclass(frozen=True)
class _Unit:
    """Statements that are done together; `utc` is when they were wanted."""

    utc: float
    statements: tuple[tuple[str, tuple], ...]


class Journal:
    """The one writer of a record. All of it belongs to the listener's thread, except set_clip and clear_clip.

    Every method that writes returns True if all rows so far are committed and flushed to the disk (WAL, synchronous FULL):
    a SIGKILL or a power cut takes nothing of it. False: another process has locked the database, or the disk is full or
    gone; the rows wait in memory, in order, and are written by a later call. Only then does a call wait, BUSY_SECONDS at
    most and once a second: the microphone's ring holds many times that.

    lost_rows: rows that were given up since more than `most_waiting` waited, the oldest first. A gap NOT_RECORDED says so.
    waiting: rows in memory

    Raises UserError, when it is made only, if the file cannot be made or is something else.
    """

    def __init__(self, path: Path, most_waiting: int = MOST_WAITING) -> None:
        self.path = Path(path)
        self.lost_rows = 0
        self._most_waiting = most_waiting
        self._units: deque[_Unit] = deque()
        self._waiting_rows = 0
        self._lock = (
            threading.Lock()
        )  # of the two above, for the length of an append: a clip's thread never waits for a disk
        self._writing: list[_Unit] = []  # taken from `_units`, not yet committed
        self._lost_from = self._lost_until = 0.0
        self._fault = ""
        self._next_try = 0.0
        self._open_gaps: dict[int, tuple[float, str, str]] = {}
        self._connection = self._open()
        self._ids = {
            table: itertools.count(1 + self._one(f"select coalesce(max(id), 0) from {table}"))
            for table in ("events", "detections", "gaps", "health")
        }

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Rows that are not on the disk yet."""
        return self._waiting_rows

    def new_event_id(self) -> int:
        """A number for an event, greater than all before it."""
        return next(self._ids["events"])

    def record(self, changes: Changes) -> bool:
        """Keep what a window changed, all or none of it."""
        statements = [(WRITE_EVENT, _event_row(event)) for event in changes.events]
        statements += [
            (WRITE_DETECTION, (next(self._ids["detections"]), *_detection_row(d))) for d in changes.detections
        ]
        if statements:
            self._put(max(event.utc_end for event in changes.events), *statements)
        return self.flush()

    def begin_gap(self, utc_start: float, cause: str, detail: str = "") -> int:
        """Record that hearing ended, and why; the number is for `end_gap`."""
        number = next(self._ids["gaps"])
        self._open_gaps[number] = utc_start, cause, detail
        self._put(utc_start, (WRITE_GAP, (number, utc_text(utc_start), None, cause, _text(detail))))
        self.flush()
        return number

    def end_gap(self, number: int, utc_end: float, detail: str | None = None) -> bool:
        """Record that a gap has ended; with `detail`, what is known of it only now."""
        utc_start, cause, known = self._open_gaps.pop(number)
        row = (number, utc_text(utc_start), utc_text(utc_end), cause, _text(known if detail is None else detail))
        self._put(utc_end, (WRITE_GAP, row))
        return self.flush()

    def write_health(self, health: Health) -> bool:
        """Keep a health line."""
        utc, utc_start, *figures = astuple(health)
        row = (next(self._ids["health"]), utc_text(utc), utc_text(utc_start), *figures)
        self._put(utc, (WRITE_HEALTH, row))
        return self.flush()

    def set_clip(self, event_id: int, relative: str) -> None:
        """The event's clip is there. From any thread; written by the listener's next call."""
        self._put(time.time(), ("update events set clip = ? where id = ?", (relative, event_id)))

    def clear_clip(self, relative: str) -> None:
        """The clip is there no more. From any thread; written by the listener's next call."""
        self._put(time.time(), ("update events set clip = null where clip = ?", (relative,)))

    def flush(self) -> bool:
        """Write what waits. Costs nothing if nothing does: call it in every round of a loop."""
        if self._fault and time.monotonic() < self._next_try:
            return False
        while self._take():
            try:
                self._commit()
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                self._next_try = time.monotonic() + RETRY_SECONDS
                if not self._fault:
                    LOG.warning("%s takes no rows now (%s): they wait in memory", self.path, error)
                self._fault = str(error)
                return False
            self._written()
        return True

    def last_sign_of_life(self) -> float | None:
        """The time of the last row that any listener wrote here, in seconds since 1970; None for a new journal."""
        texts = [
            self._one(f"select {column} from {table} order by id desc limit 1")
            for table, column in (
                ("health", "utc"),
                ("detections", "utc_end"),
                ("gaps", "coalesce(utc_end, utc_start)"),
            )
        ]
        return max((utc_seconds(text) for text in texts if text), default=None)

    def close(self) -> None:
        """Write what waits, trying for CLOSE_SECONDS, and let go of the file."""
        deadline = time.monotonic() + CLOSE_SECONDS
        self._next_try = 0.0
        while not self.flush() and time.monotonic() < deadline:
            self._next_try = 0.0
        self._connection.close()

    def _put(self, utc: float, *statements: tuple[str, tuple]) -> None:
        with self._lock:
            self._units.append(_Unit(utc, statements))
            self._waiting_rows += len(statements)

    def _take(self) -> bool:
        """Is there anything to write?"""
        if not self._writing:
            with self._lock:
                self._writing = [self._units.popleft() for _ in range(min(len(self._units), UNITS_AT_ONCE))]
        return bool(self._writing)

    def _commit(self) -> None:
        self._connection.execute("begin immediate")
        for unit in self._writing:
            for statement, values in unit.statements:
                self._connection.execute(statement, values)
        self._connection.commit()

    def _written(self) -> None:
        with self._lock:
            self._waiting_rows -= sum(len(unit.statements) for unit in self._writing)
        self._writing = []

    def _one(self, query: str) -> Any:
        row = self._connection.execute(query).fetchone()
        return row[0] if row else None

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.executescript(f"begin immediate; {SCHEMA} pragma user_version = {VERSION}; commit;")
        except OSError as error:
            raise UserError(f"{self.path}: the journal cannot be made: {error.strerror}") from error
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: cannot be used as the journal: {error}") from error
        return connection


LOG = logging.getLogger(__name__)


def _text(text: str) -> str:
    """What SQLite can hold of a text: a file's name may have bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _event_row(event: Event) -> tuple:
    return (
        event.id,
        utc_text(event.utc_start),
        utc_text(event.utc_end),
        _text(event.species),
        event.probability,
        event.windows,
        _text(event.model),
        _text(event.source),
        event.offset_seconds,
        int(event.closed),
        event.id,
    )


def _detection_row(d: Detection) -> tuple:
    return (
        d.event_id,
        utc_text(d.utc_start),
        utc_text(d.utc_end),
        _text(d.species),
        d.probability,
        _text(d.model),
        _text(d.source),
        d.offset_seconds,
    )
