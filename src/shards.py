"""A folder of prepared windows, opened: log-mel images in shards, an index of them, and what became of each recording.

    prepared = open_prepared(folder)
    prepared.index        # a table, one row a window: shard, row, filename, ebird_code, call_score, transform, parent, ...
    prepared.status       # a table, one row a recording: ok, skipped or failed, and why

    <folder>/prepared.json                      where from, the recipe and the species; written last
    <folder>/index.parquet, status.csv          all shards together
    <folder>/shards/shard-00012.bin, .jsonl     see shard_files.py

The folder may be remote (s3://...): see storage.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pandas as pd

from src import storage
from src.errors import UserError
from src.recipe import Recipe
from src.shard_cache import ShardCache

if TYPE_CHECKING:
    from src.storage import Place

CACHE_GB = 20.0


@dataclass(frozen=True)
class Added:
    """Shards of a folder on this disk that come after the prepared ones: those from number `first` on."""

    folder: Path
    first: int


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared windows, opened.

    source: where the recordings are, as layouts.DataSource gives it
    contents: a checksum of each shard; cache: where shards of a remote folder are kept
    added: windows that were made of these, with the last shards and the last rows of the index; None: none were
    index: columns window (number, the rows' order), shard, row, filename, ebird_code ("nocall" for a quiet window too), others
        (species labelled in this very window beside it), secondary (species that may be in it), channel, start_seconds,
        audio_seconds, call_score (dB, see calls.py), transform ("" for an original), parameters (JSON), background (the clip
        mixed in), parent (the original's number; its own for one)
    status: columns filename, ebird_code, status, reason, seconds, windows, labelled (a checksum of its labels), digest (of all
        its windows, kept or not: equal for the same audio)
    """

    folder: Place
    recipe: Recipe
    labels: tuple[str, ...]
    index: pd.DataFrame
    status: pd.DataFrame
    source: dict = field(default_factory=dict)
    contents: tuple[str, ...] = ()
    cache: ShardCache | None = None
    added: Added | None = None

    @property
    def own_contents(self) -> tuple[str, ...]:
        """The checksums of the prepared shards, without those that were added to them."""
        return self.contents if self.added is None else self.contents[: self.added.first]

    @property
    def digest(self) -> str:
        """SHA-256 of the prepared windows: of their shards' checksums. What is added is of one fold's training alone."""
        return sha256("\n".join(self.own_contents).encode()).hexdigest()

    def local_shards(self, shards: Sequence[int]) -> Iterator[str]:
        """The paths of some shards' windows on this disk, in order; those of a remote folder are fetched ahead."""
        remote = [shard for shard in shards if storage.is_remote(self.shard_path(shard))]
        paths = [self.shard_path(shard) for shard in remote]
        prefix = sha256(str(self.folder).encode()).hexdigest()[:16]
        names = [f"{prefix}/{path.stem}-{self.contents[shard]}.bin" for shard, path in zip(remote, paths)]
        fetched = iter(self.cache.in_order([str(path) for path in paths], names)) if remote else iter(())
        for shard in shards:
            path = self.shard_path(shard)
            yield str(next(fetched) if storage.is_remote(path) else path)

    def shard_path(self, shard: int) -> Place:
        """The file of a shard's windows."""
        is_added = self.added is not None and shard >= self.added.first
        return shard_stem(self.added.folder if is_added else self.folder, shard).with_suffix(".bin")

    def check_unchanged(self) -> None:
        """Raise UserError if the folder has been prepared anew since it was opened: its index would be of other windows."""
        try:
            contents = json.loads(storage.read_text(self.folder / "prepared.json"))["contents"]
        except (OSError, ValueError, KeyError):
            contents = None
        if contents != list(self.own_contents):
            raise UserError(f"{self.folder}: is being prepared anew; wait until prepare.py is done and run this again")

    def alike(self) -> list[list[str]]:
        """Groups of file names that hold the same audio, whatever their tags."""
        heard = self.status[self.status.digest != ""]
        groups = [sorted(names) for _, names in heard.groupby("digest").filename if len(names) > 1]
        return sorted(groups)

    @property
    def window_bytes(self) -> int:
        """Size of one stored window."""
        mels, frames = self.recipe.image_shape
        return mels * frames


def default_cache(folder: Path | None = None, gigabytes: float = CACHE_GB) -> ShardCache:
    """Where shards of remote folders are kept: in the user's cache folder unless another is given."""
    return ShardCache(folder or storage.user_cache() / "shards", round(gigabytes * 1e9))


def shard_stem(folder: Place, number: int) -> Place:
    """A shard's files without their suffix."""
    return folder / "shards" / f"shard-{number:05d}"


def open_prepared(folder: Place, cache: ShardCache | None = None) -> Prepared:
    """Open a prepared folder. Raises UserError if it is not there whole."""
    try:
        described = json.loads(storage.read_text(folder / "prepared.json"))
        prepared = Prepared(
            folder=folder,
            recipe=Recipe.from_dict(described["recipe"]),
            labels=tuple(described["labels"]),
            index=pd.read_parquet(BytesIO(storage.read_bytes(folder / "index.parquet"))),
            status=pd.read_csv(BytesIO(storage.read_bytes(folder / "status.csv")), keep_default_na=False),
            source=described["source"],
            contents=tuple(described["contents"]),
            cache=cache or default_cache(),
        )
        found = storage.listing(folder / "shards")
        for shard, windows in prepared.index.groupby("shard").size().items():
            name = prepared.shard_path(shard).name
            if name not in found or found[name].size != windows * prepared.window_bytes:
                raise ValueError(f"{prepared.shard_path(shard)} is not of the index's size")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: no whole set of prepared windows there; run prepare.py with the same --recipe ({error})"
        ) from error
    return prepared


def labelled(recordings: pd.DataFrame) -> list[str]:
    """A checksum of each recording's labels."""
    columns = zip(recordings.ebird_code, recordings.secondary, recordings.events)
    return [f"{crc32('|'.join(labels).encode()):08x}" for labels in columns]


def check_labels(prepared: Prepared, recordings: pd.DataFrame) -> None:
    """Raise UserError if a recording's labels are not those its windows were prepared with."""
    used = prepared.status[prepared.status.windows > 0]
    then = used.set_index("filename").labelled
    usable = recordings[recordings.fault == ""]
    now = dict(zip(usable.filename, labelled(usable)))
    changed = [name for name in then.index if name in now and now[name] != then[name]]
    if changed:
        raise UserError(
            f"{prepared.folder}: the labels of {len(changed)} recordings, {changed[0]} among them, have changed since it was "
            "prepared; run prepare.py again"
        )
