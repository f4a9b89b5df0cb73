"""What an audio file's container promises, read from its own headers: libsndfile trims a length to what is there, in silence.

    promised_frames(Path("night.wav"), "WAV")      # 28,800,000: what its header says; 0 if it does not say
    is_cut(Path("night.ogg"), "OGG")               # whether its end is missing
    for name, start, size in chunks(file): ...     # of a RIFF WAV, whatever lies between them

`format` is libsndfile's name of the container.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

WAV_FORMATS = ("WAV", "WAVEX", "RF64")
UNKNOWN_SIZE = 0xFFFFFFF0  # and above: a recorder that was cut off, or a stream, does not know
LONGEST_PAGE = 65307  # bytes of an Ogg page
LARGEST_FILE = 2**62  # bytes: a damaged header may claim any size


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, size in bytes) of each chunk of a RIFF or RF64 WAV; none of another file. Move in the file as you like."""
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return
    long_size = 0  # of the data in an RF64, which is too long for 32 bits
    place = 12
    while place < LARGEST_FILE:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return
        name, size = header[:4], int.from_bytes(header[4:], "little")
        if name == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data" and size == 0xFFFFFFFF and long_size:
            size = long_size
        yield name, place + 8, size
        place += 8 + size + size % 2


def promised_frames(path: Path, format: str) -> int:
    """Frames that a WAV's header promises; 0 for another container, or one that does not say."""
    if format not in WAV_FORMATS:
        return 0
    frame_bytes = 0
    with open(path, "rb") as file:
        for name, start, size in chunks(file):
            if name == b"fmt ":
                file.seek(start)
                frame_bytes = int.from_bytes(file.read(16)[12:14], "little")
            if name == b"data":
                unknown = UNKNOWN_SIZE <= size <= 0xFFFFFFFF
                return 0 if unknown or not frame_bytes else size // frame_bytes
    return 0


def is_cut(path: Path, format: str) -> bool:
    """Whether the end of an Ogg, AIFF, AU or W64 is missing, by its last page or the size in its header."""
    total = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(24)
        if format == "OGG":
            file.seek(max(0, total - LONGEST_PAGE))
            last = file.read()
            page = last.rfind(b"OggS")
            return page >= 0 and not (len(last) > page + 5 and last[page + 5] & 4)  # the flag of a stream's last page
    if format == "AIFF":
        return head[:4] == b"FORM" and total < 8 + int.from_bytes(head[4:8], "big")
    if format == "AU":
        size = int.from_bytes(head[8:12], "big")
        return head[:4] == b".snd" and size != 0xFFFFFFFF and total < int.from_bytes(head[4:8], "big") + size
    if format == "W64":
        return head[:4] == b"riff" and total < int.from_bytes(head[16:24], "little")
    return False
