"""Keeps a source of audio alive for ever, and keeps the books on what was not heard.

    with Capture(lambda: Microphone("usb", "mean", None, 32000), journal) as capture:
        while (heard := capture.read()) is not None:     # None: a file, or the last of a folder, has ended
            heard.source, heard.first_frame, heard.frames         # frames may be none, and then the source may be None
        capture.levels.take()                            # how loud it was since the last take

A source that dies, hangs or is not there is opened again, at once and then at growing intervals, for ever. Another
opening is another `heard.source`, perhaps of another rate, whose frames are numbered from 0. All in the caller's thread.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Callable, Protocol

import numpy as np

from edge.levels import LevelMeter, ZerosBegan, ZeroWatch
from edge.source import POLL_SECONDS, Heard, Source, SourceLostError, wall_offset
from edge.tables import CLOCK, NO_MICROPHONE, OVERRUN, ZEROS
from src.errors import UserError

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 4.0  # a sound server that comes back is heard 10 s later at most, its own start included
STEADY_SECONDS = 10.0  # heard for so long, a source counts as mended, and is tried at once when it fails again
ZERO_SECONDS = 10.0
CLOCK_STEP_SECONDS = 0.1
MOST_SAID = 10
OVERFLOW_SECONDS = 5.0  # overflows within so long of one another are one gap


class Gaps(Protocol):
    """Who keeps the gaps: the Journal."""

    def begin_gap(self, utc_start: float, cause: str, detail: str = "") -> int:
        """Note that nothing is heard, from a time in seconds since 1970, for a cause."""

    def end_gap(self, gap_id: int, utc_end: float) -> None:
        """Note until when."""

    def clock_set(self, utc_before: float, utc_after: float) -> None:
        """Note that the wall clock was set, while gaps may go on."""


class Capture:
    """A source that is opened whenever there is none.

    open_source: opens it, without waiting; None: nothing more is to come, as after the last file of a folder
    gaps: is told of each gap, from the last frame heard to the first heard again
    say: prints a line for people
    zero_seconds: how long zeros must last to be a fault

    lost: frames that were lost while a source ran
    levels: of what was heard
    """

    def __init__(
        self,
        open_source: Callable[[], Source | None],
        gaps: Gaps,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
        zero_seconds: float = ZERO_SECONDS,
    ) -> None:
        self.lost = 0
        self.levels = LevelMeter()
        self._open_source = open_source
        self._say = say
        self._zero_seconds = zero_seconds
        self._source: Source | None = None
        self._position: int | None = None  # the next frame of the source; None before its first was heard
        self._ended = self._ever_heard = False
        self._is_live = True  # the source, or the one before
        self._silent_from = time.time()  # when the last frame was heard, or this began
        self._wait = FIRST_WAIT_SECONDS
        self._next_try = -math.inf
        self._said: set[str] = set()  # why there is no source, since there is none
        self._gaps = gaps
        self._absence, self._zeros, self._overflow = (_Gap(gaps) for _ in range(3))
        self._overflows = [0, 0]  # of the sources before this one, and of this one
        self._overflow_at = 0.0
        self._clock_offset = wall_offset()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the source. What is a gap still ends with this: from here on nobody listens."""
        self._let_go()
        self._absence.end(time.time())

    @property
    def overflows(self) -> int:
        """How often the system reported that it lost frames before they reached us."""
        return sum(self._overflows)

    def read(self) -> Heard | None:
        """What was heard since the last call, after a moment's wait; perhaps no frames, while there is no source as well.

        None: a file, or the last of a folder, has ended. Raises UserError for what waiting does not mend (PortAudio is not
        installed, the microphone has no such channel) as long as nothing was heard; later that is waited for, too.
        """
        self._watch_clock()
        heard = None
        try:
            if self._source is None and time.monotonic() >= self._next_try:
                self._source = self._open_source()
                self._ended = self._source is None
                self._is_live = self._source is None or self._source.live
            if self._source:
                heard = self._source.read()
                if heard is None:  # a file's end; the next call opens the next
                    self._let_go()
        except SourceLostError as lost:
            self._lose(lost.cause, lost.detail)
        except OSError as error:  # out of memory, of processes, of descriptors: it may pass
            self._lose(NO_MICROPHONE, f"the source cannot be opened: {error}")
        except UserError as error:
            if not self._ever_heard:
                raise
            self._lose(NO_MICROPHONE, str(error))
        if heard and len(heard.frames):
            self._hear(heard)
            return heard
        if self._ended:
            return None
        if self._source is None and time.monotonic() < self._next_try:
            time.sleep(POLL_SECONDS)
        return Heard(0, np.zeros((0, 1), np.float32))

    def _hear(self, heard: Heard) -> None:
        source, first, end = self._source, heard.first_frame, heard.first_frame + len(heard.frames)
        if self._position is None:
            self._position = 0
            self._zero_watch = ZeroWatch(round(self._zero_seconds * source.sample_rate))
            self._say(f"{source.name}: {source.sample_rate} Hz, {source.channels} channel(s)")
            # A radio may begin with what it sent some seconds ago: that ends the gap where it began.
            again = max(self._silent_from, source.utc(0))
            if self._absence.end(again):
                self._say(f"heard again after {again - self._silent_from:.1f} s")
            self._said.clear()
        if first > self._position:
            lost = first - self._position
            self.lost += lost
            _Gap(self._gaps).note(source.utc(self._position), source.utc(first), OVERRUN, f"{lost} frames")
            self._say(f"lost {lost} frames ({lost / source.sample_rate:.2f} s)")
        self._watch_overflows(source.utc(first), source.utc(end))
        self._watch_zeros(heard)
        self.levels.push(heard.frames)
        self._position = end
        self._ever_heard = True
        if end >= STEADY_SECONDS * source.sample_rate:
            self._wait = FIRST_WAIT_SECONDS

    def _lose(self, cause: str, detail: str) -> None:
        """The source is gone, or was not there: note it, and set the time of the next try."""
        self._let_go()
        self._absence.begin(self._silent_from, cause, detail)
        if detail not in self._said and len(self._said) < MOST_SAID:
            self._said.add(detail)
            self._say(f"{detail}; it is tried again until it is heard")
        self._next_try = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)

    def _let_go(self) -> None:
        if self._source is None:
            return
        if self._position is not None:
            self._silent_from = self._source.utc(self._position)
            self._zeros.end(self._silent_from)
            self._overflow.end(self._silent_from)
        self._overflows = [self.overflows, 0]
        self._source.close()
        self._source = self._position = None

    def _watch_zeros(self, heard: Heard) -> None:
        for change in self._zero_watch.push(heard.first_frame, heard.frames):
            utc = self._source.utc(change.frame)
            if isinstance(change, ZerosBegan):
                self._zeros.begin(utc, ZEROS, f"{self._source.name} gives zeros only")
                self._say(f"{self._source.name} gives zeros only: it is muted, or dead")
            elif self._zeros.end(utc):
                self._say(f"{self._source.name} gives other samples than zeros again")

    def _watch_overflows(self, utc_start: float, utc_end: float) -> None:
        """Overflows come in swarms, and how much was lost is known only where it is a lot: a swarm is a gap."""
        if self._source.overflows > self._overflows[1]:
            self._overflows[1] = self._source.overflows
            self._overflow_at = utc_end
            if self._overflow.begin(
                utc_start, OVERRUN, "input overflow: the system lost frames before they were heard"
            ):
                self._say("input overflow: the system lost frames before they were heard")
        elif utc_end - self._overflow_at > OVERFLOW_SECONDS:
            self._overflow.end(self._overflow_at)

    def _watch_clock(self) -> None:
        """Notice that the wall clock was set: it and the monotonic clock run apart by a step.

        Nothing is recorded of times that were leapt over. A box without a battery for its clock boots with the time at
        which it was switched off, so that after a power cut this gap is the whole of the cut.
        """
        step = wall_offset() - self._clock_offset
        self._clock_offset += step
        if abs(step) >= CLOCK_STEP_SECONDS and self._is_live:  # a recording has a time of its own
            detail = f"set {'forward' if step > 0 else 'back'} by {abs(step):.3f} s"
            now = time.time()
            self._gaps.clock_set(now - step, now)
            self._silent_from += step
            self._overflow_at += step
            _Gap(self._gaps).note(now - max(step, 0.0), now, CLOCK, detail)
            self._say(f"the wall clock was {detail}")


class _Gap:
    """A gap that is open or not."""

    def __init__(self, gaps: Gaps) -> None:
        self._gaps = gaps
        self._id: int | None = None

    def begin(self, utc: float, cause: str, detail: str) -> bool:
        """Open it; whether it was not open yet."""
        if self._id is not None:
            return False
        self._id = self._gaps.begin_gap(utc, cause, detail)
        return True

    def end(self, utc: float) -> bool:
        """Close it; whether it was open."""
        if self._id is None:
            return False
        self._gaps.end_gap(self._id, utc)
        self._id = None
        return True

    def note(self, utc_start: float, utc_end: float, cause: str, detail: str) -> None:
        """One that is over already."""
        self.begin(utc_start, cause, detail)
        self.end(utc_end)
