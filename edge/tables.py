"""What is in a record: the journal's tables, its words and times, and a reader for who must not write.

    with closing(read_only(folder / "journal.sqlite")) as connection:
        connection.execute("select * from events where utc_start >= ?", (utc_text(midnight),)).fetchall()

edge/journal.py writes the tables, and has all names of this module too.
"""

from __future__ import annotations

import numbers
import sqlite3
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from edge.events import Detection, Event
from src.errors import UserError

VERSION = 1  # pragma user_version
TABLES = ("events", "detections", "gaps", "health")  # what is recorded; `published` is the publishers' own
SCHEMA = """
create table events (
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
create table detections (
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
create table gaps (
    id integer primary key,
    utc_start text not null,
    utc_end text,                   -- null while it goes on
    cause text not null,            -- one of CAUSES
    detail text not null
);
create table health (
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
create table published (
    sink text primary key,
    event_id integer,
    health_id integer
);
create index events_by_start on events (utc_start);
create index events_by_clip on events (clip) where clip is not null;
"""

NO_MICROPHONE = "no microphone"  # absent at boot, or after it was unplugged
STOPPED = "stopped"  # the stream ended: unplugged, the sound server died
NO_FRAMES = "no frames"  # the stream hangs
ZEROS = "zeros"  # frames come, and all are zero
OVERRUN = "overrun"  # the ring or PortAudio lost frames; detail: how many
DROPPED_WINDOWS = "dropped windows"  # the model is slower than the hop
SCHEDULE = "schedule"  # outside the hours asked for
NOT_RUNNING = "not running"  # from the last sign of life of the process before to the start of this one
CLOCK = "clock"  # the wall clock was set forward, over times that nothing is recorded of, or back; detail: by how much
PRIVACY = "privacy"  # somebody spoke
NOT_RECORDED = "not recorded"  # it listened, but the journal could not be written for longer than memory holds rows
CAUSES = (NO_MICROPHONE, STOPPED, NO_FRAMES, ZEROS, OVERRUN, DROPPED_WINDOWS, SCHEDULE, NOT_RUNNING, CLOCK, PRIVACY)
CAUSES += (NOT_RECORDED,)
CAUSES_OF_WINDOWS = (DROPPED_WINDOWS, PRIVACY)  # such gaps begin and end with windows; the others with what was heard


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


EVENT_COLUMNS = "id, utc_start, utc_end, species, probability, windows, model, source, offset_seconds, closed, clip"
# Whole rows each time, so that one that was lost is made good by the next. No upsert: Ubuntu 18.04's SQLite has none.
WRITE_EVENT = f"insert or replace into events ({EVENT_COLUMNS})"
WRITE_EVENT += " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (select clip from events where id = ?))"
WRITE_DETECTION = "insert into detections values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
WRITE_GAP = "insert or replace into gaps values (?, ?, ?, ?, ?)"
WRITE_HEALTH = f"insert into health values (?, {', '.join('?' for _ in fields(Health))})"


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


def as_text(text: str) -> str:
    """What SQLite can hold of a text: a file's name may have bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_number(figure: float | None) -> float | int | None:
    """A figure as Python's own: one of NumPy's would be taken for a string of bytes."""
    if figure is None:
        return None
    return int(figure) if isinstance(figure, numbers.Integral) else float(figure)


def event_row(event: Event) -> tuple:
    """The values of WRITE_EVENT."""
    return (
        *(event.id, utc_text(event.utc_start), utc_text(event.utc_end), as_text(event.species)),
        *(float(event.probability), event.windows, as_text(event.model), as_text(event.source)),
        *(float(event.offset_seconds), int(event.closed), event.id),
    )


def detection_row(each: Detection) -> tuple:
    """The values of WRITE_DETECTION after its id."""
    return (
        *(each.event_id, utc_text(each.utc_start), utc_text(each.utc_end), as_text(each.species)),
        *(float(each.probability), as_text(each.model), as_text(each.source), float(each.offset_seconds)),
    )
