"""When a recording began, by its header or its name. Nothing is guessed: where neither tells it, there is no time.

    began(Path("20230514_043000.WAV"))                   # 2023-05-14 04:30:00+00:00
    began(Path("SMU01234_20230514_043000.wav"))          # 2023-05-14 04:30:00, without a zone: the recorder's own clock
    as_utc(began(path), utc_offset_hours=-4)             # 2023-05-14 08:30:00+00:00; None where it cannot be known

The header of a WAV comes first: AudioMoth's comment ("Recorded at 04:30:00 14/05/2023 (UTC+2) by AudioMoth ..."), GUANO's
Timestamp, and Wildlife Acoustics' WAMD. Then the name, all of it:

    20230514_043000, with T behind it (triggered) or a device's 16 digits before it      AudioMoth: UTC
    5EA1B2C3                                                                             early AudioMoth: Unix time
    PREFIX_20230514_043000, PREFIX_20230514$043000                                       Wildlife Acoustics: local time
"""

from __future__ import annotations

import contextlib
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from src.containers import chunks

LARGEST_CHUNK = 1 << 20  # bytes: a damaged header may claim any size
# The first AudioMoths were sold in 2017, and their firmware of 2020 left hexadecimal names.
HEXADECIMAL_YEARS = range(2016, 2030)

_COMMENT = re.compile(
    r"Recorded at (?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,6})? (?P<date>\d\d/\d\d/\d{4})"
    r"(?: \(UTC(?:(?P<sign>[+-])(?P<hours>\d{1,2})(?::(?P<minutes>\d\d))?)?\)| by AudioMoth)"
)
_AUDIOMOTH = re.compile(r"(?:[0-9A-F]{16}_)?(\d{8}_\d{6})|(?:.*_)?(\d{8}_\d{6})T")
_HEXADECIMAL = re.compile(r"[0-9A-F]{8}")
_WILDLIFE_ACOUSTICS = re.compile(r"(?:.*_)?(\d{8}[_$]\d{6})")


def began(path: Path) -> datetime | None:
    """The time of a recording's first sample; without a zone if it is that of a clock whose zone is not known."""
    time = _by_header(path) or _by_name(path.stem)
    # Neither a zone nor the recording's length may lead out of the calendar.
    return time if time and datetime.min.year < time.year < datetime.max.year else None


def as_utc(time: datetime | None, utc_offset_hours: float | None) -> datetime | None:
    """A time of `began` in UTC; None if it has no zone and none is given.

    utc_offset_hours: how far clocks of an unknown zone are before UTC, as -4 in Puerto Rico
    """
    if time is None or (time.tzinfo is None and utc_offset_hours is None):
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone(timedelta(hours=utc_offset_hours)))
    return time.astimezone(timezone.utc)


def utc_text(time: datetime | None, seconds: float) -> str:
    """A UTC time and so many seconds after it, as 2023-05-14T04:30:05.000Z; "" for no time."""
    if time is None:
        return ""
    return (time + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _by_name(stem: str) -> datetime | None:
    try:
        if found := _AUDIOMOTH.fullmatch(stem):
            return datetime.strptime(found[1] or found[2], "%Y%m%d_%H%M%S").replace(tzinfo=timezone.utc)
        if _HEXADECIMAL.fullmatch(stem):
            time = datetime.fromtimestamp(int(stem, 16), timezone.utc)
            return time if time.year in HEXADECIMAL_YEARS else None
        if found := _WILDLIFE_ACOUSTICS.fullmatch(stem):
            return datetime.strptime(found[1].replace("$", "_"), "%Y%m%d_%H%M%S")
    except ValueError:  # digits that are no date
        pass
    return None


def _by_header(path: Path) -> datetime | None:
    """The header's time, the first with a zone if there is one."""
    times = []
    try:
        with open(path, "rb") as file:
            for name, start, size in chunks(file):
                if name in _READERS:
                    file.seek(start)
                    content = file.read(min(size, LARGEST_CHUNK))
                    with contextlib.suppress(ValueError, OverflowError):  # says something else, or is damaged
                        times.append(_READERS[name](content))
    except OSError:
        return None
    times = [time for time in times if time is not None]
    return next((time for time in times if time.tzinfo is not None), times[0] if times else None)


def _of_list(content: bytes) -> datetime | None:
    """AudioMoth's comment (ICMT). Its clock counts in UTC, and the comment says by how much it was moved."""
    found = _COMMENT.search(content.partition(b"ICMT")[2][4:].decode("latin-1"))
    if not found:
        return None
    time = datetime.strptime(f"{found['date']} {found['time']}", "%d/%m/%Y %H:%M:%S")
    time += timedelta(seconds=float(found["fraction"] or 0))
    offset = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    return time.replace(tzinfo=timezone(-offset if found["sign"] == "-" else offset))


def _of_guano(content: bytes) -> datetime | None:
    """GUANO's line Timestamp, with or without a zone."""
    found = re.search(r"^Timestamp:\s*(\S+[ T]?\S*)", content.decode("utf-8", "replace"), re.MULTILINE)
    return _iso(found[1]) if found else None


def _of_wamd(content: bytes) -> datetime | None:
    """Wildlife Acoustics' metadata: entries of a number, a length and a content; 5 is the time, as 2014-04-02 22:59:14-05:00."""
    place = 0
    while place + 6 <= len(content):
        number = int.from_bytes(content[place : place + 2], "little")
        end = place + 6 + int.from_bytes(content[place + 2 : place + 6], "little")
        if number == 5:
            return _iso(content[place + 6 : end].decode("ascii", "replace").strip("\0 "))
        place = end
    return None


def _iso(text: str) -> datetime:
    """ISO 8601, as Python before 3.11 does not read it with Z or without all digits of a fraction. Raises ValueError."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?", text.strip())
    if not found:
        raise ValueError(f"{text!r} is no time")
    zone = (found[4] or "").replace("Z", "+00:00")
    zone = f"{zone[:3]}:{zone[-2:]}" if zone else ""
    return datetime.fromisoformat(f"{found[1]} {found[2]}{(found[3] or '.0')[:7].ljust(7, '0')}{zone}")


_READERS = {b"LIST": _of_list, b"guan": _of_guano, b"wamd": _of_wamd}
