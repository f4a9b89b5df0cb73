"""What the viewers of the page are told: the state of the record, read once for all of them, and what is new to each.

    feed = Feed(record, Day(...), ...)
    feed.refresh(now, sound)                       # in the record's thread: reads what the listener wrote since the last time
    for name, value in feed.news(viewer): ...      # anywhere: what this viewer has not been told yet

A viewer begins with nothing told and is then sent what has changed: the same way a page gets its first content, goes on,
and catches up after its connection was lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from edge.page_data import NOT_LISTENING, Record
from edge.page_day import Day
from edge.page_status import Sound, status

LATEST = 60  # events that every viewer has; older ones are asked for
GAPS = 12
OPEN_AMONG = 50  # the gap that goes on is among so many latest ones
HEALTH_LINES = 1500  # a day has 1440
SLOW_SECONDS = 60.0  # after which is looked again at what changes with the time alone
SEEN_SECONDS = 10  # to which the last sign of life is told
TREND_SECONDS = 900.0  # a point of the trend, of which a day has 96
TREND = ("level_dbfs", "latency_p95_s", "temperature_c")
SUMS = ("analysed", "dropped", "lost", "overflows", "withheld", "clips_lost")  # of the day


class Viewer:
    """What a viewer has been told so far."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.events: dict[int, dict] = {}
        self.hours: dict[str, list[int]] = {}
        self.date = ""


class Feed:
    """The state of one record. `refresh` belongs to the record's thread; what it has read is replaced whole, never changed."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._identity: str | None = None
        self._forget()

    def refresh(self, now: float, sound: Sound) -> None:
        """Read what is new in the record. now: seconds since 1970; sound: what the ring says."""
        record = self._record
        changed = record.refresh()
        if record.identity != self._identity:
            self._forget()
            self._identity = record.identity
        today = record.zone.local(now).date()
        if self._day is None or self._day.date != today:
            self._day = Day(record, today)
            self._slow_at = 0.0
            changed = True
        if changed:
            self._read()
        if abs(now - self._slow_at) >= SLOW_SECONDS:
            self._read_slowly(now)
        self._tell(now, sound)

    def news(self, viewer: Viewer) -> Iterator[tuple[str, Any]]:
        """Names and values of what the viewer has not been told; from then on it counts as told."""
        parts, events, hours = self._parts, self._events, self._hours
        for name, value in parts.items():
            if viewer.parts.get(name) != value:
                if name == "record":
                    viewer.events, viewer.hours = {}, {}
                viewer.parts[name] = value
                yield name, value
        fresh = [event for number, event in events.items() if viewer.events.get(number) != event]
        if fresh:
            viewer.events = events
            yield "events", fresh
        date, counts = hours
        if date != viewer.date:
            viewer.hours = {}
        changed = {species: row for species, row in counts.items() if viewer.hours.get(species) != row}
        if date and (changed or date != viewer.date):
            viewer.date, viewer.hours = date, counts
            yield "hours", {"date": date, "hours": changed}

    def _forget(self) -> None:
        self._day: Day | None = None
        self._slow_at = 0.0
        self._lines: deque[dict] = deque(maxlen=HEALTH_LINES)
        self._gaps: list[dict] = []
        self._events: dict[int, dict] = {}
        self._hours: tuple[str, dict[str, list[int]]] = "", {}
        self._slow: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}

    def _read(self) -> None:
        record = self._record
        latest = record.latest_events(LATEST)
        self._events = {event["id"]: event for event in reversed(latest)}
        gaps = record.gaps(OPEN_AMONG)
        if gaps != self._gaps:
            self._gaps = gaps
            self._slow_at = 0.0
        self._lines.extend(record.health_after(self._lines[-1]["id"] if self._lines else 0, HEALTH_LINES))
        self._day.update(record)
        self._hours = self._day.date.isoformat(), {species: list(row) for species, row in self._day.hours.items()}

    def _read_slowly(self, now: float) -> None:
        day = self._day
        day.update_listened(self._record, now)
        begin, _ = self._record.zone.bounds(day.date)
        first, _ = self._record.days()
        sums = {name: sum(line[name] or 0 for line in self._lines if line["utc"] >= begin) for name in SUMS}
        self._slow_at = now
        self._slow = {
            "listened": {
                "date": day.date.isoformat(),
                "listened": day.listened,
                "missed": day.missed,
                "first": first and first.isoformat(),
            },
            "health": {"line": self._lines[-1] if self._lines else None, "today": sums},
            "trend": self._trend(now),
        }

    def _tell(self, now: float, sound: Sound) -> None:
        record, day = self._record, self._day
        health = self._lines[-1] if self._lines else None
        open_gaps = (gap for gap in self._gaps if gap["end"] is None and gap["cause"] in NOT_LISTENING)
        told = status(now, sound, health, next(open_gaps, None), not record.identity, record.fault)
        if told["since"] is not None:
            since = record.zone.local(told["since"])
            told["since_text"] = f"{since:%H:%M:%S}" if since.date() == day.date else f"{since:%Y-%m-%d %H:%M}"
        signs = [sound.last_utc, health and health["utc"], max((e["end"] for e in self._events.values()), default=None)]
        seen = max((int(sign) // SEEN_SECONDS * SEEN_SECONDS for sign in signs if sign), default=None)
        self._parts = {
            "record": {"identity": record.identity, "zone": record.zone.label(now), "offset": record.zone.offset(now)},
            "status": told,
            "seen": seen,
            "gaps": self._gaps[:GAPS],
            **self._slow,
        }

    def _trend(self, now: float) -> dict[str, list[float | None]]:
        """The last day in points of a quarter of an hour, the latest last: the mean of each figure, None where it has none."""
        points = round(86400 / TREND_SECONDS)
        figures: dict[str, list[list[float]]] = {name: [[] for _ in range(points)] for name in TREND}
        for line in self._lines:
            point = points - 1 - int((now - line["utc"]) // TREND_SECONDS)
            for name in TREND:
                if 0 <= point < points and line[name] is not None:
                    figures[name][point].append(line[name])
        return {
            name: [round(sum(values) / len(values), 3) if values else None for values in figure]
            for name, figure in figures.items()
        }
