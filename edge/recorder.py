"""Keeps what the listener heard as a WAV file, so that predict.py can be run on the very same samples."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile

from src.errors import UserError

WAV_BYTES = 2**32 - 2**16  # a WAV file counts its bytes in 32 bits; 9 hours of one channel at 32 kHz


class Recorder:
    """A float32 WAV file that is written while listening. Raises UserError where it cannot be written."""

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self.path = Path(path)
        self._room = WAV_BYTES // (4 * channels)  # frames
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = soundfile.SoundFile(self.path, "w", sample_rate, channels, "FLOAT", format="WAV")
        except (OSError, soundfile.LibsndfileError) as error:
            raise UserError(f"{self.path}: the recording cannot be made: {error}") from error

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, frames: np.ndarray, lost_before: int = 0) -> None:
        """Append float32 [frames, channels], after silence for the frames lost before them, so that times stay true."""
        if self._file.closed:
            return
        if lost_before + len(frames) > self._room:
            print(f"{self.path}: full, a WAV file ends at 4 GiB; listening goes on unrecorded", file=sys.stderr)
            self._file.close()
            return
        self._room -= lost_before + len(frames)
        try:
            while lost_before > 0:
                silence = np.zeros((min(lost_before, 1 << 16), frames.shape[1]), np.float32)
                self._file.write(silence)
                lost_before -= len(silence)
            self._file.write(frames)
        except (RuntimeError, AssertionError) as error:  # soundfile asserts that all frames were written
            raise UserError(f"{self.path}: the recording takes no more audio; is the disk full?") from error
