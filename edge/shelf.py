"""Which clips there are, what they are called, and which of them goes first when room is short.

    shelf = Shelf(folder.clips)                  # reads the folder
    clip = Clip.of("amecro", 1795600805.0, 0.931, size=61_000)
    clip.relative                                # amecro/amecro_20261125T100005.000Z_0.93.flac
    shelf.least(clip)                            # the one that would have to make room for it

What a clip is worth. First rarity: the species with the most clips gives one up, so that each comes to as many as any other
and a rare one keeps all of its. Within that species probability decides, to the two digits of the name, and among equals
age: the oldest goes. The best clip of a species never goes. All that is in the names: no database is asked, and a folder
that was copied elsewhere still says what it holds.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.tables import utc_text

SUFFIX = ".flac"
LABEL_BYTES = 80  # of a file's name, which may have 255
NAME = re.compile(r"(?P<label>.+)_(?P<time>\d{8}T\d{6}\.\d{3}Z)_(?P<probability>\d\.\d\d)\.flac", re.DOTALL)
TIME = re.compile(r"(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\d\.\d{3}Z)")


def folder_name(label: str) -> str:
    """A species' folder: the label where that is an ordinary name, else what is ordinary of it, `~` and a hash.

    Labels are the users' own, "../x" and "" among them. Nothing but letters and digits of any script, - and _ is left, so
    none reaches out of the folder; eight digits of the hash keep apart those that would be the same.
    """
    kept = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in label)
    kept = kept.encode()[:LABEL_BYTES].decode("utf-8", "ignore")
    if kept == label and kept:
        return kept
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kept or '_'}~{digest[:8]}"


@dataclass(frozen=True, order=True)
class Clip:
    """A clip on the shelf. Clips of a species are in the order of their worth."""

    hundredths: int  # the event's probability
    time: str  # the event's start, as 20261125T100005.000Z
    folder: str  # the species', as folder_name gives it
    size: int  # bytes

    @classmethod
    def of(cls, label: str, utc_start: float, probability: float, size: int) -> Clip:
        """The clip of an event."""
        time = utc_text(utc_start).replace("-", "").replace(":", "")
        return cls(round(100 * probability), time, folder_name(label), size)

    @property
    def relative(self) -> str:
        """Where it lies, relative to the folder of clips."""
        whole, hundredths = divmod(self.hundredths, 100)
        return f"{self.folder}/{self.folder}_{self.time}_{whole}.{hundredths:02d}{SUFFIX}"

    @property
    def utc_start(self) -> str:
        """The event's start as the journal has it."""
        return TIME.sub(r"\1-\2-\3:\4:\5", self.time)


class Shelf:
    """The clips of a folder, by species. For one thread at a time.

    bytes: of all of them

    Raises OSError where the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.bytes = 0
        self._species: dict[str, list[Clip]] = {}  # heaps: the least first
        for path in folder.glob(f"*/*{SUFFIX}"):
            found = NAME.fullmatch(path.name)
            if found and found["label"] == path.parent.name and not path.name.startswith("."):
                hundredths = int(found["probability"].replace(".", ""))
                self.add(Clip(hundredths, found["time"], path.parent.name, path.stat().st_size))

    def __iter__(self) -> Iterator[Clip]:
        return (clip for clips in self._species.values() for clip in clips)

    def add(self, clip: Clip) -> None:
        """Put a clip on the shelf, whose name is not there yet."""
        heapq.heappush(self._species.setdefault(clip.folder, []), clip)
        self.bytes += clip.size

    def least(self, newcomer: Clip | None = None) -> Clip | None:
        """The clip that goes first, of those here and the newcomer, which may be it; None if none may go."""
        # Species of two clips or more, by what one of them would give up.
        candidates = []
        for folder, clips in self._species.items():
            comes = newcomer is not None and newcomer.folder == folder
            number = len(clips) + comes
            if number > 1:
                candidates.append((-number, min(clips[0], newcomer) if comes else clips[0]))
        return min(candidates)[1] if candidates else None

    def take(self, clip: Clip) -> None:
        """Take away a clip that `least` gave."""
        taken = heapq.heappop(self._species[clip.folder])
        assert taken == clip, (taken, clip)
        self.bytes -= clip.size


def free_the_disk(folder: Path, free_bytes: float) -> int:
    """Delete the clips of a folder that are worth least until so many bytes of its disk are free; gives how many went.

    For a listener's start: a journal that finds no room cannot be opened, though clips could make it. Their rows in the
    journal are mended when the clips are kept again (edge/keeper.py). Raises OSError where the disk does not let go of one.
    """
    if not folder.is_dir() or shutil.disk_usage(folder).free >= free_bytes:
        return 0
    shelf, deleted = Shelf(folder), 0
    while shutil.disk_usage(folder).free < free_bytes and (least := shelf.least()) is not None:
        (folder / least.relative).unlink(missing_ok=True)
        shelf.take(least)
        deleted += 1
    return deleted
