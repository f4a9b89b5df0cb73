"""Files that are not on this disk: `s3://bucket/prefix` beside ordinary folders, by fsspec.

    folder = place("s3://birds/train")             # a path with pathlib's methods; place("input/birds") is a plain Path
    listing(folder)                                # {"train.csv": Stamp(size=1234, changed="..."), ...}
    with local_copy(folder / "XC1.mp3") as path:   # a file on this disk: the file itself, or a copy for as long as it is needed

Credentials and the endpoint come from the usual variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ...) or
from `configure`. A folder mounted by s3fs-fuse is an ordinary folder. Protocols other than s3 work where fsspec knows them.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

from src.errors import UserError
from src.files import written_whole

if TYPE_CHECKING:
    from upath import UPath

    Place = Union[Path, UPath]

TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}  # seconds: a server that is not there is said within a minute


class Stamp(NamedTuple):
    """What tells a changed file from an unchanged one: its size in bytes and its time of change (or the server's ETag)."""

    size: int
    changed: str


def configure(options: Sequence[str]) -> None:
    """Take `KEY=VALUE` options for fsspec's s3 file system (endpoint_url, key, secret, anon, ...), here and in child processes.

    Raises UserError for one that is not of this form.
    """
    values = dict(json.loads(os.environ.get("FSSPEC_S3", "{}")))
    for option in options:
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise UserError(f"--storage-option {option}: must be KEY=VALUE, as in endpoint_url=http://localhost:9000")
        values[key] = {"true": True, "false": False}.get(value.lower(), value)
    # Through the environment, since worker processes start anew and have to know them too.
    if values:
        os.environ["FSSPEC_S3"] = json.dumps(values)
        import fsspec.config

        fsspec.config.set_conf_env(fsspec.config.conf)


def is_remote(path: Place | str) -> bool:
    """Whether a path is a URL, so that it must be fetched before a library can open it."""
    return "://" in str(path)


def place(text: Place | str) -> Place:
    """A folder or file by its path or URL. Raises UserError for a protocol that is not installed."""
    if not is_remote(text):
        return Path(text)
    from upath import UPath

    try:
        return UPath(text, config_kwargs=TIMEOUTS) if str(text).startswith("s3://") else UPath(text)
    except (ValueError, ImportError) as error:
        raise UserError(f"{text}: {error}") from error


def absolute(text: str) -> str:
    """A path as it stays right in another working directory; a URL, or "" for none, as it is."""
    return str(Path(text).resolve()) if text and not is_remote(text) else text


def user_cache() -> Path:
    """The folder on this disk for what can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "birdcall"


def name_of(folder: Place) -> str:
    """The last part of a folder's path or URL."""
    return str(folder).rstrip("/").rsplit("/", 1)[-1] if is_remote(folder) else folder.resolve().name


@contextmanager
def reachable(path: Place | str) -> Iterator[None]:
    """Turn the many errors of a storage server into a UserError that names the path. A file that is absent stays OSError."""
    if not is_remote(path):
        yield
        return
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (FileNotFoundError, PermissionError):  # one file's fault
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # this disk's
            raise
        raise _unreachable(path, error) from error
    except (BotoCoreError, ClientError, HttpError) as error:
        raise _unreachable(path, error) from error


def _unreachable(path: Place | str, error: Exception) -> UserError:
    return UserError(
        f"{path}: the storage does not answer ({type(error).__name__}: {error}); look at AWS_ENDPOINT_URL, the "
        "credentials and --storage-option"
    )


def listing(folder: Place) -> dict[str, Stamp]:
    """All files under a folder by their path relative to it ("a/b.mp3"), sorted. Remote: one request a thousand files.

    A folder that is named like an audio file is listed too, with size -1, so that it is named and not passed over.
    Raises FileNotFoundError if the folder is not there.
    """
    if not is_remote(folder):
        return _local_listing(Path(folder))
    with reachable(folder):
        prefix = folder.path.rstrip("/") + "/"
        found = folder.fs.find(folder.path, detail=True)
    if not found:
        raise FileNotFoundError(2, "No such folder", str(folder))
    stamps = {
        path.removeprefix(prefix): Stamp(int(entry["size"]), str(entry.get("ETag") or entry.get("LastModified", "")))
        for path, entry in found.items()
    }
    return dict(sorted(stamps.items()))


def _local_listing(folder: Path) -> dict[str, Stamp]:
    if not folder.is_dir():
        raise FileNotFoundError(2, "No such folder", str(folder))
    found = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        relative = Path(parent).relative_to(folder)
        for name in (*names, *(name for name in folders if Path(name).suffix)):
            key = (relative / name).as_posix()
            try:
                stat = Path(parent, name).stat()
            except OSError:
                found[key] = Stamp(-1, "")  # a dangling link: opening it says why
                continue
            found[key] = Stamp(-1 if name in folders else stat.st_size, str(stat.st_mtime_ns))
    return dict(sorted(found.items()))


@contextmanager
def local_copy(path: Place | str) -> Iterator[Path]:
    """A file on this disk with the content of `path`; a copy of a remote one is removed afterwards. One request."""
    if not is_remote(path):
        yield Path(path)
        return
    remote = place(path)
    with tempfile.TemporaryDirectory(prefix="birdcall-") as folder:
        copy = Path(folder) / remote.name
        download(remote, copy)
        yield copy


def read_bytes(path: Place) -> bytes:
    """A file's content. Raises OSError if it is absent, UserError if the storage does not answer."""
    with reachable(path):
        return path.fs.cat_file(path.path) if is_remote(path) else path.read_bytes()


def read_text(path: Place) -> str:
    """A UTF-8 file's text; errors as `read_bytes`."""
    return read_bytes(path).decode("utf-8")


@contextmanager
def written(path: Place) -> Iterator[Path]:
    """Give a temporary file on this disk; put it at `path`, whole, if the block ends well. As files.written_whole, anywhere."""
    if not is_remote(path):
        with written_whole(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory(prefix="birdcall-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        upload(temporary, path)


def download(path: Place, local: Path) -> None:
    """Copy a remote file to this disk, by one request, without holding it in memory."""
    with reachable(path):
        path.fs.get_file(path.path, str(local))


def upload(local: Path, path: Place) -> None:
    """Put a file there, whole or not at all (an object store shows an object only once all of it has come)."""
    with reachable(path):
        path.fs.put_file(str(local), path.path)
