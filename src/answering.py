"""The rows of a test.csv, answered from a folder of audio: what predict.py and the Kaggle kernel share.

    answers = answer_rows(core, read_rows(test_csv), folder, core.rule(), core.hop_seconds)
    answers.birds["site_1_ab_5"]      # {"amerob"}; an empty set: nocall
    answers.outcomes                  # what became of each file; answers.faults: [(file, what was wrong with it), ...]

predict.py does the same on several processes, and goes on where it was:

    recordings = of_rows(read_rows(test_csv), folder)
    batch.analyse(Answering(question), recordings, parts, workers)
    answers = collected(rows, recordings, parts, begun)

Each row is answered, whatever the audio: where there is none, or none that can be read, or no time left, it is nocall.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from src import audio, competition, predictor, soundscape
from src.batch import Question, outcome_of
from src.parts import Part, Parts
from src.recording_files import Recording
from src.status import FAILED, OK, TRUNCATED, Outcome

if TYPE_CHECKING:
    import pandas as pd

    from src.predictor import Ensemble
    from src.soundscape import Rule, Votes

# The competition's hidden test set, and how long a kernel may take over it.
TEST_FILES, TEST_FILE_SECONDS, KERNEL_SECONDS = 150, 600.0, 7200.0


@dataclass(frozen=True)
class Answers:
    """What was answered, and what it cost.

    birds: the species of each row by its row_id, in the order of the rows; an empty set: nocall
    outcomes: what became of each file, one that was not started among them
    late: audio_ids of the files that were not started, for the deadline
    audio_seconds: audio that was answered for; seconds: how long that took
    """

    birds: dict[str, set[str]]
    outcomes: list[Outcome]
    late: list[str]
    audio_seconds: float
    seconds: float

    @property
    def faults(self) -> list[tuple[str, str]]:
        """(file, what was wrong with it) pairs."""
        return [(one.file, one.reason) for one in self.outcomes if one.status != OK]

    def describe(self) -> str:
        """How many rows were answered with what."""
        called = sum(map(bool, self.birds.values()))
        return f"{len(self.birds)} rows, {called} with birds, {len(self.birds) - called} nocall"

    def projection(self, files: int = TEST_FILES, file_seconds: float = TEST_FILE_SECONDS) -> str:
        """The speed as it was measured, and what so many files so long would take at it."""
        if not self.audio_seconds:
            return "no audio was answered, so no speed was measured"
        share = self.seconds / self.audio_seconds
        return (
            f"answered {self.audio_seconds / 60:.1f} min of audio in {self.seconds:.1f} s; {files} files of "
            f"{file_seconds / 60:g} min would take {share * files * file_seconds / 60:.1f} min of the kernel's "
            f"{KERNEL_SECONDS / 60:g}"
        )


@dataclass(frozen=True)
class Answering:
    """The task of answering the rows of one file after the other; lines of a part: [row_id, [code, ...]]."""

    question: Question

    def analyse(self, recording: Recording, part: Part) -> Outcome:
        """Answer the rows of a file. Raises AudioError if nothing of it can be read."""
        question = self.question
        birds, outcome = answer_file(question.core(), recording, question.rule(), question.hop())
        for row_id, codes in birds.items():
            part.write([row_id, sorted(codes)])
        return outcome

    def lacks(self, recording: Recording, parts: Parts) -> bool:
        """Nothing is made beside the part."""
        return False

    def complete(self, recording: Recording, parts: Parts) -> bool:
        """Nothing is made beside the part."""
        return True


def of_rows(rows: pd.DataFrame, folder: Path) -> list[Recording]:
    """The files that rows, as `competition.read_rows` gives them, are about, with their rows; some may be absent."""
    recordings = []
    for audio_id, of_file in rows.groupby("audio_id", sort=False):
        path = competition.find_audio(folder, audio_id)
        wanted = tuple(zip(of_file.row_id, map(float, of_file.end_seconds)))
        fault = "" if path else f"no such audio; {_nocall(wanted)}"
        path = path or folder / audio_id
        recordings.append(Recording(str(path.absolute()), str(path), audio_id, fault, wanted))
    return recordings


def answer_file(
    core: Ensemble, recording: Recording, rule: Rule | Votes, hop_seconds: float | None
) -> tuple[dict[str, set[str]], Outcome]:
    """Answer the rows of one file: the species of each, and what became of the file. Raises AudioError if none can be read."""
    prediction = predictor.predict_file(core, Path(recording.path), hop_seconds)
    row_ids, ends = zip(*recording.rows)
    probabilities = soundscape.row_probabilities(prediction, np.array(ends))
    faults = [prediction.fault] if prediction.fault else []
    beyond = int(np.isnan(probabilities).any(axis=-1).reshape(-1, len(ends))[0].sum())
    if beyond:
        faults.append(f"{beyond} rows lie beyond its {prediction.seconds:.1f} s; answered nocall")
    birds = dict(zip(row_ids, soundscape.decide(probabilities, core.labels, rule, np.array(ends))))
    return birds, Outcome(recording.shown, TRUNCATED if faults else OK, prediction.seconds, "; ".join(faults))


def collected(rows: pd.DataFrame, recordings: list[Recording], parts: Parts, begun: float) -> Answers:
    """The answers of all rows after `batch.analyse`, which was begun at that time of time.monotonic()."""
    birds: dict[str, set[str]] = {row_id: set() for row_id in rows.row_id}
    outcomes = []
    for recording in recordings:
        outcome = outcome_of(recording, parts)
        if outcome.status != FAILED:
            birds.update((row_id, set(codes)) for row_id, codes in parts.lines(recording))
        elif not recording.fault:
            outcome = _failed(recording, outcome.reason)
        outcomes.append(outcome)
    return Answers(birds, outcomes, [], sum(one.seconds for one in outcomes), time.monotonic() - begun)


def answer_rows(
    core: Ensemble,
    rows: pd.DataFrame,
    folder: Path,
    rule: Rule | Votes,
    hop_seconds: float | None,
    deadline: float = math.inf,
) -> Answers:
    """Answer rows as `competition.read_rows` gives them, file by file, in this process.

    folder: of their audio
    rule: what makes answers of probabilities
    hop_seconds: between the starts of neighbouring windows; None: as the bundles' recipes have it
    deadline: by the clock of time.monotonic(), seconds. No file is started that would pass it, if it took as long as the
        slowest one so far
    """
    birds: dict[str, set[str]] = {row_id: set() for row_id in rows.row_id}
    outcomes, late, slowest = [], [], 0.0
    begun = time.monotonic()
    for recording in tqdm(of_rows(rows, folder), unit="file", desc="predicting", file=sys.stderr):
        if recording.fault:
            outcomes.append(Outcome(recording.shown, FAILED, reason=recording.fault))
            continue
        started = time.monotonic()
        if started + slowest >= deadline:
            late.append(recording.name)
            outcomes.append(_failed(recording, "not started, since the time limit would be passed"))
            continue
        try:
            of_file, outcome = answer_file(core, recording, rule, hop_seconds)
            birds.update(of_file)
            outcomes.append(outcome)
        except audio.AudioError as error:
            outcomes.append(_failed(recording, str(error)))
        except Exception as error:
            # What no one foresaw about one file must not cost the others: a kernel that dies answers none of 150.
            outcomes.append(_failed(recording, f"{type(error).__name__}: {error}"))
        finally:
            slowest = max(slowest, time.monotonic() - started)
    return Answers(birds, outcomes, late, sum(one.seconds for one in outcomes), time.monotonic() - begun)


def _failed(recording: Recording, reason: str) -> Outcome:
    return Outcome(recording.shown, FAILED, reason=f"{reason}; {_nocall(recording.rows)}")


def _nocall(rows: tuple) -> str:
    return f"its {len(rows)} rows are answered nocall"
