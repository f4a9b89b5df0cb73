"""The last minute or so of what was heard, at the source's own rate, for clips to be cut from.

    tape = Tape(seconds=90)
    tape.hear(block, first_frame, sample_rate=48000)         # as it comes
    tape.withhold(first_frame, end_frame)                    # no clip has any of this
    samples = tape.cut(first, end, must_first, must_end)     # int16, a copy

16 bits: what a clip has, at half the memory of float32 (8 MB for 90 s at 48 kHz). One thread hears and cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FULL_SCALE = 32768  # so that the samples of a microphone of 16 bits come out as they went in


@dataclass(frozen=True)
class _Hole:
    """Frames from `first` to before `end` that no clip may have."""

    first: int
    end: int
    withheld: bool  # else lost


class Tape:
    """Mono audio in a preallocated ring; frames are numbered as their source numbers them.

    end: the frame after the last that was heard

    A source that begins anew (another rate, lower numbers) erases the tape.
    """

    def __init__(self, seconds: float) -> None:
        self.sample_rate = 0
        self._seconds = seconds
        self._samples = np.zeros(1, np.int16)
        self._erase(0)

    def hear(self, block: np.ndarray, first_frame: int, sample_rate: int) -> None:
        """Take float32 [frames], unit scale. A number above the expected one is a loss, which no clip spans."""
        if sample_rate != self.sample_rate:
            self.sample_rate = sample_rate
            self._samples = np.zeros(max(1, round(self._seconds * sample_rate)), np.int16)
            self._erase(first_frame)
        if first_frame < self.end:
            self._erase(first_frame)
        if first_frame > self.end:
            self._holes.append(_Hole(self.end, first_frame, withheld=False))
        capacity = len(self._samples)
        kept = block[-capacity:]
        self.end = first_frame + len(block)
        self._begin = max(self._begin, self.end - capacity)
        self._holes = [hole for hole in self._holes if hole.end > self._begin]
        # NaN, which a broken driver gives, is silence; what is beyond full scale is clipped.
        scaled = np.nan_to_num(np.clip(kept, -1.0, 1.0)) * FULL_SCALE
        samples = np.minimum(scaled.round(), FULL_SCALE - 1).astype(np.int16)
        place = (self.end - len(kept)) % capacity
        head = min(len(kept), capacity - place)
        self._samples[place : place + head] = samples[:head]
        self._samples[: len(kept) - head] = samples[head:]

    def withhold(self, first_frame: int, end_frame: int) -> None:
        """No clip has any of these frames."""
        self._holes.append(_Hole(first_frame, end_frame, withheld=True))

    def withheld(self, first_frame: int, end_frame: int) -> bool:
        """Is any of these frames withheld?"""
        return any(hole.withheld and hole.first < end_frame and hole.end > first_frame for hole in self._holes)

    def cut(self, first: int, end: int, must_first: int, must_end: int) -> np.ndarray | None:
        """The frames from `first` to before `end`, as far as they are there and no hole parts them from the middle, int16.

        None where the middle, from `must_first` to before `must_end`, is not all there.
        """
        if not self._begin <= must_first < must_end <= self.end:
            return None
        first, end = max(first, self._begin), min(end, self.end)
        for hole in self._holes:
            if hole.first < must_end and hole.end > must_first:
                return None
            if hole.end <= must_first:
                first = max(first, hole.end)
            else:
                end = min(end, hole.first)
        place = first % len(self._samples)
        head = self._samples[place : place + end - first]
        return np.concatenate([head, self._samples[: end - first - len(head)]])

    def _erase(self, first_frame: int) -> None:
        self._begin = self.end = first_frame  # the frames that are there
        self._holes: list[_Hole] = []
