"""Levels: laws that hold for any frames, in whatever blocks they come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.levels import FLOOR_DBFS, LevelMeter, Levels, ZerosBegan, ZerosEnded, ZeroWatch, dbfs


@st.composite
def blocks(draw: st.DrawFn) -> list[np.ndarray]:
    """Frames of one or two channels, cut into blocks, some of them empty; about half of the samples are zero."""
    channels = draw(st.integers(1, 2))
    runs = draw(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.0, -0.25, 0.5, 1.0])), max_size=12))
    flat = np.concatenate([np.full(count, value, np.float32) for count, value in runs] or [np.zeros(0, np.float32)])
    frames = flat[: len(flat) // channels * channels].reshape(-1, channels)
    cuts = sorted(draw(st.lists(st.integers(0, len(frames)), max_size=6)))
    return np.split(frames, cuts)


def levels_of(frames: list[np.ndarray]) -> Levels | None:
    meter = LevelMeter()
    for block in frames:
        meter.push(block)
    return meter.take()


@given(blocks())
def test_levels_do_not_depend_on_how_frames_are_cut_into_blocks(cut):
    whole, parts = levels_of([np.concatenate(cut)]), levels_of(cut)
    if whole is None:
        assert parts is None
        return
    assert parts.frames == whole.frames == sum(map(len, cut))
    assert (parts.peak_dbfs, parts.clipped_share, parts.zero_share) == (
        whole.peak_dbfs,
        whole.clipped_share,
        whole.zero_share,
    )
    assert parts.rms_dbfs == pytest.approx(whole.rms_dbfs, abs=1e-6)


@given(blocks())
def test_the_peak_is_at_least_the_rms_and_shares_are_shares_of_frames(cut):
    levels = levels_of(cut)
    if levels is None:
        return
    frames = np.concatenate(cut)
    assert FLOOR_DBFS <= levels.rms_dbfs <= levels.peak_dbfs + 1e-6 <= 1e-6
    assert levels.zero_share * len(frames) == pytest.approx((~frames.any(axis=1)).sum())
    assert levels.clipped_share * len(frames) == pytest.approx((np.abs(frames) == 1).any(axis=1).sum())


@given(blocks(), st.floats(0.01, 0.9))
def test_a_gain_moves_rms_and_peak_by_its_decibels(cut, gain):
    levels, quieter = levels_of(cut), levels_of([block * np.float32(gain) for block in cut])
    if levels is None or levels.zero_share == 1:
        return
    assert quieter.rms_dbfs - levels.rms_dbfs == pytest.approx(dbfs(gain), abs=1e-3)
    assert quieter.peak_dbfs - levels.peak_dbfs == pytest.approx(dbfs(gain), abs=1e-3)
    assert quieter.zero_share == levels.zero_share and quieter.clipped_share == 0


def test_a_full_scale_sine_has_minus_3_dbfs_and_a_square_wave_0():
    sine = np.sin(np.arange(32000) * 2 * np.pi / 32)[:, None].astype(np.float32)
    assert levels_of([sine]).rms_dbfs == pytest.approx(-3.01, abs=0.01)
    assert levels_of([sine]).peak_dbfs == pytest.approx(0, abs=1e-6)
    assert levels_of([np.sign(sine + 1e-9)]).rms_dbfs == pytest.approx(0, abs=1e-6)


def test_levels_are_of_what_came_since_they_were_taken_last_and_none_if_nothing_did():
    meter = LevelMeter()
    assert meter.take() is None
    meter.push(np.full((10, 1), 0.5, np.float32))
    assert meter.take().peak_dbfs == pytest.approx(-6.02, abs=0.01)
    meter.push(np.zeros((10, 1), np.float32))
    assert meter.take().peak_dbfs == FLOOR_DBFS
    assert meter.take() is None


@pytest.mark.parametrize(
    ("frames", "remark"),
    [
        (np.full(1000, 0.1), ""),
        (np.where(np.arange(32000) % 5000 == 0, 32767 / 32768, 0.1), "the input clips: "),
        (np.where(np.arange(32000) % 2 == 0, 1 / 32768, 0), "the input is silent: "),
        (np.zeros(1000), "the input is all zeros"),
    ],
)
def test_clipping_silence_and_zeros_are_told_apart(frames, remark):
    found = levels_of([frames.astype(np.float32)[:, None]]).remark
    assert found.startswith(remark) and bool(found) == bool(remark)


@given(blocks(), st.integers(1, 25), st.integers(0, 1000))
def test_runs_of_zeros_are_found_with_their_first_and_last_frame_wherever_blocks_are_cut(cut, least, first):
    watch, position, found = ZeroWatch(least), first, []
    for block in cut:
        found += watch.push(position, block)
        position += len(block)

    expected, begin = [], None  # the plain way, a frame at a time
    zero = [not frame.any() for block in cut for frame in block]
    for number, is_zero in enumerate([*zero, None]):
        if is_zero and begin is None:
            begin = number
        elif not is_zero and begin is not None:
            if number - begin >= least:
                expected.append(ZerosBegan(first + begin))
                if is_zero is not None:  # else it goes on
                    expected.append(ZerosEnded(first + number))
            begin = None
    assert found == expected


def test_a_run_of_zeros_is_told_as_soon_as_it_is_long_enough_and_goes_on_over_lost_frames():
    watch = ZeroWatch(10)
    zeros, ones = np.zeros((6, 2), np.float32), np.ones((1, 2), np.float32)
    assert watch.push(0, ones) == []
    assert watch.push(1, zeros) == []
    assert watch.push(100, zeros) == [ZerosBegan(1)]  # 93 frames were lost
    assert watch.push(106, zeros) == []
    assert watch.push(112, ones) == [ZerosEnded(112)]
    assert watch.push(200, zeros) == watch.push(206, zeros[:3]) == []  # what was lost after a sound may have been sound
    assert watch.push(209, zeros[:1]) == [ZerosBegan(200)]
