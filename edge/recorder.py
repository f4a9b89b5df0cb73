"""Keeps what the listener heard as WAV files, so that predict.py can be run on the very same samples.

    with Recorder(Path("heard.wav")) as recorder:
        recorder.hear(capture.read())

A source that was opened anew begins another file, heard-2.wav: it may have another rate, and nobody wants the silence of
a week without a microphone on a disk. So does a listener that is started anew; no file is ever written over.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

import numpy as np
import soundfile

from edge.source import Heard, Source
from src.errors import UserError

WAV_BYTES = 2**32 - 2**16  # a WAV file counts its bytes in 32 bits; 9 hours of one channel at 32 kHz


class Recorder:
    """Float32 WAV files that are written while listening. Raises UserError where none can be made at the start.

    Later, on a full disk, listening goes on unrecorded until the next file begins.

    sample_rate, channels: of the first file, if they are known before anything was heard
    paths: the files so far
    """

    def __init__(self, path: Path, sample_rate: int | None = None, channels: int | None = None) -> None:
        self.path = Path(path)
        self.paths: list[Path] = []
        self._source: Source | None = None
        self._position = 0  # the next frame of the source
        self._file: soundfile.SoundFile | None = None
        self._room = 0  # frames
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._first = self._free()
            self._first.touch()  # a fault is said now, and not when the first bird sings
        except OSError as error:
            raise UserError(f"{self.path}: the recording cannot be made: {error}") from error
        if sample_rate and channels:
            self._begin(sample_rate, channels)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if not self.paths:
            self._first.unlink()

    def hear(self, heard: Heard) -> None:
        """Append what was heard, after silence for what was lost before it; another source begins another file."""
        if not len(heard.frames):
            return
        if heard.source is not self._source:
            self._source, self._position = heard.source, heard.first_frame
            self._begin(heard.source.sample_rate, heard.frames.shape[1])
        self.write(heard.frames, heard.first_frame - self._position)
        self._position = heard.first_frame + len(heard.frames)

    def write(self, frames: np.ndarray, lost_before: int = 0) -> None:
        """Append float32 [frames, channels], after silence for the frames lost before them, so that times stay true."""
        if self._file is None:
            return
        if lost_before + len(frames) > self._room:
            print(f"{self.paths[-1]}: full, a WAV file ends at 4 GiB; listening goes on unrecorded", file=sys.stderr)
            self._end()
            return
        self._room -= lost_before + len(frames)
        try:
            while lost_before > 0:
                silence = np.zeros((min(lost_before, 1 << 16), frames.shape[1]), np.float32)
                self._file.write(silence)
                lost_before -= len(silence)
            self._file.write(frames)
        except (RuntimeError, AssertionError):  # soundfile asserts that all frames were written
            print(
                f"{self.paths[-1]}: takes no more audio, is the disk full? listening goes on unrecorded",
                file=sys.stderr,
            )
            self._end()

    def _begin(self, sample_rate: int, channels: int) -> None:
        self._end()
        path = self._free() if self.paths else self._first
        try:
            self._file = soundfile.SoundFile(path, "w", sample_rate, channels, "FLOAT", format="WAV")
        except (OSError, soundfile.LibsndfileError) as error:
            print(f"{path}: cannot be made ({error}); listening goes on unrecorded", file=sys.stderr)
            return
        self.paths.append(path)
        self._room = WAV_BYTES // (4 * channels)

    def _free(self) -> Path:
        """The first of heard.wav, heard-2.wav, ... that is not there."""
        names = (f"{self.path.stem}-{number}{self.path.suffix}" for number in itertools.count(2))
        return next(path for path in itertools.chain([self.path], map(self.path.with_name, names)) if not path.exists())

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(RuntimeError):  # a full disk, once more
                file.close()
