"""The rows of a test.csv, answered from a folder of audio: what predict.py and the Kaggle kernel share.

    answers = answer_rows(core, read_rows(test_csv), folder, core.thresholds, core.recipe.hop_seconds)
    answers.birds["site_1_ab_5"]      # {"amerob"}; an empty set: nocall
    answers.faults                    # [(file, what was wrong with it), ...]

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

if TYPE_CHECKING:
    import pandas as pd

    from src.predictor import Predictor

# The competition's hidden test set, and how long a kernel may take over it.
TEST_FILES, TEST_FILE_SECONDS, KERNEL_SECONDS = 150, 600.0, 7200.0


@dataclass(frozen=True)
class Answers:
    """What was answered, and what it cost.

    birds: the species of each row by its row_id, in the order of the rows; an empty set: nocall
    faults: (file, what was wrong with it) pairs, a file that was not started among them
    late: audio_ids of the files that were not started, for the deadline
    audio_seconds: audio that was answered for; seconds: how long that took
    """

    birds: dict[str, set[str]]
    faults: list[tuple[str, str]]
    late: list[str]
    audio_seconds: float
    seconds: float

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


def answer_rows(
    core: Predictor,
    rows: pd.DataFrame,
    folder: Path,
    threshold: float | np.ndarray,
    hop_seconds: float,
    deadline: float = math.inf,
) -> Answers:
    """Answer rows as `competition.read_rows` gives them, file by file.

    folder: of their audio
    threshold: probability from which a species counts, one for all or float array [labels]
    hop_seconds: between the starts of neighbouring windows
    deadline: by the clock of time.monotonic(), seconds. No file is started that would pass it, if it took as long as the
        slowest one so far
    """
    birds: dict[str, set[str]] = {row_id: set() for row_id in rows.row_id}
    faults, late, audio_seconds, slowest = [], [], 0.0, 0.0
    begun = time.monotonic()
    progress = tqdm(rows.groupby("audio_id", sort=False), unit="file", desc="predicting", file=sys.stderr)
    for audio_id, of_file in progress:
        path = competition.find_audio(folder, audio_id)
        nocall = f"its {len(of_file)} rows are answered nocall"
        if path is None:
            faults.append((str(folder / audio_id), f"no such audio; {nocall}"))
            continue
        started = time.monotonic()
        if started + slowest >= deadline:
            late.append(audio_id)
            faults.append((str(path), f"not started, since the time limit would be passed; {nocall}"))
            continue
        try:
            prediction = predictor.predict_file(core, path, hop_seconds)
        except audio.AudioError as error:
            faults.append((str(path), f"{error}; {nocall}"))
            continue
        except (OSError, RuntimeError, ValueError) as error:
            # What no one foresaw about one file must not cost the others: a kernel that dies answers none of 150.
            faults.append((str(path), f"{type(error).__name__}: {error}; {nocall}"))
            continue
        finally:
            slowest = max(slowest, time.monotonic() - started)
        audio_seconds += prediction.seconds
        probabilities = soundscape.row_probabilities(prediction, of_file.end_seconds.to_numpy())
        ends = of_file.end_seconds.to_numpy()
        birds.update(zip(of_file.row_id, soundscape.decide(probabilities, core.labels, threshold, core.decision, ends)))
        if prediction.fault:
            faults.append((str(path), prediction.fault))
        beyond = int(np.isnan(probabilities[:, 0]).sum())
        if beyond:
            faults.append((str(path), f"{beyond} rows lie beyond its {prediction.seconds:.1f} s; answered nocall"))
    return Answers(birds, faults, late, audio_seconds, time.monotonic() - begun)
