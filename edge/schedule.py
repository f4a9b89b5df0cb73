"""When to listen: by day or night, around sunrise or sunset, or between hours.

    schedule = Schedule("dawn+dusk", latitude=18.4, longitude=-66.1)
    schedule.listening(time.time())        # True
    schedule.next_change(time.time())      # when that changes, in seconds since 1970; a week ahead if not before

    day             while the sun is up: from sunrise to sunset
    night           while it is not
    dawn, dusk      from an hour before sunrise, or sunset, to an hour after it
    HH:MM-HH:MM     UTC, as every time in the journal is; the end is left out, and 22:00-04:00 goes past midnight

Several, with a comma or a plus between them, are one or another. The box's time zone has no part in it. Sunrise and sunset are
those of the almanacs, for a flat horizon: the sun's upper edge, lifted by the air, appears or goes. Where it does neither for
months there is only day or only night, and no dawn or dusk. Minutes are whole, so that what `next_change` says is what happens.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

import numpy as np

from src.errors import UserError

DAY = 1440  # minutes
WEEK = 7 * DAY
AROUND = 60  # minutes that dawn and dusk last on each side
# Height of the sun's centre at sunrise: 16' of its radius and 34' of refraction, as in the Astronomical Almanac.
HORIZON_DEG = -50 / 60
SUN_WORDS = ("day", "night", "dawn", "dusk")
KEPT_DAYS = 10


class Schedule:
    """The hours to listen at a place.

    text: as in the module's docstring
    latitude, longitude: degrees, north and east positive; only what goes by the sun needs them
    Raises UserError for a text or a place that cannot be understood.
    """

    def __init__(self, text: str, latitude: float | None = None, longitude: float | None = None) -> None:
        self.text = text
        self._parts = [_parsed(part.strip()) for part in re.split("[,+]", text)]
        self._days: dict[int, np.ndarray] = {}
        self._place = None
        if any(isinstance(part, str) for part in self._parts):
            self._place = _place(text, latitude, longitude)

    def listening(self, utc: float) -> bool:
        """Whether to listen at a time in seconds since 1970."""
        return self._at(_minute(utc))

    def next_change(self, utc: float) -> float | None:
        """When `listening` is next another than at `utc`, in seconds since 1970; None: not within a week."""
        now = _minute(utc)
        state = self._at(now)
        minute = now + 1
        while minute < now + WEEK and self._at(minute) == state:
            minute += 1
        return minute * 60.0 if minute < now + WEEK else None

    def _at(self, minute: int) -> bool:
        day, of_day = divmod(minute, DAY)
        if day not in self._days:
            if len(self._days) >= KEPT_DAYS:
                self._days.clear()
            self._days[day] = self._day(day * DAY)
        return bool(self._days[day][of_day])

    def _day(self, first: int) -> np.ndarray:
        """Of each minute from `first`, counted from 1970: bool [1440]."""
        listening = np.zeros(DAY, bool)
        sun = self._sun(first) if self._place else {}
        minutes = np.arange(DAY)
        for part in self._parts:
            if isinstance(part, str):
                listening |= sun[part]
            else:
                start, end = part
                after, before = minutes >= start, minutes < end
                listening |= (after & before) if start < end else (after | before)
        return listening

    def _sun(self, first: int) -> dict[str, np.ndarray]:
        """What the sun says of each minute from `first`: bool [1440] for each of SUN_WORDS."""
        from astral.sun import elevation

        # Each minute by its middle, so that none is wrong by more than half of one.
        times = (
            datetime.fromtimestamp(60 * (first + each) + 30, timezone.utc) for each in range(-AROUND, DAY + AROUND)
        )
        up = np.array([elevation(self._place, time, with_refraction=False) > HORIZON_DEG for time in times])
        around = np.ones(2 * AROUND, bool)  # a minute of dawn has a sunrise in the hour before it, or after
        return {
            "day": up[AROUND:-AROUND],
            "night": ~up[AROUND:-AROUND],
            "dawn": np.convolve(up[1:] & ~up[:-1], around, "valid").astype(bool),
            "dusk": np.convolve(~up[1:] & up[:-1], around, "valid").astype(bool),
        }


def _minute(utc: float) -> int:
    return math.floor(utc / 60)


def _parsed(part: str) -> str | tuple[int, int]:
    """One of SUN_WORDS, or the minutes of the day at which listening begins and ends."""
    if part in SUN_WORDS:
        return part
    found = re.fullmatch(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)", part)
    if not found:
        raise UserError(
            f"--schedule {part!r}: is none of {', '.join(SUN_WORDS)}, nor hours as 04:30-09:00 (UTC); "
            "put a comma between several"
        )
    hours = [int(each) for each in found.groups()]
    start, end = 60 * hours[0] + hours[1], 60 * hours[2] + hours[3]
    if hours[1] > 59 or hours[3] > 59 or start >= DAY or end > DAY:
        raise UserError(f"--schedule {part!r}: the hours of a day go from 00:00 to 24:00")
    if start == end:
        raise UserError(f"--schedule {part!r}: begins when it ends; for all day leave --schedule out")
    return start, end


def _place(text: str, latitude: float | None, longitude: float | None) -> object:
    """Where the sun is looked at from."""
    if latitude is None or longitude is None:
        raise UserError(f"--schedule {text} goes by the sun: say where with --latitude and --longitude, in degrees")
    if not -90 <= latitude <= 90:
        raise UserError(f"--latitude {latitude:g}: must lie in [-90, 90] degrees, south is negative")
    if not -180 <= longitude <= 180:
        raise UserError(f"--longitude {longitude:g}: must lie in [-180, 180] degrees, west is negative")
    try:
        from astral import Observer
    except ImportError as error:
        raise UserError("--schedule by the sun needs astral: pip install -r edge/requirements.txt") from error
    return Observer(latitude, longitude, 0.0)
