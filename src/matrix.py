"""All probabilities of one recording as Parquet, a row a window, written while they come.

file         the recording, as it was given or found
start_s      where the window begins in it, in seconds; end_s: where it ends, or the audio in it
start_utc    the same as UTC; null where neither name nor header tells it
<species>    the probability of each, float32, a column a species by its code

    with written(path, "dawn.wav", labels, key, began) as add:
        add(0.0, 5.0, probabilities)               # float32 [labels]
    made_by(path) == key                           # so that a file of another model is not taken for this one's

`pandas.read_parquet(FOLDER)` reads those of all recordings as one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Callable

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from src.files import written_whole
from src.status import as_text

WINDOWS_A_GROUP = 1024  # of 264 species: a MiB
KEY = b"birdcall"
COLUMNS = ("file", "start_s", "end_s", "start_utc")


@contextmanager
def written(
    path: Path, name: str, labels: Sequence[str], key: str, began: datetime | None
) -> Iterator[Callable[[float, float, np.ndarray], None]]:
    """Give a function that adds a window. The file is there whole after the block, or not at all.

    name: of the recording; key: what made_by gives back; began: the recording's first sample in UTC
    """
    fields = [
        pa.field("file", pa.dictionary(pa.int32(), pa.string())),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("start_utc", pa.timestamp("ms", tz="UTC")),
        *(pa.field(label, pa.float32()) for label in labels),
    ]
    schema = pa.schema(fields, metadata={KEY: key.encode()})
    starts: list[float] = []
    ends: list[float] = []
    rows: list[np.ndarray] = []

    def flush() -> None:
        times = [began + timedelta(seconds=start) if began else None for start in starts]
        names = pa.DictionaryArray.from_arrays(pa.array([0] * len(rows), pa.int32()), [as_text(name)])
        values = np.array(rows, np.float32).reshape(len(rows), len(labels)).T  # (labels, windows)
        columns = [names, pa.array(starts), pa.array(ends), pa.array(times, schema.field("start_utc").type)]
        columns += [pa.array(np.ascontiguousarray(column)) for column in values]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        for held in (starts, ends, rows):
            held.clear()

    def add(start: float, end: float, probabilities: np.ndarray) -> None:
        starts.append(round(start, 3))
        ends.append(round(end, 3))
        rows.append(probabilities)
        if len(rows) == WINDOWS_A_GROUP:
            flush()

    # A file, not its name, which need not be UTF-8.
    with written_whole(path) as temporary, open(temporary, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        yield add
        if rows:
            flush()


def made_by(path: Path) -> str:
    """The key that a file was written with; "" if it is not there, or not ours."""
    try:
        with open(path, "rb") as file:
            return (parquet.read_schema(file).metadata or {}).get(KEY, b"").decode()
    except (OSError, pa.ArrowInvalid):
        return ""
