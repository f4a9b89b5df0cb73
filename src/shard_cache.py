"""Shards of a remote folder on this disk: fetched whole, ahead of the reader, kept for the next epoch, bounded.

    cache = ShardCache(Path("~/.cache/birdcall/shards").expanduser(), max_bytes=20 << 30)
    for path in cache.in_order(["s3://b/p/shards/shard-00003.bin", ...], names): ...    # local files, in this order

A request to a bucket across the world costs 150 ms whatever it asks for: one request brings a whole shard, and AHEAD of them
are under way while others are read. The least recently used files go when there is no more room.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from src import storage
from src.errors import UserError
from src.files import written_whole

AHEAD = 24  # shards under way or waiting to be read
LINKED = 64  # shards that a reader may not have opened yet, or holds open: TensorFlow asks for names long before it opens them
LINGER_SECONDS = 120.0  # after a reader has been given its last name
ABANDONED_SECONDS = 3600.0  # a file under way that nobody has touched for so long is of a run that was killed
LINKS = ".reading-"


class ShardCache:
    """Files of a server on this disk. Several readers of one process share it; other processes may use the same folder.

    A reader is given hard links of its own: whoever makes room, what it was given stays readable.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        # What went wrong last: TensorFlow passes on the text of an error only, in a long one of its own.
        self.fault: Exception | None = None
        self._lock = threading.Lock()
        self._fetching: dict[str, Future] = {}
        self._wanted: dict[str, int] = {}  # names that are not to go, and how many readers wait for them
        self._pool: ThreadPoolExecutor | None = None
        self._done: list[tuple[float, tempfile.TemporaryDirectory]] = []

    def in_order(self, urls: Sequence[str], names: Sequence[str]) -> Iterator[Path]:
        """A local file for each URL, in order. names: what each is kept under; another content must have another name.

        A file may be read while the next LINKED ones are asked for. Raises UserError if the storage does not answer or the
        bound is too small to read ahead.
        """
        self._forget_readers()
        ahead: deque[tuple[str, str, Future]] = deque()
        waiting = iter(zip(urls, names))
        links = tempfile.TemporaryDirectory(
            prefix=f"{LINKS}{os.getpid()}-", dir=self.folder, ignore_cleanup_errors=True
        )
        given: deque[Path] = deque()
        try:
            while True:
                while len(ahead) < AHEAD and (next_one := next(waiting, None)):
                    ahead.append((*next_one, self._fetch(*next_one)))
                if not ahead:
                    return
                url, name, future = ahead[0]
                link = Path(links.name) / f"{len(given)}-{name.replace('/', '-')}"
                self._link(url, name, future, link)
                ahead.popleft()
                self._release(name)
                given.append(link)
                if len(given) > LINKED:
                    given[len(given) - LINKED - 1].unlink(missing_ok=True)
                yield link
        except (UserError, OSError) as error:
            self.fault = error
            raise
        finally:
            for _, name, _ in ahead:
                self._release(name)
            with self._lock:
                self._done.append((time.monotonic(), links))

    def _link(self, url: str, name: str, future: Future, link: Path) -> None:
        path = future.result()
        try:
            os.link(path, link)
        except FileNotFoundError:  # another process has made room in between
            os.link(self._bring(url, name), link)

    def _fetch(self, url: str, name: str) -> Future:
        with self._lock:
            self._wanted[name] = self._wanted.get(name, 0) + 1
            known = self._fetching.get(name)
            if known is None or known.cancelled() or (known.done() and known.exception()):
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="shards")
                self._fetching[name] = self._pool.submit(self._bring, url, name)
            return self._fetching[name]

    def _release(self, name: str) -> None:
        """One reader less waits for a file; the last one takes the request back if it has not begun."""
        with self._lock:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name]
                self._fetching.pop(name).cancel()

    def _bring(self, url: str, name: str) -> Path:
        path = self.folder / name
        try:
            os.utime(path)  # the time of use, by which the least recently used are found
            return path
        except FileNotFoundError:
            pass
        # A file that another reader gave up while it was under way may be brought twice: each under a name of its own.
        with written_whole(path) as temporary:
            storage.download(storage.place(url), temporary)
            with self._lock:
                self._make_room(temporary.stat().st_size)
        return path

    def _make_room(self, n_bytes: int) -> None:
        files = []
        for path in self.folder.glob("*/*.bin"):
            if path.parent.name.startswith(LINKS):
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if not path.name.startswith("."):
                files.append((stat.st_mtime_ns, stat.st_size, path))
            elif time.time() - stat.st_mtime > ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in files) + n_bytes
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            if path.relative_to(self.folder).as_posix() not in self._wanted:
                path.unlink(missing_ok=True)
                total -= size
        if total > self.max_bytes:
            raise UserError(
                f"{self.folder}: {self.max_bytes / 1e9:g} GB cannot hold the {AHEAD} shards that are read ahead; give more with "
                "--cache-gb"
            )

    def _forget_readers(self) -> None:
        """Remove the links of readers that are done, and of processes that are gone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            now = time.monotonic()
            for _, links in [entry for entry in self._done if now - entry[0] > LINGER_SECONDS]:
                links.cleanup()
            self._done = [entry for entry in self._done if now - entry[0] <= LINGER_SECONDS]
        for folder in self.folder.glob(f"{LINKS}*"):
            process = folder.name.removeprefix(LINKS).split("-")[0]
            if process.isdigit() and not Path("/proc", process).exists():
                for link in folder.iterdir():
                    link.unlink(missing_ok=True)
                folder.rmdir()
