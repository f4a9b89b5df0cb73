"""What the page costs the box: memory and processor of its process, and how long its answers take on a long record.

    python tests/bench/page.py                        # a record of 1,000,000 detections in 60 days
    python tests/bench/page.py --detections 10000 --seconds 60

Prints the resident memory and the share of a core of edge/page.py without a viewer and with one, while a listener writes
20 columns a second and an event every 5 s; the milliseconds to the first answers; and the memory after all is downloaded.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge.columns import Columns  # noqa: E402
from edge.events import Changes, Event  # noqa: E402
from edge.journal import Journal  # noqa: E402
from edge.live import LiveWriter, live_path  # noqa: E402
from edge.tables import utc_text  # noqa: E402

DAYS = 60
SPECIES = 120
WINDOWS_PER_EVENT = 2.5
RATE = 48000
EVENT_SECONDS = 5.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--detections", type=int, default=1_000_000, metavar="N", help="in the record")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of watching")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "record"
        folder.mkdir()
        fill(folder / "journal.sqlite", args.detections)
        size = (folder / "journal.sqlite").stat().st_size / 1e6
        print(f"{args.detections:,} detections in {DAYS} days, {size:.0f} MB; two cores, others at work")
        measure(folder, args.seconds)
        live_path(folder).unlink(missing_ok=True)
    return 0


def fill(path: Path, detections: int) -> None:
    """A journal as the listener's after DAYS days."""
    Journal(path).close()
    draw = random.Random(0)
    now = time.time()
    count = round(detections / WINDOWS_PER_EVENT)
    starts = sorted(now - DAYS * 86400 * draw.random() for _ in range(count))
    names = [f"bird{number:03d}" for number in range(SPECIES)]
    weights = [1 / (number + 1) for number in range(SPECIES)]
    species = draw.choices(names, weights, k=count)
    events = (
        (n + 1, utc_text(t), utc_text(t + 7.5), s, 0.9, 2, "b6", "USB Audio", 0.0, 1, f"{s}/{s}_{n}.flac")
        for n, (t, s) in enumerate(zip(starts, species))
    )
    windows = (
        (
            n + 1,
            round(n / WINDOWS_PER_EVENT),
            utc_text(starts[0] + n),
            utc_text(starts[0] + n + 5),
            "bird",
            0.9,
            "b6",
            "USB",
            0,
        )
        for n in range(detections)
    )
    health = (
        (n + 1, utc_text(now - 60 * (DAYS * 1440 - n)), utc_text(now - 60 * (DAYS * 1440 - n + 1)))
        + (-47.0, -12.0, 0.0, 0.0, 2880000, 0, 0, 24, 0, 0, 0.1, 0.2, 4e10, 3e9, 0, 55.0, 150e6, 0.06)
        for n in range(DAYS * 1440)
    )
    gaps = (
        (
            n + 1,
            utc_text(now - DAYS * 86400 + n * 500),
            utc_text(now - DAYS * 86400 + n * 500 + 9),
            "dropped windows",
            "1",
        )
        for n in range(DAYS * 170)
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, rows, width in (
            ("events", events, 11),
            ("detections", windows, 9),
            ("health", health, 21),
            ("gaps", gaps, 5),
        ):
            connection.executemany(f"insert into {table} values ({', '.join('?' * width)})", rows)


def measure(folder: Path, seconds: float) -> None:
    """Serve the record, watch it, print."""
    command = [sys.executable, ROOT / "edge/page.py", folder, "--port", "0"]
    server = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    stop = threading.Event()
    listener = threading.Thread(target=listen, args=(folder, stop))
    try:
        port = int(server.stderr.readline().rsplit(":", 1)[1].strip().strip("/"))
        print(f"started                  {memory(server.pid):5.1f} MiB")
        listener.start()
        print(f"no viewer                {cpu(server.pid, seconds / 3):5.2f} % of a core")
        began = time.monotonic()
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        stream.request("GET", "/stream")
        response = stream.getresponse()
        waiting = {b"event: events\n", b"event: hours\n", b"event: trend\n"}
        while waiting:
            waiting.discard(response.readline())
        print(f"a viewer has all after   {1000 * (time.monotonic() - began):5.0f} ms")
        reading = threading.Thread(target=drain, args=(response, stop))
        reading.start()
        print(f"one viewer               {cpu(server.pid, seconds):5.2f} % of a core, {memory(server.pid):.1f} MiB")
        day = f"{datetime.now(timezone.utc) - timedelta(days=30):%Y-%m-%d}"
        rare = f"bird{SPECIES - 1:03d}"
        for path in (f"/api/day?date={day}", "/api/events?before=200000", f"/api/events?species={rare}"):
            print(f"{path:34} {ask(port, path)[0]:6.0f} ms")
        print(f"{'/api/events?species=unheard':34} {ask(port, '/api/events?species=unheard')[0]:6.0f} ms")
        took, size = ask(port, f"/events.csv?from={day}&to={day}")
        print(f"a day as CSV                       {took:6.0f} ms, {size / 1e6:.1f} MB")
        took, size = ask(port, "/events.csv")
        print(
            f"all as CSV                         {took:6.0f} ms, {size / 1e6:.1f} MB; then {memory(server.pid):.1f} MiB"
        )
    finally:
        stop.set()
        server.terminate()
        server.wait()
        if listener.is_alive():
            listener.join()


def listen(folder: Path, stop: threading.Event) -> None:
    """Columns and events as from a listener."""
    columns, block = Columns(RATE), np.random.default_rng(0).normal(0, 0.01, RATE // 20).astype(np.float32)
    next_event = time.monotonic()
    with Journal(folder / "journal.sqlite") as journal, LiveWriter(live_path(folder)) as writer:
        while not stop.wait(0.05):
            for column, utc in columns.hear(block, time.time()):
                writer.push(column, utc)
            if time.monotonic() >= next_event:
                next_event += EVENT_SECONDS
                start = time.time() - 5
                event = Event(
                    journal.new_event_id(), start, start + 5, "bird001", 0.9, 1, "b6", "USB", 0, start, 0, True
                )
                journal.record(Changes(events=(event,)))


def drain(response: http.client.HTTPResponse, stop: threading.Event) -> None:
    """Read a stream as a browser does."""
    while not stop.is_set() and response.readline():
        pass


def ask(port: int, path: str) -> tuple[float, int]:
    """Milliseconds and bytes of an answer."""
    began = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        size = 0
        while block := response.read(1 << 16):
            size += len(block)
        assert response.status == 200
    return 1000 * (time.monotonic() - began), size


def cpu(pid: int, seconds: float) -> float:
    """Percent of a core that a process takes in the next seconds."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(seconds)
    return 100 * (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def memory(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
