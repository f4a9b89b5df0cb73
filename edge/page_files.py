"""The files that the page sends: its own, which are in memory, and the clips of a record folder.

    static = load_static(PAGE)                       # {"page.css": Static(b"...", "text/css; charset=utf-8", '"..."'), ...}
    file = open_clip(folder / "clips", "amerob", "amerob_20261125T100005.000Z_0.93.flac")    # None: there is no such clip
    part = byte_range("bytes=0-1", size)             # (0, 2)

A clip is reached by the names of its species' folder and its own, each looked up in the folder before it without following
a link: there is no path that could be wrong.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

PAGE = Path(__file__).resolve().parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Static(NamedTuple):
    """A file of the page."""

    content: bytes
    type: str
    etag: str


class UnsatisfiableError(Exception):
    """A Range header asks for bytes that the file has not."""


def load_static(folder: Path = PAGE) -> dict[str, Static]:
    """The page's files by name, in memory: what is not among them cannot be asked for."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in TYPES:
            content = path.read_bytes()
            files[path.name] = Static(content, TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return files


def version(static: dict[str, Static]) -> str:
    """A word that changes with the page's files, so that an open page can tell that it is an old one."""
    return hashlib.sha256("".join(file.etag for file in static.values()).encode()).hexdigest()[:16]


def open_clip(clips: Path, species: str, name: str) -> BinaryIO | None:
    """A clip, open to be read; None where there is none: another kind of file, a link, a name that leads elsewhere."""
    if not name.endswith(".flac"):  # one that is being written has another name
        return None
    folders = [-1]
    try:
        folders[0] = os.open(clips, os.O_RDONLY | os.O_DIRECTORY)
        if not (_is_name(species) and _is_name(name)):
            return None
        folders.append(os.open(species, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folders[0]))
        # Not to wait for the other end of a named pipe.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folders[1])
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            return None
        return os.fdopen(file, "rb")
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        return None
    finally:
        for folder in folders:
            if folder >= 0:
                os.close(folder)


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Begin and end of the one range that a Range header asks for; None to send it all. Raises UnsatisfiableError."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.replace(" ", ""))
    if not found or not any(found.groups()):  # several ranges or another unit: all of it is a right answer
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < begin:
            return None
    if begin >= size or begin >= end:
        raise UnsatisfiableError
    return begin, end


def _is_name(text: str) -> bool:
    return bool(text) and "/" not in text and not text.startswith(".")
