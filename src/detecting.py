"""One recording to its detections, and to what else is wanted of it: all probabilities, clips, pictures.

    task = Detecting(question, parquet="matrices", clips="clips", plots="pictures")
    batch.analyse(task, recordings, parts, workers)

Each line of a part is a detection: [start_s, end_s, species, probability], in the order of time, the likelier first. Nothing
is held that grows with the recording, but a number a window and species where what decides beside the threshold looks at
other windows (neighbours, a strict threshold for the file, overlap), or where bundles hear different audio.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Callable

import numpy as np

from src import clips, recording_time
from src.audio import AudioError, AudioFile
from src.batch import Question
from src.files import remove_leftovers
from src.parts import Part, Parts
from src.predictor import Ensemble, predict_audio, predictions
from src.recording_files import Recording, output_path
from src.soundscape import Prediction
from src.status import OK, TRUNCATED, Outcome

PAGE_SECONDS = 600.0  # of a recording that one picture shows, or so: pages are of whole windows


@dataclass(frozen=True)
class Detecting:
    """question: what is asked; utc_offset_hours: of clocks of an unknown zone; parquet, clips, plots: folders, "" for none."""

    question: Question
    utc_offset_hours: float | None = None
    parquet: str = ""
    clips: str = ""
    plots: str = ""

    def analyse(self, recording: Recording, part: Part) -> Outcome:
        """Write the detections of a recording, and then what else is wanted. Raises AudioError if nothing can be read."""
        self._remove_what_was_made(recording)
        path = Path(recording.path)
        core, rule = self.question.core(), self.question.rule()
        with contextlib.ExitStack() as stack:
            audio = stack.enter_context(AudioFile(path))
            began = recording_time.began(path)  # not before AudioFile has seen that this is a file: a pipe would wait
            add = stack.enter_context(self._matrix(recording, core.labels, began))
            hop_seconds = self.question.hop_seconds or core.recipe.hop_seconds
            for found in _answered(core, audio, self.question.hop_seconds, at_once=not rule.alone):
                counted = rule.counted(found.probabilities, None, hop_seconds)
                for start, probabilities, here in zip(found.start_seconds.tolist(), found.mean, counted):
                    # A last window is padded; what is reported ends with the audio.
                    end = min(start + found.window_seconds, found.seconds)
                    add(start, end, probabilities)
                    columns = np.flatnonzero(here)
                    for column in columns[np.argsort(-probabilities[columns], kind="stable")]:
                        probability = round(float(probabilities[column]), 4)
                        part.write([round(start, 3), round(end, 3), core.labels[column], probability])
            outcome = Outcome(
                recording.shown,
                TRUNCATED if audio.fault else OK,
                audio.seconds_read,
                audio.fault,
                audio.sample_rate,
                began.isoformat() if began else "",
            )
        self._make(recording, outcome, part.lines)
        return outcome

    def lacks(self, recording: Recording, parts: Parts) -> bool:
        """Whether a Parquet file, a clip or a picture of a finished recording is not there."""
        if self._matrix_is_missing(recording):
            return True
        if self.clips and any(
            not clips.clip_path(Path(self.clips), recording.name, line).exists() for line in parts.lines(recording)
        ):
            return True
        return bool(self.plots) and any(
            not self._page(recording, number).exists() for number in self._pages(parts.outcome(recording).seconds)
        )

    def complete(self, recording: Recording, parts: Parts) -> bool:
        """Make the clips and pictures that are missing; False if the probabilities are."""
        if self._matrix_is_missing(recording):
            return False
        self._make(recording, parts.outcome(recording), lambda: parts.lines(recording))
        return True

    def _make(self, recording: Recording, outcome: Outcome, lines: Callable[[], Iterator[list]]) -> None:
        path = Path(recording.path)
        if self.clips:
            clips.cut(path, recording.name, lines(), Path(self.clips))
        if self.plots:
            from src import detection_figures  # needs matplotlib and librosa, as nothing else here does

            pages = [self._page(recording, number) for number in self._pages(outcome.seconds)]
            title = recording.shown
            if began := recording_time.as_utc(recording_time.began(path), self.utc_offset_hours):
                title += f"  (begins {began:%Y-%m-%d %H:%M:%S} UTC)"
            recipe = self.question.core().recipe
            detection_figures.draw(pages, self._page_seconds, path, recipe, outcome.seconds, lines(), title)

    @property
    def _page_seconds(self) -> float:
        window_seconds = self.question.core().recipe.window_seconds
        return window_seconds * max(1, round(PAGE_SECONDS / window_seconds))

    def _pages(self, seconds: float) -> range:
        """The numbers of a recording's pictures. A sample more than a page is no page."""
        return range(1, 1 + max(1, math.ceil(seconds / self._page_seconds - 1e-6)))

    def _page(self, recording: Recording, number: int) -> Path:
        return output_path(Path(self.plots), recording.name, ".png" if number == 1 else f".{number}.png")

    def _matrix_key(self) -> str:
        return f"{self.question.digest} {self.utc_offset_hours}"

    def _matrix_path(self, recording: Recording) -> Path:
        return output_path(Path(self.parquet), recording.name, ".parquet")

    def _matrix_is_missing(self, recording: Recording) -> bool:
        if not self.parquet:
            return False
        from src import matrix

        return matrix.made_by(self._matrix_path(recording)) != self._matrix_key()

    def _matrix(
        self, recording: Recording, labels: Sequence[str], began: datetime | None
    ) -> contextlib.AbstractContextManager:
        if not self.parquet:
            return contextlib.nullcontext(lambda *_: None)
        from src import matrix

        utc = recording_time.as_utc(began, self.utc_offset_hours)
        return matrix.written(self._matrix_path(recording), recording.shown, labels, self._matrix_key(), utc)

    def _remove_what_was_made(self, recording: Recording) -> None:
        """An earlier answer's files: another model's, or those of a recording that has changed."""
        if self.parquet:
            self._matrix_path(recording).unlink(missing_ok=True)
            remove_leftovers(self._matrix_path(recording))
        if self.clips:
            clips.remove(Path(self.clips), recording.name)
        number = 1
        while self.plots and (page := self._page(recording, number)).exists():
            page.unlink()
            number += 1
        if self.plots:
            remove_leftovers(self._page(recording, number))


