"""When a recording began: AudioMoth's and Wildlife Acoustics' headers and names. What is not known is left empty."""

from __future__ import annotations

import re
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from src.recording_time import as_utc, began, utc_text

UTC = timezone.utc
DAWN = datetime(2023, 5, 14, 4, 30)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20230514_043000.WAV", DAWN.replace(tzinfo=UTC)),  # AudioMoth
        ("20230514_043000T.WAV", DAWN.replace(tzinfo=UTC)),  # triggered
        ("24F3190361CBE5C4_20230514_043000.WAV", DAWN.replace(tzinfo=UTC)),  # with the device's number
        ("24F3190361CBE5C4_20230514_043000T.flac", DAWN.replace(tzinfo=UTC)),
        ("5EA1B2C3.WAV", datetime(2020, 4, 23, 15, 22, 43, tzinfo=UTC)),  # early AudioMoth
        ("SMU01234_20230514_043000.wav", DAWN),  # Wildlife Acoustics: the zone is not known
        ("S4A01_0+1_20230514_043000.wav", DAWN),
        ("SM3-07_20230514$043000.wav", DAWN),
        ("20230514$043000.wav", DAWN),
        # These tell nothing: what is behind the time may move it, and not all digits are a date.
        ("ORANGE-7-CAP_20190606_093000.pt623.mp3", None),
        ("SMU01234_20230514_043000_001.wav", None),
        ("20231399_043000.WAV", None),
        ("SMU_20230514_256199.wav", None),
        ("20230514.wav", None),  # hexadecimal for 1987
        ("DEADBEEF.WAV", None),  # for 2088
        ("5ea1b2c3.wav", None),
        ("dawn.wav", None),
    ],
)
def test_a_name_tells_the_time_by_the_recorder_s_pattern_or_not_at_all(tmp_path, name, expected):
    found = began(tmp_path / name)
    assert found == expected
    assert (found and found.tzinfo) == (expected and expected.tzinfo)


def wav(path: Path, *chunks: tuple[bytes, bytes], before: bool = True) -> Path:
    """A WAV of a tenth of a second with more chunks before or behind its audio."""
    soundfile.write(path, np.zeros(801), 8000, subtype="PCM_U8")  # an odd number of bytes, so that a pad byte follows
    whole = path.read_bytes()
    content = b"".join(name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in chunks)
    place = whole.index(b"data") if before else len(whole)
    whole = whole[:place] + content + whole[place:]
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    return path


def icmt(text: str) -> tuple[bytes, bytes]:
    body = text.encode("latin-1").ljust(384, b"\0")
    return b"LIST", b"INFO" + b"ICMT" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("(UTC)", 0), ("(UTC+2)", 2), ("(UTC-3)", -3), ("(UTC+5:30)", 5.5), ("(UTC-3:30)", -3.5)],
)
def test_audiomoth_s_comment_wins_over_the_name_with_its_offset(tmp_path, zone, hours):
    text = (
        f"Recorded at 04:30:00 14/05/2023 {zone} by AudioMoth 24F3190361CBE5C4 at medium gain while battery was 4.2V."
    )
    path = wav(tmp_path / "20230514_063000.WAV", icmt(text))
    assert soundfile.info(path).frames == 801
    assert as_utc(began(path), None) == (DAWN - timedelta(hours=hours)).replace(tzinfo=UTC)


def test_the_first_audiomoths_and_those_with_gps_say_it_in_their_own_way(tmp_path):
    early = wav(
        tmp_path / "a.WAV", icmt("Recorded at 04:30:00 14/05/2018 by AudioMoth 24F3190361CBE5C4 at gain setting 2")
    )
    assert began(early) == datetime(2018, 5, 14, 4, 30, tzinfo=UTC)
    exact = wav(
        tmp_path / "b.WAV", icmt("Recorded at 04:30:00.250 14/05/2023 (UTC) during deployment 0102030405060708")
    )
    assert began(exact) == DAWN.replace(tzinfo=UTC, microsecond=250_000)


def test_wildlife_acoustics_metadata_behind_the_audio_tell_the_zone(tmp_path):
    entries = [(0, b"\1\0"), (1, b"SM4"), (5, b"2023-05-14 04:30:00-04:00"), (6, b"WGS84")]
    wamd = b"".join(struct.pack("<HI", number, len(body)) + body for number, body in entries)
    path = wav(tmp_path / "SMU01234_20230514_043000.wav", (b"wamd", wamd), before=False)
    assert as_utc(began(path), None) == datetime(2023, 5, 14, 8, 30, tzinfo=UTC)
    guano = b"GUANO|Version: 1.0\nMake: Wildlife Acoustics, Inc.\nTimestamp: 2023-05-14T04:30:00.5-0400\nTE: 1\n"
    path = wav(tmp_path / "x.wav", (b"guan", guano), before=False)
    assert as_utc(began(path), None) == datetime(2023, 5, 14, 8, 30, 0, 500_000, tzinfo=UTC)


def test_a_header_without_a_zone_wins_over_the_name_but_says_nothing_of_utc(tmp_path):
    path = wav(tmp_path / "SM_20230514_043000.wav", (b"guan", b"Timestamp: 2023-05-14 05:00:00\n"))
    assert began(path) == datetime(2023, 5, 14, 5)
    assert as_utc(began(path), None) is None
    assert as_utc(began(path), -4.0) == datetime(2023, 5, 14, 9, tzinfo=UTC)


@given(st.binary(max_size=80), st.sampled_from([b"LIST", b"guan", b"wamd"]), st.integers(0, 2**32 - 1))
def test_no_damaged_header_raises_or_invents_a_time(tmp_path_factory, content, name, size):
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + name + struct.pack("<I", size) + content)
    assert began(path) is None


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.floats(-12, 14), st.floats(0, 86400))
def test_utc_is_the_local_time_less_its_offset_and_is_written_alike_always(time, hours, seconds):
    found = as_utc(time, hours)
    assert abs((found.replace(tzinfo=None) - time).total_seconds() + hours * 3600) < 1e-3
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", utc_text(found, seconds))
    assert utc_text(None, seconds) == ""
