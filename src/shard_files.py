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

import fcntl
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
    for line in text.splitlines():
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
        return parse_records(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return [], []


class ShardWriter:
    """Writes a shard, recording by recording. One process at a time: another waits until it is done or dead."""

    def __init__(self, stem: Path, made_by: list) -> None:
        self._stem, self._made_by = stem, made_by
        self._bin = stem.with_name(f".{stem.name}.part.bin")
        self._lines = stem.with_name(f".{stem.name}.part.jsonl")
        self._pending, self._crc = 0, 0  # of the recording at hand: its bytes and their checksum

    def __enter__(self) -> ShardWriter:
        while True:
            self._file = open(self._bin, "a+b")
            # A worker may outlive a run that was killed, and still be writing here.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if self._bin.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                    return self
            except FileNotFoundError:
                pass
            self._file.close()  # it was published or removed while we waited

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take_up(self, wanted: list[list]) -> int:
        """Keep what was finished of these recordings (what each is made of, in order); returns how many."""
        made_by, found = read_records(self._lines)
        kept: list[Record] = []
        if made_by == self._made_by:
            for record, made_of in zip(found, wanted):
                if record.made_of != made_of or zlib.crc32(self._stored(self._file, record)) != record.crc:
                    break
                kept.append(record)
        self._file.truncate(sum(record.n_bytes for record in kept))
        self._file.seek(0, os.SEEK_END)
        lines = [_line({"made_by": self._made_by}), *map(_record_line, kept)]
        temporary = self._lines.with_suffix(".new")
        temporary.write_text("".join(lines), encoding="utf-8")
        os.replace(temporary, self._lines)
        return len(kept)

    def published(self) -> dict[str, tuple[Record, bytes]]:
        """What a published shard under this name holds and can be copied from: {made_of as JSON: (record, images)}."""
        made_by, records = read_records(self._stem.with_suffix(".jsonl"))
        if made_by != self._made_by:
            return {}
        found = {}
        try:
            with open(self._stem.with_suffix(".bin"), "rb") as file:
                for record in records:
                    images = self._stored(file, record)
                    if zlib.crc32(images) == record.crc:
                        found[json.dumps(record.made_of)] = record, images
        except OSError:
            pass
        return found

    @staticmethod
    def _stored(file: object, record: Record) -> bytes:
        file.seek(record.first_byte)
        return file.read(record.n_bytes)

    def write(self, image: np.ndarray | bytes) -> None:
        """Append images of the recording at hand."""
        data = bytes(image) if isinstance(image, bytes) else image.tobytes()
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
