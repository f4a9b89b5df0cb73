"""What a source of audio is, and what all live ones have in common: a ring, a clock, and a watch on the last block.

    source = Microphone("usb", "mean", None, wanted_rate=32000)      # or a Stream, or a FilePlayer
    heard = source.read()                    # waits 50 ms; heard.first_frame, heard.frames
    source.utc(heard.first_frame)            # when that frame was heard
    source.close()

A live source does not wait for its reader; a file does. edge/capture.py keeps a source alive.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.ring import RingBuffer
from edge.tables import NO_FRAMES

POLL_SECONDS = 0.05
CLOCK_SECONDS = 60.0
CLOCKS_SECONDS = 0.001
LATE_SECONDS = 0.2  # blocks that all come later than this, for LATE_FOR_SECONDS, will not be caught up with any more
LATE_FOR_SECONDS = 2.0
MEAN = "mean"  # of all channels; a number from 1 on is one of them


class Source(Protocol):
    """What capture.py needs of a source. `sample_rate` (Hz) and `channels` may be 0 until the first frames were read."""

    name: str
    live: bool
    sample_rate: int
    channels: int
    overflows: (
        int  # how often the system reported that it lost frames before they reached us; how many, it does not say
    )

    def read(self) -> Heard | None:
        """Wait a moment and give the frames that have come, perhaps none; None: a file has ended.

        Raises SourceLostError when it has died, and UserError where waiting will not help.
        """

    def utc(self, frame: float) -> float:
        """When the frame was heard, in seconds since 1970."""

    def age(self, frame: float) -> float:
        """Seconds since the frame was heard."""

    def close(self) -> None:
        """Let go of it, within a second, whatever state it is in."""


def select(frames: np.ndarray, channel: str | int) -> np.ndarray:
    """The channel that was chosen, float32 [frames, 1], or for "mean" all of them as they are: float32 [frames, channels]."""
    return frames if channel == MEAN else np.ascontiguousarray(frames[:, [int(channel) - 1]])


def wall_offset() -> float:
    """What the wall clock is ahead of the monotonic one, in seconds; as true as if one could read both at once."""
    for _ in range(5):
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < CLOCKS_SECONDS:
            break  # else we were held up in between
    return wall - (before + after) / 2


@dataclass(frozen=True)
class Heard:
    """Frames from a source: float32 [frames, channels], unit scale; `first_frame` counts from the source's first."""

    first_frame: int
    frames: np.ndarray
    source: Source | None = None


class SourceLostError(Exception):
    """A source gives no more. `cause` is one of those of a gap in the journal; `detail` is for a person."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


class SampleClock:
    """The time of each frame of a live stream, from the times at which blocks arrived, on the clock those are told by.

    A block may come late and never early, so the least of (arrival - length so far) dates the first frame best. Only
    the last one to two minutes count: a sound card's clock strays by seconds a day.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._recent = self._older = math.inf  # dates of frame 0
        self._turn = 0  # the frame at which `_recent` becomes `_older`

    def note(self, frames: int, arrived: float) -> None:
        """Frame number `frames` - 1 was the last of a block that arrived at the time `arrived`, in seconds."""
        start = arrived - frames / self._rate
        if frames >= self._turn:
            self._turn = frames + round(CLOCK_SECONDS * self._rate)
            self._older, self._recent = self._recent, start
        self._recent = min(self._recent, start)

    def utc(self, frame: float) -> float:
        """When the frame was heard."""
        return min(self._recent, self._older) + frame / self._rate


class LiveSource:
    """The half of a live source that its reader sees. The other half writes into a ring, from a process or a thread.

    name: for people
    hang_seconds: a stream that gives nothing for so long has died, whatever it says
    open_seconds: how long it may take to open

    A subclass calls `_opened` once rate and channels are known, says in `_gone` whether the other half has ended, and
    ends it in `close`.
    """

    live = True

    def __init__(self, name: str, channel: str | int, hang_seconds: float, open_seconds: float) -> None:
        self.name = name
        self.sample_rate = self.channels = 0
        self._channel = channel
        self._hang_seconds = hang_seconds
        self._open_seconds = open_seconds
        self._ring: RingBuffer | None = None
        self._quiet_polls = 0
        self._missed = 0  # frames that never reached the ring, by the clock
        self._last_arrival = (0, 0.0)
        self._least_late = math.inf
        self._late_since = 0.0

    @property
    def overflows(self) -> int:
        """How often the system reported that it lost frames before they reached us."""
        return self._ring.overflows if self._ring else 0

    @property
    def shown(self) -> str:
        """What to call it in a sentence."""
        return self.name

    def _opened(self, ring: RingBuffer, sample_rate: int) -> None:
        """The other half writes into `ring` from now on."""
        self.sample_rate = sample_rate
        self.channels = ring.channels if self._channel == MEAN else 1
        self._clock = SampleClock(sample_rate)
        self._quiet_polls = 0
        self._ring = ring  # last: the sign for the reader, who may be another thread

    def close(self) -> None:
        """Let go of the ring; dates can still be asked for."""
        self._ring = None

    def _gone(self) -> Exception | None:
        """Why the other half has ended, if it has: what `read` raises after the last frames."""
        raise NotImplementedError

    def read(self) -> Heard:
        """Wait a moment and give the frames that have come, perhaps none. Raises SourceLostError when the source has died.

        A `first_frame` above the end of the last read says how many frames were lost: in the ring, since nobody read it,
        or, by the clock, before they reached it.
        """
        time.sleep(POLL_SECONDS)
        gone = self._gone()  # asked before the ring is emptied, so that the last frames are still given
        first_frame, frames = 0, np.zeros((0, 1), np.float32)
        if self._ring:
            first_frame, frames = self._ring.read()
            frames = select(frames, self._channel)
            self._note_arrival(*self._ring.arrival)  # after the read: what was read can be dated
        # Polls are counted and not seconds: a reader that was held up itself must not take that for silence.
        self._quiet_polls = 0 if len(frames) else self._quiet_polls + 1
        if self._quiet_polls and gone:
            raise gone
        patience = self._hang_seconds if self._ring else self._open_seconds
        if self._quiet_polls * POLL_SECONDS >= patience:
            what = "has given nothing for" if self._ring else "has not opened in"
            raise SourceLostError(NO_FRAMES, f"{self.shown} {what} {patience:g} s")
        return Heard(first_frame + self._missed, frames, self)

    def _note_arrival(self, written: int, arrived: float) -> None:
        """Keep the clock, and see whether frames went missing on their way: then all that follow come late by as much."""
        if not written or (written, arrived) == self._last_arrival:
            return
        first = self._last_arrival[0] == 0
        self._last_arrival = (written, arrived)
        late = 0.0 if first else arrived - self._clock.utc(written + self._missed)
        if late < LATE_SECONDS:
            self._least_late = math.inf
        elif self._least_late == math.inf:
            self._least_late, self._late_since = late, arrived
        else:
            self._least_late = min(self._least_late, late)
            if arrived - self._late_since >= LATE_FOR_SECONDS:
                self._missed += round(self._least_late * self.sample_rate)
                self._least_late = math.inf
        self._clock.note(written + self._missed, arrived)

    def utc(self, frame: float) -> float:
        """When the frame was heard, in seconds since 1970, by what the wall clock says now: it may have been set."""
        return self._clock.utc(frame) + wall_offset()

    def age(self, frame: float) -> float:
        """Seconds since the frame was heard."""
        written, arrived = self._last_arrival
        return time.monotonic() - arrived + (written + self._missed - frame) / self.sample_rate
