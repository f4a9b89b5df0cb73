"""The ring between the sound card and the model: what is read is what was written, minus what is counted as lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.ring import RingBuffer

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
