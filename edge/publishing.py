"""What is published of the journal: every event once it is over, and how the box does; to a broker, to a web address.

    sinks = [MqttSink("192.168.1.10"), WebhookSink("https://example.org/birds", say)]
    with publishing(folder / "journal.sqlite", sinks, say):    # a thread for each; stops within 2 s
        listener.run(stop)                                     # and ends here after the last events are in the journal

The journal is the buffer. A sink that is away for a month, or a listener that is killed, loses nothing and holds nothing in
memory: the table `published` says how far each sink got, and moves only by what the sink has acknowledged. So each event
arrives at least once; after a crash or a broken connection the last ones may arrive again, with the same `id`.

- Order: as the events began, but one that still goes on (a minute at most) keeps none that is over waiting.
- A sink that the journal has not met before is told of what begins from now on, not of the month before. One that it has
  met, by the address (and the topic) and not by user or password, is taken up where it was left, however long ago.
- Health is how the box does now: the newest line goes out, if it is younger than ten minutes. Lines missed while a sink
  was away are in the journal and not sent later.

An event, as JSON (times are UTC, as 2026-11-25T10:00:05.000Z):

    id              its number in the journal, by which page and table have it; the same again where it arrives again
    utc_start, utc_end       from the start of its first window to the end of its last
    species         label of the model: for the competition's an ebird code
    probability     of its best window, in [0, 1]
    windows         in how many it was found
    model, source   what answered; the microphone's name, or the file or stream played
    offset_seconds  of its first window, since the source began, s
    station         the box's host name

Health, as JSON: the columns of the journal's table `health` (its names end in the units: dBFS, s, bytes, degrees C; shares in
[0, 1]; counts are of the stretch from utc_start to utc, about a minute; null where it is not known), and `station`.

State, as JSON: last_species, last_probability, last_utc_start, last_utc_end of the newest event that is over, null before the
first; events_today since midnight of the box's own time zone; station.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.tables import utc_text

POLL_SECONDS = 0.25  # between two looks into the journal: an event is sent that much after its end, at most
STATE_SECONDS = 60.0  # after which events_today is counted again, for midnight
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0  # between two tries at a sink that is away
SAID_AT_FAILURE = 2  # one failure in a row is a blip that nobody need read of; the next try is a second later
HEALTH_SECONDS = 600.0  # a health line older than this says nothing about now
LAST_SECONDS = 1.0  # for what is new at the very end
STOP_SECONDS = 1.8  # for all sinks together; one that hangs is left to the end of the process
UNFINISHED = 500  # events looked at and not yet sent, at most; there are as many as species that call at once

EVENT = "id, utc_start, utc_end, species, probability, windows, model, source, offset_seconds"


class SinkError(Exception):
    """A sink takes nothing at present; the text says why, and what may help. It is tried again, with the same events."""


class RefusedError(SinkError):
    """A sink is there and does not want us: a password, a permission, an address. Said at once, even if it was away before."""


class Sink:
    """Where events go. Used by one thread; a call may wait some seconds, and raises SinkError where it waits in vain.

    name: the sink's row in `published`; no secrets, and the same for the same sink after years
    title: what the log calls it
    batch: events given to `send` at once
    shows: what `show` is called for, of "state" and "health"
    """

    name: str
    title: str
    batch = 1
    shows: Sequence[str] = ()

    def open(self) -> None:
        """Connect, where there is something to connect to."""

    def send(self, events: Sequence[dict[str, Any]]) -> Iterator[int]:
        """Send the events in order; give the `id` of each once it is acknowledged."""
        raise NotImplementedError

    def show(self, what: str, values: dict[str, Any]) -> None:
        """Send what replaces what was shown before: `what` is "state" or "health"."""

    def wait(self, seconds: float) -> None:
        """Nothing is to be sent for a moment."""
        time.sleep(seconds)

    def close(self, failed: bool) -> None:
        """Hang up; after a failure without another word."""


@contextlib.contextmanager
def publishing(journal: Path, sinks: Sequence[Sink], say: Callable[[str], None]) -> Iterator[None]:
    """Publish to the sinks while the block runs. After it they get STOP_SECONDS together for what is still to be sent."""
    publishers = [Publisher(journal, sink, say) for sink in sinks]
    for publisher in publishers:
        publisher.start()
    try:
        yield
    finally:
        for publisher in publishers:
            publisher.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for publisher in publishers:
            publisher.join(max(0.0, deadline - time.monotonic()))


class Outbox:
    """What the journal holds that one sink has not acknowledged. For one thread; raises sqlite3.Error.

    Progress lives here and is written by `save`: where the disk is full the sink is still told of each event once. At most
    UNFINISHED ids are kept, of events that were looked at and are still going on, or on their way.
    """

    def __init__(self, journal: Path, sink: str, station: str) -> None:
        self._sink, self._station = sink, station
        # mode=rw: that there is no journal is an error here, not a reason to make an empty one.
        self._db = sqlite3.connect(f"{Path(journal).resolve().as_uri()}?mode=rw", timeout=0.5, uri=True)
        self._db.isolation_level = None
        self._db.row_factory = sqlite3.Row
        # The listener must never wait for this connection to flush. What a power cut takes of it is sent again.
        self._db.execute("pragma synchronous = normal")
        row = self._db.execute("select event_id, health_id from published where sink = ?", (sink,)).fetchone()
        self._saved: tuple[int, int] | None = (row[0] or 0, row[1] or 0) if row else None
        newest = self._db.execute("select max(id) from events").fetchone()[0] or 0
        self._seen, self._health_id = self._saved or (newest, 0)
        self._left: set[int] = set()  # up to `_seen`, what is not acknowledged
        self.save()

    def close(self) -> None:
        """Let go of the journal."""
        self._db.close()

    def events(self, most: int) -> list[dict[str, Any]]:
        """The next events that are over, `most` at most, as the payloads that the module's text describes."""
        found = self._finished(most)
        while len(found) < most and len(self._left) < UNFINISHED:
            query = "select id from events where id > ? order by id limit ?"
            ids = [row[0] for row in self._db.execute(query, (self._seen, most))]
            if not ids:
                break
            self._left.update(ids)
            self._seen = ids[-1]
            found = self._finished(most)
        return found

    def _finished(self, most: int) -> list[dict[str, Any]]:
        if not self._left:
            return []
        places = ", ".join("?" * len(self._left))
        query = f"select {EVENT}, closed from events where id in ({places}) order by id"
        rows = self._db.execute(query, tuple(self._left)).fetchall()
        self._left = {row["id"] for row in rows}  # nobody waits for an event that was taken out of the journal
        return [self._payload(row) for row in rows if row["closed"]][:most]

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
        if progress == self._saved:
            return
        with contextlib.suppress(sqlite3.Error):  # locked, or the disk is full
            self._db.execute(
                "insert or replace into published (sink, event_id, health_id) values (?, ?, ?)", (self._sink, *progress)
            )
            self._saved = progress


