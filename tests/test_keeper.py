"""Clips: the audio of an event's best window, whole or absent, within what the disk may be used for.

Real FLAC files, real threads, a real journal; a disk that is really full is in test_record_faults.py.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from edge import keeper as keeper_module
from edge.events import Changes, Event
from edge.journal import Journal, read_only, utc_text
from edge.keeper import Keeper
from edge.shelf import Clip, Shelf, folder_name
from edge.tape import Tape
from src.errors import UserError

UTC = 1_795_600_805.0  # 2026-11-25T10:00:05Z
RATE, WINDOW, CLIP = 8000, 1.0, 2.0  # Hz, s, s: half a second before and after
labels = st.one_of(
    st.text(max_size=200), st.sampled_from(["", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b", "-rf", "~"])
)


def song(seconds: float = 20.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Noise of 16 bits, as float32: no two places in it are alike."""
    noise = np.random.default_rng(seed).integers(-20000, 20000, round(seconds * rate))
    return (noise / 32768).astype(np.float32)


def event(number: int, best: float = 5.0, species: str = "robin", probability: float = 0.93, **more: object) -> Event:
    """An event of one window, which begins at `best` seconds."""
    start = UTC + 100 * number
    return Event(number, start, start + WINDOW, species, probability, 1, "b6", "usb", best, start, best, True, **more)


class Record:
    """A journal and what keeps its clips; `keep` is what the listener does with an event that is over."""

    def __init__(self, folder: Path) -> None:
        self.clips = folder / "clips"
        self.said: list[str] = []
        self.journal = Journal(folder / "journal.sqlite", self.said.append)

    def keeper(self, keep_bytes: float = 1e9, free_bytes: float = 0.0, **more: object) -> Keeper:
        options = {"wait_seconds": 10.0, "say": self.said.append, **more}
        return Keeper(self.clips, self.journal, WINDOW, CLIP, keep_bytes, free_bytes, **options)

    def keep(self, keeper: Keeper, *events: Event) -> None:
        for each in events:
            self.journal.record(Changes(events=(each,)))
            keeper.closed(each)

    def rows(self) -> dict[int, str | None]:
        """Which clip each event has."""
        self.journal.flush()
        with closing(read_only(self.journal.path)) as connection:
            return dict(connection.execute("select id, clip from events").fetchall())

    def files(self) -> set[str]:
        return {str(path.relative_to(self.clips)) for path in self.clips.rglob("*") if path.is_file()}


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path)
    with record.journal:
        yield record


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# A clip.


def test_two_events_of_one_species_that_began_at_one_time_have_a_clip_each(record):
    """As two recordings of a date do that are played one after the other, or a month that is played twice."""
    with record.keeper() as keeper:
        keeper.hear(song(20.0, 8000)[:, None], 0, 8000)
        record.keep(keeper, event(1), replace(event(1), id=2))
        wait_for(lambda: keeper.kept == 2)
    assert len(record.files()) == 2 and set(record.rows().values()) == record.files() and keeper.lost == 0


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_a_clip_is_the_best_window_and_what_is_around_it_at_the_source_s_own_rate(record, rate):
    heard = song(8.0, rate)
    with record.keeper() as keeper:
        for first in range(0, len(heard), 1111):  # in blocks of an odd length, as they come
            keeper.hear(heard[first : first + 1111, None], first, rate)
        record.keep(keeper, replace(event(1, best=0.0), best_offset_seconds=5.0))
    (name,) = record.files()
    assert name == "robin/robin_20261125T100145.000Z_0.93.flac" and record.rows() == {1: name}
    found, found_rate = soundfile.read(record.clips / name, dtype="float32")
    assert found_rate == rate
    np.testing.assert_array_equal(found, heard[round(4.5 * rate) : round(6.5 * rate)])
    assert (keeper.kept, keeper.lost, keeper.bytes) == (1, 0, (record.clips / name).stat().st_size)


