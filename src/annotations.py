"""Timed labels: who calls from when to when, out of Raven selection tables, Audacity labels, or one table for all recordings.

    beside(["a.wav", "a.Table.1.selections.txt"])           # {"a.wav": ["a.Table.1.selections.txt"]}
    parse("0.5\\t2.0\\tTurdus merula\\n")                      # [(0.5, 2.0, "Turdus_merula")]
    read_labels(Path("example_test_audio_metadata.csv"))    # {"ORANGE-7-CAP_20190606_093000": [(0.4, 1.4, "squirrel"), ...]}

Labels hold no spaces, since lists of them are separated by spaces: "Turdus merula" becomes "Turdus_merula". Several in one,
separated by comma, plus or semicolon, are several events. A label without text is "?": something there that is no class.
"nocall" says no more than a stretch without labels, and is left out. What cannot be read is one recording's fault, and named
with its line.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, Union

from src.competition import NOCALL, UNKNOWN, audio_files, read_events, read_table
from src.errors import UserError
from src.storage import place, read_text

if TYPE_CHECKING:
    from src.storage import Place

# Raven users name the column of labels themselves; where a table has several, codes are preferred to names.
LABEL_COLUMNS = ("species code", "ebird code", "ebird_code", "species", "label", "labels", "annotation", "annotations")
LABEL_COLUMNS += ("class", "code", "scientific name", "common name", "name", "tag", "tags")
# Of a CSV of labels: the name here, and what else it may be called (the columns of predict.py's detections).
CSV_COLUMNS = {"filename": ("file",), "start_seconds": ("start_s",), "end_seconds": ("end_s",)}
CSV_COLUMNS["label"] = ("species", "ebird_code")


class AnnotationError(Exception):
    """Timed labels that cannot be read. The text says where and why, without the file's name."""


class Event(NamedTuple):
    """One label. start_seconds == end_seconds for a label of a moment."""

    start_seconds: float
    end_seconds: float
    code: str


class _Line(NamedTuple):
    """A line as it is written: where it is, the recording it names ("": the one it lies beside), and what it says."""

    where: str
    recording: str
    selection: str
    start: str
    end: str
    label: str
    offset: str = ""  # the start in the recording's own file, where `start` and `end` are of several in a row


Events = Union["list[Event]", AnnotationError]


def as_label(text: str) -> str:
    """A label without spaces: "Turdus merula" -> "Turdus_merula"; "NoCall" -> "nocall"; "" stays."""
    label = "_".join(text.split())
    return NOCALL if label.casefold() == NOCALL else label


def beside(files: Iterable[str]) -> dict[str, list[str]]:
    """The annotation files of each recording that has any, by paths relative to one folder.

    Beside a.wav these are a.txt, and a.*.txt with a part that begins with "Table" or "selection", as Raven and BirdNET name
    them. Of a.wav and a.b.wav, a.b.txt belongs to the latter.
    """
    files = list(files)
    of_stem, found = defaultdict(list), defaultdict(list)
    for key in audio_files(files):
        of_stem[str(PurePosixPath(key).with_suffix(""))].append(key)
    for key in files:
        path = PurePosixPath(key)
        if path.suffix.lower() != ".txt" or path.name.startswith("."):
            continue
        parts = path.name.split(".")[:-1]
        for count in range(len(parts), 0, -1):
            stem = str(path.with_name(".".join(parts[:count])))
            of_raven = any(part.lower().startswith(("table", "selection")) for part in parts[count:])
            if stem in of_stem and (count == len(parts) or of_raven):
                for recording in of_stem[stem]:
                    found[recording].append(key)
                break
    return dict(found)


def parse(text: str) -> list[Event]:
    """The events of an annotation file that lies beside its recording, in the order of time, each once.

    text: a Raven selection table (its first line names "Begin Time (s)") or Audacity labels ("start<tab>end<tab>label");
        empty: listened to, and nothing there. Raises AnnotationError.
    """
    first = next((line for _, line in _filled(text)), "")
    if "begin time" not in first.lower():
        return _events(_audacity_lines(text))
    lines = list(_raven_lines(text))
    if len({line.recording for line in lines}) > 1:
        raise AnnotationError("is a table of several recordings; give it with --labels")
    return _events(lines)


def read_labels(path: Place | str) -> dict[str, Events]:
    """Timed labels of many recordings from one table, by the recording's name as the table has it.

    The table is the host's example_test_audio_metadata.csv (named by audio_id), a Raven selection table with a column Begin
    File, or a CSV with the columns filename, start_seconds, end_seconds and label (predict.py's detections are one). A row of
    a CSV with a filename alone says that the recording was listened to. Where a recording's lines cannot be read, the
    AnnotationError that says why stands for its events. Raises UserError for a table that lacks a column.
    """
    path = place(path)
    header = read_table(path, []).columns if path.suffix.lower() == ".csv" else ["\t"]
    if {"file_id", "time_start"} <= set(header):
        lines = _host_lines(path)
    elif any("\t" in name for name in header):
        lines = _raven_file_lines(path)
    else:
        lines = _csv_lines(path)
    of_recording = defaultdict(list)
    for line in lines:
        of_recording[line.recording].append(line)
    found: dict[str, Events] = {}
    for name, of_one in of_recording.items():
        try:
            found[name] = _events(of_one)
        except AnnotationError as error:
            found[name] = error
    return found


