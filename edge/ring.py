"""A preallocated ring of audio frames between a sound card's callback and the reader that analyses them.

    ring = RingBuffer(30 * 32000, channels=1)
    ring.write(block)                        # from the callback: copies, never waits for the reader's work
    first_frame, frames = ring.read()        # from the reader: everything that came since the last read

When the reader is late the oldest frames are overwritten, and counted: written == frames read + lost + waiting, always.
"""

from __future__ import annotations

import threading

import numpy as np


class RingBuffer:
    """The last `capacity` frames, float32 [frames, channels]; one thread writes and one reads.

    written: frames ever written
    lost: frames that were overwritten before they were read
    """

    def __init__(self, capacity: int, channels: int) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring needs a frame and a channel at least, not {capacity} and {channels}")
        self.capacity = capacity
        self.written = 0
        self.lost = 0
        self._frames = np.zeros((capacity, channels), np.float32)
        self._next = 0  # the first frame that was not read, counted as `written` counts
        # Held for the length of a copy, some microseconds: the callback waits longer for the interpreter itself.
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Frames that a read would give now."""
        return self.written - self._next

    def write(self, block: np.ndarray) -> None:
        """Copy float32 [frames, channels] in; of a block longer than the ring the newest `capacity` frames stay."""
        kept = block[-self.capacity :]
        with self._lock:
            self.written += len(block)
            end = self.written % self.capacity
            head = min(end, len(kept))  # frames up to `end`; the others lie before the ring's edge
            self._frames[end - head : end] = kept[len(kept) - head :]
            before = len(kept) - head
            self._frames[self.capacity - before :] = kept[:before]
            oldest = self.written - self.capacity
            if oldest > self._next:
                self.lost += oldest - self._next
                self._next = oldest

    def read(self) -> tuple[int, np.ndarray]:
        """The number of the first frame given, and a copy of all frames not yet read, float32 [frames, channels].

        Frames are numbered from 0 as they were written, so a number above the expected one is a loss of that many.
        """
        with self._lock:
            first = self._next
            begin, end = first % self.capacity, self.written % self.capacity
            if self.waiting == 0:
                frames = self._frames[:0].copy()
            elif begin < end:
                frames = self._frames[begin:end].copy()
            else:
                frames = np.concatenate([self._frames[begin:], self._frames[:end]])
            self._next = self.written
        return first, frames
