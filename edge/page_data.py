"""What the page reads of a record folder's journal: events, gaps and health, as values that JSON can hold.

    record = Record(folder, Zone("Europe/Berlin"))      # of one thread
    record.refresh()                                    # True: something was written since the last time
    record.latest_events(50)                            # [{"id": 7, "species": "amerob", "day": "2026-11-25", ...}, ...]
    record.hours(date(2026, 11, 25))                    # {"amerob": [0, 0, 0, 0, 3, ...]}

It only reads, and never waits for the listener. The journal may not be there yet, may be replaced, may be busy: then what
is asked for is empty, and `fault` says why. Each answer costs as much as it holds: an index or the order of the ids leads
to its rows, however long the record is (detections are not read at all).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.journal import read_only, utc_text
from src.errors import UserError

NOT_LISTENING = ("no microphone", "stopped", "no frames", "zeros", "not running", "schedule")  # causes of gaps
EVENT = "id, utc_start, utc_end, species, probability, windows, closed, clip"
HEALTH = "utc level_dbfs peak_dbfs clipped_share zero_share received lost overflows analysed dropped withheld"
HEALTH += " latency_p50_s latency_p95_s disk_free_bytes clips_bytes clips_lost temperature_c resident_bytes cpu_share"
EXPORT = ("id", "utc_start", "utc_end", "species", "probability", "windows", "model", "source", "offset_seconds")
EXPORT += ("closed", "clip")
LATEST_UTC = 4102444800.0  # 2100: no clock is set to later
GAPS_BEFORE = 200  # gaps that began before a day and are looked at, since one of them may reach into it


class Zone:
    """The page's time zone: that of the box, or the one that is named. Raises UserError for a name that is none."""

    def __init__(self, name: str | None = None) -> None:
        try:
            self._zone: tzinfo | None = ZoneInfo(name) if name else None
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UserError(f"--timezone {name}: no such time zone; name one as in Europe/Berlin, or UTC") from error
        self._name = name

    def local(self, seconds: float) -> datetime:
        """Seconds since 1970 as a local time."""
        return datetime.fromtimestamp(seconds, timezone.utc).astimezone(self._zone)

    def bounds(self, day: date) -> tuple[float, float]:
        """When a local day begins and ends, in seconds since 1970; not always 24 hours apart."""
        begins = [datetime(at.year, at.month, at.day, tzinfo=self._zone) for at in (day, day + timedelta(days=1))]
        return begins[0].timestamp(), begins[1].timestamp()

    def label(self, seconds: float) -> str:
        """The zone in words, as `UTC+01:00` or `Europe/Berlin, UTC+01:00`."""
        offset = f"UTC{self.local(seconds):%z}"
        offset = f"{offset[:6]}:{offset[6:8]}"
        return f"{self._name}, {offset}" if self._name else offset


