"""What is finished of each recording, as a file of its own, so that a run that was killed goes on where it was.

    parts = Parts(Path("detections.csv.parts"), digest)
    with parts.written(recording) as part:
        part.write([0.0, 5.0, "amerob", 0.93])
        part.finish(Outcome("dawn.wav", OK, 600.0))
    parts.outcome(recording)         # None unless it was made of this very file, by this very question
    list(parts.lines(recording))     # [[0.0, 5.0, "amerob", 0.93]]

A part is lines of JSON: what it was made of (path, size, time of change, digest), a line for each answer, and the outcome. It
gets its name when it is whole. One that failed is never taken for finished: the next run tries it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from src.files import written_whole
from src.recording_files import Recording
from src.status import FAILED, Outcome

LONGEST_OUTCOME = 1 << 16  # bytes


class Part:
    """A part that grows."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path

    def write(self, line: list) -> None:
        """Add an answer: plain values."""
        self._file.write(json.dumps(line) + "\n")

    def lines(self) -> Iterator[list]:
        """What was written so far."""
        self._file.flush()
        return _lines(self._path, finished=False)

    def finish(self, outcome: Outcome) -> None:
        """Say what became of the recording; the last thing to do."""
        self._file.write(json.dumps(asdict(outcome)) + "\n")
        self._file.flush()


@dataclass(frozen=True)
class Parts:
    """folder: of the parts; digest: of the model and all options that change what is answered."""

    folder: Path
    digest: str

    def open(self) -> None:
        """Make the folder, and take away what workers that were killed have left there. Nobody else may be at work in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in chain(self.folder.glob(".*.part.jsonl"), self.folder.glob("*.begun")):
            left.unlink(missing_ok=True)

    def path(self, recording: Recording) -> Path:
        """Where a recording's part lies."""
        return self.folder / f"{hashlib.sha256(os.fsencode(recording.path)).hexdigest()[:24]}.jsonl"

    def outcome(self, recording: Recording) -> Outcome | None:
        """What became of a recording; None if it was not analysed as it is now. A failure counts, see `finished`."""
        try:
            with open(self.path(recording), "rb") as file:
                if json.loads(file.readline()) != self._made_of(recording):
                    return None
                file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - LONGEST_OUTCOME))
                return Outcome(**{**json.loads(file.read().splitlines()[-1]), "file": recording.shown})
        except (OSError, ValueError, TypeError, IndexError):  # not there, or not ours
            return None

    def finished(self, recording: Recording) -> bool:
        """Whether nothing is left to do."""
        outcome = self.outcome(recording)
        return outcome is not None and outcome.status != FAILED

    def lines(self, recording: Recording) -> Iterator[list]:
        """The answers of a recording whose part is whole."""
        return _lines(self.path(recording), finished=True)

    @contextmanager
    def written(self, recording: Recording) -> Iterator[Part]:
        """A part to be filled; it is there after the block, whole, or not at all."""
        made_of = self._made_of(recording)  # before it is read: a file that grows meanwhile is read again next time
        with written_whole(self.path(recording)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(made_of) + "\n")
            yield Part(file, temporary)

    def fail(self, recording: Recording, reason: str) -> Outcome:
        """Keep that a recording could not be analysed, for the tables of this run."""
        outcome = Outcome(recording.shown, FAILED, reason=reason)
        with self.written(recording) as part:
            part.finish(outcome)
        return outcome

    @contextmanager
    def at_hand(self, recording: Recording) -> Iterator[None]:
        """Mark a recording while it is worked on: what is marked when a worker was killed is what it had at hand."""
        mark = self.path(recording).with_suffix(".begun")
        mark.touch()
        yield
        mark.unlink(missing_ok=True)

    def was_at_hand(self, recording: Recording) -> bool:
        """Whether a worker was killed over it; forgotten by asking."""
        mark = self.path(recording).with_suffix(".begun")
        was = mark.exists()
        mark.unlink(missing_ok=True)
        return was

    def _made_of(self, recording: Recording) -> list:
        try:
            stat = Path(recording.path).stat()
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:
            size = changed = -1
        rows = hashlib.sha256(json.dumps(recording.rows).encode()).hexdigest()[:16] if recording.rows else ""
        return [recording.path, size, changed, self.digest, rows]


def _lines(path: Path, finished: bool) -> Iterator[list]:
    with open(path, encoding="utf-8") as file:
        next(file)
        before = None
        for line in file:
            if before is not None:
                yield json.loads(before)
            before = line
        if before is not None and not finished:
            yield json.loads(before)
