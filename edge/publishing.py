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
- A journal that is begun anew while this runs (the one before was damaged, or deleted) is gone on with: ids go on, too.
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
from pathlib import Path
from typing import Any

from edge.outbox import Outbox

POLL_SECONDS = 0.25  # between two looks into the journal: an event is sent that much after its end, at most
STATE_SECONDS = 60.0  # after which events_today is counted again, for midnight
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0  # between two tries at a sink that is away
SAID_AT_FAILURE = 2  # one failure in a row is a blip that nobody need read of; the next try is a second later
LAST_SECONDS = 1.0  # for what is new at the very end
STOP_SECONDS = 1.8  # for all sinks together; one that hangs is left to the end of the process


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
            if publisher.is_alive():
                say(
                    f"{publisher.sink.title}: does not answer; what it has not taken waits in the journal for the next start"
                )


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
        self.sink = sink
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
                if self._outbox:
                    self._outbox.close()  # the next try has a connection of its own, whatever is wrong with this one
                self._failed(error, f"{self._journal} cannot be read: {error}")
            except Exception as error:
                self._failed(error, f"{type(error).__name__}: {error}")
            finally:
                with contextlib.suppress(
                    Exception
                ):  # what is wrong with it was said, or will be when it is opened again
                    self.sink.close(failed)
            self._stopping.wait(self._wait)
        if self._outbox:
            with contextlib.suppress(sqlite3.Error):
                self._outbox.refresh()
                waiting = self._outbox.waiting()
                if waiting:
                    self._say(
                        f"{self.sink.title}: {waiting} events were not taken; they wait in the journal for the next start"
                    )
            self._outbox.save()
            self._outbox.close()

    def _publish(self) -> None:
        """Publish until it is stopped. Raises SinkError, sqlite3.Error."""
        if self._outbox is None:
            self._outbox = Outbox(self._journal, self.sink.name, socket.gethostname())
        self.sink.open()
        self._state, self._state_due = None, 0.0
        while not self._stopping.is_set():
            if not self._pass(self._outbox):
                self.sink.wait(POLL_SECONDS)
        deadline = time.monotonic() + LAST_SECONDS
        while self._pass(self._outbox) and time.monotonic() < deadline:
            pass

    def _pass(self, outbox: Outbox) -> bool:
        """Send what is new; True if there may be more of it."""
        outbox.refresh()
        events = outbox.events(self.sink.batch)
        try:
            for event_id in self.sink.send(events):
                outbox.acknowledge(event_id)
        finally:
            outbox.save()
        sent, more = bool(events), len(events) == self.sink.batch
        if not more:
            if "state" in self.sink.shows and (sent or time.monotonic() >= self._state_due):
                self._state_due = time.monotonic() + STATE_SECONDS
                state = outbox.state()
                if state != self._state:
                    self.sink.show("state", state)
                    self._state, sent = state, True
            health = outbox.health() if "health" in self.sink.shows else None
            if health:
                self.sink.show("health", health)
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
            self._say(f"{self.sink.title}: {text}; tried again until it works, events wait in the journal")

    def _succeeded(self) -> None:
        now = time.monotonic()
        if self._failures or not self._greeted:
            self._well_since = now
        if self._said:
            self._say(f"{self.sink.title}: back after {now - self._away_since:.0f} s")
        elif not self._greeted:
            self._say(f"{self.sink.title}: publishing")
        self._greeted = True
        self._failures = 0
        self._said.clear()
