"""The live spectrogram on its way from the listener to the page: columns, the ring file, and what goes wrong with files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from edge.columns import Columns
from edge.live import (
    BANDS,
    COLUMNS_PER_SECOND,
    HIGH_DB,
    HIGH_HZ,
    LOOK_EVERY,
    LOW_DB,
    Cursor,
    LiveReader,
    LiveWriter,
    live_path,
)
from src.errors import UserError

BAND_HZ = HIGH_HZ / BANDS
BYTE_DB = (HIGH_DB - LOW_DB) / 255
UTC = 1_795_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "live.bin"


def column(number: int) -> np.ndarray:
    """A column by which it can be told which one it is and whether it is whole."""
    return np.full(BANDS, number % 251, np.uint8)


def push(writer: LiveWriter, numbers: range, utc: float = UTC) -> None:
    for number in numbers:
        writer.push(column(number), utc + number / COLUMNS_PER_SECOND)


def numbers_of(columns: bytes) -> list[int]:
    """The numbers of whole columns; fails if one is torn."""
    array = np.frombuffer(columns, np.uint8).reshape(-1, BANDS)
    assert (array == array[:, :1]).all(), "a torn column"
    return array[:, 0].tolist()


# The ring.


def test_what_is_pushed_is_read_once_in_order_with_the_time_of_the_last(path):
    with LiveWriter(path) as writer:
        reader = LiveReader(path)
        push(writer, range(3))
        cursor, columns, utc = reader.since(None)
        assert numbers_of(columns) == [0, 1, 2]
        assert utc == UTC + 2 / COLUMNS_PER_SECOND
        assert reader.since(cursor) == (cursor, b"", None)
        push(writer, range(3, 5))
        _, columns, utc = reader.since(cursor)
        assert numbers_of(columns) == [3, 4]
        assert reader.alive and reader.scale.bands == BANDS and reader.last_utc == utc


def test_of_a_reader_that_is_late_only_the_oldest_columns_are_lost(path):
    with LiveWriter(path, ring_columns=10) as writer:
        reader = LiveReader(path)
        push(writer, range(4))
        cursor, _, _ = reader.since(None)
        push(writer, range(4, 27))
        _, columns, _ = reader.since(cursor)
        # The tenth from the end lies where the writer writes next, and may be half another one by now.
        assert numbers_of(columns) == list(range(18, 27))


def test_columns_before_and_after_a_hole_in_time_are_given_apart(path):
    with LiveWriter(path) as writer:
        push(writer, range(3))
        push(writer, range(3, 6), UTC + 100)
        cursor, runs = LiveReader(path).all_since(None)
        assert [(numbers_of(columns), utc - UTC) for columns, utc in runs] == [
            ([0, 1, 2], pytest.approx(0.1)),
            ([3, 4, 5], pytest.approx(100.25)),
        ]
        assert cursor.column == 6


def test_a_column_of_another_size_is_an_error_of_the_caller(path):
    with LiveWriter(path) as writer, pytest.raises(ValueError, match="96 bytes, not 95"):
        writer.push(bytes(95), UTC)


def test_a_reader_without_a_ring_gets_nothing_until_there_is_one(path):
    reader = LiveReader(path)
    assert reader.since(None) == (None, b"", None) and not reader.alive
    with LiveWriter(path) as writer:
        push(writer, range(2))
        assert numbers_of(reader.since(None)[1]) == [0, 1]
    assert not path.exists()
    assert reader.since(None) == (None, b"", None) and not reader.alive and reader.last_utc is None


def test_the_next_listener_s_ring_is_another_even_if_the_one_before_left_its_file(path):
    reader = LiveReader(path)
    first = LiveWriter(path)
    push(first, range(5))
    cursor, _, _ = reader.since(None)
    with LiveWriter(path) as second:  # while the first is there: its file is no longer the one at the path
        push(second, range(100, 102))
        _, columns, _ = reader.since(cursor)
        assert numbers_of(columns) == [100, 101], "the cursor into the ring before counts as none"
        first.close()
        assert path.exists(), "the first takes its own file away and not the second's"


WRITER = """
import sys
from pathlib import Path
from edge.live import BANDS, LiveWriter
writer = LiveWriter(Path(sys.argv[1]), ring_columns=16)
print("made", flush=True)
for number in range(int(sys.argv[2])):
    writer.push(bytes([number % 251]) * BANDS, 1e9 + number / 20)