def _answered(core: Ensemble, audio: AudioFile, hop_seconds: float | None, at_once: bool) -> Iterator[Prediction]:
    """A recording's windows, answered, some at a time or all at once. hop_seconds: between them; None: as the recipe has it.

    Where the bundles' decision has windows overlap, each of the recipe's is the mean of those that touch it, as a row is, and
    is no more often in the table than without. Raises AudioError if nothing can be read, or where the answer is no number.
    """
    overlapping = hop_seconds is None and (core.hop_seconds or math.inf) < core.recipe.hop_seconds
    hop = core.hop_seconds if hop_seconds is None else hop_seconds
    parts = [predict_audio(core, audio, hop)] if at_once or overlapping else predictions(core, audio, hop)
    for found in parts:
        found = _on_the_recipe_s(core, found) if overlapping else found
        numbers = np.isfinite(found.mean).all(axis=1)
        if not numbers.all():
            raise AudioError(f"the model's answer at {found.start_seconds[~numbers][0]:g} s is no number")
        yield found


def _on_the_recipe_s(core: Ensemble, found: Prediction) -> Prediction:
    """Overlapping windows' answers on the windows of the bundles' recipe."""
    hop, window = core.recipe.hop_seconds, core.recipe.window_seconds
    starts = np.arange(0, found.start_seconds[-1] + window - 1e-6, hop)
    return found.on(starts[(starts == 0) | (starts - hop + window < found.seconds)], window)
