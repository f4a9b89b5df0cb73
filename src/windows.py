"""One recording to the windows that are kept of it: decode, score, choose, label, augment.

    outcome, rows = prepare_recording(recording, recipe, clips, write)
    outcome      # {"filename": ..., "status": "ok", "reason": "", "seconds": 38.2, "windows": 5, "digest": ...}
    rows         # one dict a kept window or augmented copy, in the order in which `write` was given their images

Memory does not grow with the recording: images beyond SPOOLED_BYTES wait on disk until the noise floor of the whole
recording is known, and where copies are to be made the file is decoded a second time (a hundredth of what they cost).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable

import numpy as np

from src.audio import AudioError, AudioFile, Window, file_windows
from src.augment import Clips, augment, copy_name
from src.calls import NoiseFloor, call_score, choose
from src.competition import MISSING, NOCALL, UNKNOWN
from src.recipe import Recipe
from src.spectrogram import log_mel, to_bytes
from src.storage import local_copy

SPOOLED_BYTES = 64 << 20
LEAST_OVERLAP_SECONDS = 0.2  # of a labelled event with a window, or half of the event, for the window to have its label


@dataclass(frozen=True)
class _Cut:
    """A window before anything is chosen: where it is, and the score of each channel."""

    start_seconds: float
    audio_seconds: float
    scores: tuple[float, ...]
    heard: frozenset[int] = frozenset({0})  # the channels that are not silent throughout the recording


@dataclass(frozen=True)
class _Label:
    """What a kept window is: its species, those labelled in it beside, those that may be in it."""

    ebird_code: str
    others: str
    secondary: str


def prepare_recording(
    recording: dict, recipe: Recipe, clips: Clips, write: Callable[[np.ndarray], None]
) -> tuple[dict, list[dict]]:
    """Give the images of a recording's kept windows and copies to `write`, uint8 [mels, frames] each, and describe them.

    recording: filename, path (a URL is fetched for as long as it is needed), ebird_code, secondary, events, remark
    returns: the outcome (status "ok", "skipped" or "failed", and why), and a row for each image; `parent` is the number
        of the original's row among them
    """
    outcome = {
        "filename": recording["filename"],
        "status": "ok",
        "reason": "",
        "seconds": 0.0,
        "windows": 0,
        "digest": "",
    }
    rows: list[dict] = []
    try:
        with local_copy(recording["path"]) as path, tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as spool:
            cuts, outcome["seconds"], outcome["digest"], faults = _cut(path, recipe, spool)
            short = f"only {outcome['seconds']:g} s long" if outcome["seconds"] < recipe.min_tail_seconds else ""
            outcome["reason"] = "; ".join(part for part in (recording["remark"], faults, short) if part)
            if not outcome["digest"]:
                # Nothing above the floor of the front end in any window: no label is true of it.
                return {**outcome, "status": "skipped", "reason": "silent throughout"}, []
            labels = _labels(recording, cuts, recipe)
            for number, channel, copies in _with_copies(path, recording["filename"], cuts, labels, recipe, clips):
                parent = len(rows)
                write(_read_image(spool, number * len(cuts[number].scores) + channel, recipe))
                rows.append(_row(recording, cuts[number], labels[number], channel, parent))
                for transform, waveform, parameters in copies:
                    write(to_bytes(log_mel(waveform, recipe), recipe))
                    background = parameters.get("background", {}).get("clip", "")
                    copied = {"transform": transform, "parameters": json.dumps(parameters), "background": background}
                    rows.append({**rows[parent], **copied})
    except (AudioError, FileNotFoundError, PermissionError) as error:
        reasons = {FileNotFoundError: MISSING, PermissionError: "may not be read"}
        reason = reasons.get(type(error)) or str(error)
        return {**outcome, "status": "failed", "reason": reason, "seconds": 0.0}, []
    return {**outcome, "windows": len(rows)}, rows


def _cut(path: Path, recipe: Recipe, spool: BinaryIO) -> tuple[list[_Cut], float, str, str]:
    """Cut a file: (its windows with their scores, seconds read, digest of all images or "" for silence, what was wrong).

    The images of all windows and channels are left in `spool`.
    """
    floor, digest, heard, places = NoiseFloor(recipe), hashlib.sha256(), set(), []
    with AudioFile(path) as audio:
        for window in _kept(file_windows(audio, recipe, recipe.channels), recipe):
            for channel, waveform in enumerate(window.samples):
                image = to_bytes(log_mel(waveform, recipe), recipe)
                floor.add(image, window.audio_seconds)
                if image.any():
                    heard.add(channel)
                digest.update(image)
                spool.write(image.tobytes())
            places.append((window.start_seconds, window.audio_seconds, len(window.samples)))
        seconds, fault = round(audio.seconds_read, 3), audio.fault
    median, cuts, number = floor.median(), [], 0
    for start, length, channels in places:
        images = (_read_image(spool, number + channel, recipe) for channel in range(channels))
        cuts.append(_Cut(start, length, tuple(call_score(image, median, recipe) for image in images), frozenset(heard)))
        number += channels
    return cuts, seconds, digest.hexdigest() if heard else "", fault


def _kept(windows: Iterator[Window], recipe: Recipe) -> Iterator[Window]:
    for window in windows:
        if window.start_seconds == 0 or window.audio_seconds >= recipe.min_tail_seconds:
            yield window


def _read_image(spool: BinaryIO, number: int, recipe: Recipe) -> np.ndarray:
    size = recipe.image_shape[0] * recipe.image_shape[1]
    spool.seek(number * size)
    return np.frombuffer(spool.read(size), np.uint8).reshape(recipe.image_shape)


def _labels(recording: dict, cuts: list[_Cut], recipe: Recipe) -> dict[int, _Label]:
    """The windows to keep, by their numbers, and what each is."""
    if recording["events"]:
        events = json.loads(recording["events"])
        found = {number: _timed_label(cut, events) for number, cut in enumerate(cuts)}
        return {number: label for number, label in found.items() if label}
    whole = _Label(recording["ebird_code"], "", recording["secondary"])
    if recording["ebird_code"] == NOCALL:
        return dict.fromkeys(range(len(cuts)), whole)
    calls, quiet = choose([max(cut.scores) for cut in cuts], recipe)
    # Whoever may call in the recording may do so softly in a quiet window.
    may_be = _Label(NOCALL, "", " ".join(sorted({recording["ebird_code"], *recording["secondary"].split()})))
    return dict(sorted([*((number, whole) for number in calls), *((number, may_be) for number in quiet)]))


def _timed_label(cut: _Cut, events: list) -> _Label | None:
    """What a window is by timed labels: all its species, the longest-lasting first.

    None if only what is no class, or a trace of a call too short to hear it by, is in it: it is neither bird nor nocall.
    """
    seconds: dict[str, float] = {}
    touched = False
    for start, end, code in events:
        begin, finish = max(start, cut.start_seconds), min(end, cut.start_seconds + cut.audio_seconds)
        inside = begin < finish or (start == end and cut.start_seconds <= start < cut.start_seconds + cut.audio_seconds)
        touched |= inside
        if inside and finish - begin >= min(LEAST_OVERLAP_SECONDS, (end - start) / 2):
            seconds[code] = seconds.get(code, 0.0) + finish - begin
    seconds.pop(UNKNOWN, None)
    if not seconds:
        return None if touched else _Label(NOCALL, "", "")
    first, *others = sorted(seconds, key=lambda code: (-seconds[code], code))
    return _Label(first, " ".join(sorted(others)), "")


def _with_copies(
    path: Path, filename: str, cuts: list[_Cut], labels: dict[int, _Label], recipe: Recipe, clips: Clips
) -> Iterator[tuple[int, int, list]]:
    """Each kept window and channel, with its augmented copies: (transform, float32 [samples], parameters)."""
    if not recipe.augment:
        for number in labels:
            yield from ((number, channel, []) for channel in sorted(cuts[number].heard))
        return
    with AudioFile(path) as audio:
        for number, window in enumerate(_kept(file_windows(audio, recipe, recipe.channels), recipe)):
            if number > max(labels, default=-1):
                break
            for channel in sorted(cuts[number].heard) if number in labels else ():
                waveform = window.samples[channel]
                copies = [
                    (
                        entry,
                        *augment(
                            waveform,
                            entry,
                            recipe,
                            copy_name(filename, channel, window.start_seconds, entry, copy),
                            clips,
                        ),
                    )
                    for entry in recipe.augment
                    for copy in range(recipe.copies)
                ]
                yield number, channel, copies


def _row(recording: dict, cut: _Cut, label: _Label, channel: int, parent: int) -> dict:
    return {
        "filename": recording["filename"],
        "ebird_code": label.ebird_code,
        "others": label.others,
        "secondary": label.secondary,
        "channel": channel,
        "start_seconds": cut.start_seconds,
        "audio_seconds": cut.audio_seconds,
        "call_score": round(cut.scores[channel], 3),
        "transform": "",
        "parameters": "{}",
        "background": "",
        "parent": parent,
    }