class Record:
    """The journal of a record folder, whatever state it is in.

    fault: "" or why there is nothing to read, as a sentence; `absent` where there is no journal yet
    generation: grows when the journal was replaced by another one, whose ids begin anew
    """

    def __init__(self, folder: Path, zone: Zone) -> None:
        self.path = Path(folder) / "journal.sqlite"
        self.zone = zone
        self.fault = ""
        self.absent = True
        self.generation = 0
        self._connection: Optional[sqlite3.Connection] = None
        self._opened: tuple = ()
        self._data_version = -1

    def close(self) -> None:
        """Let go of the journal."""
        if self._connection:
            self._connection.close()
        self._connection, self._data_version, self._opened = None, -1, ()

    def refresh(self) -> bool:
        """Look at the journal that is there now. True if it may hold something that it did not at the last call."""
        identity = self._identity()
        if identity != self._opened or self._connection is None:
            replaced = identity[:2] != self._opened[:2]
            self.close()
            self.absent = not identity
            self.fault = ""
            if replaced:
                self.generation += 1
            if self.absent:
                self._opened = identity
                return replaced
            try:
                self._connection = read_only(self.path)
                self._connection.execute("pragma busy_timeout = 250")
            except UserError as error:
                self.fault = str(error)
                return True
            self._opened = identity
        rows = self._rows("pragma data_version")
        changed = not rows or rows[0][0] != self._data_version
        self._data_version = rows[0][0] if rows else -1
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

    def hours(self, day: date) -> dict[str, list[int]]:
        """Of each species of a local day, how many events began in each of its 24 hours."""
        counts: dict[str, list[int]] = {}
        for _, species, start in self.starts(day):
            counts.setdefault(species, [0] * 24)[self.zone.local(start).hour] += 1
        return counts

    def listened(self, day: date, until: float) -> list[float | None]:
        """The share of each hour of a local day in which it listened; None for hours that are not there (yet).

        until: the last moment that is known of, in seconds since 1970, such as now
        """
        begin, end = self.zone.bounds(day)
        until = min(until, end)
        first = self._first_sign_of_life()
        deaf = [(begin, min(until, max(begin, first)))] if first is not None else [(begin, until)]
        for gap in self._gaps_within(begin, end):
            if gap["cause"] in NOT_LISTENING:
                deaf.append((gap["start"], min(until, until if gap["end"] is None else gap["end"])))
        present, silent = [0.0] * 24, [0.0] * 24
        for start, stop, seconds in ((begin, until, present), *((*span, silent) for span in _merged(deaf, begin))):
            for hour, length in self._by_hour(start, stop):
                seconds[hour] += length
        return [round(1 - min(1.0, s / p), 3) if p > 0 else None for s, p in zip(silent, present)]

    def gaps(self, count: int) -> list[dict]:
        """The latest gaps, the latest first, whatever their cause."""
        query = "select id, utc_start, utc_end, cause, detail from gaps order by id desc limit ?"
        return [gap for row in self._rows(query, count) if (gap := self._gap(row))]

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

    def _identity(self) -> tuple:
        """What tells this journal from another in its place, and one that is written from one that nobody has open."""
        try:
            status = self.path.stat()
        except OSError:
            return ()
        return status.st_dev, status.st_ino, self.path.with_name(self.path.name + "-wal").exists()

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query, so that no transaction stays open; none where there is no journal or it cannot answer."""
        if self._connection is None:
            return []
        try:
            rows = self._connection.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            self.fault = f"{self.path}: cannot be read: {error}"
            return []
        self.fault = ""
        return rows

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
            "windows": row["windows"],
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

    def _gaps_within(self, begin: float, end: float) -> list[dict]:
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

    def _first_sign_of_life(self) -> float | None:
        firsts = []
        for table in ("health", "gaps", "events"):
            rows = self._rows(f"select utc_start from {table} order by id limit 1")
            firsts += [start for row in rows if (start := _seconds(row[0])) is not None]
        return min(firsts, default=None)

    def _by_hour(self, start: float, stop: float) -> Iterator[tuple[int, float]]:
        """The local hours that a stretch of time lies in, and how many seconds of it lie in each."""
        while start < stop:
            local = self.zone.local(start)
            into_hour = local.minute * 60 + local.second + local.microsecond / 1e6
            step = min(stop, start + max(1e-3, 3600 - into_hour)) - start
            yield local.hour, step
            start += step


def _merged(spans: Iterable[tuple[float, float]], begin: float) -> Iterator[tuple[float, float]]:
    """Stretches of time after `begin` as stretches that do not overlap."""
    reached = begin
    for start, stop in sorted(spans):
        if stop > max(start, reached):
            yield max(start, reached), stop
            reached = stop


def _seconds(text: Any) -> float | None:
    """What journal.utc_text wrote, as seconds since 1970; None for anything else. Ten times as fast as strptime."""
    try:
        seconds = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < LATEST_UTC else None


def _number(value: Any) -> float | None:
    """A finite number or None: JSON knows no others, and SQLite's columns hold anything."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
