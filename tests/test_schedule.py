"""When the listener listens.

Sunrise and sunset are held against published times: those of newspapers' tables (U.S. Naval Observatory, timeanddate.com), to the
minute, and those that NREL's report on its Solar Position Algorithm compares itself with (Reda and Andreas 2008), to the second.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.schedule import Schedule
from src.errors import UserError

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
LONDON = (51.5074, -0.1278)
NEW_YORK = (40.7128, -74.0060)
SYDNEY = (-33.8688, 151.2093)
REYKJAVIK = (64.1466, -21.9426)
TROMSO = (69.6492, 18.9553)


def utc(text: str) -> float:
    """2024-06-20T03:43 or with seconds, as seconds since 1970."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


# The sun.


@pytest.mark.parametrize(
    ("place", "sunrise", "sunset"),
    [
        (LONDON, "2024-06-20T03:43", "2024-06-20T20:21"),
        (LONDON, "2024-12-21T08:04", "2024-12-21T15:53"),
        (NEW_YORK, "2024-06-20T09:25", "2024-06-21T00:31"),  # 5:25 and 20:31 there: the day ends on UTC's next
        (NEW_YORK, "2024-12-21T12:17", "2024-12-21T21:32"),
        (SYDNEY, "2024-12-20T18:41", "2024-12-21T09:05"),  # on the 21st there: the day begins on UTC's day before
        (SYDNEY, "2024-06-20T21:00", "2024-06-21T06:54"),
        (REYKJAVIK, "2024-06-21T02:55", "2024-06-22T00:03"),
        (REYKJAVIK, "2024-12-21T11:22", "2024-12-21T15:30"),
        ((35.0, 0.0), "1994-01-02T07:08:12", "1994-01-02T16:59:55"),
        ((-35.0, 0.0), "1996-07-05T07:08:15", "1996-07-05T17:01:04"),
        ((-35.0, 0.0), "2004-12-04T04:38:57", "2004-12-04T19:02:22"),
    ],
)
def test_day_is_from_the_published_sunrise_to_the_published_sunset_within_two_minutes(place, sunrise, sunset):
    day, night = Schedule("day", *place), Schedule("night", *place)
    before = utc(sunrise) - 30 * MINUTE
    assert not day.listening(before) and night.listening(before)
    rises = day.next_change(before)
    assert rises == pytest.approx(utc(sunrise), abs=2 * MINUTE)
    assert day.listening(rises) and not night.listening(rises)
    assert day.next_change(rises) == pytest.approx(utc(sunset), abs=2 * MINUTE)


@pytest.mark.parametrize(("word", "event"), [("dawn", "2024-06-20T03:43"), ("dusk", "2024-06-20T20:21")])
def test_dawn_and_dusk_last_from_an_hour_before_to_an_hour_after(word, event):
    schedule = Schedule(word, *LONDON)
    begins = schedule.next_change(utc("2024-06-20T00:00") if word == "dawn" else utc("2024-06-20T12:00"))
    assert begins == pytest.approx(utc(event) - HOUR, abs=2 * MINUTE)
    assert schedule.listening(utc(event))
    assert schedule.next_change(begins) == begins + 2 * HOUR


def test_a_night_of_an_hour_has_one_dusk_and_dawn_that_run_into_each_other():
    # Rovaniemi on 2024-06-01: the sun sets late and rises within the hours that dusk and dawn last.
    both = Schedule("dusk,dawn", 66.3, 25.7)
    night = Schedule("night", 66.3, 25.7)
    sunset = night.next_change(utc("2024-06-01T12:00"))
    sunrise = night.next_change(sunset)
    assert 0 < sunrise - sunset < 2 * HOUR
    begins = both.next_change(utc("2024-06-01T12:00"))
    assert begins == sunset - HOUR and both.next_change(begins) == sunrise + HOUR


@pytest.mark.parametrize(("when", "up"), [("2024-06-21T00:00", True), ("2024-12-21T12:00", False)])
def test_where_the_sun_neither_rises_nor_sets_it_is_day_or_night_all_week_and_neither_dawn_nor_dusk(when, up):
    start = utc(when)
    assert Schedule("day", *TROMSO).listening(start) is up
    assert Schedule("night", *TROMSO).listening(start) is not up
    for word in ("day", "night", "dawn", "dusk"):
        assert Schedule(word, *TROMSO).next_change(start) is None, "not within a week"
    assert not Schedule("dawn,dusk", *TROMSO).listening(start)


@pytest.mark.parametrize("latitude", [90.0, -90.0])
def test_at_a_pole_it_is_day_while_it_is_summer_there(latitude):
    day = Schedule("day", latitude, 0.0)
    assert day.listening(utc("2024-06-21T00:00")) is (latitude > 0)
    assert day.listening(utc("2024-12-21T00:00")) is (latitude < 0)


# The clock.