@pytest.mark.parametrize(
    ("best", "begins", "ends"),
    [
        (0.2, 0.0, 1.7),  # heard from 0 s on
        (18.9, 18.4, 20.0),  # to 20 s
        (19.5, 19.0, 20.0),  # a file's last window is short
        (7.6, 8.0 - 0.4, 9.1),  # 7.1 to 7.6 s were lost, up to the window itself
        (6.0, 5.5, 7.1),
    ],
)
def test_a_clip_has_as_much_around_its_window_as_there_is_without_a_break(record, best, begins, ends):
    heard = song()
    with record.keeper() as keeper:
        keeper.hear(heard[: round(7.1 * RATE)], 0, RATE)
        keeper.hear(heard[round(7.6 * RATE) :], round(7.6 * RATE), RATE)
        record.keep(keeper, event(1, best))
    (name,) = record.files()
    found, _ = soundfile.read(record.clips / name, dtype="float32")
    np.testing.assert_array_equal(found, heard[round(begins * RATE) : round(ends * RATE)])


@pytest.mark.parametrize("best", [6.5, 7.05, 30.0, -9.0])
def test_a_window_that_is_not_whole_on_the_tape_has_no_clip_and_is_counted_as_lost(record, best):
    with record.keeper() as keeper:
        keeper.hear(song(7.1), 0, RATE)
        keeper.hear(song(2.0), 8 * RATE, RATE)
        record.keep(keeper, event(1, best))
    assert (keeper.lost, keeper.withheld, keeper.kept) == (1, 0, 0) and not record.files()


def test_what_was_said_by_a_person_is_in_no_clip(record):
    heard = song()
    with record.keeper() as keeper:
        keeper.hear(heard, 0, RATE)
        keeper.withhold(3 * RATE, 4 * RATE)
        keeper.withhold(round(6.2 * RATE), round(9.2 * RATE))
        record.keep(keeper, event(1, 4.3), event(2, 5.0), event(3, 6.0), event(4, 2.5), event(5, 9.2))
        record.journal.record(Changes(events=(event(6, 15.0),)))
        keeper.closed(event(6, 15.0), until_frame=round(16.1 * RATE))  # after that nobody has listened for speech yet
    assert (keeper.kept, keeper.withheld, keeper.lost) == (4, 2, 0)
    clips = record.rows()
    assert clips[3] is None and clips[4] is None
    for number, begins, ends in [(1, 4.0, 5.8), (2, 4.5, 6.2), (5, 9.2, 10.7), (6, 14.5, 16.1)]:
        found, _ = soundfile.read(record.clips / clips[number], dtype="float32")
        np.testing.assert_array_equal(found, heard[round(begins * RATE) : round(ends * RATE)])


def test_a_clip_of_an_event_as_long_as_may_be_is_still_on_the_tape_when_that_ends(record):
    heard = song(40.0)
    with record.keeper(longest_seconds=30.0) as keeper:
        for first in range(0, len(heard), RATE):
            keeper.hear(heard[first : first + RATE], first, RATE)
        record.keep(keeper, event(1, best=9.0))  # it ended at 39 s
    assert keeper.kept == 1


def test_what_is_no_number_or_beyond_full_scale_does_no_harm(record):
    heard = song(3.0)
    heard[RATE : RATE + 4] = [np.nan, np.inf, -np.inf, 3.0]
    with record.keeper() as keeper:
        keeper.hear(heard, 0, RATE)
        record.keep(keeper, event(1, best=1.0))
    (name,) = record.files()
    found, _ = soundfile.read(record.clips / name, dtype="float32")
    assert found[RATE // 2 : RATE // 2 + 4].tolist() == pytest.approx([0, 1, -1, 1], abs=1e-4)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 120)), max_size=20), st.integers(-5, 600), st.integers(1, 60)
)
def test_the_tape_gives_the_frames_that_were_heard_and_only_unbroken_ones(blocks, first, length):
    tape, heard, position = Tape(seconds=0.1), {}, 0  # 100 frames
    for lost, count in blocks:
        position += lost
        numbers = np.arange(position, position + count)
        heard.update((number, number) for number in numbers.tolist())
        tape.hear((numbers / 32768).astype(np.float32), position, 1000)
        position += count
    there = {number for number in heard if number >= position - 100}
    found = tape.cut(first - 20, first + length + 20, first, first + length)
    if not set(range(first, first + length)) <= there:
        assert found is None
        return
    begins, ends = first, first + length
    while begins - 1 in there and begins > first - 20:
        begins -= 1
    while ends in there and ends < first + length + 20:
        ends += 1
    assert found.tolist() == list(range(begins, ends))


