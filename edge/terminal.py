"""Standard output and error of a program that outlives its terminal.

if is_gone(error):
    forget(sys.stdout)
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TextIO

GONE = (errno.EPIPE, errno.EIO)  # of the reader of a pipe, of a terminal


def is_gone(error: OSError) -> bool:
    """Has whoever read it gone, for good?"""
    return error.errno in GONE


def forget(stream: TextIO) -> None:
    """Have all that is written to it from now on go nowhere. What Python still holds would make the exit status 120."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: it is no file of the system's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
