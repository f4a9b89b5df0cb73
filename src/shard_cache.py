"""Shards of a remote folder on this disk: fetched whole, ahead of the reader, kept for the next epoch, bounded.

    cache = ShardCache(Path("~/.cache/birdcall/shards").expanduser(), max_bytes=20 << 30)
    for path in cache.in_order(["s3://b/p/shards/shard-00003.bin", ...], names): ...    # local files, in this order

A request to a bucket across the world costs 150 ms whatever it asks for: one request brings a whole shard, and AHEAD of them
are under way while others are read. The least recently used files go when there is no more room.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from src import storage
from src.errors import UserError
from src.files import written_whole

AHEAD = 24  # shards under way or waiting to be read
ABANDONED_SECONDS = 3600.0
READ_AT_ONCE = 12  # shards that the reader may hold open


class ShardCache:
    """Files of a server on this disk. Several readers of one process share it; other processes may use the same folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.fault: Exception | None = (
            None  # what went wrong last: TensorFlow passes on its text, in a long one of its own
        )
        self._lock = threading.Lock()
        self._fetching: dict[str, Future] = {}
        self._wanted: dict[str, int] = {}  # names that are not to go, and how many readers want them
        self._pool: ThreadPoolExecutor | None = None

    def in_order(self, urls: Sequence[str], names: Sequence[str]) -> Iterator[Path]:
        """The local file of each URL, in order. names: what each is kept under; another content must have another name.

        Raises UserError if the storage does not answer or the bound is too small to read ahead.
        """
        ahead: list[tuple[str, Future]] = []
        waiting = iter(zip(urls, names))
        recent: list[str] = []
        try:
            while True:
                while len(ahead) < AHEAD and (next_one := next(waiting, None)):
                    ahead.append((next_one[1], self._fetch(*next_one)))
                if not ahead:
                    return
                name, future = ahead.pop(0)
                try:
                    path = future.result()
                except (UserError, OSError) as error:
                    self.fault = error
                    raise
                yield path
                recent.append(name)
                if len(recent) > READ_AT_ONCE:
                    self._release(recent.pop(0))
        finally:
            for name, future in ahead:
                future.cancel()
                recent.append(name)
            for name in recent:
                self._release(name)

    def _fetch(self, url: str, name: str) -> Future:
        with self._lock:
            self._wanted[name] = self._wanted.get(name, 0) + 1
            if name not in self._fetching or self._fetching[name].cancelled():
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="shards")
                self._fetching[name] = self._pool.submit(self._bring, url, name)
            return self._fetching[name]

    def _release(self, name: str) -> None:
        with self._lock:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name]
                self._fetching.pop(name, None)

    def _bring(self, url: str, name: str) -> Path:
        path = self.folder / name
        try:
            os.utime(path)  # the time of use, by which the least recently used are found
            return path
        except FileNotFoundError:
            pass
        content = storage.read_bytes(storage.place(url))
        with self._lock:
            self._make_room(len(content))
        # Threads of one process would share written_whole's temporary name if two brought one file; _fetch does not let them.
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
        return path

    def _make_room(self, n_bytes: int) -> None:
        files = []
        for path in self.folder.rglob("*.bin") if self.folder.is_dir() else ():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.name.startswith("."):
                # Under way; what a reader that was killed left of it is of no use to anybody.
                if time.time() - stat.st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
                continue
            files.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in files) + n_bytes
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            if path.relative_to(self.folder).as_posix() not in self._wanted:
                path.unlink(missing_ok=True)
                total -= size
        if total > self.max_bytes:
            raise UserError(
                f"{self.folder}: {self.max_bytes / 1e9:g} GB cannot hold the {AHEAD + READ_AT_ONCE} shards that are read ahead; "
                "give more with --cache-gb"
            )
