"""A day on the page: which species began to call in which hour, and how much of each hour was listened to at all.

    day = Day(record, date(2026, 11, 25))
    day.update(record)          # events that came since then
    day.hours                   # {"amerob": [0, 0, 0, 0, 3, ...]}: an empty hour means something only beside
    day.listened                # [1.0, 0.25, None, ...]: the share of the hour in which it listened

The day and its hours are those of the page's time zone. An hour that a clock set back has twice counts as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from edge.page_data import NOT_LISTENING, Record, Zone
from edge.tables import SCHEDULE

HOURS = 24


class Day:
    """Counts of a local day, which grow with the record at the cost of the new events only.

    hours: events by species and hour, by when they began
    listened: of each hour the share that it listened, None for hours that are not over or were before the record began
    missed: seconds of the day in which it should have listened and did not, and the number of such gaps
    """

    def __init__(self, record: Record, day: date) -> None:
        self.date = day
        self.hours: dict[str, list[int]] = {}
        self.listened: list[float | None] = [None] * HOURS
        self.missed = (0.0, 0)
        self._newest = 0
        self.update(record)

    def update(self, record: Record) -> None:
        """Count what began since the last time."""
        for number, species, start in record.starts(self.date, self._newest):
            self._newest = max(self._newest, number)
            self.hours.setdefault(species, [0] * HOURS)[record.zone.local(start).hour] += 1

    def update_listened(self, record: Record, until: float) -> None:
        """Look at the gaps again. until: the last moment that anything is known of, in seconds since 1970."""
        begin, end = record.zone.bounds(self.date)
        until = min(until, end)
        gaps = record.gaps_of(self.date)
        first = record.first_sign_of_life()
        begin = until if first is None else max(begin, first)
        self.listened = listened(record.zone, begin, until, [span(gap, until) for gap in gaps if is_deaf(gap)])
        missed = [span(gap, until) for gap in gaps if is_deaf(gap) and gap["cause"] != SCHEDULE]
        missed = [(start, stop) for start, stop in missed if stop > begin and stop > start]
        self.missed = (round(sum(stop - start for start, stop in merged(missed, begin)), 1), len(missed))

    def as_json(self) -> dict:
        """What a viewer gets of it."""
        return {"date": self.date.isoformat(), "hours": self.hours, "listened": self.listened}


def is_deaf(gap: dict) -> bool:
    """Does the record know of no bird in this gap? In the others windows were left out, or samples lost."""
    return gap["cause"] in NOT_LISTENING


def span(gap: dict, until: float) -> tuple[float, float]:
    """When a gap begins and ends, in seconds since 1970; one that goes on ends now."""
    return gap["start"], until if gap["end"] is None else min(until, gap["end"])


def listened(zone: Zone, begin: float, until: float, deaf: Iterable[tuple[float, float]]) -> list[float | None]:
    """The share of each local hour between two times of a day that lies in none of the `deaf` stretches, in s since 1970."""
    whole, silent = [0.0] * HOURS, [0.0] * HOURS
    for hour, seconds in by_hour(zone, begin, until):
        whole[hour] += seconds
    for start, stop in merged(deaf, begin):
        for hour, seconds in by_hour(zone, start, stop):
            silent[hour] += seconds
    return [round(max(0.0, 1 - s / w), 3) if w > 0 else None for s, w in zip(silent, whole)]


def merged(spans: Iterable[tuple[float, float]], begin: float) -> Iterator[tuple[float, float]]:
    """Stretches of time, of each what lies after `begin` and in none before it."""
    reached = begin
    for start, stop in sorted(spans):
        if stop > max(start, reached):
            yield max(start, reached), stop
            reached = stop


def by_hour(zone: Zone, start: float, stop: float) -> Iterator[tuple[int, float]]:
    """The local hours in which a stretch of time lies, and how many seconds of it lie in each."""
    while start < stop:
        local = zone.local(start)
        rest_of_hour = 3600 - local.minute * 60 - local.second - local.microsecond / 1e6
        seconds = min(stop - start, max(0.001, rest_of_hour))
        yield local.hour, seconds
        start += seconds
