"""Child processes that end with the listener, however it ends.

    process = child.start(["ffmpeg", "-i", url, ...])        # a subprocess.Popen; its stdout is a pipe
    child.end(process)

What can hang (a sound server, a USB driver, a network) is asked by a child process: it can always be killed, and the
listener goes on. Run as a script this module is the middle step of `start`: it asks the system to be killed when its
parent dies, and becomes the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SET_PDEATHSIG = 1  # prctl(2)
END_SECONDS = 1.0


def start(
    command: Sequence[str], descriptors: Sequence[int] = (), stderr: int = subprocess.DEVNULL
) -> subprocess.Popen:
    """Start a program that is killed when the calling thread ends; raises FileNotFoundError where Python itself is gone.

    descriptors: of open files that it is to have, too, under the same numbers
    """
    middle = [sys.executable, "-E", "-s", str(Path(__file__).resolve()), str(os.getpid())]
    return subprocess.Popen(
        [*middle, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=descriptors,
        start_new_session=True,  # Ctrl-C in a terminal is for the listener, which then ends its children
    )


def end(process: subprocess.Popen) -> None:
    """Kill it. One that hangs in a driver dies when the driver lets go; nobody waits for that."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def die_with(parent: int) -> None:
    """Have the system kill this process when the process `parent` dies, or end at once if it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