def test_what_is_off_the_tape_is_forgotten_with_all_that_was_to_be_known_of_it():
    tape = Tape(seconds=1.0)
    for second in range(5):
        tape.withhold(second * 1000, second * 1000 + 500)
        tape.hear(song(1.0, 1000), second * 1000, 1000)
    assert tape.withheld(4000, 5000) and not tape.withheld(0, 4000)


def test_a_source_that_begins_anew_erases_the_tape():
    for rate, first in [(8000, 0), (16000, 9000)]:
        tape = Tape(seconds=10)
        tape.hear(song(1.0), 0, 8000)
        tape.hear(song(1.0), first, rate)
        assert tape.cut(first, first + 100, first, first + 100) is not None
        assert (tape.cut(0, 8000, 7000, 8000) is None) == (first > 0)


# Names.


@given(labels)
def test_no_label_reaches_out_of_the_folder_of_clips_or_breaks_a_name(label):
    clip = Clip.of(label, UTC, 0.934, 7)
    folder, name = clip.relative.split("/")
    assert folder == folder_name(label) and folder not in ("", ".", "..") and not folder.startswith(".")
    assert all(letter.isalnum() or letter in "-_~" for letter in folder)
    assert name == f"{folder}_20261125T100005.000Z_0.93.flac"
    assert len(f".{name}.4194304-4194304.part".encode()) <= 255  # the temporary name, too
    assert clip.utc_start == utc_text(UTC)


@given(st.lists(labels, unique=True, max_size=20))
def test_labels_that_differ_have_folders_that_differ(labels):
    assert len({folder_name(label) for label in labels}) == len(labels)


@pytest.mark.parametrize("label", ["amecro", "Turdus_merula", "Grand-duc", "黒鶫", "Übeltäter"])
def test_an_ordinary_label_is_its_own_folder(label):
    assert folder_name(label) == label


def test_a_clip_of_a_label_that_is_a_path_lies_in_the_folder_and_is_known_again_after_a_restart(record, tmp_path):
    species = ["../../x", "a/b", "", ".hidden", "a\nb", "x" * 300]
    with record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, *(event(number, species=label) for number, label in enumerate(species, start=1)))
    clips = record.rows()
    assert set(clips.values()) == record.files() and None not in clips.values()
    assert {path.name for path in tmp_path.iterdir() if "journal" not in path.name} == {"clips"}
    assert {clip.relative for clip in Shelf(record.clips)} == record.files()


# What is kept where room is short.

clips = st.builds(
    Clip.of,
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 10**6).map(float),
    st.sampled_from([0.5, 0.7, 0.9]),
    st.just(9),
)


@given(st.lists(clips, unique=True, max_size=30), st.one_of(st.none(), clips))
def test_the_species_with_the_most_clips_gives_up_its_least_and_never_its_best(tmp_path_factory, held, newcomer):
    shelf = Shelf(tmp_path_factory.getbasetemp() / "nosuch")
    for clip in held:
        shelf.add(clip)
    best = {folder: max(clip for clip in held if clip.folder == folder) for folder in {clip.folder for clip in held}}
    while (least := shelf.least()) is not None:
        before = list(shelf)
        numbers = Counter(clip.folder for clip in before)
        assert numbers[least.folder] == max(numbers.values())
        assert least == min(clip for clip in before if clip.folder == least.folder)
        shelf.take(least)
        assert Counter(shelf) == Counter(before) - Counter([least])
        assert shelf.bytes == 9 * (len(before) - 1)
    assert Counter(shelf) == Counter(best.values())


