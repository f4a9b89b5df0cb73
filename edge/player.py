"""Recordings played as if they were heard, a file or a folder of them, one after the other.

recordings = Recordings(Path("forest"), speed=0, utc_offset_hours=-4)
player = recordings.next()               # a FilePlayer; None after the last
heard = player.read()                    # the next block, once it is due; None at the end of the file
recordings.faults                        # a sentence for each file that was broken, which was named and skipped
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from edge.source import MEAN, POLL_SECONDS, Heard, select
from src.audio import BLOCK_SECONDS, AudioError, AudioFile
from src.errors import UserError
from src.recording_files import find
from src.recording_time import as_utc, began


class FilePlayer:
    """A recording played as if it were a microphone, except that it waits: a slow reader hears it later, and all of it.

    speed: 1 is real time, 10 ten times as fast, 0 as fast as it is read
    channel: "mean" of all, or the number of one, from 1
    begins_utc: when its first frame is heard, in seconds since 1970; now, if not given
    fault: after the end, "" or what was wrong with the file

    Its time runs with the recording from the moment it begins: a frame 60 s into it is dated 60 s later at any speed.
    Raises UserError where the file cannot be opened.
    """

    live = False
    overflows = 0

    def __init__(self, path: Path, speed: float, channel: str | int = MEAN, begins_utc: float | None = None) -> None:
        self.path = Path(path)
        self.name = str(path)
        try:
            self._file = AudioFile(self.path)
        except AudioError as error:
            raise UserError(f"{self.path}: {error}") from error
        self.sample_rate = self._file.sample_rate
        self.channels = self._file.channels if channel == MEAN else 1
        if channel != MEAN and int(channel) > self._file.channels:
            self._file.__exit__()
            raise UserError(f"{self.path}: has {self._file.channels} channel(s): --channel {channel} is none of them")
        self._channel = channel
        block_seconds = min(POLL_SECONDS * speed, BLOCK_SECONDS) if speed else BLOCK_SECONDS
        self._blocks = self._file.blocks(block_seconds)
        self._pace = speed * self.sample_rate if speed else math.inf  # frames/s
        self._given = 0
        self._nothing = ""  # or why there is no audio in it
        self._began_utc = time.time() if begins_utc is None else begins_utc
        self._began = self._gave = time.monotonic()

    def __enter__(self) -> FilePlayer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.__exit__()

    @property
    def fault(self) -> str:
        """What was wrong with the file so far; empty if nothing."""
        return self._nothing or self._file.fault

    @property
    def end_utc(self) -> float:
        """When the last frame that was given ended."""
        return self.utc(self._given)

    def read(self) -> Heard | None:
        """The next block, once it is due; None after the last."""
        try:
            frames = next(self._blocks, None)
        except AudioError as error:
            self._nothing, frames = str(error), None
        if frames is None:
            return None
        frames = select(frames, self._channel)
        first_frame = self._given
        self._given += len(frames)
        time.sleep(max(0.0, self._began + self._given / self._pace - time.monotonic()))
        self._gave = time.monotonic()
        return Heard(first_frame, frames, self)

    def utc(self, frame: float) -> float:
        """When the frame is heard at real time, in seconds since 1970."""
        return self._began_utc + frame / self.sample_rate

    def age(self, frame: float) -> float:
        """Seconds since the frame was played."""
        return time.monotonic() - self._gave + (self._given - frame) / self._pace


class Recordings:
    """The recordings to play: a file, or those in a folder and below it, in the order of their names.

    speed, channel: as of FilePlayer
    faults: a sentence for each that could not be played, or not to its end

    utc_offset_hours: how far clocks of an unknown zone were before UTC (src/recording_time.py)

    The time of each is that at which it was recorded, if its header or its name tells it in UTC. Else it is the time of
    playing: that of the first begins now, that of each other where the one before ended. Raises UserError where there is
    nothing to play.
    """

    def __init__(
        self, path: Path, speed: float, channel: str | int = MEAN, utc_offset_hours: float | None = None
    ) -> None:
        self._utc_offset_hours = utc_offset_hours
        self._speed = speed
        self._channel = channel
        self._alone = not path.is_dir()
        self.faults: list[str] = []
        if self._alone:
            FilePlayer(path, speed, channel).close()  # what is wrong with it is said before anything else is done
            self._paths = iter([path])
        else:
            found = find([path])
            self._paths = iter([Path(recording.path) for recording in found if not recording.fault])
            for recording in found:
                if recording.fault:
                    self._skip(f"{recording.shown}: {recording.fault}")
            if len(self.faults) == len(found):
                raise UserError(f"{path}: there is no recording to play in this folder")
        self._player: FilePlayer | None = None
        self._is_dated = False  # of the player: by the recording itself
        self._follows_utc: float | None = None  # when the next one that is not dated begins; None: now

    def next(self) -> FilePlayer | None:
        """Begin to play the next one that can be played; None after the last."""
        if self._player:
            if not self._is_dated:
                self._follows_utc = self._player.end_utc
            if self._player.fault:
                self._skip(f"{self._player.path}: {self._player.fault}")
        self._player = None
        for path in self._paths:
            try:
                recorded = as_utc(began(path), self._utc_offset_hours)
                self._is_dated = recorded is not None
                begins_utc = recorded.timestamp() if recorded else self._follows_utc
                self._player = FilePlayer(path, self._speed, self._channel, begins_utc)
            except UserError as error:
                if self._alone:
                    raise
                self._skip(str(error))
            else:
                break
        return self._player

    def _skip(self, fault: str) -> None:
        self.faults.append(fault)
        print(fault, file=sys.stderr, flush=True)
