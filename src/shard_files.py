"""One shard on disk: images in a .bin, and a line for each recording in a .jsonl. Both only grow until they are whole.

    with ShardWriter(stem, made_by) as writer:              # goes on after what an interrupted run finished
        for recording in task[writer.take_up(wanted):]: ...
            writer.write(image); ...; writer.finish(made_of, outcome, rows)
        writer.publish()                                    # renames both; the .jsonl last

    <stem>.bin      uint8 [windows, mels, frames]
    <stem>.jsonl    a line on what made it, then one a recording: what it was made of, its outcome, its rows, bytes, CRC-32

Until published they carry hidden names (.shard-00012.part.bin). A recording counts once its line is written and its bytes'
checksum is right, so a kill at any moment loses the recording at hand and no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

LOCKS = ".locks"
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """One finished recording of a shard: what it was made of, what became of it, and where its images are in the .bin."""

    made_of: list
    outcome: dict
    rows: list[dict]
    first_byte: int
    n_bytes: int
    crc: int


def parse_records(text: str) -> tuple[list, list[Record]]:
    """A .jsonl: (what made it, its records). A last line that was cut off is dropped; nothing usable gives ([], [])."""
    made_by, records, first_byte = None, [], 0
    for line in text.split("\n"):  # not splitlines: names may hold what it takes for an end of line
        try:
            entry = json.loads(line)
            if made_by is None:
                made_by = entry["made_by"]
                continue
            record = Record(entry["made_of"], entry["outcome"], entry["rows"], first_byte, entry["bytes"], entry["crc"])
        except (ValueError, KeyError, TypeError):
            break
        records.append(record)
        first_byte += record.n_bytes
    return made_by or [], records


def read_records(path: Path) -> tuple[list, list[Record]]:
    """As `parse_records`, of a file; ([], []) where there is none."""
    try:
        # A character that was cut off spoils its own line, the last.
        return parse_records(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return [], []


class ShardWriter:
    """Writes a shard, recording by recording. One process at a time: another waits until it is done or dead."""

    def __init__(self, stem: Path, made_by: list) -> None:
        self._stem, self._made_by = stem, made_by
        self._bin = stem.with_name(f".{stem.name}.part.bin")
        self._lines = stem.with_name(f".{stem.name}.part.jsonl")
        self._pending, self._crc = 0, 0  # of the recording at hand: its bytes and their checksum

    def __enter__(self) -> ShardWriter:
        # A worker may outlive a run that was killed, and still be writing here. A byte for each shard of one file is locked,
        # since a file that is renamed or removed cannot keep others away.
        self._locks = open(self._stem.with_name(LOCKS), "ab")
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, zlib.crc32(self._stem.name.encode()))
        self._open()
        return self

    def _open(self) -> None:
        self._file = open(self._bin, "a+b")  # noqa: SIM115  it stays open as long as the writer does

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._locks.close()

    def take_up(self, wanted: list[list]) -> int:
        """Keep what was finished of these recordings (what each is made of, in order); returns how many."""
        made_by, found = read_records(self._lines)
        if made_by == self._made_by and found and not os.fstat(self._file.fileno()).st_size:
            # Killed while it was published: the images have their final name already, the lines have not.
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._stem.with_suffix(".bin"), self._bin)
                self._file.close()
                self._open()
        kept: list[Record] = []
        if made_by == self._made_by:
            for record, made_of in zip(found, wanted):
                if record.made_of != made_of or _crc(self._file, record) != record.crc:
                    break
                kept.append(record)
        self._file.truncate(sum(record.n_bytes for record in kept))
        self._file.seek(0, os.SEEK_END)
        lines = [_line({"made_by": self._made_by}), *map(_record_line, kept)]
        temporary = self._lines.with_suffix(".new")
        temporary.write_text("".join(lines), encoding="utf-8")
        os.replace(temporary, self._lines)
        return len(kept)

    def published(self) -> dict[str, Record]:
        """What a published shard under this name holds and can be copied from: {made_of as JSON: record}."""
        made_by, records = read_records(self._stem.with_suffix(".jsonl"))
        if made_by != self._made_by:
            return {}
        try:
            with open(self._stem.with_suffix(".bin"), "rb") as file:
                return {json.dumps(record.made_of): record for record in records if _crc(file, record) == record.crc}
        except OSError:
            return {}

    def copy(self, record: Record) -> None:
        """Take over a published recording as it is."""
        with open(self._stem.with_suffix(".bin"), "rb") as file:
            for piece in _pieces(file, record):
                self.write(piece)
        self.finish(record.made_of, record.outcome, record.rows)

    def write(self, image: np.ndarray | bytes) -> None:
        """Append images of the recording at hand."""
        data = image if isinstance(image, bytes) else image.tobytes()
        self._file.write(data)
        self._pending += len(data)
        self._crc = zlib.crc32(data, self._crc)

    def finish(self, made_of: list, outcome: dict, rows: list[dict]) -> None:
        """The recording at hand is done."""
        self._file.flush()
        record = Record(made_of, outcome, rows, 0, self._pending, self._crc)
        with open(self._lines, "a", encoding="utf-8") as lines:
            lines.write(_record_line(record))
        self._pending, self._crc = 0, 0

    def publish(self) -> None:
        """Give the shard its final names. Until the .jsonl has its own, the shard is not there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        with open(self._lines, "rb") as lines:
            os.fsync(lines.fileno())
        final = self._stem.with_suffix(".jsonl")
        final.unlink(missing_ok=True)
        os.replace(self._bin, self._stem.with_suffix(".bin"))
        os.replace(self._lines, final)


def _pieces(file: BinaryIO, record: Record) -> Iterator[bytes]:
    """A recording's images, a piece at a time: those of a long recording need not fit in memory."""
    file.seek(record.first_byte)
    left = record.n_bytes
    while left and (piece := file.read(min(left, PIECE_BYTES))):
        yield piece
        left -= len(piece)


def _crc(file: BinaryIO, record: Record) -> int:
    crc = 0
    for piece in _pieces(file, record):
        crc = zlib.crc32(piece, crc)
    return crc


def _record_line(record: Record) -> str:
    return _line(
        {
            "made_of": record.made_of,
            "outcome": record.outcome,
            "rows": record.rows,
            "bytes": record.n_bytes,
            "crc": record.crc,
        }
    )


def _line(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
