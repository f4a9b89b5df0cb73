"""Clips of what was heard, as FLAC, within a budget of the disk; none of it can hold the listener up.

    with Keeper(folder.clips, journal, window_seconds=5.0, clip_seconds=11.0, keep_bytes=8e9, free_bytes=1e9) as keeper:
        keeper.hear(mono, first_frame, sample_rate)          # every block
        for event in changes.closed:                         # after journal.record(changes)
            keeper.closed(event)

A clip is the best window of an event with some seconds before and after, at the source's own rate. It is written under a
temporary name, flushed and renamed: whole, or not there. Before that the clips that are worth least make room (edge/shelf.py
says which those are): all clips take `keep_bytes` at most, and `free_bytes` of the disk stay free for the journal. Where none
may go, clips are not kept until there is room again, and counted; listening goes on.

`hear` and `closed` belong to the listener's thread and copy memory, no more. Encoding and the disk are a thread's own; between
them is a queue of MOST_QUEUED clips. The thread never asks the database: what a clip is worth is in its name, and rows are
changed through Journal.set_clip and clear_clip, which only append to what the journal writes next.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from edge.events import LONGEST_SECONDS, Event
from edge.journal import Journal
from edge.shelf import SUFFIX, Clip, Shelf, folder_name
from edge.tape import Tape
from src.errors import UserError
from src.files import written_whole

MOST_QUEUED = 16  # clips; of 11 s at 48 kHz they are 17 MB
MOST_WAITED_FOR = 2  # where `closed` waits, more would be memory for nothing
LOOK_SECONDS = 30.0  # between two looks at the disk's free space, where no clip comes
CLOSE_SECONDS = 1.5  # for the clips that still wait at the end; then they are lost


class Keeper:
    """Keeps clips from `with` to its end.

    window_seconds: of the model; longest_seconds: of an event, whose best window must still be on the tape when it ends
    clip_seconds: how long a clip is, with the best window in its middle; no shorter than that
    keep_bytes, free_bytes: what all clips may take, and what they leave free on the disk
    wait_seconds: how long `closed` waits for a disk that is behind; 0 for a microphone, which does not wait
    say: where a sentence goes when clips can no longer be kept, and when they can again

    kept, lost: clips written, and those that could not be; withheld: what was not to be kept (`withhold`)
    passed_over: clips not written, since all on the disk are worth more and there is no room
    bytes: of all clips

    Raises UserError where the folder cannot be made or read.
    """

    def __init__(
        self,
        clips: Path,
        journal: Journal,
        window_seconds: float,
        clip_seconds: float,
        keep_bytes: float,
        free_bytes: float,
        longest_seconds: float = LONGEST_SECONDS,
        wait_seconds: float = 0.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.kept = self.lost = self.withheld = self.passed_over = 0
        self._folder = Path(clips)
        self._journal = journal
        self._window_seconds = window_seconds
        self._wait_seconds = wait_seconds
        self._around_seconds = max(0.0, (clip_seconds - window_seconds) / 2)
        self._keep_bytes, self._free_bytes = keep_bytes, free_bytes
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        # An event is known to be over a window and a hop after its last one at the latest, and a slow model comes late.
        self._tape = Tape(longest_seconds + 4 * window_seconds + 2 * self._around_seconds)
        self._queue: queue.Queue[tuple[Event, np.ndarray, int] | None] = queue.Queue(
            MOST_WAITED_FOR if wait_seconds > 0 else MOST_QUEUED
        )
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._ending = threading.Event()
        self._trouble = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shelf = self._put_in_order()
        except OSError as error:
            raise UserError(f"{self._folder}: clips cannot be kept there: {error.strerror}") from error

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        with contextlib.suppress(queue.Full):  # the thread looks at `_ending` then
            self._queue.put_nowait(None)
        self._thread.join(CLOSE_SECONDS)
        self.lost += sum(item is not None for item in self._queue.queue)

    @property
    def bytes(self) -> int:
        """What all clips take."""
        return self._shelf.bytes

    def hear(self, block: np.ndarray, first_frame: int, sample_rate: int) -> None:
        """Take mono audio as it comes, float32 [frames] or [frames, 1], its frames numbered as the source does."""
        self._tape.hear(block.reshape(-1), first_frame, sample_rate)

    def withhold(self, first_frame: int, end_frame: int) -> None:
        """No clip may have any of these frames, somebody spoke: clips end before them, or are not made. Of audio heard."""
        self._tape.withhold(first_frame, end_frame)

    def closed(self, event: Event, until_frame: int | None = None) -> None:
        """Keep the clip of an event that is over; `until_frame`: the clip has nothing from there on.

        Before another source is heard, or its frames would be taken for this event's.
        """
        rate = self._tape.sample_rate
        best = round(event.best_offset_seconds * rate)
        best_end = min(best + round(self._window_seconds * rate), self._tape.end)  # a file's last window may be short
        around = round(self._around_seconds * rate)
        end = best_end + around if until_frame is None else min(best_end + around, until_frame)
        if self._tape.withheld(best, best_end):
            self.withheld += 1
            return
        samples = self._tape.cut(best - around, end, best, best_end)
        try:
            if samples is None:
                self.lost += 1
            else:
                self._queue.put((event, samples, rate), self._wait_seconds > 0, self._wait_seconds)
        except queue.Full:
            self.lost += 1

    def _put_in_order(self) -> Shelf:
        """What is there, after taking away what a kill left half done; each clip and its row know of each other again."""
        for left in self._folder.glob(f"*/.*.part{SUFFIX}"):
            left.unlink(missing_ok=True)
        shelf = Shelf(self._folder)
        without_row = {clip.relative: clip for clip in shelf}
        without_file = [relative for relative in self._journal.clips() if without_row.pop(relative, None) is None]
        for number, relative in enumerate(without_file, start=1):  # all of them, where the folder was moved away
            self._journal.clear_clip(relative)
            if number % 1000 == 0:
                self._journal.flush()
        for number, clip in enumerate(without_row.values(), start=1):  # renamed, and killed before the row was written
            for event_id, species in self._journal.events_without_clip(clip.utc_start):
                if folder_name(species) == clip.folder:
                    self._journal.set_clip(event_id, clip.relative)
            if number % 1000 == 0:
                self._journal.flush()
        self._journal.flush()
        return shelf

    def _work(self) -> None:
        """The thread's life."""
        while not self._ending.is_set() or not self._queue.empty():
            try:
                item = self._queue.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                item = None
            try:
                if item is None:
                    self._make_room()
                else:
                    self._keep(*item)
            except Exception as error:  # whatever it is, the next clip is tried: the box is alone for a month
                self.lost += item is not None
                self._in_trouble(f"{type(error).__name__}: {error}")

    def _keep(self, event: Event, samples: np.ndarray, rate: int) -> None:
        for later in itertools.count():  # of one time, where the clock was set back, or two recordings began together
            utc_start = event.utc_start + later / 1000
            likely = Clip.of(
                event.species, utc_start, event.probability, size=len(samples)
            )  # FLAC halves 16 bits of forest
            if not (self._folder / likely.relative).exists():
                break
        if self._room_for(likely.size) < 0 and self._shelf.least(likely) is likely:
            self.passed_over += 1  # before the work, since where a disk is full that is what most clips are
            return
        encoded = io.BytesIO()  # not straight to the disk: libsndfile does not say that it is full
        soundfile.write(encoded, samples, rate, subtype="PCM_16", format="FLAC")
        content = encoded.getbuffer()
        clip = replace(likely, size=len(content))
        path = self._folder / clip.relative
        if not self._make_room(clip):
            return
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
        self._shelf.add(clip)
        self._journal.set_clip(event.id, clip.relative)
        self.kept += 1
        if self._trouble:
            self._trouble = ""
            self._say(f"{self._folder}: clips are kept again; {self.lost} were lost since the start")

    def _room_for(self, size: int) -> float:
        """Bytes that are left when a clip of so many is written; below 0: too few. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have emptied the record
        disk_free_bytes = shutil.disk_usage(self._folder).free
        return min(self._keep_bytes - self._shelf.bytes, disk_free_bytes - self._free_bytes) - size

    def _make_room(self, newcomer: Clip | None = None) -> bool:
        """Take away what is worth least until the newcomer fits; False, and counted, if that is itself or none may go.

        Raises OSError where the disk does not let go of a clip.
        """
        while self._room_for(newcomer.size if newcomer else 0) < 0:
            least = self._shelf.least(newcomer)
            if least is None:
                if newcomer is not None:
                    self.lost += 1
                    limits = f"--keep-gb {self._keep_bytes / 1e9:g} and --free-gb {self._free_bytes / 1e9:g}"
                    self._in_trouble(f"there is no room within {limits}, and no clip that is there may go")
                return False
            if least is newcomer:
                self.passed_over += 1
                return False
            (self._folder / least.relative).unlink(missing_ok=True)
            self._shelf.take(least)
            self._journal.clear_clip(least.relative)
        return True

    def _in_trouble(self, what: str) -> None:
        if not self._trouble:
            self._say(f"{self._folder}: clips cannot be kept now: {what}; listening goes on")
        self._trouble = what
