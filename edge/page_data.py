"""What the page reads of a record folder's journal: events, gaps and health, as values that JSON can hold.

    record = Record(folder, Zone("Europe/Berlin"))      # of one thread
    record.refresh()                                    # True: something was written since the last time
    record.latest_events(50)                            # [{"id": 7, "species": "amerob", "day": "2026-11-25", ...}, ...]
    record.starts(date(2026, 11, 25))                   # (id, species, start) of each event of a local day

It only reads, and never waits for the listener. The journal may not be there yet, may be replaced, may be busy: then what
is asked for is empty, and `fault` says why. Each answer costs as much as it holds: an index or the order of the ids leads
to its rows, however long the record is (detections are not read at all).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.tables import (
    CLOCK,
    NO_FRAMES,
    NO_MICROPHONE,
    NOT_RECORDED,
    NOT_RUNNING,
    SCHEDULE,
    STOPPED,
    ZEROS,
    read_only,
    utc_text,
)
from src.errors import UserError

# The gaps of which the record cannot know birds: nothing was heard, or nothing of it could be written.
NOT_LISTENING = (NO_MICROPHONE, STOPPED, NO_FRAMES, ZEROS, NOT_RUNNING, SCHEDULE, CLOCK, NOT_RECORDED)
EVENT = "id, utc_start, utc_end, species, probability, windows, closed, clip"
HEALTH = "utc level_dbfs peak_dbfs clipped_share zero_share received lost overflows analysed dropped withheld"
HEALTH += " latency_p50_s latency_p95_s disk_free_bytes clips_bytes clips_lost temperature_c resident_bytes cpu_share"
EXPORT = ("id", "utc_start", "utc_end", "species", "probability", "windows", "model", "source", "offset_seconds")
EXPORT += ("closed", "clip")
BUSY_MILLISECONDS = 250  # a reader waits for a writer only while the journal is made or mended
LATEST_UTC = 4102444800.0  # 2100: no clock is set to later
GAPS_BEFORE = 200  # gaps that began before a day and are looked at, since one of them may reach into it


class Zone:
    """The page's time zone: that of the box, or the one that is named. Raises UserError for a name that is none."""

    def __init__(self, name: str | None = None) -> None:
        try:
            self._zone: tzinfo | None = ZoneInfo(name) if name else None
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UserError(
                f"--timezone {name}: no such time zone here; name one as Europe/Berlin (Debian's tzdata has them)"
            ) from error
        self._name = name

    def local(self, seconds: float) -> datetime:
        """Seconds since 1970 as a local time."""
        return datetime.fromtimestamp(seconds, timezone.utc).astimezone(self._zone)

    def bounds(self, day: date) -> tuple[float, float]:
        """When a local day begins and ends, in seconds since 1970; not always 24 hours apart."""
        begins = [datetime(at.year, at.month, at.day, tzinfo=self._zone) for at in (day, day + timedelta(days=1))]
        return begins[0].timestamp(), begins[1].timestamp()

    def offset(self, seconds: float) -> int:
        """How far the zone is east of UTC at that time, in seconds."""
        return round(self.local(seconds).utcoffset().total_seconds())

    def label(self, seconds: float) -> str:
        """The zone in words, as `the box, UTC+01:00` or `Europe/Berlin, UTC+01:00`."""
        offset = f"UTC{self.local(seconds):%z}"
        offset = f"{offset[:6]}:{offset[6:8]}"
        return f"{self._name or 'the box'}, {offset}"


class _Found(NamedTuple):
    """The journal that is at the path: its device and inode, and whether somebody has it open to write."""

    file: tuple[int, int] | None
    written: bool


NOWHERE = _Found(None, False)


