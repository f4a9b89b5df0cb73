"""What tests of capture need: somebody who listens, keeps all that was heard and said, and reads the journal's gaps.

with Ear(tmp_path, lambda: Microphone("pulse", "mean", None, 32000)) as ear:
    frames = ear.hear(seconds=0.5)
    ear.gaps("stopped")
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from edge.capture import Capture
from edge.journal import Journal, read_only, utc_seconds
from edge.source import Heard, Source

RATE = 32000


class Ear:
    """A capture that is listened to: what was heard of each source, what was said, and the gaps in the journal."""

    def __init__(self, folder: Path, open_source: Callable[[], Source | None], zero_seconds: float = 1000.0) -> None:
        self.heard: list[Heard] = []
        self.said: list[str] = []
        self._path = folder / "journal.sqlite"
        self._journal = Journal(self._path)
        self.capture = Capture(open_source, self._journal, self.said.append, zero_seconds)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.close()
        self._journal.close()

    def listen(self, seconds: float) -> None:
        """For so long."""
        end = time.monotonic() + seconds
        self.listen_until(lambda: time.monotonic() >= end, seconds + 1)

    def listen_until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Until it holds, or fail after so many seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.read()

    def read(self) -> bool:
        """Once; whether there is more to come."""
        heard = self.capture.read()
        if heard is not None and len(heard.frames):
            self.heard.append(heard)
        return heard is not None

    def hear(self, seconds: float, sample_rate: int = RATE) -> np.ndarray:
        """So much from now on: float32 [frames, channels]."""
        self.heard.clear()
        self.listen_until(lambda: sum(len(h.frames) for h in self.heard) >= seconds * sample_rate)
        return np.concatenate([h.frames for h in self.heard])

    def gaps(self, *causes: str) -> list[tuple[str, float, float | None, str]]:
        """Cause, start, end (UTC in seconds; None while it goes on), detail; of these causes, or all."""
        with closing(read_only(self._path)) as connection:
            rows = connection.execute("select cause, utc_start, utc_end, detail from gaps order by id").fetchall()
        return [
            (row["cause"], utc_seconds(row["utc_start"]), row["utc_end"] and utc_seconds(row["utc_end"]), row["detail"])
            for row in rows
            if not causes or row["cause"] in causes
        ]


def children_of(parent: int, what: str) -> list[int]:
    """The processes of a parent that have `what` in their command, and are no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            status, command = (entry / "stat").read_text().rpartition(")")[2].split(), (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(status[1]) == parent and status[0] != "Z" and what.encode() in command:
            found.append(int(entry.name))
    return found


def kill_with_children(listener: subprocess.Popen, what: str, after_seconds: float = 0.0) -> None:
    """Kill a process once it has children with `what` in their command; assert that these end with it, all within 5 s."""
    deadline = time.monotonic() + 5
    while not (children := children_of(listener.pid, what)):
        assert time.monotonic() < deadline
    time.sleep(after_seconds)
    listener.kill()
    listener.wait()
    listener.stdout.close()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
