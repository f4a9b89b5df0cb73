"""What is answered, as files. Written line by line: no table is held, however many recordings there are.

The table of detections, a CSV with the columns

file           the recording, as it was given or found
start_s, end_s where the window lies in it, in seconds
species        eBird code, or what else the model's labels are
probability    the model's, calibrated, in [0, 1]
start_utc      start_s as UTC, 2023-05-14T04:30:05.000Z; empty where neither the file's name nor its header tells it

A Raven selection table (tabs) of a recording, with the columns

Selection, View, Channel          a number, Spectrogram 1, 1: what Raven wants
Begin Time (s), End Time (s)      where the window lies in the recording
Low Freq (Hz), High Freq (Hz)     the band that the model hears, as far as the recording has it
Begin File                        the recording's name, without its folders
Species, Probability, Start UTC   as above

Audacity labels of a recording: start, end and species, separated by tabs, no header. And the competition's submission.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from src import recording_time
from src.batch import outcome_of
from src.files import written_lines
from src.parts import Parts
from src.recipe import Recipe
from src.recording_files import Recording, output_path
from src.soundscape import NOCALL
from src.status import FAILED, Outcome, Tally, as_text, written_status

COLUMNS = ("file", "start_s", "end_s", "species", "probability", "start_utc")
RAVEN_COLUMNS = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
RAVEN_COLUMNS += ("Begin File", "Species", "Probability", "Start UTC")
RAVEN_SUFFIX, AUDACITY_SUFFIX = ".selections.txt", ".labels.txt"


@dataclass(frozen=True)
class Tables:
    """Where tables go: one of all detections, the status, and folders for one a recording; None: not wanted."""

    detections: Path
    status: Path
    raven: Path | None = None
    audacity: Path | None = None


def write_tables(
    tables: Tables, recordings: Sequence[Recording], parts: Parts, recipe: Recipe, utc_offset_hours: float | None
) -> tuple[int, Tally]:
    """Write all tables from the parts, in the order of the recordings, each table whole or not at all.

    A recording that failed has no table, not even one of an earlier run. Returns the number of detections, and the tally.
    """
    number, tally = 0, Tally()
    with written_lines(tables.detections) as file, written_status(tables.status) as add_status:
        detections = csv.writer(file, lineterminator="\n")
        detections.writerow(COLUMNS)
        for recording in recordings:
            outcome = outcome_of(recording, parts)
            tally.add(outcome)
            add_status(outcome)
            if outcome.status == FAILED:
                _remove_tables(tables, recording)
                continue
            name = as_text(recording.shown)
            began = _began(outcome, utc_offset_hours)
            with ExitStack() as stack:
                raven = stack.enter_context(_raven(tables.raven, recording, outcome, recipe))
                audacity = stack.enter_context(_audacity(tables.audacity, recording))
                for start, end, species, probability in parts.lines(recording):
                    utc = recording_time.utc_text(began, start)
                    detections.writerow([name, start, end, species, probability, utc])
                    raven(start, end, species, probability, utc)
                    audacity(start, end, species)
                    number += 1
    return number, tally


def write_status(path: Path, outcomes: Iterable[Outcome]) -> Tally:
    """Write the status table of these outcomes; returns their tally."""
    tally = Tally()
    with written_status(path) as add_status:
        for outcome in outcomes:
            tally.add(outcome)
            add_status(outcome)
    return tally


def write_submission(path: Path, row_ids: Iterable[str], answers: Iterable[Iterable[str]]) -> None:
    """Write `row_id,birds`: codes sorted and separated by spaces, `nocall` where there are none."""
    with written_lines(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row_id", "birds"))
        writer.writerows((row_id, " ".join(sorted(codes)) or NOCALL) for row_id, codes in zip(row_ids, answers))


def _began(outcome: Outcome, utc_offset_hours: float | None) -> datetime | None:
    began = datetime.fromisoformat(outcome.began) if outcome.began else None
    return recording_time.as_utc(began, utc_offset_hours)


@contextmanager
def _raven(folder: Path | None, recording: Recording, outcome: Outcome, recipe: Recipe) -> Iterator:
    if folder is None:
        yield lambda *_: None
        return
    with written_lines(output_path(folder, recording.name, RAVEN_SUFFIX)) as file:
        file.write("\t".join(RAVEN_COLUMNS) + "\n")
        high = min(recipe.fmax_hz, outcome.sample_rate / 2)
        band = [round(min(recipe.fmin_hz, high), 1), round(high, 1)]
        # Raven knows no quotes: what would break a line is no longer the name, and no table can hold it.
        name = "".join(letter if letter.isprintable() else " " for letter in as_text(Path(recording.path).name))
        written = 0

        def add(start: float, end: float, species: str, probability: float, utc: str) -> None:
            nonlocal written
            written += 1
            row = [written, "Spectrogram 1", 1, start, end, *band, name, species, probability, utc]
            file.write("\t".join(map(str, row)) + "\n")

        yield add


@contextmanager
def _audacity(folder: Path | None, recording: Recording) -> Iterator:
    if folder is None:
        yield lambda *_: None
        return
    with written_lines(output_path(folder, recording.name, AUDACITY_SUFFIX)) as file:
        yield lambda start, end, species: file.write(f"{start:.6f}\t{end:.6f}\t{species}\n")


def _remove_tables(tables: Tables, recording: Recording) -> None:
    if recording.fault:  # of a folder
        return
    for folder, suffix in ((tables.raven, RAVEN_SUFFIX), (tables.audacity, AUDACITY_SUFFIX)):
        if folder is not None:
            output_path(folder, recording.name, suffix).unlink(missing_ok=True)
