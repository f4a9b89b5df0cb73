"""Whether two records of the same recording say the same: `compare.py HERE.sqlite THERE.sqlite --table detections`.

Each row is known by its place in the recording and its species; the probabilities may differ by --tolerance.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys


def rows(path: str, table: str) -> dict[tuple[float, str], float]:
    """(seconds into the recording, species) -> probability."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(f"select offset_seconds, species, probability from {table}").fetchall()
    finally:
        connection.close()
    return {(round(offset, 3), species): probability for offset, species, probability in found}


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("here")
parser.add_argument("there")
parser.add_argument("--table", default="detections", choices=["detections", "events"])
parser.add_argument("--tolerance", type=float, default=1e-4)
arguments = parser.parse_args()
here, there = rows(arguments.here, arguments.table), rows(arguments.there, arguments.table)
only = here.keys() ^ there.keys()
worst = max((abs(here[key] - there[key]) for key in here.keys() & there.keys()), default=0.0)
spread = max(here.values(), default=0.0) - min(here.values(), default=0.0)
print(
    f"{len(here)} {arguments.table} here, {len(there)} there, {len(only)} in one only; probabilities {spread:.3f} apart, ",
    end="",
)
print(f"and differ by {worst:.2g} at most")
sys.exit(not here or bool(only) or not worst <= arguments.tolerance)
