"""What became of each recording: ok, truncated or failed; as status.csv, and in short for whoever waits at the terminal.

    tally = Tally()
    tally.add(Outcome("dawn.wav", OK, 600.0))
    tally.describe(Path("status.csv")), tally.whole      # "1 recordings: 1 ok; 10.0 minutes analysed", True

The columns of status.csv:

file     the recording, as it was given or found
status   ok: analysed whole. truncated: in part, since it was cut short, broke off, held samples that are no numbers (taken as
         silence), or ended before a row that was asked for. failed: not at all
seconds  of audio that were analysed
reason   why it is not ok
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from src.files import written_lines

OK, TRUNCATED, FAILED = "ok", "truncated", "failed"
COLUMNS = ("file", "status", "seconds", "reason")
SHOWN_FAULTS = 20


@dataclass(frozen=True)
class Outcome:
    """What became of one recording.

    seconds: of audio analysed; reason: "" or why it is not ok
    sample_rate: of the recording, Hz; 0: unknown
    began: "" or the time of its first sample, as `recording_time.began` gives it, in ISO 8601
    """

    file: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    sample_rate: int = 0
    began: str = ""


@dataclass
class Tally:
    """Outcomes counted one by one, since there may be a million; the first faults are kept to be shown."""

    counts: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    faults: list[Outcome] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every recording was analysed whole."""
        return set(self.counts) <= {OK}

    @property
    def answered(self) -> int:
        """How many recordings were analysed, whole or in part."""
        return self.counts[OK] + self.counts[TRUNCATED]

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.counts[outcome.status] += 1
        self.seconds += outcome.seconds
        if outcome.status != OK and len(self.faults) < SHOWN_FAULTS:
            self.faults.append(outcome)

    def describe(self, path: Path) -> str:
        """The counts, and a line for each of the first faulty recordings; path: of the status.csv that has all of them."""
        counts = ", ".join(f"{self.counts[name]} {name}" for name in (OK, TRUNCATED, FAILED) if self.counts[name])
        lines = [f"{sum(self.counts.values())} recordings: {counts}; {self.seconds / 60:.1f} minutes analysed ({path})"]
        lines += [f"  {one.status:<9}  {one.file}: {one.reason}" for one in self.faults]
        hidden = sum(self.counts.values()) - self.counts[OK] - len(self.faults)
        if hidden:
            lines.append(f"  and {hidden} more, named in {path}")
        return "\n".join(lines)


@contextmanager
def written_status(path: Path) -> Iterator[Callable[[Outcome], None]]:
    """Give a function that adds a recording to the status.csv at `path`, which is there whole after the block, or not at all."""
    with written_lines(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        yield lambda one: writer.writerow([as_text(one.file), one.status, round(one.seconds, 3), as_text(one.reason)])


def as_text(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes that are no UTF-8 are written as \\xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
