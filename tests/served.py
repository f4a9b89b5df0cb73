"""A page that is served, and a listener that writes what it shows: for the tests of the page.

with page(folder) as served:                      # edge/page.py in a process of its own
    served.ask("/api/events").status
listener.hear("amerob", time.time() - 5)          # a fixture: an event in the record
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import soundfile
from conftest import ROOT, tone

from edge.events import Changes, Detection, Event
from edge.journal import Journal
from edge.tables import Health

PASSWORD = "wren & owl: ünlock"
SOON = 20.0  # seconds: a machine that is shared may be slow
RATE = 32000


class Page:
    """edge/page.py in a process of its own, on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, password: str = "", *options: str) -> None:
        self.folder = folder
        self.port = 0
        self._options = options
        self.password = password
        self._log = folder.parent / f"{folder.name}.page.log"
        self.start()

    def start(self) -> None:
        """Start it; returns when it listens."""
        command = [sys.executable, ROOT / "edge/page.py", self.folder, "--port", str(self.port), *self._options]
        env = {**os.environ, "BIRDCALL_PAGE_PASSWORD": self.password}
        with open(self._log, "w") as log:
            self.process = subprocess.Popen([str(part) for part in command], stderr=log, env=env)
        wait_for(lambda: re.search(r"page on http://\S+:(\d+)/", self.said) or self.process.poll() is not None)
        assert self.process.poll() is None, self.said
        self.port = int(re.search(r":(\d+)/", self.said)[1])

    def stop(self) -> int:
        """End it as systemd does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}/"

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """One request, its path sent as it stands."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.putrequest(method, path, skip_host="Host" in names)
            if body is not None:
                names |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
            for name, value in names.items():
                connection.putheader(name, value)
            connection.endheaders(body.encode() if body is not None else None)
            return Answer(connection.getresponse())
        finally:
            connection.close()


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()


def wait_for(condition: Callable[[], Any], seconds: float = SOON) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)
    return found


@contextmanager
def page(folder: Path, *arguments: str) -> Iterator[Page]:
    served = Page(folder, *arguments)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.wait()


class Listener:
    """Writes a record as the listener does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal.sqlite")

    def hear(
        self, species: str, start: float, seconds: float = 5.0, probability: float = 0.93, closed: bool = True
    ) -> int:
        """An event; its id."""
        number = self.journal.new_event_id()
        self.tell(number, species, start, seconds, probability, closed)
        return number

    def tell(self, number: int, species: str, start: float, seconds: float, probability: float, closed: bool) -> None:
        end = start + seconds
        event = Event(number, start, end, species, probability, 1, "b6", "mic", 0.0, start, 0.0, closed)
        found = Detection(end - 5, end, species, probability, "b6", "mic", 0.0, number)
        assert self.journal.record(Changes((found,), (event,)))

    def keep_clip(self, number: int, species: str, seconds: float = 6.0) -> str:
        """A clip of a tone; its name relative to clips/."""
        relative = f"{species}/{species}_20261125T100005.000Z_0.93_{number}.flac"
        path = self.folder / "clips" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seconds, RATE, "mid"), RATE)
        self.journal.set_clip(number, relative)
        assert self.journal.flush()
        return relative

    def gap(self, cause: str, start: float, end: float | None = None, detail: str = "") -> int:
        number = self.journal.begin_gap(start, cause, detail)
        if end is not None:
            self.journal.end_gap(number, end)
        return number

    def feel(self, now: float, **figures: float) -> None:
        """A health line."""
        usual = {"level_dbfs": -47.5, "received": 60 * RATE, "zero_share": 0.0, "analysed": 24, "dropped": 0, "lost": 0}
        usual |= {
            "latency_p50_s": 0.12,
            "latency_p95_s": 0.19,
            "disk_free_bytes": 41_000_000_000,
            "temperature_c": 51.0,
        }
        assert self.journal.write_health(Health(now, now - 60, **{**usual, **figures}))

    def close(self) -> None:
        self.journal.close()


def secret(text: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{text}".encode()).decode()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
