"""Whether the listener hears, in one plain sentence for the top of the page.

    status(now, Sound(alive=True, ...), health, gap)     # {"state": "listening", "title": "Listening", "text": "", "since": None}

Three signs are put together: the ring of the live spectrogram, whose writer holds a lock for as long as it lives; the
health line that comes every minute; and the gap that the journal holds open. The first is the quickest, the second is
there even where the ring is not (the listener in another container), the third knows the cause.
"""

from __future__ import annotations

from typing import NamedTuple

from edge.tables import NO_FRAMES, NO_MICROPHONE, NOT_RUNNING, SCHEDULE, STOPPED, ZEROS

FRESH_SECONDS = 180.0  # a health line comes every minute, and may wait for a card or a locked journal
QUIET_SECONDS = 15.0  # without a column in the ring and without a gap that says why
ALL = 0.999  # of the samples

# What a gap of each cause that goes on means: state, title, text.
BY_CAUSE = {
    NO_MICROPHONE: (
        "fault",
        "No microphone",
        "The listener runs, but there is no microphone. Plug it in: it is found by itself.",
    ),
    STOPPED: (
        "fault",
        "The microphone has stopped",
        "It was unplugged, or the sound server has ended. The listener keeps trying.",
    ),
    NO_FRAMES: (
        "fault",
        "Nothing is heard",
        "The microphone is open and gives no sound at all. The listener keeps trying to open it again.",
    ),
    ZEROS: (
        "fault",
        "Only zeros are heard",
        "The microphone gives perfect silence: it is muted, or its cable or its connector is broken.",
    ),
    SCHEDULE: ("resting", "Resting", "These are not the hours in which it is to listen."),
}


class Sound(NamedTuple):
    """What the ring of the live spectrogram says: is there a ring, has it a writer, when was its last column heard.

    quiet_seconds: for how long it has not moved; last_utc: seconds since 1970 or None
    """

    there: bool
    alive: bool
    quiet_seconds: float
    last_utc: float | None


def status(
    now: float, sound: Sound, health: dict | None, gap: dict | None, absent: bool = False, fault: str = ""
) -> dict:
    """State ("listening", "resting", "fault", "off"), title, text, and since when (s since 1970 or None).

    now: seconds since 1970; health: the last health line; gap: the last one that goes on, among those in which nothing is heard
    absent, fault: whether there is no journal, and why it cannot be read
    """
    if fault:
        return _said("fault", "The record cannot be read", fault)
    stopped = (
        gap is not None and gap["cause"] == NOT_RUNNING and not sound.alive
    )  # on purpose: it takes its ring with it
    if stopped or not is_running(now, sound, health):
        if absent:
            return _said("off", "Nothing is recorded yet", "No listener has been started on this folder.")
        signs = [gap["start"]] if stopped else [sound.last_utc, health and health["utc"]]
        last = max((sign for sign in signs if sign), default=None)
        return _said("off", "The listener is not running", "Nothing is heard or recorded now.", last)
    if gap is not None and gap["cause"] in BY_CAUSE:
        return _said(*BY_CAUSE[gap["cause"]], gap["start"])
    if sound.alive and sound.last_utc is not None and sound.quiet_seconds > QUIET_SECONDS:
        return _said("fault", "Nothing is heard", "The listener runs, but no sound reaches it.", sound.last_utc)
    if health is not None and is_fresh(now, health):
        if health["received"] == 0:
            return _said(*BY_CAUSE[NO_FRAMES])
        if (health["zero_share"] or 0) >= ALL:
            return _said(*BY_CAUSE[ZEROS])
    return _said("listening", "Listening", "")


def is_running(now: float, sound: Sound, health: dict | None) -> bool:
    """Does a listener live? Its lock on the ring says so; where there is no ring of it, its health line of late."""
    if sound.alive:
        return True
    if health is None or not is_fresh(now, health):
        return False
    # A ring without a writer: the listener died just now, unless its health is younger than the ring, which then is another's.
    return not sound.there or (sound.last_utc or 0) + QUIET_SECONDS < health["utc"]


def is_fresh(now: float, health: dict) -> bool:
    """Is this health line of now, whichever way the clock was set meanwhile?"""
    return abs(now - health["utc"]) < FRESH_SECONDS


def _said(state: str, title: str, text: str, since: float | None = None) -> dict:
    return {"state": state, "title": title, "text": text, "since": since}
