"""What the page makes of a record: events, hours, gaps, health, the listener's state; and of its colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from served import utc

from edge.page_data import Record, Zone
from edge.page_day import Day
from edge.page_feed import Feed, Viewer
from edge.page_files import PAGE
from edge.page_status import Sound, status
from edge.tables import (
    CLOCK,
    DROPPED_WINDOWS,
    NO_MICROPHONE,
    NOT_RECORDED,
    NOT_RUNNING,
    SCHEDULE,
    STOPPED,
    ZEROS,
    utc_text,
)

pytest_plugins = ["page_fixtures"]


@pytest.fixture
def record(folder: Path, listener) -> Iterator[Record]:
    opened = Record(folder, Zone("UTC"))
    opened.refresh()
    yield opened
    opened.close()


def test_events_are_counted_by_the_hours_of_the_page_s_zone(folder, listener):
    for start in ("2026-11-24T23:30:00", "2026-11-25T00:10:00", "2026-11-25T00:50:00", "2026-11-25T22:59:59"):
        listener.hear("amerob", utc(start))
    listener.hear("stejay", utc("2026-11-25T23:00:00"))
    record = Record(folder, Zone("Europe/Berlin"))
    record.refresh()
    day = Day(record, date(2026, 11, 25))
    assert {species: dict(enumerate(counts)) for species, counts in day.hours.items()} == {
        "amerob": {**dict.fromkeys(range(24), 0), 0: 1, 1: 2, 23: 1}
    }
    listener.hear("stejay", utc("2026-11-25T10:00:00"))
    listener.hear("stejay", utc("2026-11-25T23:30:00"))  # the next day, there
    listener.hear("stejay", utc("2026-11-24T22:30:00"))  # the day before
    day.update(record)
    day.update(record)
    assert sum(day.hours["stejay"]) == 1 and day.hours["stejay"][11] == 1 and sum(day.hours["amerob"]) == 4
    record.close()


def test_a_power_cut_of_a_box_whose_clock_stood_still_meanwhile_was_not_listened_to(listener, record):
    """It boots with the time of its last shutdown, and the network tells it the true one later."""
    for minute in range(1, 360):
        listener.feel(utc("2026-11-25T00:00:00") + 60 * minute)
    journal = listener.journal
    journal.resume(utc("2026-11-25T05:50:00"))
    before, after = utc("2026-11-25T05:50:30"), utc("2026-11-25T09:00:00")
    journal.clock_set(before, after)
    listener.gap(CLOCK, before, after)
    record.refresh()
    day = Day(record, date(2026, 11, 25))
    day.update_listened(record, utc("2026-11-25T12:00:00"))
    assert day.listened[:12] == [1.0] * 5 + [pytest.approx(0.84, abs=0.01)] + [0.0] * 3 + [1.0] * 3
    assert day.missed == (pytest.approx(3 * 3600 + 570), 1)


def test_hours_of_which_nothing_could_be_recorded_are_not_hours_without_birds(listener, record):
    listener.feel(utc("2026-11-25T00:01:00"))
    listener.gap(NOT_RECORDED, utc("2026-11-25T02:00:00"), utc("2026-11-25T07:00:00"))
    record.refresh()
    day = Day(record, date(2026, 11, 25))
    day.update_listened(record, utc("2026-11-25T12:00:00"))
    assert day.listened[:12] == [1.0] * 2 + [0.0] * 5 + [1.0] * 5 and day.missed == (5 * 3600, 1)


def test_hours_that_were_not_listened_to_are_told_from_hours_without_birds(listener, record):
    listener.feel(utc("2026-11-25T02:31:00"))  # the record begins at 02:30
    listener.gap(NO_MICROPHONE, utc("2026-11-25T04:00:00"), utc("2026-11-25T05:15:00"))
    listener.gap(STOPPED, utc("2026-11-25T05:00:00"), utc("2026-11-25T05:30:00"))
    listener.gap(DROPPED_WINDOWS, utc("2026-11-25T07:00:00"), utc("2026-11-25T08:00:00"))
    listener.gap(SCHEDULE, utc("2026-11-25T08:00:00"), utc("2026-11-25T09:00:00"))
    listener.gap(NOT_RUNNING, utc("2026-11-25T09:45:00"))
    record.refresh()
    day = Day(record, date(2026, 11, 25))
    day.update_listened(record, utc("2026-11-25T10:30:00"))
    assert day.listened[:11] == [None, None, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.0, 0.75, 0.0]
    assert day.listened[11:] == [None] * 13
    assert day.missed == (90 * 60 + 45 * 60, 3), "stretches that overlap count once, the schedule's not at all"


def test_a_gap_that_began_days_ago_is_in_every_day_until_it_ends(listener, record):
    listener.hear("amerob", utc("2026-11-20T10:00:00"))
    listener.gap(NOT_RUNNING, utc("2026-11-20T12:00:00"), utc("2026-11-25T06:00:00"))
    connection, moment = listener.journal._connection, utc_text(utc("2026-11-20T11:00:00"))
    connection.execute("begin")
    rows = [(number, moment, moment, DROPPED_WINDOWS) for number in range(10, 310)]
    connection.executemany("insert into gaps values (?, ?, ?, ?, '')", rows)
    connection.commit()
    record.refresh()
    day = Day(record, date(2026, 11, 25))
    day.update_listened(record, utc("2026-11-25T12:00:00"))
    assert day.listened[:12] == [0.0] * 6 + [1.0] * 6


def test_all_events_can_be_had_page_by_page_each_once(listener, record):
    for number in range(25):
        listener.hear(["amerob", "stejay"][number % 2], utc("2026-11-25T10:00:00") + number)
    found, before = [], None
    while page_of := record.latest_events(10, before):
        found += [event["id"] for event in page_of]
        before = found[-1]
    assert found == list(range(25, 0, -1))
    assert {event["species"] for event in record.latest_events(99, species="stejay")} == {"stejay"}


def test_a_viewer_is_told_all_at_first_and_then_only_what_changed(listener, record):
    now = utc("2026-11-25T10:00:00")
    sound = Sound(True, True, 0.0, now)
    feed, viewer = Feed(record), Viewer()
    number = listener.hear("amerob", now - 10, closed=False)
    listener.hear("stejay", now - 20)
    feed.refresh(now, sound)
    told = dict(feed.news(viewer))
    assert {event["species"] for event in told["events"]} == {"amerob", "stejay"}
    assert set(told) == {"record", "status", "seen", "gaps", "listened", "health", "trend", "events", "hours"}
    feed.refresh(now, sound)
    assert list(feed.news(viewer)) == []
    listener.tell(number, "amerob", now - 10, 7.5, 0.95, closed=True)
    listener.hear("amerob", now - 1)
    feed.refresh(now, sound)
    told = dict(feed.news(viewer))
    assert set(told) == {"events", "hours"}
    assert [event["id"] for event in told["events"]] == [number, number + 2]
    assert set(told["hours"]["hours"]) == {"amerob"} and sum(told["hours"]["hours"]["amerob"]) == 2
    feed.refresh(utc("2026-11-26T00:00:10"), sound)
    assert dict(feed.news(viewer))["hours"] == {"date": "2026-11-26", "hours": {}}, "a new day begins empty"


def test_health_lines_are_summed_over_the_day_and_drawn_over_the_last_one(listener, record):
    now = utc("2026-11-25T10:00:00")
    for hour in range(20):
        listener.feel(now - 3600 * (19 - hour), dropped=1, temperature_c=hour)
    record.refresh()
    feed = Feed(record)
    feed.refresh(now, Sound(False, False, 0.0, None))
    told = dict(feed.news(Viewer()))
    assert told["health"]["today"]["dropped"] == 11, "those since midnight"
    assert [value for value in told["trend"]["temperature_c"] if value is not None] == list(range(20))
    assert told["trend"]["temperature_c"][-1] == 19 and told["trend"]["temperature_c"][-5] == 18


NOW = 1_795_000_000.0
ALIVE = Sound(True, True, 0.1, NOW - 0.1)
DEAD = Sound(True, False, 0.1, NOW - 40)
NO_RING = Sound(False, False, 0.1, None)


def line(age: float = 30.0, **figures: float) -> dict:
    return {"utc": NOW - age, "received": 1_920_000, "zero_share": 0.0, **figures}


@pytest.mark.parametrize(
    ("sound", "health", "gap", "title"),
    [
        (ALIVE, line(), None, "Listening"),
        (ALIVE, None, None, "Listening"),
        (ALIVE, line(age=9e6), None, "Listening"),  # the clock was set; the lock does not lie
        (NO_RING, line(), None, "Listening"),  # the listener in another container
        (DEAD, line(age=5), None, "Listening"),  # so too, and the ring is an older listener's
        (DEAD, line(age=45), None, "The listener is not running"),  # killed just now
        (DEAD, None, None, "The listener is not running"),
        (NO_RING, line(age=600), None, "The listener is not running"),
        (
            NO_RING,
            line(age=5),
            {"cause": NOT_RUNNING, "start": NOW - 3},
            "The listener is not running",
        ),  # stopped on purpose
        (ALIVE, line(), {"cause": NOT_RUNNING, "start": NOW - 3}, "Listening"),  # starts just now
        (NO_RING, line(age=600), {"cause": ZEROS, "start": NOW - 700}, "The listener is not running"),
        (ALIVE, line(), {"cause": ZEROS, "start": NOW - 60}, "Only zeros are heard"),
        (ALIVE, line(), {"cause": NO_MICROPHONE, "start": NOW - 60}, "No microphone"),
        (ALIVE, line(), {"cause": STOPPED, "start": NOW - 60}, "The microphone has stopped"),
        (ALIVE, line(), {"cause": "no frames", "start": NOW - 60}, "Nothing is heard"),
        (ALIVE, line(), {"cause": SCHEDULE, "start": NOW - 60}, "Resting"),
        (ALIVE, line(zero_share=1.0), None, "Only zeros are heard"),
        (NO_RING, line(received=0), None, "Nothing is heard"),
        (Sound(True, True, 60.0, NOW - 60), line(), None, "Nothing is heard"),
    ],
)
def test_the_state_of_the_listener_in_a_sentence(sound, health, gap, title):
    assert status(NOW, sound, health, gap)["title"] == title


def test_before_there_is_a_record_the_page_says_so_and_a_record_that_cannot_be_read_is_named():
    assert status(NOW, NO_RING, None, None, absent=True)["title"] == "Nothing is recorded yet"
    assert status(NOW, ALIVE, line(), None, fault="x.sqlite: broken")["text"] == "x.sqlite: broken"
    assert status(NOW, DEAD, line(age=600), None)["since"] == NOW - 40
    assert status(NOW, NO_RING, line(age=5), {"cause": NOT_RUNNING, "start": NOW - 3})["since"] == NOW - 3


@pytest.mark.parametrize("content", [b"no database " * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_journal_that_is_none_is_said_and_nothing_fails(folder, content):
    folder.mkdir()
    (folder / "journal.sqlite").write_bytes(content)
    feed, viewer = Feed(Record(folder, Zone("UTC"))), Viewer()
    for _ in range(2):
        feed.refresh(NOW, NO_RING)
    told = dict(feed.news(viewer))
    assert told["status"]["title"] == "The record cannot be read" and "journal.sqlite" in told["status"]["text"]
    assert "events" not in told and told["hours"]["hours"] == {}


def test_the_colours_of_names_and_figures_stand_out_by_day_and_by_night():
    """Contrast as WCAG 2 has it: 4.5 for text on what it stands on."""
    css = (PAGE / "page.css").read_text()
    schemes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in css.split("prefers-color-scheme: dark")[:2]
    ]
    schemes[1] = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css.split("prefers-color-scheme: dark")[1].split("* {")[0])
    )
    pairs = [
        ("ink", "paper"),
        ("ink", "card"),
        ("quiet", "paper"),
        ("quiet", "card"),
        ("leaf", "card"),
        ("leaf", "leaf-soft"),
    ]
    pairs += [("red", "card"), ("red", "red-soft"), ("ink", "amber-soft"), ("ink", "red-soft"), ("card", "leaf")]
    pairs += [("heat-ink", "heat-1"), ("heat-ink", "heat-2"), ("heat-ink", "heat-3")]
    pairs += [("heat-ink-strong", "heat-4"), ("heat-ink-strong", "heat-5")]
    for colours in schemes:
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
