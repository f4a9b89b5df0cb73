"""The ring between the sound card and the model: what is read is what was written, minus what is counted as lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from edge.ring import LOST, NEXT, RingBuffer, shared_memory, shared_ring

READ = 0  # in a sequence of steps; other numbers are the length of a block to write


def numbered(first: int, count: int, channels: int = 1) -> np.ndarray:
    """Frames that hold their own number, and in further channels its negative."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.stack([numbers, -numbers][:channels], axis=1)


@given(
    capacity=st.integers(1, 40),
    channels=st.integers(1, 2),
    steps=st.lists(st.one_of(st.just(READ), st.integers(1, 100)), max_size=40),
)
def test_what_is_read_is_what_was_written_in_order_minus_exactly_the_oldest_frames_counted_as_lost(
    capacity, channels, steps
):
    ring = RingBuffer(capacity, channels)
    written = expected = frames_read = 0
    for step in [*steps, READ]:
        if step != READ:
            ring.write(numbered(written, step, channels))
            written += step
        else:
            lost_before = ring.lost
            first, frames = ring.read()
            np.testing.assert_array_equal(frames, numbered(first, written - first, channels))
            assert first - expected == max(0, written - expected - capacity)  # lost only where there was no room
            assert ring.lost == lost_before  # a loss was counted when it happened, not when it was found
            frames_read += len(frames)
            expected = written
        assert ring.written == written == frames_read + ring.lost + ring.waiting
        assert ring.waiting <= capacity


def test_blocks_wrap_around_the_edge_of_the_ring():
    ring = RingBuffer(10, 1)
    ring.write(numbered(0, 7))
    ring.read()
    ring.write(numbered(7, 7))  # frames 10 to 13 lie before 7 to 9 in memory
    first, frames = ring.read()
    assert first == 7 and frames[:, 0].tolist() == list(range(7, 14)) and ring.lost == 0


def test_of_a_block_longer_than_the_ring_the_newest_frames_stay():
    ring = RingBuffer(10, 2)
    ring.write(numbered(0, 3, 2))
    ring.write(numbered(3, 25, 2))
    first, frames = ring.read()
    assert first == 18 and ring.lost == 18
    np.testing.assert_array_equal(frames, numbered(18, 10, 2))


def test_frames_that_were_read_do_not_change_when_the_ring_is_overwritten():
    ring = RingBuffer(4, 1)
    ring.write(numbered(0, 4))
    _, frames = ring.read()
    ring.write(numbered(100, 4))
    assert frames[:, 0].tolist() == [0, 1, 2, 3]


def test_reading_an_empty_ring_gives_no_frames_and_the_number_of_the_next_one():
    ring = RingBuffer(4, 2)
    ring.write(numbered(0, 3, 2))
    ring.read()
    first, frames = ring.read()
    assert first == 3 and frames.shape == (0, 2)


def test_a_writer_in_another_thread_never_mixes_its_frames_into_a_read():
    ring = RingBuffer(997, 2)
    blocks = 4000

    def write():
        for block in range(blocks):
            ring.write(numbered(block * 64, 64, 2))

    writer = threading.Thread(target=write)
    writer.start()
    frames_read = 0
    while writer.is_alive() or ring.waiting:
        first, frames = ring.read()
        np.testing.assert_array_equal(frames, numbered(first, len(frames), 2))
        frames_read += len(frames)
    writer.join()
    assert frames_read + ring.lost == ring.written == blocks * 64


@pytest.mark.parametrize(("capacity", "channels"), [(0, 1), (10, 0)])
def test_a_ring_without_frames_or_channels_is_refused(capacity, channels):
    with pytest.raises(ValueError, match="at least"):
        RingBuffer(capacity, channels)


@pytest.mark.parametrize("block", [np.zeros((4, 1)), np.zeros((4, 1), np.int16), np.zeros((4, 2), np.float32)[:, ::2]])
def test_samples_that_are_not_float32_one_after_the_other_are_refused(block):
    with pytest.raises(TypeError):
        RingBuffer(10, 1).write(block)


def test_plain_bytes_are_taken_as_the_samples_that_they_are():
    ring = RingBuffer(10, 2)
    ring.write(numbered(5, 3, 2).tobytes())
    np.testing.assert_array_equal(ring.read()[1], numbered(5, 3, 2))


def test_the_last_arrival_is_the_time_of_the_last_write_and_overflows_are_counted():
    ring = RingBuffer(10, 1)
    assert ring.arrival == (0, 0.0) and ring.overflows == 0
    before = time.monotonic()
    ring.write(numbered(0, 3))
    ring.write(numbered(3, 3), overflow=True)
    written, arrived = ring.arrival
    assert written == 6 and before <= arrived <= time.monotonic() and ring.overflows == 1


# Between two processes, as a microphone's.

WRITER = """
import array, sys
sys.path.insert(0, sys.argv[1])
from edge.ring import shared_ring
ring = shared_ring(int(sys.argv[2]), 997, 2)
first = 0
while True:
    frames = [n for i in range(first, first + 64) for n in (i, -i)]
    ring.write(array.array("f", frames))
    first += 64
    if first == 64:
        assert "numpy" not in sys.modules  # what makes the process small
        print("writing", flush=True)
    if first >= int(sys.argv[3]):
        break
"""


def writer(memory: int, frames: int) -> subprocess.Popen:
    """A process that writes numbered frames; it has begun."""
    command = [sys.executable, "-c", WRITER, str(ROOT), str(memory), str(frames)]
    process = subprocess.Popen(command, pass_fds=[memory], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.stdout.close()
    return process


def test_a_writer_in_another_process_never_mixes_its_frames_into_a_read():
    memory = shared_memory()
    ring, frames_read, frames_to_write = shared_ring(memory, 997, 2), 0, 4000 * 64
    process = writer(memory, frames_to_write)
    while process.poll() is None or ring.waiting:
        first, frames = ring.read()
        np.testing.assert_array_equal(frames, numbered(first, len(frames), 2))
        frames_read += len(frames)
    assert process.returncode == 0
    assert frames_read + ring.lost == ring.written == frames_to_write
    os.close(memory)


def test_what_a_writer_overwrote_before_it_was_killed_is_lost_and_what_is_left_has_its_true_numbers():
    ring = RingBuffer(10, 1)
    ring.write(np.arange(25, dtype=np.float32)[:, None])
    ring._counts[LOST] = ring._counts[NEXT] = 0  # killed between the count of what is written and these
    first, frames = ring.read()
    assert (first, frames[:, 0].tolist(), ring.lost) == (15, list(range(15, 25)), 15)


def test_a_writer_that_is_killed_in_the_act_leaves_a_ring_that_can_be_read():
    for _ in range(5):
        memory = shared_memory()
        ring = shared_ring(memory, 997, 2)
        process = writer(memory, 1 << 30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        first, frames = ring.read()  # does not wait for a lock that nobody will let go of
        assert len(frames) > 0 and ring.waiting == 0 and first + len(frames) == ring.written
        os.close(memory)