def test_probability_decides_within_a_species_and_among_equals_age(tmp_path):
    shelf = Shelf(tmp_path)
    for start, probability in [(300.0, 0.9), (100.0, 0.9), (200.0, 0.95), (400.0, 0.6)]:
        shelf.add(Clip.of("robin", start, probability, 1))
    order = []
    while (least := shelf.least()) is not None:
        shelf.take(least)
        order.append((least.hundredths, least.time[9:15]))
    assert order == [(60, "000640"), (90, "000140"), (90, "000500")]


def test_a_newcomer_that_is_worth_least_is_not_written_and_nothing_is_deleted_for_it(record):
    with record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(1, probability=0.8), event(2, probability=0.9))
    before = record.files()
    with record.keeper(keep_bytes=keeper.bytes) as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(3, probability=0.7))
        record.keep(keeper, event(4, species="rare", probability=0.7))  # takes the place of a robin
    assert (keeper.kept, keeper.passed_over, keeper.lost) == (1, 1, 0)
    assert len(record.files()) == 2 and len(record.files() - before) == 1
    assert [number for number, clip in record.rows().items() if clip] == [2, 4]


def size_now(path: Path) -> int:
    """0 for a file that the keeper takes away meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_clips_never_take_more_than_they_may_and_a_row_loses_its_clip_with_the_file(record):
    budget = 200_000  # a clip is some 30 kB
    rng = np.random.default_rng(1)
    with record.keeper(keep_bytes=budget) as keeper:
        keeper.hear(song(), 0, RATE)
        for number in range(1, 41):
            species = "frog" if number % 8 else f"rare{number}"
            record.keep(keeper, event(number, 5.0, species, round(float(rng.uniform(0.5, 1.0)), 4)))
            assert sum(map(size_now, record.clips.rglob("*.flac"))) <= budget
    clips = record.rows()
    assert {clip for clip in clips.values() if clip} == record.files()
    assert keeper.kept > len(record.files()) == 6, "some were deleted again"
    assert sum(name.startswith("rare") for name in record.files()) == 5 and keeper.lost == 0
    assert keeper.bytes == sum((record.clips / name).stat().st_size for name in record.files())


def test_where_only_the_best_of_each_species_are_left_no_more_are_kept_until_there_is_room(record):
    with record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(1, species="robin"), event(2, species="wren"))
    bytes_of_two = keeper.bytes
    with record.keeper(keep_bytes=bytes_of_two + 1000) as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(3, species="owl"), event(4, species="jay"))
        wait_for(lambda: keeper.lost == 2)
        (record.clips / record.rows()[1]).unlink()  # a person makes room, which the keeper learns at its next start
    assert keeper.kept == 0 and record.rows() == {1: record.rows()[1], 2: record.rows()[2], 3: None, 4: None}
    assert sum("cannot be kept" in text for text in record.said) == 1, "said once, not for every clip"
    with record.keeper(keep_bytes=bytes_of_two + 1000) as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(5, species="owl"))
    assert keeper.kept == 1 and record.rows()[1] is None


def test_when_others_fill_the_disk_clips_make_room_without_waiting_for_a_new_one(record, monkeypatch):
    with record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, *(event(number, species="ab"[number % 2]) for number in range(1, 9)))
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0.02)
    with record.keeper(free_bytes=1e18):
        wait_for(lambda: len(record.files()) == 2)  # as if the disk had less than is to stay free
    assert sorted(name[0] for name in record.files()) == ["a", "b"]
    assert {clip for clip in record.rows().values() if clip} == record.files()


# The listener is not held up.


def test_a_fake_disk_that_hangs_costs_clips_and_not_the_listener(record, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(Keeper, "_keep", lambda *_: hangs.wait(20))  # no disk here hangs when it is told to
    with record.keeper(wait_seconds=0.0) as keeper:
        keeper.hear(song(), 0, RATE)
        began = time.monotonic()
        record.keep(keeper, *(event(number) for number in range(1, 41)))
        assert time.monotonic() - began < 10
        assert keeper.lost >= 40 - keeper_module.MOST_QUEUED - 1
        began = time.monotonic()
    assert time.monotonic() - began < keeper_module.CLOSE_SECONDS + 2, "nor its end"
    assert keeper.lost == 39  # the one that the disk has
    hangs.set()


def test_while_the_journal_is_locked_clips_are_kept_and_their_rows_follow(record):
    with closing(sqlite3.connect(record.journal.path, isolation_level=None)) as other, record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        other.execute("begin immediate")
        record.keep(keeper, event(1), event(2, probability=0.8))
        wait_for(lambda: keeper.kept == 2)
        other.execute("rollback")
    wait_for(record.journal.flush)
    assert set(record.rows().values()) == record.files() and len(record.files()) == 2


def test_at_the_end_the_clips_that_wait_are_written(record):
    with record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, *(event(number) for number in range(1, 11)))
    assert keeper.kept == 10 and None not in record.rows().values()


# What a killed listener left.


def test_at_the_start_what_was_left_half_done_is_taken_away_and_rows_and_clips_agree_again(record):
    with record.keeper() as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(1), event(2, species="../x"), event(3, species="wren"))
    clips = record.rows()
    (record.clips / clips[1]).unlink()  # killed after a deletion
    record.journal.clear_clip(clips[2])  # killed before the row was written
    (record.clips / "wren" / f".{Path(clips[3]).stem}.77-77.part.flac").write_bytes(b"fLaC")  # killed while writing
    notes = record.clips / "wren/notes.txt"
    notes.write_text("a person's own")
    record.journal.flush()
    with record.keeper():
        pass
    assert record.rows() == {1: None, 2: clips[2], 3: clips[3]}
    assert record.files() == {clips[2], clips[3], "wren/notes.txt"}


def test_where_all_clips_were_moved_away_every_row_loses_its_clip_and_has_it_again_when_they_are_back(tmp_path):
    numbers = range(1, 2501)
    record = Record(tmp_path)
    away = tmp_path / "away"
    with Journal(record.journal.path, record.said.append, most_waiting=2000) as record.journal:
        for number in numbers:
            clip = Clip.of("robin", UTC + 100 * number, 0.93, 1)
            path = record.clips / clip.relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        events = tuple(event(number) for number in numbers)
        for first in range(0, 2500, 500):
            record.journal.record(Changes(events=events[first : first + 500]))
        record.keeper()
        assert None not in record.rows().values()
        record.clips.rename(away)
        record.keeper()
        assert set(record.rows().values()) == {None}
        record.clips.rmdir()
        away.rename(record.clips)
        record.keeper()
        assert set(record.rows().values()) == record.files()
        assert record.journal.lost_rows == 0


def test_files_that_are_no_clips_are_neither_counted_nor_deleted(record):
    own = record.clips / "robin/favourite.flac"
    own.parent.mkdir(parents=True)
    own.write_bytes(bytes(1000))
    with record.keeper(keep_bytes=1.0, free_bytes=1e18) as keeper:
        keeper.hear(song(), 0, RATE)
        record.keep(keeper, event(1))
    assert keeper.bytes == 0 and record.files() == {"robin/favourite.flac"}


def test_a_folder_of_clips_that_cannot_be_made_is_a_sentence(record):
    record.clips.write_text("a file")
    with pytest.raises(UserError, match="clips: clips cannot be kept there: File exists"):
        record.keeper()
