"""How loud the input is, how much of it is clipped, and whether it is dead: all samples zero, which no live microphone gives.

    meter = LevelMeter()
    meter.push(frames)                       # float32 [frames, channels]
    levels = meter.take()                    # of all frames since the last take; None if there were none
    levels.rms_dbfs, levels.peak_dbfs, levels.clipped_share, levels.zero_share
    levels.remark                            # "" or a sentence: clipping, or too quiet to be a live microphone

    watch = ZeroWatch(least_frames=10 * 32000)
    for change in watch.push(first_frame, frames): ...         # ZerosBegan(frame), ZerosEnded(frame)

Silence is not zeros: a microphone in a quiet night still gives its own noise, some -90 to -60 dBFS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CLIPPED_AT = 0.9999  # of full scale; the greatest 16-bit sample is 0.99997
FLOOR_DBFS = -150.0  # what all zeros are said to be; 24 bits reach down to -144
CLIPPING_SHARE = 1e-4  # 3 samples of 32,000: a loud bird close by does that, and it is worth knowing
SILENT_DBFS = -85.0  # the last bit of 16, all the time, is -90


@dataclass(frozen=True)
class Levels:
    """The input over some frames; of several channels all together.

    rms_dbfs, peak_dbfs: dB of full scale: a full-scale sine has -3.0 and 0.0
    clipped_share, zero_share: of the frames, those with a sample at full scale, and those with none but zeros
    """

    frames: int
    rms_dbfs: float
    peak_dbfs: float
    clipped_share: float
    zero_share: float

    @property
    def remark(self) -> str:
        """What somebody should do about it, or "". Without figures: it is the same for as long as the fault is."""
        if self.clipped_share >= CLIPPING_SHARE:
            return "the input clips: turn the microphone's gain down"
        if self.zero_share == 1.0:
            return "the input is all zeros: the microphone is muted, or dead"
        if self.rms_dbfs < SILENT_DBFS:
            return "the input is silent: is the microphone connected, and its gain turned up?"
        return ""


class LevelMeter:
    """Sums up frames until they are asked for; it does not matter in what blocks they come."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._frames = self._samples = self._clipped = self._zeros = 0
        self._energy = self._peak = 0.0

    def push(self, frames: np.ndarray) -> None:
        """Take float32 [frames, channels], unit scale."""
        if not len(frames):
            return
        loudest = np.abs(frames).max(axis=1)  # (frames,)
        self._frames += len(frames)
        self._samples += frames.size
        self._clipped += int(np.count_nonzero(loudest >= CLIPPED_AT))
        self._zeros += int(np.count_nonzero(loudest == 0))
        self._peak = max(self._peak, float(loudest.max()))
        self._energy += float(np.square(frames, dtype=np.float64).sum())

    def take(self) -> Levels | None:
        """The levels since the last call; None if nothing came."""
        if not self._frames:
            return None
        levels = Levels(
            frames=self._frames,
            rms_dbfs=dbfs(math.sqrt(self._energy / self._samples)),
            peak_dbfs=dbfs(self._peak),
            clipped_share=self._clipped / self._frames,
            zero_share=self._zeros / self._frames,
        )
        self._begin()
        return levels


def dbfs(amplitude: float) -> float:
    """An amplitude of unit scale in dB of full scale, at least FLOOR_DBFS."""
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


@dataclass(frozen=True)
class ZerosBegan:
    """From `frame` on all samples are zero, for longer than is plausible."""

    frame: int


@dataclass(frozen=True)
class ZerosEnded:
    """`frame` is the first that is not zero."""

    frame: int


class ZeroWatch:
    """Finds runs of `least_frames` or more frames that are all zero, in blocks of any size."""

    def __init__(self, least_frames: int) -> None:
        self._least = least_frames
        self._begin = 0  # of the run at the end of what came so far
        self._end = 0  # of what came so far; a run that begins there is none yet
        self._told = False

    def push(self, first_frame: int, frames: np.ndarray) -> list[ZerosBegan | ZerosEnded]:
        """Take float32 [frames, channels] and give what has changed, in order. A run goes on over frames that were lost."""
        begin = self._begin if self._begin < self._end else first_frame
        ends = first_frame + np.flatnonzero(
            frames.any(axis=1)
        )  # the frames that are not zero: each ends a run, if only of 0
        begins = np.concatenate([[begin], ends + 1])
        changes: list[ZerosBegan | ZerosEnded] = []
        for run in np.flatnonzero(ends - begins[:-1] >= self._least):
            if not (self._told and run == 0):
                changes.append(ZerosBegan(int(begins[run])))
            changes.append(ZerosEnded(int(ends[run])))
        self._told = self._told and len(ends) == 0
        self._begin, self._end = int(begins[-1]), first_frame + len(frames)
        if self._end - self._begin >= self._least and not self._told:
            changes.append(ZerosBegan(self._begin))
            self._told = True
        return changes