class Record:
    """The journal of a record folder, whatever state it is in.

    fault: "" or why something could not be read since the last `refresh`, as a sentence
    """

    def __init__(self, folder: Path, zone: Zone) -> None:
        self.path = Path(folder) / "journal.sqlite"
        self.zone = zone
        self.fault = ""
        self._connection: sqlite3.Connection | None = None
        self._found = NOWHERE
        self._data_version = -1

    @property
    def identity(self) -> str:
        """Which journal it is: another one, with ids of its own, has another. Empty where there is none yet."""
        return "-".join(map(str, self._found.file or ()))

    def close(self) -> None:
        """Let go of the journal."""
        if self._connection:
            self._connection.close()
        self._connection, self._data_version = None, -1

    def open(self) -> bool:
        """Have the journal open that is at the path now. True if it is another than before, or gone, or there at last."""
        found = self._find()
        moved = found != self._found
        if moved or self._connection is None:
            self.close()
            self._found = found
            if found.file is not None:
                try:
                    self._connection = read_only(self.path)
                    self._connection.execute(f"pragma busy_timeout = {BUSY_MILLISECONDS}")
                except UserError as error:
                    self.fault = str(error)
        return moved

    def refresh(self) -> bool:
        """Look at the journal that is there now. True if it may hold something that it did not at the last call."""
        failed, self.fault = self.fault, ""
        moved = self.open()
        rows = self._rows("pragma data_version")
        data_version = rows[0][0] if rows else -1
        changed = moved or bool(failed) or bool(self.fault) or data_version != self._data_version
        self._data_version = data_version
        return changed

    def latest_events(self, count: int, before: int | None = None, species: str | None = None) -> list[dict]:
        """The events that began last, the latest first; those before an id, of a species."""
        wanted, values = ["1"], []
        if before is not None:
            wanted.append("id < ?")
            values.append(before)
        if species is not None:
            wanted.append("species = ?")
            values.append(species)
        query = f"select {EVENT} from events where {' and '.join(wanted)} order by id desc limit ?"
        return [event for row in self._rows(query, *values, count) if (event := self._event(row))]

    def starts(self, day: date, after: int = 0) -> Iterator[tuple[int, str, float]]:
        """id, species and start (s) of the day's events whose id is above `after`."""
        begin, end = self.zone.bounds(day)
        query = "select id, species, utc_start from events where utc_start >= ? and utc_start < ?"
        if after:  # by id, since there are few of them; the plus keeps SQLite from going by the day
            query = "select id, species, utc_start from events where id > ? and +utc_start >= ? and +utc_start < ?"
        for row in self._rows(query, *([after] if after else []), utc_text(begin), utc_text(end)):
            if (start := _seconds(row["utc_start"])) is not None:
                yield row["id"], str(row["species"]), start

    def gaps(self, count: int) -> list[dict]:
        """The latest gaps, the latest first, whatever their cause."""
        query = "select id, utc_start, utc_end, cause, detail from gaps order by id desc limit ?"
        return [gap for row in self._rows(query, count) if (gap := self._gap(row))]

    def gaps_of(self, day: date) -> list[dict]:
        """The gaps that a local day has a part of; of those that began earlier, such as it did not listen in."""
        begin, end = self.zone.bounds(day)
        columns = "id, utc_start, utc_end, cause, detail"
        rows = self._rows(
            f"select {columns} from gaps where utc_start >= ? and utc_start < ?", utc_text(begin), utc_text(end)
        )
        rows += self._rows(
            f"select {columns} from gaps where utc_start < ? and cause in ({', '.join('?' * len(NOT_LISTENING))})"
            " order by id desc limit ?",
            utc_text(begin),
            *NOT_LISTENING,
            GAPS_BEFORE,
        )
        return [gap for row in rows if (gap := self._gap(row))]

    def first_sign_of_life(self) -> float | None:
        """When the record begins, in seconds since 1970; None where it is empty."""
        firsts = []
        for table in ("health", "gaps", "events"):
            rows = self._rows(f"select utc_start from {table} order by id limit 1")
            firsts += [start for row in rows if (start := _seconds(row[0])) is not None]
        return min(firsts, default=None)

    def health_after(self, number: int, count: int) -> list[dict]:
        """The latest health lines with an id above `number`, at most so many, the oldest first; None: not known."""
        columns = HEALTH.split()
        query = f"select id, {', '.join(columns)} from health where id > ? order by id desc limit ?"
        lines = []
        for row in reversed(self._rows(query, number, count)):
            line = {name: _number(row[name]) for name in columns[1:]}
            line.update(id=row["id"], utc=_seconds(row["utc"]))
            if line["utc"] is not None:
                lines.append(line)
        return lines

    def export(self, begin: float, end: float, after: tuple[str, int], count: int) -> list[tuple]:
        """Rows of EXPORT of the events that begin within [begin, end) s, in that order, after (utc_start, id) of a row."""
        query = (
            f"select {', '.join(EXPORT)} from events where utc_start < ? and utc_start >= ?"
            " and (utc_start > ? or id > ?) order by utc_start, id limit ?"
        )
        text, number = after
        return [tuple(row) for row in self._rows(query, utc_text(end), max(text, utc_text(begin)), text, number, count)]

    def days(self) -> tuple[date | None, date | None]:
        """The local days of the first and of the last event."""
        ends = []
        for order in ("asc", "desc"):
            rows = self._rows(f"select utc_start from events order by utc_start {order} limit 1")
            start = _seconds(rows[0][0]) if rows else None
            ends.append(None if start is None else self.zone.local(start).date())
        return ends[0], ends[1]

    def _find(self) -> _Found:
        try:
            status = self.path.stat()
        except OSError:
            return NOWHERE
        if status.st_size == 0:  # a listener is about to make it
            return NOWHERE
        wal = self.path.with_name(self.path.name + "-wal")
        return _Found((status.st_dev, status.st_ino), wal.exists())

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query, so that no transaction stays open; none where there is no journal or it cannot answer."""
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            self.fault = f"{self.path}: cannot be read: {error}"
            return []

    def _event(self, row: sqlite3.Row) -> dict | None:
        start, end = _seconds(row["utc_start"]), _seconds(row["utc_end"])
        if start is None or end is None:
            return None
        local = self.zone.local(start)
        return {
            "id": row["id"],
            "species": str(row["species"]),
            "start": start,
            "end": end,
            "day": f"{local:%Y-%m-%d}",
            "time": f"{local:%H:%M:%S}",
            "probability": _number(row["probability"]),
            "windows": _number(row["windows"]),
            "closed": bool(row["closed"]),
            "clip": None if row["clip"] is None else str(row["clip"]),
        }

    def _gap(self, row: sqlite3.Row) -> dict | None:
        start = _seconds(row["utc_start"])
        if start is None:
            return None
        end = _seconds(row["utc_end"])
        local = self.zone.local(start)
        return {
            "id": row["id"],
            "start": start,
            "end": end,
            "day": f"{local:%Y-%m-%d}",
            "time": f"{local:%H:%M:%S}",
            "cause": str(row["cause"]),
            "detail": str(row["detail"] or ""),
        }


def _seconds(text: Any) -> float | None:
    """What utc_text wrote, as seconds since 1970; None for anything else. Ten times as fast as strptime."""
    try:
        seconds = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < LATEST_UTC else None


def _number(value: Any) -> float | None:
    """A finite number or None: JSON knows no others, and SQLite's columns hold anything."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
