"""The folder of a record: where what lies in it, who may write it, and its log.

folder = RecordFolder(Path("edge/record"))
with folder.held(), folder.logged():         # one listener at a time; stderr goes to listener.log as well
    Journal(folder.journal), folder.clips
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from edge.tables import utc_text
from edge.terminal import forget, is_gone
from src.errors import UserError

LOG_BYTES = 1_000_000
LOGS_KEPT = 5  # listener.log.1 to .5, beside listener.log


@dataclass(frozen=True)
class RecordFolder:
    """The paths of a record. Making this object touches nothing."""

    path: Path

    @property
    def journal(self) -> Path:
        """The SQLite file; edge/journal.py writes it."""
        return self.path / "journal.sqlite"

    @property
    def clips(self) -> Path:
        """A folder for each species; edge/keeper.py writes them. Column `clip` of events is relative to this."""
        return self.path / "clips"

    @property
    def log(self) -> Path:
        """What the listener said on stderr."""
        return self.path / "listener.log"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and be its only listener. The system lets go of it when the process dies, however it dies.

        Raises UserError where it cannot be made, or where another listener holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / "listener.lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"{self.path}: the record cannot be kept there: {error.strerror}; choose another folder with -o"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                process = lock.read().strip()
                raise UserError(
                    f"{self.path}: another listener{process and f' (process {process})'} records there;"
                    " stop that one, or choose another folder with -o"
                ) from error
            with contextlib.suppress(OSError):  # on a full disk nobody learns who holds it
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), str(os.getpid()).encode())  # past Python, which would try it again at the close
            yield

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Whatever Python writes to stderr meanwhile is in the log as well, a time before each line."""
        terminal = sys.stderr
        log = _Log(self.log, terminal)
        sys.stderr = log
        try:
            yield
        finally:
            sys.stderr = terminal
            log.finish()


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk must not end the listener, nor be told of in its own log."""


class _Log:
    """stderr, whose lines go to a rotated file, too. Neither a terminal that is gone nor a full disk is an error."""

    def __init__(self, path: Path, terminal: TextIO) -> None:
        self._terminal = terminal
        self._file = _File(
            path, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8", delay=True, errors="backslashreplace"
        )
        self._begun = ""  # of a line
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write to both."""
        with self._lock:
            try:
                self._terminal.write(text)
                self._terminal.flush()
            except OSError as error:
                if is_gone(error):
                    forget(self._terminal)
            except ValueError:  # closed
                pass
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self._keep(line)
        return len(text)

    def finish(self) -> None:
        """Keep a line that has no end yet, and close the file."""
        if self._begun:
            self._keep(self._begun)
        with contextlib.suppress(OSError):
            self._file.close()

    def _keep(self, line: str) -> None:
        self._file.handle(logging.makeLogRecord({"msg": f"{utc_text(time.time())} {line}"}))

    def flush(self) -> None:
        """Nothing is held back but the beginning of a line of the log."""
        with contextlib.suppress(OSError, ValueError):
            self._terminal.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)  # encoding, fileno and what else is asked of stderr
