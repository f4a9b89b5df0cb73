"""Detections of neighbouring windows are one event: which, is said here by a few properties that hold for any windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.events import Changes, Detection, Event, EventMerger

UTC = 1_795_600_805.0  # of offset 0
WINDOW = 5.0
SPECIES = ("amecro", "robin", "../x")

Windows = Sequence[tuple[int, dict[str, float]]]  # (number, probability by species), in hops; a number may be missing

found = st.dictionaries(st.sampled_from(SPECIES), st.sampled_from([0.5, 0.7, 0.9]))
windows = st.lists(st.tuples(st.integers(1, 9), found), max_size=40).map(
    lambda steps: [(sum(step for step, _ in steps[: n + 1]), found) for n, (_, found) in enumerate(steps)]
)
hops = st.sampled_from([1.0, 2.5, 5.0])
lengths = st.sampled_from([5.0, 12.0, math.inf])


def push(merger: EventMerger, offset: float, found: dict[str, float], source: str = "usb", utc: float = UTC) -> Changes:
    return merger.push(utc + offset, utc + offset + WINDOW, offset, found, source)


def merged(windows: Windows, hop: float, longest: float = math.inf) -> list[Changes]:
    """What each window and the end changed."""
    merger = EventMerger(hop, WINDOW, "b6", longest_seconds=longest)
    return [*(push(merger, number * hop, found) for number, found in windows), merger.close_all()]


def last_states(changes: Sequence[Changes]) -> list[Event]:
    return list({event.id: event for change in changes for event in change.events}.values())


def without_ids(events: Sequence[Event]) -> set[tuple]:
    return {(event.species, event.offset_seconds, event.utc_end, event.windows, event.probability) for event in events}


@given(windows, hops, lengths)
def test_every_detection_is_in_exactly_one_event_and_an_event_is_the_union_of_its_detections(windows, hop, longest):
    changes = merged(windows, hop, longest)
    detections = [detection for change in changes for detection in change.detections]
    assert {(d.species, d.offset_seconds, d.probability) for d in detections} == {
        (species, number * hop, probability) for number, found in windows for species, probability in found.items()
    }
    assert len(detections) == sum(len(found) for _, found in windows)

    events = {event.id: event for event in last_states(changes)}
    assert {detection.event_id for detection in detections} == events.keys()
    for number, event in events.items():
        own = [detection for detection in detections if detection.event_id == number]
        assert {detection.species for detection in own} == {event.species}
        assert event.utc_start == own[0].utc_start == min(detection.utc_start for detection in own)
        assert event.utc_end == max(detection.utc_end for detection in own)
        assert event.windows == len(own)
        best = max(own, key=lambda detection: detection.probability)  # the first of equals
        assert event.probability == best.probability
        assert (event.best_utc_start, event.best_offset_seconds) == (best.utc_start, best.offset_seconds)
        assert (event.offset_seconds, event.model, event.source) == (own[0].offset_seconds, "b6", "usb")
        assert event.utc_end - event.utc_start <= max(longest, WINDOW) + 0.001


@given(windows, hops)
def test_a_species_events_are_the_stretches_in_which_its_windows_touch_or_overlap(windows, hop):
    events = last_states(merged(windows, hop))
    for species in SPECIES:
        offsets = [number * hop for number, found in windows if species in found]
        expected: list[list[float]] = []  # the offsets of the first and the last window
        for offset in offsets:
            if expected and offset - expected[-1][1] <= WINDOW:
                expected[-1][1] = offset
            else:
                expected.append([offset, offset])
        found = [(event.offset_seconds, event.utc_end - UTC) for event in events if event.species == species]
        assert found == [(first, pytest.approx(last + WINDOW)) for first, last in expected]


@given(windows, hops, lengths)
def test_a_species_events_depend_neither_on_other_species_nor_on_windows_without_it(windows, hop, longest):
    together = last_states(merged(windows, hop, longest))
    alone = []
    for species in SPECIES:
        only = [(number, {species: found[species]}) for number, found in windows if species in found]
        alone += last_states(merged(only, hop, longest))
    assert without_ids(together) == without_ids(alone)


@given(windows, hops, lengths)
def test_an_event_is_told_of_whenever_it_changes_once_a_window_and_at_last_as_closed(windows, hop, longest):
    told: dict[int, Event] = {}
    for change in merged(windows, hop, longest):
        assert len({event.id for event in change.events}) == len(change.events)
        assert {detection.event_id for detection in change.detections} <= {event.id for event in change.events}
        for event in change.events:
            before = told.get(event.id)
            assert before is None or not before.closed, "changed after its end"
            assert before is None or (event.windows, event.closed) > (before.windows, before.closed)
            told[event.id] = event
        assert change.closed == tuple(event for event in change.events if event.closed)
    assert all(event.closed for event in told.values())
    assert list(told) == sorted(told), "numbers rise in the order in which events begin"


@given(windows, hops)
def test_an_event_is_over_as_soon_as_the_next_window_cannot_touch_it(windows, hop):
    merger = EventMerger(hop, WINDOW, longest_seconds=math.inf)
    for number, found in windows:
        push(merger, number * hop, found)
        for event in merger.open:
            assert (number + 1) * hop <= event.utc_end - UTC + 0.001


def test_detections_of_a_window_come_best_first():
    changes = push(EventMerger(1.0, WINDOW), 0.0, {"amecro": 0.5, "robin": 0.9})
    assert [detection.species for detection in changes.detections] == ["robin", "amecro"]
    assert isinstance(changes.detections[0], Detection)


def test_a_window_in_between_that_found_nothing_or_was_dropped_does_not_part_a_song():
    for between in ([], [(1, {}), (2, {})]):
        (event,) = last_states(merged([(0, {"robin": 0.5}), *between, (3, {"robin": 0.9})], hop=1.0))
        assert (event.windows, event.probability, event.utc_end - event.utc_start) == (2, 0.9, 8.0)


def test_windows_that_touch_but_for_a_rounded_sample_are_neighbours():
    merger = EventMerger(5.0, WINDOW)
    push(merger, 0.0, {"robin": 0.5})
    (event,) = push(merger, 5.0 + 1 / 32000, {"robin": 0.5}).events
    assert event.windows == 2


def test_a_species_that_never_stops_has_an_event_a_minute_at_least():
    changes = merged([(number, {"frog": 0.9}) for number in range(200)], hop=2.5, longest=60.0)
    events = last_states(changes)
    assert [event.utc_end - event.utc_start for event in events[:-1]] == [60.0] * (len(events) - 1)
    assert sum(event.windows for event in events) == 200
    # An event that can take no further window is over with its last one, not a hop later.
    assert changes[22].closed and changes[22].closed[0].windows == 23


@pytest.mark.parametrize(
    ("offset", "source", "utc"),
    [
        (0.0, "usb", UTC + 60),  # reopened: offsets begin anew
        (5.0, "other", UTC),  # another microphone, or the next file
        (5.0, "usb", UTC + 3600),  # the clock was set an hour on
        (5.0, "usb", UTC - 3600),
    ],
)
def test_no_event_goes_on_where_hearing_was_broken_or_the_clock_was_set(offset, source, utc):
    merger = EventMerger(5.0, WINDOW)
    (first,) = push(merger, 0.0, {"robin": 0.9}).events
    closed, second = push(merger, offset, {"robin": 0.8}, source, utc).events
    assert closed.closed and closed.id == first.id and closed.utc_end == UTC + WINDOW
    assert not second.closed and second.windows == 1 and second.id > first.id


def test_a_sound_card_that_strays_by_milliseconds_breaks_no_event():
    merger = EventMerger(5.0, WINDOW)
    for number in range(6):
        push(merger, number * 5.0, {"robin": 0.9}, utc=UTC - 0.2 * number)
    (event,) = merger.open
    assert event.windows == 6 and event.utc_end == UTC + 25.0 - 1.0 + WINDOW


def test_numbers_of_events_are_the_ones_it_is_given():
    merger = EventMerger(5.0, WINDOW, new_id=count(40).__next__)
    assert [event.id for event in push(merger, 0.0, {"a": 0.9, "b": 0.8}).events] == [40, 41]
    assert [event.id for event in merger.close_all().events] == [40, 41]
    assert merger.close_all() == Changes()
