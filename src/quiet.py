"""Keeping native libraries from writing to stderr, where they name no file and tear progress bars apart."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_stderr() -> Iterator[None]:
    """Throw away what is written to the process's stderr in this block; Python's exceptions are not touched.

    Does nothing outside the main thread: the file descriptor is the process's, and another thread would swallow what the
    main thread has to say.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
