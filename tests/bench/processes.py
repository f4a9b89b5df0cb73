"""Whole processes, as the system accounts for them: CPU seconds, wall seconds and greatest memory, their children included.

used = measured([sys.executable, "predict.py", ...])
used.cpu_seconds, used.wall_seconds, used.peak_mib
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# In a process of its own, since the system keeps the greatest memory of all children there ever were.
_MEASURE = """
import json, resource, subprocess, sys, time
started = time.monotonic()
done = subprocess.run(json.loads(sys.argv[1]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
wall = time.monotonic() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, done.stdout, done.stderr]))
"""


@dataclass(frozen=True)
class Used:
    """CPU and wall seconds of a process, and the greatest memory in MiB of it or one of its children; what it printed."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    output: str = ""


def measured(command: Sequence[str | Path]) -> Used:
    """Run a command and say what it took. Raises RuntimeError with its errors if it fails."""
    line = json.dumps([str(part) for part in command])
    done = subprocess.run([sys.executable, "-c", _MEASURE, line], capture_output=True, text=True, check=True)
    status, cpu, wall, peak, output, errors = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{command[0]} ended with status {status}: {errors[-2000:]}")
    return Used(cpu, wall, peak, output)


def medians(runs: Sequence[Used]) -> Used:
    """Of each figure on its own."""
    return Used(*(median(getattr(run, name) for run in runs) for name in ("cpu_seconds", "wall_seconds", "peak_mib")))
