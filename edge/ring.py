"""A preallocated ring of audio frames between what brings them (a sound card's callback) and the reader that analyses them.

    ring = RingBuffer(30 * 32000, channels=1)
    ring.write(block)                        # from the callback: copies, never waits for the reader's work
    first_frame, frames = ring.read()        # from the reader: everything that came since the last read

    ring = shared_ring(descriptor, 30 * 32000, channels=1)     # the same, called in two processes: one writes, one reads

When the reader is late the oldest frames are overwritten, and counted: written == frames read + lost + waiting, always.
Writing needs no NumPy: the process that only writes is 13 MB smaller, and starts in less than half the time, without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

RING_SECONDS = 30.0  # how long a model or a disk may stall before audio is lost
SAMPLE_BYTES = 4  # float32
HEADER_BYTES = 40  # five numbers of eight bytes before the frames
WRITTEN, NEXT, LOST, OVERFLOWS = range(4)  # where in the header; the fifth is the time of the last write


class RingBuffer:
    """The last `capacity` frames, float32 [frames, channels]; one thread or process writes and one reads.

    memory, lock: HEADER_BYTES and the frames, zeros at first, and what is held during a copy; its own if not given
    """

    def __init__(self, capacity: int, channels: int, memory: Any = None, lock: Any = None) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring needs a frame and a channel at least, not {capacity} and {channels}")
        self.capacity = capacity
        self.channels = channels
        size = ring_bytes(capacity, channels)
        view = memoryview(bytearray(size) if memory is None else memory)[:size]
        self._counts = view[: HEADER_BYTES - 8].cast("q")
        self._arrived = view[HEADER_BYTES - 8 : HEADER_BYTES].cast("d")
        self._samples = view[HEADER_BYTES:].cast("f")
        # Held for the length of a copy, some microseconds.
        self._lock = threading.Lock() if lock is None else lock

    @property
    def written(self) -> int:
        """Frames ever written."""
        return self._counts[WRITTEN]

    @property
    def lost(self) -> int:
        """Frames that were overwritten before they were read."""
        return self._counts[LOST]

    @property
    def waiting(self) -> int:
        """Frames that a read would give now."""
        return self._counts[WRITTEN] - self._counts[NEXT]

    @property
    def overflows(self) -> int:
        """How often the writer was told that frames were lost before they reached it."""
        return self._counts[OVERFLOWS]

    @property
    def arrival(self) -> tuple[int, float]:
        """Frames written by the end of the last write, and its time.monotonic(); (0, 0.0) before the first."""
        with self._lock:
            return self._counts[WRITTEN], self._arrived[0]

    def write(self, block: Any, overflow: bool = False) -> None:
        """Copy float32 [frames, channels] in, an array or plain bytes; of a block longer than the ring the newest frames stay.

        Raises TypeError for other samples than float32, or an array whose samples do not lie one after the other.
        """
        samples = memoryview(block)
        if samples.format not in ("f", "B", "c"):
            raise TypeError(f"a ring takes float32 samples, not {samples.format!r}")
        if not samples.nbytes:
            return
        samples = samples.cast("B").cast("f")
        counts, size, kept = self._counts, len(self._samples), samples[-len(self._samples) :]
        with self._lock:
            written = counts[WRITTEN] + len(samples) // self.channels
            end = written % self.capacity * self.channels
            head = min(end, len(kept))  # samples up to `end`; the others lie before the ring's edge
            before = len(kept) - head
            self._samples[end - head : end] = kept[before:]
            self._samples[size - before :] = kept[:before]
            counts[WRITTEN] = written  # after the samples, for a writer may be killed anywhere here
            counts[OVERFLOWS] += overflow
            self._arrived[0] = time.monotonic()
            self._pass_over_lost()

    def read(self) -> tuple[int, np.ndarray]:
        """The number of the first frame given, and a copy of all frames not yet read, float32 [frames, channels].

        Frames are numbered from 0 as they were written, so a number above the expected one is a loss of that many.
        """
        import numpy as np  # only here: see the module's docstring

        samples = np.frombuffer(self._samples, np.float32)
        with self._lock:
            self._pass_over_lost()  # the writer may have been killed before it did
            first, written = self._counts[NEXT], self._counts[WRITTEN]
            begin, end = (frame % self.capacity * self.channels for frame in (first, written))
            if first == written:
                frames = samples[:0].copy()
            elif begin < end:
                frames = samples[begin:end].copy()
            else:
                frames = np.concatenate([samples[begin:], samples[:end]])
            self._counts[NEXT] = written
        return first, frames.reshape(-1, self.channels)

    def _pass_over_lost(self) -> None:
        """Count what was overwritten and not read, and have the next read begin after it. With the lock."""
        counts = self._counts
        oldest = counts[WRITTEN] - self.capacity
        if oldest > counts[NEXT]:
            counts[LOST] += oldest - counts[NEXT]
            counts[NEXT] = oldest


def ring_bytes(capacity: int, channels: int) -> int:
    """How much memory a ring takes."""
    return HEADER_BYTES + SAMPLE_BYTES * capacity * channels


def shared_memory() -> int:
    """A file descriptor of nameless memory, to hand to a child process (`pass_fds`); it goes when the last holder does."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("birdcall-ring")
    with tempfile.TemporaryFile() as file:  # not Linux
        return os.dup(file.fileno())


def shared_ring(descriptor: int, capacity: int, channels: int) -> RingBuffer:
    """The ring in `shared_memory()`, which both processes ask for with the same numbers. The first to ask makes it."""
    size = ring_bytes(capacity, channels)
    os.ftruncate(descriptor, size)
    return RingBuffer(capacity, channels, mmap.mmap(descriptor, size), _RecordLock(descriptor))


class _RecordLock(contextlib.AbstractContextManager):
    """A lock between processes that the system takes from one that is killed while it holds it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
