"""The listener's memory: one SQLite table of detections, safe to read while the listener writes.

with Journal(Path("edge/journal.sqlite")) as journal:
    journal.write(detections)            # the detections of one window, in one transaction

sqlite3 edge/journal.sqlite 'select utc_start, species, probability from detections order by id desc limit 10'
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from src.errors import UserError

SCHEMA = """
create table if not exists detections (
    id integer primary key,
    utc_start text not null,        -- of the window, as 2026-11-22T10:00:05.000Z
    utc_end text not null,
    species text not null,          -- ebird code
    probability real not null,
    model text not null,
    source text not null,           -- the microphone's name, or the file played
    offset_seconds real not null    -- of the window's start, since listening began or in the file
)
"""


@dataclass(frozen=True)
class Detection:
    """A species in a window. Times are UTC in seconds since 1970; `offset_seconds` since the source's first frame."""

    utc_start: float
    utc_end: float
    species: str
    probability: float
    model: str
    source: str
    offset_seconds: float


def utc_text(seconds: float) -> str:
    """Seconds since 1970 as `2026-11-22T10:00:05.000Z`, to the nearest millisecond."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, timezone.utc):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


class Journal:
    """A SQLite file that grows by a row per detection.

    Raises UserError if the file cannot be made or written, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path)
            # Write-ahead, so that readers do not stop the writer. With it NORMAL cannot corrupt the file in a power cut
            # (the last rows may go), and spares a memory card one flush per window.
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.execute(SCHEMA)
            self._connection.commit()
        except OSError as error:
            raise UserError(
                f"{self.path}: the journal cannot be made: {error.strerror}; choose another with --journal"
            ) from error
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path}: cannot be used as the journal: {error}; choose another with --journal"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def write(self, detections: Sequence[Detection]) -> None:
        """Keep the detections of a window, all or none. Raises UserError where the disk does not take them."""
        rows = [
            (utc_text(d.utc_start), utc_text(d.utc_end), d.species, d.probability, d.model, d.source, d.offset_seconds)
            for d in detections
        ]
        if not rows:
            return
        try:
            with self._connection:
                self._connection.executemany(
                    "insert into detections (utc_start, utc_end, species, probability, model, source, offset_seconds)"
                    " values (?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: the journal takes no more rows: {error}; is the disk full?") from error