def find_recordings(labels: dict[str, Events], audio: list[str], table: str) -> tuple[dict[str, Events], list[str]]:
    """Find the file of each recording that a table of labels names: events by file, and the names that have none.

    A name is a path, whole or in part, or the file's name without its end, or with more between (see find_audio).
    """
    by_name, by_start = defaultdict(list), defaultdict(list)
    for key in audio:
        name = PurePosixPath(key).name
        by_name[name].append(key)
        for dot in re.finditer(r"\.", name):
            by_start[name[: dot.start()]].append(key)
    found: dict[str, Events] = {}
    absent = []
    for name, events in labels.items():
        path = PurePosixPath(name.replace("\\", "/"))
        keys = by_name.get(path.name) or by_start.get(path.name, [])
        shared = {key: _shared_folders(PurePosixPath(key).parent.parts, path.parent.parts) for key in keys}
        keys = [key for key in keys if shared[key] == max(shared.values()) >= 0]
        keys = [key for key in keys if key == str(path)] or keys
        if not name or not keys:
            absent.append(name)
            continue
        if len({PurePosixPath(key).parent for key in keys}) > 1:
            events = AnnotationError(f"{len(keys)} files are called {path.name}; name it with its folder")
        else:
            keys = sorted(keys)[:1]
        for key in keys:
            if isinstance(events, AnnotationError):
                found[key] = AnnotationError(f"{table}: {events}")
            elif not isinstance(found.get(key), AnnotationError):
                found[key] = [*found.get(key, ()), *events]
    return found, absent


def _shared_folders(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many folders two paths share, from the last one on; -1 if they differ before either has told all."""
    told = min(len(one), len(other))
    return told if not told or one[-told:] == other[-told:] else -1


def _host_lines(path: Place) -> list[_Line]:
    table = read_events(path)
    return [
        _Line(f"event {number}", row.audio_id, "", str(row.start_seconds), str(row.end_seconds), row.ebird_code)
        for number, row in enumerate(table.itertuples(), start=1)
    ]


def _csv_lines(path: Place) -> list[_Line]:
    table = read_table(path, [])
    for name, others in CSV_COLUMNS.items():
        there = [other for other in others if other in table.columns]
        if name not in table.columns and there:
            table = table.rename(columns={there[0]: name})
    if missing := [name for name in CSV_COLUMNS if name not in table.columns]:
        read_table(path, missing)  # raises, with their names
    columns = (table[name].str.strip() for name in CSV_COLUMNS)
    # The header is line 1.
    return [_Line(f"line {number}", row[0], "", *row[1:]) for number, row in enumerate(zip(*columns), start=2)]


def _raven_file_lines(path: Place) -> list[_Line]:
    try:
        lines = list(_raven_lines(read_text(path)))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; --labels takes a table of timed labels") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8") from error
    except (AnnotationError, OSError) as error:
        raise UserError(f"{path}: {error}") from error
    if lines and not any(line.recording for line in lines):
        raise UserError(f"{path}: lacks the column Begin File; a table without it lies beside its recording")
    return lines


def _raven_lines(text: str) -> Iterator[_Line]:
    filled = [(number, [cell.strip().strip('"') for cell in line.split("\t")]) for number, line in _filled(text)]
    if not filled:
        return
    header = [name.lower() for name in filled[0][1]]
    for column in ("Begin Time (s)", "End Time (s)"):
        if column.lower() not in header:
            raise AnnotationError(f"lacks the column {column}")
    entries = [(number, dict(zip(header, row))) for number, row in filled[1:]]
    named = [name for name in LABEL_COLUMNS if name in header]
    if entries and not named:
        raise AnnotationError("has no column of labels (Species, Annotation, Label, Species Code, ...)")
    # A column that nobody filled in says nothing.
    column = next((name for name in named if any(entry.get(name) for _, entry in entries)), "")
    for number, entry in entries:
        names = ("begin file", "selection", "begin time (s)", "end time (s)", column, "file offset (s)")
        yield _Line(f"line {number}", *(entry.get(name, "") for name in names))


def _audacity_lines(text: str) -> Iterator[_Line]:
    for number, line in _filled(text):
        # A line that begins with a backslash holds the frequencies of the one before.
        if not line.startswith("\\"):
            start, *rest = line.split("\t")
            if not rest:
                raise AnnotationError(f"line {number} is not start, end and label, separated by tabs")
            yield _Line(f"line {number}", "", "", start, rest[0], " ".join(rest[1:]))


def _events(lines: Iterable[_Line]) -> list[Event]:
    """The events of one recording, in the order of time, each once."""
    labels: dict[tuple, str] = {}
    for line in lines:
        if line.recording and not (line.start or line.end or line.label):
            continue
        start, end = _seconds(line.start, line.where), _seconds(line.end, line.where)
        if start < 0:
            raise AnnotationError(f"{line.where} starts before the recording")
        if end < start:
            raise AnnotationError(f"{line.where} ends before it starts")
        if line.offset:
            seconds, start = end - start, _seconds(line.offset, line.where)
            end = round(start + seconds, 6)
        # Raven writes a selection once for each view (waveform, spectrogram), sometimes the label in one of them only.
        key = (start, end, line.selection or line.where)
        labels[key] = labels.get(key) or line.label
    found = {Event(start, end, code) for (start, end, _), label in labels.items() for code in _codes(label)}
    return sorted(event for event in found if event.code != NOCALL)


def _filled(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers. Not by str.splitlines, which cuts at more than ends of lines."""
    for number, line in enumerate(re.split("\r\n|\n|\r", text.removeprefix("\ufeff")), start=1):
        if line.strip():
            yield number, line


def _codes(label: str) -> list[str]:
    return [code for code in map(as_label, re.split("[,+;]", label)) if code] or [UNKNOWN]


def _seconds(text: str, where: str) -> float:
    """A time; programs write it with the decimal comma in some countries."""
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationError(f"{where}: {text.strip()!r} is not a time in seconds")
    return number
