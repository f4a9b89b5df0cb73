"""What of the journal is still to be published to one sink, and how far that sink got (edge/publishing.py says in what order).

outbox = Outbox(folder / "journal.sqlite", sink.name, station)
outbox.refresh()                                # once in a while: the listener may have begun another journal
for event in outbox.events(16):
    outbox.acknowledge(event["id"])             # when the sink has it
outbox.save()
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.journal_file import identity
from edge.tables import utc_text

HEALTH_SECONDS = 600.0  # a health line older than this says nothing about now
LATE_SECONDS = 150.0  # an event whose first rows were given up is written with its later ones: it goes on for a minute
UNFINISHED = 500  # events looked at and not yet sent, at most; there are as many as species that call at once

EVENT = "id, utc_start, utc_end, species, probability, windows, model, source, offset_seconds"


class Outbox:
    """What the journal holds that one sink has not acknowledged. For one thread; raises sqlite3.Error.

    Progress lives here and is written by `save`: where the disk is full the sink is still told of each event once. At most
    UNFINISHED ids are kept, of events that were looked at and are still going on, or on their way; and as many of events
    that may be written late.
    """

    def __init__(self, journal: Path, sink: str, station: str) -> None:
        self._journal, self._sink, self._station = Path(journal), sink, station
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._saved: tuple[int, int] | None = None
        self._seen = self._health_id = 0
        self._left: set[int] = set()  # up to `_seen`, what is not acknowledged
        self._absent: dict[
            int, float
        ] = {}  # up to `_seen`, what is not in the journal; monotonic, until it is not awaited
        self.refresh()

    def refresh(self) -> None:
        """Have the journal open that is at the path now: the listener may have begun another. Costs a look at the folder."""
        try:
            file = identity(self._journal)
        except OSError:
            file = None  # not to be known now
        if self._db and file in (self._file, None):  # None: the next one is not there yet
            return
        self.close()
        # mode=rw: that there is no journal is an error here, not a reason to make an empty one.
        db = sqlite3.connect(f"{self._journal.resolve().as_uri()}?mode=rw", timeout=0.5, uri=True)
        try:
            db.isolation_level = None
            db.row_factory = sqlite3.Row
            # The listener must never wait for this connection to flush. What a power cut takes of it is sent again.
            db.execute("pragma synchronous = normal")
            if file is None or file != self._file:
                self._take_up(db)
        except sqlite3.Error:
            db.close()
            raise
        self._db, self._file = db, file
        self.save()

    def _take_up(self, db: sqlite3.Connection) -> None:
        """Find how far the sink got in a journal that is new to this."""
        row = db.execute("select event_id, health_id from published where sink = ?", (self._sink,)).fetchone()
        newest = db.execute("select max(id) from events").fetchone()[0] or 0
        if row:
            self._seen, self._health_id = row[0] or 0, row[1] or 0
        elif self._file is None:
            self._seen = newest
        else:  # begun anew meanwhile, and ids go on: what is above is new, and what went on may be written there again
            self._await(self._left)
        self._left.clear()
        self._saved = (self._seen, self._health_id) if row else None

    def close(self) -> None:
        """Let go of the journal; `refresh` opens it again, and nothing is forgotten."""
        db, self._db = self._db, None
        if db:
            db.close()

    def events(self, most: int) -> list[dict[str, Any]]:
        """The next events that are over, `most` at most, as the payloads that the module's text describes."""
        self._find_late()
        found = self._finished(most)
        while len(found) < most and len(self._left) < UNFINISHED:
            query = "select id from events where id > ? order by id limit ?"
            ids = [row[0] for row in self._db.execute(query, (self._seen, most))]
            if not ids:
                break
            self._left.update(ids)
            self._await(set(range(max(self._seen + 1, ids[-1] - UNFINISHED), ids[-1])).difference(ids))
            self._seen = ids[-1]
            found = self._finished(most)
        return found

    def _await(self, ids: Iterable[int]) -> None:
        until = time.monotonic() + LATE_SECONDS
        self._absent.update(dict.fromkeys(ids, until))
        for number in sorted(self._absent)[:-UNFINISHED]:
            del self._absent[number]

    def _find_late(self) -> None:
        """Look whether an event came after others that began later, as it does whose first rows the journal gave up."""
        if not self._absent:
            return
        places = ", ".join("?" * len(self._absent))
        late = {
            row[0] for row in self._db.execute(f"select id from events where id in ({places})", tuple(self._absent))
        }
        self._left.update(late)
        now = time.monotonic()
        self._absent = {number: until for number, until in self._absent.items() if until > now and number not in late}

    def _finished(self, most: int) -> list[dict[str, Any]]:
        if not self._left:
            return []
        places = ", ".join("?" * len(self._left))
        query = f"select {EVENT}, closed from events where id in ({places}) order by id"
        rows = self._db.execute(query, tuple(self._left)).fetchall()
        self._left = {row["id"] for row in rows}  # nobody waits for an event that was taken out of the journal
        return [self._payload(row) for row in rows if row["closed"]][:most]

    def waiting(self) -> int:
        """How many events are over and not acknowledged."""
        places = ", ".join("?" * len(self._left))
        query = f"select count(*) from events where closed and (id > ? or id in ({places}))"
        return self._db.execute(query, (self._seen, *self._left)).fetchone()[0]

    def acknowledge(self, event_id: int) -> None:
        """The sink has the event."""
        self._left.discard(event_id)

    def health(self) -> dict[str, Any] | None:
        """The newest health line, if it is new and young."""
        row = self._db.execute("select * from health order by id desc limit 1").fetchone()
        if row is None or row["id"] <= self._health_id or row["utc"] < utc_text(time.time() - HEALTH_SECONDS):
            return None
        return self._payload(row)

    def _payload(self, row: sqlite3.Row) -> dict[str, Any]:
        # JSON has no infinity, which is the level of silence.
        known = {name: None if row[name] in (math.inf, -math.inf) else row[name] for name in row.keys()}  # noqa: SIM118
        known.pop("closed", None)
        return {**known, "station": self._station}

    def acknowledge_health(self, health_id: int) -> None:
        """The sink has the health line."""
        self._health_id = health_id

    def state(self) -> dict[str, Any]:
        """The newest event that is over, and how many there were today."""
        query = "select species, probability, utc_start, utc_end from events where closed order by id desc limit 1"
        last = self._db.execute(query).fetchone() or (None, None, None, None)
        midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        query = "select count(*) from events where closed and utc_start >= ?"
        return {
            "last_species": last[0],
            "last_probability": last[1],
            "last_utc_start": last[2],
            "last_utc_end": last[3],
            "events_today": self._db.execute(query, (utc_text(midnight),)).fetchone()[0],
            "station": self._station,
        }

    def save(self) -> None:
        """Write how far the sink got, if that is new; where the journal does not take it now, the next call does."""
        progress = (min(self._left) - 1 if self._left else self._seen, self._health_id)
        if self._db is None or progress == self._saved:
            return
        with contextlib.suppress(sqlite3.Error):  # locked, or the disk is full
            self._db.execute(
                "insert or replace into published (sink, event_id, health_id) values (?, ?, ?)", (self._sink, *progress)
            )
            self._saved = progress
