"""The listener's memory: a SQLite file of events, gaps and health that outlives kills, power cuts, locks and full disks.

    python edge/journal.py export edge/record -o events.csv                       # all events so far
    python edge/journal.py export edge/record --table detections --since 2026-11-25       # from that day on, on the terminal
    python edge/journal.py export edge/record --table gaps --since 2026-11-01 --until 2026-12-01 -o gaps.csv
    sqlite3 edge/record/journal.sqlite "select utc_start, species, probability from events order by id desc limit 10"

Times are UTC, as 2026-11-25T10:00:05.000Z; so are --since (from then on) and --until (before then), a day or a time. They are
held against the start of an event, a detection or a gap, and against the time of a health line. The columns are those of the
tables in edge/tables.py. The listener may go on meanwhile.

For programs:

    with Journal(folder.journal) as journal:
        journal.resume(time.time())              # closes what a crash left open, records the gap "not running"
        merger = EventMerger(hop, window, model, journal.new_event_id)
        journal.record(merger.push(...))         # True: committed and flushed; False: it waits in memory, in order
        journal.suspend(time.time(), "stopped by SIGTERM")
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.csv_export import main
from edge.events import Changes, Detection, Event
from edge.journal_file import JournalFile, is_damage
from edge.tables import (
    CAUSES,
    CAUSES_OF_WINDOWS,
    CLOCK,
    DROPPED_WINDOWS,
    NO_FRAMES,
    NO_MICROPHONE,
    NOT_RECORDED,
    NOT_RUNNING,
    OVERRUN,
    PRIVACY,
    SCHEDULE,
    STOPPED,
    WRITE_DETECTION,
    WRITE_EVENT,
    WRITE_GAP,
    WRITE_HEALTH,
    ZEROS,
    Health,
    as_number,
    as_text,
    detection_row,
    event_row,
    read_only,
    utc_seconds,
    utc_text,
)
from src.errors import UserError, run_script

__all__ = ["CAUSES", "CLOCK", "DROPPED_WINDOWS", "NOT_RECORDED", "NOT_RUNNING", "NO_FRAMES", "NO_MICROPHONE", "OVERRUN"]
__all__ += ["PRIVACY", "SCHEDULE", "STOPPED", "ZEROS", "Changes", "Detection", "Event", "Health", "Journal"]
__all__ += ["read_only", "utc_seconds", "utc_text"]

BUSY_SECONDS = 0.25  # how long a call waits for a database that another process has locked, at most
RETRY_SECONDS = 1.0  # between two tries
CLOSE_SECONDS = 1.0  # of trying at the end
UNITS_AT_ONCE = 500  # in one transaction, of what has waited
MOST_WAITING = 20_000  # rows in memory: five hours of two species in every window of 5 s, some 13 MB

# What SQLite cannot hold, now or later: NaN for a probability, a number of 70 bits. Anything else is a matter of the disk.
UNFIT = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError)
FAULTS = (sqlite3.Error, OSError, UserError)  # of the disk, or of what is at the path


@dataclass(frozen=True)
class _Unit:
    """Statements that are done together, all or none; `utc` is the time that they are about."""

    utc: float
    statements: tuple[tuple[str, tuple], ...]


class _UnfitError(Exception):
    """The unit holds what SQLite cannot."""

    def __init__(self, unit: _Unit) -> None:
        self.unit = unit


class Journal:
    """The one writer of a record. All of it belongs to the listener's thread, except set_clip and clear_clip.

    What writes returns True if all rows so far are committed and flushed to the disk (WAL, synchronous FULL): a SIGKILL or
    a power cut takes nothing of it. False: another process has locked the database, or the disk is full or gone; the rows
    wait in memory, in order, for a later call. In such times a call waits BUSY_SECONDS at most, one a second: the
    microphone's ring holds many times that.

    say: where a sentence goes when rows begin to wait, and when that is over
    most_waiting: rows in memory; what is more is given up, the oldest first. A gap NOT_RECORDED says so
    waiting, lost_rows: rows in memory, and given up
    fault: why rows wait, "" if they do not

    A file that is damaged (a memory card that lies about what it has flushed) is set aside as journal.damaged-TIME.sqlite,
    and a new one begun, when the journal is made or when SQLite stumbles over the damage: the box is alone for a month. So
    is a new one where somebody has deleted the file, or moved it away. The ids of events go on, and never begin at 1 again.

    Raises UserError, when it is made only, if the file cannot be made, or is a sound database of something else.
    """

    def __init__(self, path: Path, say: Callable[[str], None] | None = None, most_waiting: int = MOST_WAITING) -> None:
        self.path = Path(path)
        self.fault = ""
        self.waiting = self.lost_rows = 0
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self._most_waiting = most_waiting
        # Of the queue and its counts, for the length of an append: a thread that sets a clip never waits for the disk.
        self._lock = threading.Lock()
        self._units: deque[_Unit] = deque()
        self._lost_span: tuple[float, float, int] | None = None  # from, until, rows; not yet recorded
        self._writing: list[_Unit] = []  # taken from the queue, not yet committed
        self._next_try = 0.0
        self._open_gaps: dict[int, tuple[int, float, str, str]] = {}  # by number: the row's, start, cause, detail
        self._open_events: set[int] = set()
        self._file = JournalFile(self.path, BUSY_SECONDS, self._say)
        self._ids = self._file.ids
        self._file.begin()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_event_id(self) -> int:
        """A number for an event, greater than all before it."""
        return next(self._ids["events"])

    def record(self, changes: Changes) -> bool:
        """Keep what a window changed, all or none of it."""
        for event in changes.events:
            (self._open_events.discard if event.closed else self._open_events.add)(event.id)
        statements = [(WRITE_EVENT, event_row(event)) for event in changes.events]
        statements += [
            (WRITE_DETECTION, (next(self._ids["detections"]), *detection_row(each))) for each in changes.detections
        ]
        if statements:
            self._put(max(each.utc_end for each in (*changes.events, *changes.detections)), *statements)
        return self.flush()

    def begin_gap(self, utc_start: float, cause: str, detail: str = "") -> int:
        """Record that hearing ends, and why; the number is for `end_gap`."""
        number = next(self._ids["gaps"])
        self._open_gaps[number] = number, utc_start, cause, detail
        self._put(utc_start, (WRITE_GAP, (number, utc_text(utc_start), None, cause, as_text(detail))))
        self.flush()
        return number

    def end_gap(self, number: int, utc_end: float, detail: str | None = None) -> bool:
        """Record that a gap is over; `detail` replaces what was known when it began."""
        row_id, utc_start, cause, known = self._open_gaps.pop(number)
        utc_end = max(utc_start, utc_end)
        row = (row_id, utc_text(utc_start), utc_text(utc_end), cause, as_text(known if detail is None else detail))
        self._put(utc_end, (WRITE_GAP, row))
        return self.flush()

    def clock_set(self, utc_before: float, utc_after: float) -> bool:
        """The wall clock was set from one time to another: the gaps that go on end at the one and begin anew at the other.

        Else they would be as long as the step. The number that `begin_gap` gave stays. Those of windows end where a window
        does, by the time that it had.
        """
        for number, (row_id, utc_start, cause, detail) in list(self._open_gaps.items()):
            if cause in CAUSES_OF_WINDOWS:
                continue
            ended = (row_id, utc_text(utc_start), utc_text(max(utc_start, utc_before)), cause, as_text(detail))
            begun = (next(self._ids["gaps"]), utc_text(utc_after), None, cause, as_text(detail))
            self._open_gaps[number] = begun[0], utc_after, cause, detail
            self._put(utc_after, (WRITE_GAP, ended), (WRITE_GAP, begun))
        return self.flush()

    def write_health(self, health: Health) -> bool:
        """Keep a health line."""
        utc, utc_start, *figures = astuple(health)
        row = (next(self._ids["health"]), utc_text(utc), utc_text(utc_start), *map(as_number, figures))
        self._put(utc, (WRITE_HEALTH, row))
        return self.flush()

    def set_clip(self, event_id: int, relative: str) -> None:
        """The event's clip is there. From any thread; the listener's next call writes it."""
        self._put(time.time(), ("update events set clip = ? where id = ?", (relative, event_id)))

    def clear_clip(self, relative: str) -> None:
        """The clip is there no more. From any thread; the listener's next call writes it."""
        self._put(time.time(), ("update events set clip = null where clip = ?", (relative,)))

    def clips(self) -> Iterator[str]:
        """All clips that events have. Before the first thread uses the journal."""
        return (clip for (clip,) in self._rows("select clip from events where clip is not null"))

    def events_without_clip(self, utc_start: str) -> list[tuple[int, str]]:
        """Number and species of the events that begin at a time, as utc_text writes it, and have no clip."""
        return list(self._rows("select id, species from events where utc_start = ? and clip is null", utc_start))

    def last_sign_of_life(self) -> float | None:
        """When a listener last wrote here, in seconds since 1970; None: never.

        The health line comes every minute, a detection's window sooner, a clean end has a row of its own (`suspend`). So
        after a crash this is up to a minute before the end, and a gap "not running" is that much too long, never too short.
        To know it to the second a file would have to be touched every second: on a memory card 17 000 flushes a day
        more, for ever, to save a minute at each crash.
        """
        queries = (
            "select utc from health order by id desc limit 1",
            "select utc_end from detections order by id desc limit 1",
            "select coalesce(utc_end, utc_start) from gaps order by id desc limit 1",
        )
        # Of each table the last row, not the latest time: before the clock was set back there were later ones.
        return max((utc_seconds(text) for text in map(self._one, queries) if text), default=None)

    def resume(self, utc: float) -> float | None:
        """A listener starts: close the events and gaps that the one before left open, record since when none was running.

        Returns the last sign of life, which is where those ended. Before anything else is written.
        """
        try:
            last = self.last_sign_of_life()
        except sqlite3.Error as error:  # in a file too large to be looked through at each start
            if not is_damage(error) or not self._file.set_aside():
                raise
            self._file.begin()
            return None
        if last is None:
            return None
        detail = "without a word before: killed, crashed, or the power was cut"
        if utc < last:
            detail = f"the clock is {last - utc:.0f} s behind the last sign of life; how long it was is not known"
        suspended = self._one(f"select max(id) from gaps where utc_end is null and cause = '{NOT_RUNNING}'")
        statements: list[tuple[str, tuple]] = [("update events set closed = 1 where closed = 0", ())]
        end_gaps = (
            "update gaps set utc_end = max(utc_start, ?) where utc_end is null"  # such texts are in the order of time
        )
        statements.append((f"{end_gaps} and id is not ?", (utc_text(last), suspended)))
        if suspended is None:
            row = (next(self._ids["gaps"]), utc_text(last), utc_text(max(last, utc)), NOT_RUNNING, detail)
            statements.append((WRITE_GAP, row))
        else:
            statements.append((f"{end_gaps} and id = ?", (utc_text(utc), suspended)))
        self._put(utc, *statements)
        self.flush()
        return last

    def suspend(self, utc: float, detail: str) -> bool:
        """The listener ends on purpose, after its events were closed: none is running from now on."""
        for number in list(self._open_gaps):
            self.end_gap(number, utc)
        self.begin_gap(utc, NOT_RUNNING, detail)
        return self.flush()

    def flush(self) -> bool:
        """Write what waits. It costs nothing where nothing does: call it in every round of a loop."""
        if self.fault and time.monotonic() < self._next_try:
            return False
        while self._take():
            try:
                self._commit()
            except _UnfitError as unfit:
                self._roll_back()
                self._writing.remove(unfit.unit)
                with self._lock:
                    self._count_lost(unfit.unit)
                self._say(f"{self.path}: a row that SQLite cannot hold is left out ({unfit.__cause__}): {unfit.unit}")
            except FAULTS as error:
                self._roll_back()
                fault = str(error)
                if is_damage(error):
                    try:
                        if self._file.set_aside():
                            continue
                    except OSError as why:
                        fault = why.strerror
                self._next_try = time.monotonic() + RETRY_SECONDS
                if not self.fault:
                    self._say(f"{self.path}: takes no rows now ({fault}); they wait in memory, and listening goes on")
                self.fault = fault
                return False
        if self.fault:
            self.fault = ""
            self._say(f"{self.path}: takes rows again; {self.lost_rows} were given up since the start")
        return True

    def close(self) -> None:
        """Write what waits, trying for CLOSE_SECONDS, and let go of the file."""
        deadline = time.monotonic() + CLOSE_SECONDS
        self._next_try = 0.0
        while not self.flush() and time.monotonic() < deadline:
            self._next_try = 0.0
        if self.waiting:
            self.lost_rows += self.waiting
            self._say(f"{self.path}: {self.waiting} rows could not be written ({self.fault}) and are lost")
        self._file.close()

    def _put(self, utc: float, *statements: tuple[str, tuple]) -> None:
        with self._lock:
            self._units.append(_Unit(utc, statements))
            self.waiting += len(statements)
            while self.waiting > self._most_waiting and self._units:
                self._count_lost(self._units.popleft())

    def _count_lost(self, unit: _Unit) -> None:
        rows = len(unit.statements)
        self.waiting -= rows
        self.lost_rows += rows
        begin, end, before = self._lost_span or (unit.utc, unit.utc, 0)
        self._lost_span = min(begin, unit.utc), max(end, unit.utc), before + rows

    def _take(self) -> bool:
        """Is there anything to write? It is in `_writing` then."""
        with self._lock:
            if not self._writing and not self._units and self._lost_span:
                begin, end, rows = self._lost_span
                row = (next(self._ids["gaps"]), utc_text(begin), utc_text(end), NOT_RECORDED, f"{rows} rows")
                # All else is written: what still goes on there and here no more is an event or a gap whose last row was given up.
                going_on = ", ".join(map(str, sorted(self._open_events)))
                close = f"update events set closed = 1 where closed = 0 and id not in ({going_on})"
                open_rows = ", ".join(str(row_id) for row_id, *_ in self._open_gaps.values())
                end_gaps = (
                    f"update gaps set utc_end = max(utc_start, ?) where utc_end is null and id not in ({open_rows})"
                )
                self._units.append(_Unit(end, ((WRITE_GAP, row), (close, ()), (end_gaps, (utc_text(begin),)))))
                self.waiting += 3
                self._lost_span = None
            if not self._writing:
                self._writing = [self._units.popleft() for _ in range(min(len(self._units), UNITS_AT_ONCE))]
        return bool(self._writing)

    def _commit(self) -> None:
        """Write what is in `_writing`, all or nothing. Raises one of FAULTS, and _UnfitError."""
        connection = self._file.current()
        connection.execute("begin immediate")
        for unit in self._writing:
            try:
                for statement, values in unit.statements:
                    connection.execute(statement, values)
            except UNFIT as error:
                raise _UnfitError(unit) from error
        connection.execute("commit")
        with self._lock:
            self.waiting -= sum(len(unit.statements) for unit in self._writing)
        self._writing = []

    @property
    def _connection(self) -> sqlite3.Connection:
        """A connection to the file that is at the path now. Raises one of FAULTS where there can be none."""
        return self._file.current()

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._file.connection:
                self._file.connection.rollback()

    def _rows(self, query: str, *values: Any) -> Iterator[tuple]:
        """Rows of a query, as far as they can be read: what is damaged is set aside by the next that is written there."""
        try:
            yield from self._connection.execute(query, values)
        except FAULTS as error:
            self._say(f"{self.path}: cannot be read now: {error}")

    def _one(self, query: str, default: Any = None) -> Any:
        row = self._connection.execute(query).fetchone()
        return default if row is None or row[0] is None else row[0]


if __name__ == "__main__":
    run_script(lambda: main(__doc__))
