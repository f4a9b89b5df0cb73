"""A listener without microphone and model, for tests to kill: it records as fast as it can, and says what was acknowledged.

Run as a script it is a server: for each line `FOLDER SEED WINDOWS` on standard input it forks a writer, which is there at
once where Python's own start would take longer than the writer lives. On standard output are `pid NUMBER`, what the writer
says, and `end STATUS` (-9: killed). What it says, after Journal.record or end_gap has returned True:

    event ID WINDOWS        the event goes on, with so many windows
    closed ID WINDOWS       it is over
    detections 0 NUMBER     of this writer so far
    gap ID 1

Nothing of that may ever be missing in the journal.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from edge.events import EventMerger
from edge.folder import RecordFolder
from edge.journal import NO_FRAMES, Health, Journal
from edge.keeper import Keeper

RATE, WINDOW, HOP, CLIP = 8000, 0.5, 0.25, 1.0  # Hz, s: small clips, so that there are many
KEEP_BYTES = 150_000  # some fifteen clips: soon they are deleted, too
SPECIES = ("robin", "wren", "../x", "")


def quiet(_: str) -> None:
    """What the listener would say."""


def acknowledge(what: str, number: int, figure: int) -> None:
    """Say it in one piece, however soon the end comes."""
    os.write(sys.stdout.fileno(), f"{what} {number} {figure}\n".encode())


def write(path: Path, seed: int, windows: int) -> None:
    """Record events, gaps, health and clips of so many windows."""
    chance = random.Random(seed)
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, RATE).astype(np.float32)
    folder = RecordFolder(path)
    with folder.held(), Journal(folder.journal, quiet) as journal:
        journal.resume(time.time())
        merger = EventMerger(HOP, WINDOW, "b6", journal.new_event_id, longest_seconds=3.0)
        options = {"longest_seconds": 3.0, "wait_seconds": 5.0, "say": quiet}
        with Keeper(folder.clips, journal, WINDOW, CLIP, KEEP_BYTES, 0.0, **options) as keeper:
            began, detections, step = time.time(), 0, round(HOP * RATE)
            for number in range(windows):
                keeper.hear(np.roll(samples, number)[:step], number * step, RATE)
                offset = (number + 1) * HOP - WINDOW
                if offset < 0:
                    continue
                found = {name: chance.uniform(0.5, 1.0) for name in SPECIES if chance.random() < 0.3}
                changes = merger.push(began + offset, began + offset + WINDOW, offset, found, "a writer")
                if journal.record(changes):
                    detections += len(changes.detections)
                    for event in changes.events:
                        acknowledge("closed" if event.closed else "event", event.id, event.windows)
                    acknowledge("detections", 0, detections)
                for event in changes.closed:
                    keeper.closed(event)
                if number % 20 == 19:
                    gap = journal.begin_gap(began + offset, NO_FRAMES)
                    if journal.end_gap(gap, began + offset + 0.1):
                        acknowledge("gap", gap, 1)
                    journal.write_health(Health(time.time(), began))


def serve() -> None:
    """Fork a writer for each line, one after the other."""
    for line in sys.stdin:
        path, seed, windows = line.split()
        process = os.fork()
        if process == 0:
            write(Path(path), int(seed), int(windows))
            os._exit(0)
        print("pid", process, flush=True)
        _, status = os.waitpid(process, 0)
        print("end", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
