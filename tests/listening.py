"""The listener in a process of its own, for tests: what it was told, what it said, and its record.

listening = Listening(tmp_path, "--model", bundle, "--input", "song.wav", "--speed", 0)
assert listening.wait() == 0, listening.err
listening.rows("events"), listening.count("windows analysed")
"""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, tone

from edge.tables import read_only, utc_seconds

NOT_ON_THE_BOX = ("tensorflow", "keras", "tf_keras", "librosa", "scipy", "pandas", "sklearn", "matplotlib")


class Listening:
    """edge/listen.py in a process of its own; `wait` gives its exit status, and then there are `out` and `rows`.

    folder: is its working folder, and has its record; TensorFlow and the other training libraries cannot be imported
    python_path: a folder whose modules come before all others; its module `prelude` is imported first of all
    record: of the listener; FOLDER/record, if not given
    prefix: a command that starts it, as nohup; stdout: where its lines go instead of `out`
    """

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        env: dict[str, str] | None = None,
        python_path: str = "",
        record: Path | None = None,
        prefix: Sequence[str] = (),
        stdout: int = subprocess.PIPE,
    ) -> None:
        blocker = folder / "blocker"
        blocker.mkdir(exist_ok=True, parents=True)
        (blocker / "sitecustomize.py").write_text(
            "import sys\n"
            "class Blocker:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] in {NOT_ON_THE_BOX!r}:\n"
            "            raise ImportError(f'{name} is not on the box')\n"
            "sys.meta_path.insert(0, Blocker())\n"
            "try: import prelude\n"
            "except ModuleNotFoundError: pass\n"
        )
        self.env = {**(env or {}), "PYTHONPATH": f"{blocker}:{python_path}"}
        self.env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
        self.record = record or folder / "record"
        self.journal = self.record / "journal.sqlite"
        command = [*prefix, sys.executable, ROOT / "edge/listen.py", "-o", self.record, *arguments]
        self._err = folder / "err"
        with open(self._err, "w") as err:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env=self.env,
                cwd=folder,
                stdout=stdout,
                stderr=err,
                text=True,
            )
        self.first_line = ""

    @property
    def err(self) -> str:
        """What is on standard error so far."""
        return self._err.read_text()

    def wait_until_it_listens(self) -> None:
        """Return once the model is loaded."""
        self.wait_for(lambda: "threshold" in self.err)

    def wait_until_it_hears(self) -> None:
        """Return once frames arrive from a source; a virtual microphone starts 1 to 2 s late."""
        self.wait_for(lambda: " channel(s)\n" in self.err)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait while it runs until the condition holds; gives its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.err
            time.sleep(0.02)
        return value

    def wait_for_an_event(self) -> None:
        """Return once the first line is on standard output."""
        self.first_line = self.process.stdout.readline()
        assert self.first_line, self.err

    def signal(self, number: int) -> None:
        """Send a signal, as Ctrl-C and `kill` do."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it as systemd does, and have it end well."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.err

    def wait(self, timeout: float = 30) -> int:
        """Wait for its end."""
        try:
            rest, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"still running after {timeout} s\n{self.err}")
        self.out = (self.first_line + (rest or "")).splitlines()
        return self.process.returncode

    def count(self, what: str) -> int:
        """A figure of the final summary."""
        found = re.search(rf"^  {what} +(\d+)$", self.err, re.MULTILINE)
        assert found, f"no {what!r} in the summary:\n{self.err}"
        return int(found[1])

    def rows(self, table: str = "detections") -> list[sqlite3.Row]:
        """A table of the journal, in the order in which it was written; none while there is no journal."""
        return read_journal(self.journal, table) if self.journal.exists() else []

    def gaps(self, cause: str) -> list[sqlite3.Row]:
        """Those of one cause."""
        return [row for row in self.rows("gaps") if row["cause"] == cause]


def read_journal(path: Path, table: str = "detections") -> list[sqlite3.Row]:
    with closing(read_only(path)) as connection:
        return connection.execute(f"select * from {table} order by id").fetchall()


def length(gap: sqlite3.Row) -> float:
    """Of a gap that is over, in seconds."""
    return utc_seconds(gap["utc_end"]) - utc_seconds(gap["utc_start"])


def song(sample_rate: int) -> np.ndarray:
    """12.3 s: silence, the low tone, a pause, the mid and the high tone together, which fill the last, short window."""
    parts = [
        tone(1, sample_rate),
        tone(5, sample_rate, "low"),
        tone(2, sample_rate),
        tone(4.3, sample_rate, "mid", "high"),
    ]
    return np.concatenate(parts)
