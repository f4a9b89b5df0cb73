"""The live spectrogram between two processes: the listener writes columns into a small ring file, the page reads them.

    with LiveWriter(live_path(folder)) as writer:             # in the listener
        for column, utc in columns.hear(mono, utc_of_the_first_sample):   # edge/columns.py
            writer.push(column, utc)

    reader = LiveReader(live_path(folder))                    # in the page
    cursor, columns, utc = reader.since(None)                 # all that is there; then since(cursor): what came after it

The file lies in /dev/shm, in memory, where there is such a folder. It is written and read by position and not through
mmap, which costs a system call more per column and spares the process its death (SIGBUS) when somebody cuts the file short
or the memory is full. Only the standard library: the page does without NumPy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import stat
import struct
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
COLUMNS_PER_SECOND = 20.0
BANDS = 96
LOW_HZ, HIGH_HZ = 0.0, 12000.0  # edges of the lowest and the highest band; all are equally wide
LOW_DB, HIGH_DB = -110.0, 0.0  # what the bytes 0 and 255 stand for; a sine of full scale is 0 dB
RING_COLUMNS = 1280  # 64 s
LOOK_EVERY = 200  # columns, after which the writer looks whether its file is still there
HOLE_SECONDS = 0.5  # columns further apart than this (beyond their distance) are not of one run

MAGIC = b"BIRDLIV1"
HEADER = struct.Struct(
    "<8sQIIddddd"
)  # magic, session, bands, ring columns, columns/s, low and high Hz, low and high dB
WRITTEN = struct.Struct("<Qd")  # columns ever written, utc of the last: after the header, changed with each column
TIME = struct.Struct("<d")  # utc: before the bytes of each column


class Cursor(NamedTuple):
    """Up to where a ring was read: which ring (each writer makes its own) and the number of the next column in it."""

    session: int
    column: int


class Scale(NamedTuple):
    """What the columns of a ring are: bytes each, how many a second, and what rows and bytes stand for."""

    bands: int
    columns_per_second: float
    low_hz: float
    high_hz: float
    low_db: float
    high_db: float


SCALE = Scale(BANDS, COLUMNS_PER_SECOND, LOW_HZ, HIGH_HZ, LOW_DB, HIGH_DB)


def live_path(folder: Path) -> Path:
    """Where the ring of a record folder lies: in memory where the system has such a folder, else in the record folder."""
    if not SHARED_MEMORY.is_dir():
        return Path(folder) / "live.bin"
    digest = hashlib.sha256(os.fsencode(Path(folder).resolve())).hexdigest()
    return SHARED_MEMORY / f"birdcall-{digest[:16]}.live"


class LiveWriter:
    """The ring's one writer. It holds a lock on its file for as long as it lives, by which readers know that it does.

    faults: how often the file could not be written after it had been made; a picture is not worth ending the listener

    Each writer makes a file of its own and renames it to `path`, so a reader never sees half a header or the columns of an
    earlier listener. Raises UserError where the file cannot be made.
    """

    def __init__(self, path: Path, ring_columns: int = RING_COLUMNS, scale: Scale = SCALE) -> None:
        self.path = Path(path)
        self.faults = 0
        self._ring_columns = ring_columns
        self._scale = scale
        self._slot_bytes = TIME.size + scale.bands
        self._size = _slots_begin() + ring_columns * self._slot_bytes
        self._file = -1
        self._pushed = 0
        try:
            self._make()
        except OSError as error:
            raise UserError(
                f"{self.path}: the live spectrogram cannot be made: {error.strerror}; remove the file or make room"
            ) from error

    def __enter__(self) -> LiveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and take it away."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                if self._is_there():
                    self.path.unlink()
            os.close(self._file)
            self._file = -1

    def push(self, column: object, utc: float) -> None:
        """Append a column, uint8 [bands], the lowest band first, whose middle was heard at `utc` (seconds since 1970)."""
        data = bytes(memoryview(column))  # type: ignore[arg-type]
        if len(data) != self._scale.bands:
            raise ValueError(f"a column has {self._scale.bands} bytes, not {len(data)}")
        self._pushed += 1
        try:
            # Somebody may tidy up /dev/shm (logind does for a user who logs out); then the page would see nothing more.
            if self._pushed % LOOK_EVERY == 0 and not self._is_there():
                self._make()
            slot = _slots_begin() + self._written % self._ring_columns * self._slot_bytes
            os.pwrite(self._file, TIME.pack(utc) + data, slot)
            self._written += 1  # after the column is in the file: the order of the two writes is what readers rely on
            os.pwrite(self._file, WRITTEN.pack(self._written, utc), HEADER.size)
        except OSError:
            self.faults += 1

    def _is_there(self) -> bool:
        """Is our file at the path, and whole?"""
        try:
            ours = os.fstat(self._file) if self._file >= 0 else None
            return ours is not None and os.path.samestat(self.path.stat(), ours) and ours.st_size == self._size
        except FileNotFoundError:
            return False

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            os.posix_fallocate(file, 0, self._size)  # all the room now: a full disk is met here and not while listening
            session = time.time_ns()
            os.pwrite(file, HEADER.pack(MAGIC, session, self._scale.bands, self._ring_columns, *self._scale[1:]), 0)
            os.fchmod(file, 0o640)
            fcntl.flock(file, fcntl.LOCK_EX)
            os.replace(temporary, self.path)
        except BaseException:
            os.close(file)
            Path(temporary).unlink()
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._written = 0


class LiveReader:
    """Reads the ring at `path`, whoever writes it, as often as writers come and go; it is never wrong to ask.

    scale: of the ring that was read last; None before
    alive: whether there is a writer, as of the last `since`
    last_utc: when the last column in the file was heard, of a dead writer as well; None if there is none
    quiet_seconds: for how long no column has come, as far as `since` was asked
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.scale: Scale | None = None
        self.alive = False
        self.last_utc: float | None = None
        self._file = -1
        self._session = 0
        self._ring_columns = 0
        self._moved = (0, time.monotonic())  # columns ever written, as last seen, and when they were seen first

    @property
    def quiet_seconds(self) -> float:
        """See the class."""
        return time.monotonic() - self._moved[1]

    def all_since(self, cursor: Cursor | None = None) -> tuple[Cursor | None, list[tuple[bytes, float]]]:
        """As `since`, but all of it: the next cursor, and the bytes and the time of each run."""
        runs: list[tuple[bytes, float]] = []
        while True:
            cursor, columns, utc = self.since(cursor)
            if utc is None:
                return cursor, runs
            runs.append((columns, utc))

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def since(self, cursor: Cursor | None = None) -> tuple[Cursor | None, bytes, float | None]:
        """What came after the cursor: the next cursor, bytes [columns * bands], when the last of them was heard.

        Columns are given up to the first hole in time, so all of them follow each other evenly and the last one's time
        is the time of all; ask again for what came after the hole. None and no bytes: nothing new, no ring, or the ring
        of a writer that is dead. A cursor into a ring that is no longer there counts as none.
        """
        self.alive = False
        if not self._open():
            self.last_utc = None
            return cursor, b"", None
        try:
            return self._read(cursor)
        except (OSError, struct.error):  # cut short under our hands
            self.close()
            return cursor, b"", None

    def _read(self, cursor: Cursor | None) -> tuple[Cursor | None, bytes, float | None]:
        written, last_utc = self._written()
        if written != self._moved[0]:
            self._moved = written, time.monotonic()
        self.last_utc = last_utc if written and math.isfinite(last_utc) else None
        self.alive = self._is_locked()
        if not self.alive:
            return cursor, b"", None
        if cursor is None or cursor.session != self._session or cursor.column > written:
            cursor = Cursor(self._session, 0)
        bands = self.scale.bands
        slot_bytes = TIME.size + bands
        first = max(cursor.column, written - self._ring_columns)
        slots = self._slots(first, written - first, slot_bytes)
        # What the writer overwrote meanwhile is lost, and so is the one that it may be writing now.
        whole_from = self._written()[0] - self._ring_columns + 1
        columns, end_utc, number = [], None, first
        for number in range(first, written):
            at = (number - first) * slot_bytes
            (utc,) = TIME.unpack_from(slots, at)
            if number < whole_from or not utc > 0:  # 0: somebody has cut the file, and it grew again
                continue
            if end_utc is not None and not abs(utc - end_utc - 1 / self.scale.columns_per_second) <= HOLE_SECONDS:
                break
            columns.append(slots[at + TIME.size : at + slot_bytes])
            end_utc = utc
        else:
            number = written
        return Cursor(self._session, number), b"".join(columns), end_utc

    def _slots(self, first: int, count: int, slot_bytes: int) -> bytes:
        begin = first % self._ring_columns
        head = min(count, self._ring_columns - begin)
        data = os.pread(self._file, head * slot_bytes, _slots_begin() + begin * slot_bytes)
        data += os.pread(self._file, (count - head) * slot_bytes, _slots_begin())
        if len(data) != count * slot_bytes:
            raise struct.error("the ring is shorter than it was")
        return data

    def _written(self) -> tuple[int, float]:
        return WRITTEN.unpack(os.pread(self._file, WRITTEN.size, HEADER.size))

    def _is_locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def _open(self) -> bool:
        """Have the file open that is at `path` now. False where there is none or it is no ring."""
        try:
            if self._file >= 0:
                if os.path.samestat(self.path.lstat(), os.fstat(self._file)):
                    return True
                self.close()
            # Anybody may put anything into /dev/shm: not a link, and a pipe must not make us wait.
            self._file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            status = os.fstat(self._file)
            if stat.S_ISREG(status.st_mode) and self._take_header(os.pread(self._file, HEADER.size, 0), status.st_size):
                return True
        except OSError:
            pass
        self.close()
        return False

    def _take_header(self, header: bytes, size: int) -> bool:
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            return False
        _, self._session, bands, self._ring_columns, *numbers = HEADER.unpack(header)
        self.scale = Scale(bands, *numbers)
        sane = 1 <= bands <= 4096 and 2 <= self._ring_columns <= 1 << 16
        sane = sane and all(math.isfinite(number) for number in numbers) and 0.1 <= numbers[0] <= 1000
        return sane and size >= _slots_begin() + self._ring_columns * (TIME.size + bands)


def _slots_begin() -> int:
    return HEADER.size + WRITTEN.size
