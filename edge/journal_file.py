"""The file of a journal: opened or made, told from what is damaged and from what is somebody else's, set aside, begun anew.

file = JournalFile(path, busy_seconds=0.25, say=log)
file.begin()                          # a sound journal, whatever was at the path; a damaged one has another name now
file.current().execute(...)           # of the file that is at the path now: it may have been deleted since the last time
next(file.ids["events"])              # a number above all that were given before, in whatever file
if is_damage(error): file.set_aside() # and `current` makes a new one
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from edge.tables import SCHEMA, TABLES, VERSION, utc_text
from src.errors import UserError

CHECKED_BYTES = 2e8  # three months
ANEW_SECONDS = 3600.0  # between two journals that are given up as damaged
WAL_BYTES = 1 << 23  # to which journal.sqlite-wal is cut once it was longer, since a reader was slow
SQLITE_CORRUPT, SQLITE_NOTADB = 11, 26
DAMAGE = ("malformed", "not a database")  # what SQLite says of those two: before 3.11 Python does not tell the code
MALFORMED = "database disk image is malformed"
LARGEST_ID = 1 << 40  # no box has so many events, nor is the clock ever there: a greater number is part of the damage


class JournalFile:
    """The one connection that writes a journal, for one thread. What is at the path may be damaged, deleted or replaced.

    busy_seconds: how long a statement waits for a database that another process has locked
    say: where a sentence goes when another file than before is the journal
    connection: None where it is opened when it is next needed
    ids: of each table the numbers to come, above all in the file and all that were given before
    """

    def __init__(self, path: Path, busy_seconds: float, say: Callable[[str], None]) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self.ids = {table: itertools.count(1) for table in TABLES}
        self._busy_seconds = busy_seconds
        self._say = say
        self._identity: tuple[int, int] | None = None
        self._sides: dict[Path, tuple[int, int] | None] = {}  # SQLite's own files beside it, as it made them
        self._anew_from = 0.0  # monotonic

    def begin(self) -> None:
        """Have a sound journal open. Raises UserError where that cannot be."""
        try:
            try:
                newest = self._open(checked=True)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self.set_aside()
                newest = self._open()
        except OSError as error:
            text = f"{self.path}: the journal cannot be made: {error.strerror}; choose another folder"
            raise UserError(text) from error
        except sqlite3.Error as error:
            full = shutil.disk_usage(self.path.parent).free < WAL_BYTES
            fix = "the disk is full: make room" if full else "choose another folder"
            raise UserError(f"{self.path}: cannot be used as the journal: {error}; {fix}") from error
        if newest == 0:
            self.ids["events"] = itertools.count(1 + _newest_event_aside(self.path))

    def current(self) -> sqlite3.Connection:
        """A connection to what is at the path now. Raises as open_journal does."""
        # A look each time: SQLite itself would go on with a file that has no name any more.
        if self.connection and identity(self.path) != self._identity:
            self._say(f"{self.path}: was deleted or replaced; rows go into the one that is there from now on")
            connection, self.connection = self.connection, None
            _forsake(connection, self._sides)
        elif self.connection and any(identity(side) != known for side, known in self._sides.items()):
            self.close()  # which writes what is in its log into it; who moves a journal takes one file after the other
        if not self.connection:
            self._open()
        return self.connection

    def set_aside(self) -> bool:
        """Give a damaged file another name; False if that was done a short while ago: then the disk damages what it gets.

        Raises OSError where it cannot be renamed. There is no connection then, until `current` is asked for one.
        """
        if time.monotonic() < self._anew_from:
            return False
        self.close()
        aside = _aside(self.path)
        try:
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(aside.with_name(aside.name + suffix))
        except OSError as error:
            raise OSError(error.errno, f"it is damaged, and cannot be renamed: {error.strerror}") from error
        self._anew_from = time.monotonic() + ANEW_SECONDS
        self._say(f"{self.path}: was damaged, and is now {aside.name}; its rows: sqlite3 {aside.name} .recover")
        return True

    def close(self) -> None:
        """Let go of the file."""
        connection, self.connection = self.connection, None
        if connection:
            connection.close()

    def _open(self, checked: bool = False) -> int:
        """Open what is at the path, or make it; gives the greatest id of its events, 0 if it has none."""
        self.connection, newest = open_journal(self.path, self._busy_seconds, checked)
        self._identity = identity(self.path)
        sides = (self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-shm"))
        self._sides = {side: identity(side) for side in sides}
        for table, number in newest.items():
            self.ids[table] = itertools.count(max(next(self.ids[table]), 1 + number))
        return newest["events"]


def is_damage(error: Exception) -> bool:
    """Does SQLite find the file itself damaged, or no database at all? Waiting mends neither."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return any(text in str(error) for text in DAMAGE)
    return code & 0xFF in (SQLITE_CORRUPT, SQLITE_NOTADB)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at the path, by device and inode; None: none. No other has the same for as long as it is open.

    Raises OSError where that cannot be known now.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def open_journal(path: Path, busy_seconds: float, checked: bool) -> tuple[sqlite3.Connection, dict[str, int]]:
    """Open the journal at the path, or make it; gives the greatest id of each table as well, 0 where it is empty.

    checked: is a damage anywhere in it an error, too? Else only one that is stumbled over

    Raises OSError where the folder cannot be made, sqlite3.Error for the file (`is_damage` says which kind), and UserError
    for a sound database that is no journal of this version; that one is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    try:
        (version,) = connection.execute("pragma user_version").fetchone()
        (tables,) = connection.execute("select count(*) from sqlite_master").fetchone()
        ours = version == VERSION or (version, tables) == (0, 0)
        if (checked or not ours) and not _is_sound(path, connection):
            raise sqlite3.DatabaseError(MALFORMED)
        if not ours:
            raise UserError(
                f"{path}: cannot be used as the journal: it was written by another version of listen.py, or is"
                " something else; move it away or choose another folder"
            )
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute(f"pragma journal_size_limit = {WAL_BYTES}")
        if (version, tables) == (0, 0):
            connection.executescript(f"begin immediate; {SCHEMA} pragma user_version = {VERSION}; commit;")
        newest = {table: _newest_id(connection, table) for table in TABLES}
        # What was published of a journal that was here before counts, or new events would pass for sent ones.
        for table, column in (("events", "event_id"), ("health", "health_id")):
            published = connection.execute(f"select max({column}) from published").fetchone()[0] or 0
            newest[table] = max(newest[table], published)
    except BaseException:
        connection.close()
        raise
    return connection, newest


def _is_sound(path: Path, connection: sqlite3.Connection) -> bool:
    """Has SQLite nothing to say against the file? A large one is not read whole, which would take a card a minute."""
    try:
        return path.stat().st_size >= CHECKED_BYTES or connection.execute("pragma quick_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return False
        raise


def _newest_id(connection: sqlite3.Connection, table: str) -> int:
    return connection.execute(f"select max(id) from {table}").fetchone()[0] or 0


def _aside(path: Path) -> Path:
    """A name for what is set aside now."""
    return path.with_name(f"{path.stem}.damaged-{utc_text(time.time()).replace(':', '')}{path.suffix}")


def _newest_event_aside(path: Path) -> int:
    """A number that no event of the journals that were set aside beside this one is above; 0 where there are none.

    Of one that is damaged the greatest id is not to be had, or is not to be believed; so it is seconds since 1970 at least,
    of which more go by than events. Who has heard of an id takes a new event with that id for the old one.
    """
    aside = list(path.parent.glob(f"{path.stem}.damaged-*{path.suffix}"))
    return max([int(time.time()), *map(_newest_event_of_damaged, aside)]) if aside else 0


def _newest_event_of_damaged(path: Path) -> int:
    """What it says, if that can be; else 0. It counts where the clock was set back, as without a battery."""
    # Without a log beside it nothing is missed, and none is left there by who only reads.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    with suppress(sqlite3.Error):
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True)) as connection:
            newest = _newest_id(connection, "events")
        if isinstance(newest, int) and newest < LARGEST_ID:
            return newest
    return 0


def _forsake(connection: sqlite3.Connection, sides: dict[Path, tuple[int, int] | None]) -> None:
    """Let go of a journal that is no longer at its path: whoever moved it has all of it, and the path is free for another.

    sides: its -wal and -shm, which are touched only if no others have taken their places
    """
    with suppress(sqlite3.Error):
        connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    for side, known in sides.items():
        with suppress(OSError):
            # Of the file that is gone. Another one's rows would be overwritten with what is in them.
            if known is None or identity(side) != known:
                continue
            if side.name.endswith("-wal") and side.stat().st_size:  # a reader kept it
                aside = _aside(side.with_name(side.name[: -len("-wal")]))
                side.rename(aside.with_name(aside.name + "-wal"))
            else:
                side.unlink()