def test_hours_are_utc_whatever_the_time_zone_of_the_box(tmp_path):
    lines = (
        "from edge.schedule import Schedule\n"
        "schedule = Schedule('04:30-09:00')\n"
        f"print(schedule.listening({utc('2024-06-20T04:30')}), schedule.next_change({utc('2024-06-20T05:00')}))"
    )
    for zone in ("UTC", "Pacific/Kiritimati", "America/Puerto_Rico"):
        environment = {**os.environ, "TZ": zone}
        done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT, env=environment)
        assert done.stdout.split() == ["True", str(utc("2024-06-20T09:00"))], done.stderr


def test_the_end_of_an_hour_is_left_out_and_hours_may_go_past_midnight():
    night = Schedule("22:00-04:00")
    assert [
        night.listening(utc(f"2024-06-20T{hour}")) for hour in ("21:59:59", "22:00", "00:00", "03:59:59", "04:00")
    ] == [*(False, True, True, True, False)]
    assert night.next_change(utc("2024-06-20T12:00")) == utc("2024-06-20T22:00")
    assert night.next_change(utc("2024-06-20T23:59:59")) == utc("2024-06-21T04:00")
    assert Schedule("18:00-24:00").next_change(utc("2024-06-20T18:00")) == utc("2024-06-21T00:00")


def test_several_parts_are_one_or_another_with_commas_or_pluses_between_them():
    schedule = Schedule("dawn + 12:00-13:00, 12:30-14:00", *LONDON)
    heard = [schedule.listening(utc(f"2024-06-20T{hour}")) for hour in ("03:43", "10:00", "12:45", "13:59", "14:00")]
    assert heard == [True, False, True, True, False]
    assert schedule.next_change(utc("2024-06-20T12:00")) == utc("2024-06-20T14:00")


def test_a_day_without_a_break_changes_never():
    always = Schedule("00:00-24:00")
    now = utc("2024-06-20T12:00")
    assert always.listening(now) and always.next_change(now) is None


times_of_day = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02d}:{minute % 60:02d}")
hours = st.tuples(times_of_day, times_of_day).filter(lambda both: both[0] != both[1]).map("-".join)
parts = st.lists(st.sampled_from(["day", "night", "dawn", "dusk"]) | hours, min_size=1, max_size=3)


@settings(max_examples=40)
@given(
    parts=parts,
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    now=st.floats(0, utc("2090-01-01")),
    between=st.floats(0, 1, exclude_max=True),
)
def test_the_next_change_is_a_change_and_there_is_none_before_it(parts, latitude, longitude, now, between):
    schedule = Schedule(",".join(parts), latitude, longitude)
    state, change = schedule.listening(now), schedule.next_change(now)
    until = now + 7 * DAY - MINUTE if change is None else change
    assert now < until <= now + 7 * DAY + MINUTE
    assert schedule.listening(now + between * (until - now - 0.001)) is state
    if change is not None:
        assert schedule.listening(change) is not state
    # What was looked at in between does not matter, nor does a clock that is set back.
    assert Schedule(schedule.text, latitude, longitude).next_change(now) == schedule.next_change(now) == change


@settings(max_examples=40)
@given(latitude=st.floats(-60, 60), longitude=st.floats(-180, 180), now=st.floats(0, utc("2090-01-01")))
def test_where_people_live_a_day_and_a_night_make_24_hours_within_minutes(latitude, longitude, now):
    day = Schedule("day", latitude, longitude)
    first = day.next_change(now)
    second = day.next_change(first)
    third = day.next_change(second)
    assert third - first == pytest.approx(DAY, abs=10 * MINUTE)
    assert 5 * HOUR < second - first < 19 * HOUR


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("noon", (0, 0), "--schedule 'noon': is none of day, night, dawn, dusk, nor hours as 04:30-09:00"),
        ("", (0, 0), "--schedule '': is none of"),
        ("day,", (0, 0), "--schedule '': is none of"),
        ("4-9", (0, 0), "--schedule '4-9': is none of"),
        ("04:30-09:60", (0, 0), "the hours of a day go from 00:00 to 24:00"),
        ("24:00-04:00", (0, 0), "the hours of a day go from 00:00 to 24:00"),
        ("04:00-04:00", (0, 0), "begins when it ends"),
        ("dawn", (None, None), "--schedule dawn goes by the sun: say where with --latitude and --longitude"),
        ("dawn", (50.0, None), "--latitude and --longitude"),
        ("dawn", (91.0, 0.0), r"--latitude 91: must lie in \[-90, 90\]"),
        ("dawn", (float("nan"), 0.0), "--latitude nan"),
        ("dawn", (0.0, 180.5), r"--longitude 180.5: must lie in \[-180, 180\]"),
    ],
)
def test_what_cannot_be_understood_is_said_in_a_sentence(text, place, told):
    with pytest.raises(UserError, match=told):
        Schedule(text, *place)


def test_hours_need_no_place():
    assert Schedule("04:30-09:00").listening(utc("2024-06-20T05:00"))
