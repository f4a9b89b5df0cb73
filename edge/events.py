"""Detections of neighbouring windows become events: one song is one event, in however many windows it was found.

    merger = EventMerger(hop_seconds=2.5, window_seconds=5.0, model="b6", new_id=journal.new_event_id)
    changes = merger.push(utc_start, utc_end, offset_seconds, {"amecro": 0.93}, source="usb")    # every window, empty ones too
    journal.record(changes)
    for event in changes.closed: ...
    merger.close_all()                      # where hearing stops: the source died, the listener ends

Pure: windows in, changes out; no clock, no file. Windows are neighbours where they overlap or touch, so a window in
between that found nothing, or was dropped, does not part a song. What a species' events are does not depend on the
other species, nor on whether windows without it were pushed: those only tell the merger earlier that an event is over.

An event is over when the next window could no longer touch it. It is cut at `longest_seconds` too, and a species that
goes on has its next one: a frog that calls all night would else be one event, told the next morning, and the audio of
its best window must still be at hand when it ends. Neither does an event go on where hearing was broken (another
source, offsets that begin anew) or where the wall clock was set: its two ends would be of two times.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

LONGEST_SECONDS = 60.0
TOUCHING_SECONDS = 0.001  # windows begin on samples, so what should touch may miss by one
CLOCK_SET_SECONDS = 1.0  # between two windows a sound card and a clock stray by far less


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
    event_id: int | None = None


@dataclass(frozen=True)
class Event:
    """A species in neighbouring windows, as it stands now; times as a Detection's.

    probability: of its best window, the first of equals; `best_utc_start` and `best_offset_seconds` say where that begins
    windows: how many it was found in
    closed: nothing will be added to it any more
    """

    id: int
    utc_start: float
    utc_end: float
    species: str
    probability: float
    windows: int
    model: str
    source: str
    offset_seconds: float
    best_utc_start: float
    best_offset_seconds: float
    closed: bool = False


@dataclass(frozen=True)
class Changes:
    """What a window changed: its detections, the best first, and each event that it opened, extended or closed, once."""

    detections: tuple[Detection, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def closed(self) -> tuple[Event, ...]:
        """The events that are over."""
        return tuple(event for event in self.events if event.closed)


@dataclass(frozen=True)
class _Window:
    utc_start: float
    utc_end: float
    offset_seconds: float
    source: str


class EventMerger:
    """Windows of one listener in the order of time, a push each.

    new_id: gives the next event's number, greater than all before
    longest_seconds: an event is no longer than this, or than a window
    """

    def __init__(
        self,
        hop_seconds: float,
        window_seconds: float,
        model: str = "",
        new_id: Callable[[], int] | None = None,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._hop_seconds = hop_seconds
        self._window_seconds = window_seconds
        self._model = model
        self._new_id = new_id or itertools.count(1).__next__
        self._longest_seconds = longest_seconds
        self._open: dict[str, tuple[Event, float]] = {}  # by species: the event, and its end as an offset
        self._last: _Window | None = None

    @property
    def open(self) -> tuple[Event, ...]:
        """The events that go on."""
        return tuple(event for event, _ in self._open.values())

    def push(
        self,
        utc_start: float,
        utc_end: float,
        offset_seconds: float,
        probabilities: Mapping[str, float],
        source: str = "",
    ) -> Changes:
        """Take the next window and the probability of each species found in it; give what it changed."""
        window = _Window(utc_start, utc_end, offset_seconds, source)
        changed = {event.id: event for event in self._close(None if self._begins_anew(window) else window)}
        self._last = window

        detections = []
        for species, probability in sorted(probabilities.items(), key=lambda item: -item[1]):
            probability = float(probability)  # of NumPy, which SQLite does not know
            event = self._grown(window, species, probability)
            self._open[species] = event, offset_seconds + self._window_seconds
            changed[event.id] = event
            detections.append(
                Detection(
                    utc_start, utc_end, species, probability, self._model, source, offset_seconds, event_id=event.id
                )
            )

        following = replace(window, offset_seconds=offset_seconds + self._hop_seconds)
        changed.update((event.id, event) for event in self._close(following))
        return Changes(tuple(detections), tuple(changed.values()))

    def close_all(self) -> Changes:
        """End all events: no window will follow, or none that continues what was heard."""
        self._last = None
        return Changes(events=tuple(self._close(None)))

    def _begins_anew(self, window: _Window) -> bool:
        last = self._last
        if last is None or last.source != window.source or window.offset_seconds <= last.offset_seconds:
            return True
        heard_seconds = window.offset_seconds - last.offset_seconds
        return abs(window.utc_start - last.utc_start - heard_seconds) > CLOCK_SET_SECONDS

    def _grown(self, window: _Window, species: str, probability: float) -> Event:
        """The species' event with this window in it; a new one where none goes on."""
        best = dict(probability=probability, best_utc_start=window.utc_start, best_offset_seconds=window.offset_seconds)
        if species not in self._open:
            return Event(
                id=self._new_id(),
                utc_start=window.utc_start,
                utc_end=window.utc_end,
                species=species,
                windows=1,
                model=self._model,
                source=window.source,
                offset_seconds=window.offset_seconds,
                **best,
            )
        event, _ = self._open[species]
        return replace(
            event,
            utc_start=min(event.utc_start, window.utc_start),
            utc_end=max(event.utc_end, window.utc_end),
            windows=event.windows + 1,
            **(best if probability > event.probability else {}),
        )

    def _close(self, window: _Window | None) -> Iterator[Event]:
        """End the events that cannot go on with this window; None: all."""
        for species, (event, end_seconds) in list(self._open.items()):
            if window is not None:
                touches = window.offset_seconds <= end_seconds + TOUCHING_SECONDS
                seconds = window.offset_seconds + self._window_seconds - event.offset_seconds
                if touches and seconds <= self._longest_seconds + TOUCHING_SECONDS:
                    continue
            del self._open[species]
            yield replace(event, closed=True)