print("done", flush=True)
sys.stdin.read()
"""


def writing_process(path: Path, columns: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(path), str(columns)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    assert process.stdout.readline() == "made\n"
    return process


def test_the_file_of_a_listener_that_was_killed_is_recognised_as_stale(path):
    process = writing_process(path, 20)
    assert process.stdout.readline() == "done\n"
    reader = LiveReader(path)
    cursor, columns, _ = reader.since(None)
    assert reader.alive and columns
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    assert reader.since(cursor) == (cursor, b"", None) and not reader.alive
    assert LiveReader(path).since(None) == (None, b"", None), "nor does a new reader take it for live"
    assert reader.last_utc == pytest.approx(1e9 + 19 / 20), "when it was heard last can still be told"


def test_columns_read_while_others_are_written_are_whole_and_in_order(path):
    process = writing_process(path, 60_000)
    reader, cursor, last, read = LiveReader(path), None, -1, 0
    while process.poll() is None and last < 59_999:
        cursor, columns, utc = reader.since(cursor)
        if utc is not None:
            numbers = numbers_of(columns)
            newest = round((utc - 1e9) * 20)
            assert numbers == [number % 251 for number in range(newest - len(numbers) + 1, newest + 1)]
            assert newest - len(numbers) >= last
            last, read = newest, read + len(numbers)
    process.stdin.close()
    process.wait()
    assert last == 59_999 and read > 16, "more than the ring holds"


def hostile(kind: str, path: Path) -> None:
    """Put at the path what is no ring."""
    good = path.with_name("good")
    writer = LiveWriter(good)
    content = good.read_bytes()
    writer.close()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to a ring":
        good.write_bytes(content)
        path.symlink_to(good)
    elif kind == "a folder":
        path.mkdir()
    else:
        header = bytearray(content)
        header[16:20] = (1 << 31).to_bytes(4, "little")
        path.write_bytes(
            {"empty": b"", "text": b"hello" * 100, "cut": content[:5000], "a huge ring": bytes(header)}[kind]
        )


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "a huge ring", "a pipe", "a link to a ring", "a folder"])
def test_a_file_that_is_no_ring_is_as_none(path, kind):
    hostile(kind, path)
    reader = LiveReader(path)
    assert reader.since(None) == (None, b"", None)
    assert not reader.alive


def test_a_ring_that_is_cut_short_under_the_reader_s_hands_is_as_none(path):
    with LiveWriter(path) as writer:
        push(writer, range(50))
        reader = LiveReader(path)
        cursor, _, _ = reader.since(None)
        os.truncate(path, 200)
        begin = Cursor(cursor.session, 0)
        assert reader.since(begin) == (begin, b"", None)
        push(writer, range(50, 50 + LOOK_EVERY))
        assert numbers_of(reader.since(begin)[1]), "until the writer has looked, and made another"


def test_a_ring_that_was_tidied_away_is_made_anew(path):
    with LiveWriter(path) as writer:
        push(writer, range(3))
        path.unlink()
        push(writer, range(3, 3 + LOOK_EVERY))
        _, columns, _ = LiveReader(path).since(None)
        assert numbers_of(columns) and writer.faults == 0


def test_a_listener_goes_on_where_the_ring_can_no_longer_be_made(path):
    folder = path.parent / "folder"
    with LiveWriter(folder / "live.bin") as writer:
        (folder / "live.bin").unlink()
        folder.rmdir()
        folder.write_text("in the way")
        push(writer, range(2 * LOOK_EVERY))
        assert writer.faults == 2


def test_a_ring_that_cannot_be_made_is_said_by_name(path):
    path.mkdir()
    (path / "something").touch()
    with pytest.raises(UserError, match=r"live\.bin: the live spectrogram cannot be made"):
        LiveWriter(path)
    assert list(path.parent.iterdir()) == [path], "no temporary file stays behind"


def test_listener_and_page_find_the_same_path_and_two_folders_have_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "record")
    paths = {live_path(Path("record")), live_path(tmp_path / "record"), live_path(tmp_path / "link")}
    assert len(paths) == 1
    assert live_path(tmp_path / "other") not in paths


# Columns from audio.


def hear(rate: int, audio: np.ndarray, cuts: list[int] | None = None) -> tuple[np.ndarray, list[float]]:
    """All columns, uint8 [columns, BANDS], and their times after UTC, of audio that comes in blocks."""
    maker, found = Columns(rate), []
    for begin, end in zip([0, *(cuts or [])], [*(cuts or []), len(audio)]):
        found += maker.hear(audio[begin:end].astype(np.float32), UTC + begin / rate)
    return np.stack([values for values, _ in found]), [utc - UTC for _, utc in found]


def sine(hertz: float, rate: int, seconds: float = 2.0, amplitude: float = 0.1) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000, 96000])
def test_at_any_rate_a_tone_lies_in_its_band_at_its_level_twenty_times_a_second(rate):
    hertz = 3062.0
    columns, times = hear(rate, sine(hertz, rate))
    assert (columns.argmax(axis=1) == int(hertz / BAND_HZ)).all()
    assert columns.max(axis=1) * BYTE_DB + LOW_DB == pytest.approx(-20, abs=1.5)  # 0.1 of full scale
    assert len(columns) == pytest.approx(2 * COLUMNS_PER_SECOND, abs=2)
    np.testing.assert_allclose(np.diff(times), 1 / COLUMNS_PER_SECOND, atol=0.001)
    if rate / 2 < HIGH_HZ:
        assert not columns[:, int(rate / 2 / BAND_HZ) + 1 :].any(), "nothing is above half the rate"


@pytest.mark.parametrize("rate", [22050, 48000])
def test_blocks_of_any_size_give_the_same_columns(rate):
    audio = np.random.default_rng(0).normal(0, 0.1, 2 * rate)
    whole, times = hear(rate, audio)
    pieces, piece_times = hear(rate, audio, sorted(np.random.default_rng(1).integers(1, len(audio), 60).tolist()))
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(times, piece_times, atol=1e-5)


def test_a_column_bears_the_time_of_its_middle():
    rate = 48000
    audio = np.zeros(2 * rate)
    for click in range(rate, rate + 2400, 100):  # wherever in a column it falls
        audio[:] = 0
        audio[click] = 1.0
        columns, times = hear(rate, audio)
        assert times[int(columns.max(axis=1).argmax())] == pytest.approx(click / rate, abs=0.0251)


def test_silence_is_zero_and_samples_that_are_not_numbers_are_silence():
    columns, _ = hear(48000, np.zeros(48000))
    assert not columns.any()
    columns, _ = hear(48000, np.full(48000, np.nan))
    assert not columns.any()


def test_audio_that_does_not_continue_begins_a_new_column():
    maker = Columns(48000)
    maker.hear(sine(1000, 48000, 0.03), UTC)
    found = maker.hear(sine(1000, 48000, 0.2), UTC + 60)
    assert found[0][1] - UTC == pytest.approx(60 + 2048 / 48000, abs=0.001), "none spans the hole"


def test_a_minute_of_columns_costs_a_small_part_of_a_minute():
    maker, block = Columns(48000), np.random.default_rng(0).normal(0, 0.1, 2400).astype(np.float32)
    began = time.process_time()
    for number in range(1200):
        maker.hear(block, UTC + number / 20)
    assert time.process_time() - began < 6, "0.05 s on two shared cores"