class Publisher(threading.Thread):
    """Brings one sink what is new in the journal, for as long as it takes.

    A sink that goes away is warned of once, and once when it is back; an unforeseen fault is treated as that too, since
    the box is alone for a month.
    """

    def __init__(
        self,
        journal: Path,
        sink: Sink,
        say: Callable[[str], None],
        first_wait: float = FIRST_WAIT_SECONDS,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        super().__init__(name=f"publisher {sink.title}", daemon=True)  # daemon: a sink that hangs holds no process back
        self._journal = Path(journal)
        self._sink = sink
        self._say = say
        self._first_wait, self._longest_wait = first_wait, longest_wait
        self._stopping = threading.Event()
        self._outbox: Outbox | None = None
        self._state: dict[str, Any] | None = None  # as last shown on this connection
        self._state_due = 0.0
        self._wait = first_wait
        self._failures = 0  # since the sink last took something
        self._away_since = 0.0  # monotonic, as the next
        self._well_since = -math.inf
        self._said: set[type] = set()  # kinds of failure, since then
        self._greeted = False

    def stop(self) -> None:
        """Ask it to end, after what is new was sent if the sink is there. `join` waits for that."""
        self._stopping.set()

    def run(self) -> None:
        """The thread's life."""
        while not self._stopping.is_set():
            failed = True
            try:
                self._publish()
                failed = False
            except SinkError as fault:
                self._failed(fault, str(fault))
            except sqlite3.Error as error:
                self._failed(error, f"{self._journal} cannot be read: {error}")
            except Exception as error:
                self._failed(error, f"{type(error).__name__}: {error}")
            finally:
                with contextlib.suppress(
                    Exception
                ):  # what is wrong with it was said, or will be when it is opened again
                    self._sink.close(failed)
            self._stopping.wait(self._wait)
        if self._outbox:
            self._outbox.save()
            self._outbox.close()

    def _publish(self) -> None:
        """Publish until it is stopped. Raises SinkError, sqlite3.Error."""
        if self._outbox is None:
            self._outbox = Outbox(self._journal, self._sink.name, socket.gethostname())
        self._sink.open()
        self._state, self._state_due = None, 0.0
        while not self._stopping.is_set():
            if not self._pass(self._outbox):
                self._sink.wait(POLL_SECONDS)
        deadline = time.monotonic() + LAST_SECONDS
        while self._pass(self._outbox) and time.monotonic() < deadline:
            pass

    def _pass(self, outbox: Outbox) -> bool:
        """Send what is new; True if there may be more of it."""
        events = outbox.events(self._sink.batch)
        try:
            for event_id in self._sink.send(events):
                outbox.acknowledge(event_id)
        finally:
            outbox.save()
        sent, more = bool(events), len(events) == self._sink.batch
        if not more:
            if "state" in self._sink.shows and (sent or time.monotonic() >= self._state_due):
                self._state_due = time.monotonic() + STATE_SECONDS
                state = outbox.state()
                if state != self._state:
                    self._sink.show("state", state)
                    self._state, sent = state, True
            health = outbox.health() if "health" in self._sink.shows else None
            if health:
                self._sink.show("health", health)
                outbox.acknowledge_health(health["id"])
                outbox.save()
                sent = True
        if sent:
            self._succeeded()
        return more

    def _failed(self, fault: Exception, text: str) -> None:
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._away_since = now
        # A sink that comes and goes, once a second, is no better than one that is away.
        fickle = now - self._well_since < self._longest_wait
        self._wait = min(2 * self._wait, self._longest_wait) if fickle or self._failures > 1 else self._first_wait
        if self._failures < SAID_AT_FAILURE and not fickle and not isinstance(fault, RefusedError):
            return
        if type(fault) not in self._said and not self._stopping.is_set():
            self._said.add(type(fault))
            self._say(f"{self._sink.title}: {text}; tried again until it works, events wait in the journal")

    def _succeeded(self) -> None:
        now = time.monotonic()
        if self._failures or not self._greeted:
            self._well_since = now
        if self._said:
            self._say(f"{self._sink.title}: back after {now - self._away_since:.0f} s")
        elif not self._greeted:
            self._say(f"{self._sink.title}: publishing")
        self._greeted = True
        self._failures = 0
        self._said.clear()
