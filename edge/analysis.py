"""From audio to events: windows, the predict core, privacy, merging; what is found goes into the journal and to the clips.

    analysis = Analysis(predictor, predictor.thresholds, hop_seconds=2.5, journal=journal, meter=meter)
    analysis.push(heard, mono)               # from edge/capture.py, block by block; another source begins the windows anew
    analysis.stop()                          # where hearing stops: the last windows, and the end of all events

src.audio.WindowStream cuts the windows: one here holds the samples that predict.py hears in a recording of the same. Of a live
source the newest window is answered only, or answers would come later and later; the others are counted, and a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from edge.events import Changes, Event, EventMerger
from edge.health import HealthMeter
from edge.journal import DROPPED_WINDOWS, PRIVACY, Journal
from edge.keeper import Keeper
from edge.privacy import SpeechDetector, Withholder
from edge.source import Heard, Source
from src.audio import Window, WindowStream
from src.predictor import Predictor

APART_SECONDS = 30.0  # windows dropped within so long of one another are one gap


@dataclass(frozen=True)
class _Answer:
    """What was found in a window: the probability of each species above its threshold."""

    utc_start: float
    offset_seconds: float
    found: dict[str, float]


class Analysis:
    """What is done with audio once it was heard. All in the listener's thread.

    threshold: least probability of a detection, one for all or float array [labels]; infinite: never
    told: is called with each event that is over, after it was given to the journal
    keeper, speech: where clips are kept, and where nobody who speaks is to be recorded; None: not

    analysed, dropped: windows answered, and windows passed over since a newer one was whole
    detections, events: species in windows, and events that are over

    After a loss the windows begin anew at the first frame heard again: none spans the gap or holds invented silence, and
    each keeps its true time and offset.
    """

    def __init__(
        self,
        predictor: Predictor,
        threshold: float | np.ndarray,
        hop_seconds: float,
        journal: Journal,
        meter: HealthMeter,
        told: Callable[[Event], None] = lambda _: None,
        keeper: Keeper | None = None,
        speech: SpeechDetector | None = None,
    ) -> None:
        self.analysed = self.dropped = self.detections = self.events = 0
        self._predictor = predictor
        self._recipe = predictor.recipe
        self._threshold = threshold
        self._hop_seconds = hop_seconds
        self._journal = journal
        self._meter = meter
        self._told = told
        self._keeper = keeper
        self._speech = speech
        length = self._recipe.window_seconds
        self._merger = EventMerger(hop_seconds, length, predictor.name, journal.new_event_id)
        self._withholder: Withholder[_Answer] | None = Withholder(length, self._no_clip) if speech else None
        self._drops = _Losses(journal, DROPPED_WINDOWS, "windows passed over for newer ones: {}", APART_SECONDS)
        self._speeches = _Losses(journal, PRIVACY, "windows with speech or beside it: {}", 0.0)
        self._source: Source | None = None
        self._windows: WindowStream | None = None  # None: the next frame begins it
        self._origin = 0  # of the source, where `_windows` has its 0 s, in frames; so is the next
        self._position = 0  # what is expected next

    @property
    def withheld(self) -> int | None:
        """Windows that were withheld since somebody spoke; None where nobody asks for that."""
        return self._withholder.withheld if self._withholder else None

    def push(self, heard: Heard, mono: np.ndarray) -> None:
        """Take what was heard, and its mean over the channels: float32 [frames, 1]. Raises UserError as the predictor does."""
        if heard.source is not self._source:
            self.stop()
            self._source = heard.source
        elif heard.first_frame != self._position:
            self._finish_windows(padded=False)
        if self._windows is None:
            self._windows = WindowStream(heard.source.sample_rate, self._recipe, 1, self._hop_seconds)
            self._origin = heard.first_frame
        self._position = heard.first_frame + len(mono)
        if self._keeper:
            self._keeper.hear(mono, heard.first_frame, heard.source.sample_rate)
        self._answer(self._windows.push(mono))

    def stop(self, padded: bool = True) -> None:
        """Nothing that continues what was heard will follow.

        padded: of a file the last, short window is answered too, as predict.py answers it; of a microphone it is not.
        """
        self._finish_windows(padded)
        self.settle()
        self._source = None

    def settle(self) -> None:
        """End all events and gaps, without another question to the predictor."""
        if self._withholder:
            for answer, withheld in self._withholder.finish():
                self._take(answer, withheld)
        self._record(self._merger.close_all())
        self._drops.end()
        self._speeches.end()

    def _finish_windows(self, padded: bool) -> None:
        """A resampler or a high-pass holds its last milliseconds back: there may be a whole window in them."""
        if self._windows is None:
            return
        windows, self._windows = self._windows, None
        padded = padded and not self._source.live
        length = self._recipe.window_seconds
        rest = (window for window in windows.finish() if padded or window.audio_seconds >= length)
        self._answer(rest)

    def _answer(self, windows: Iterable[Window]) -> None:
        newest: Window | None = None
        for window in windows:
            if not self._source.live:
                self._analyse(window)
                continue
            if newest is not None:
                self._drop(newest)
            newest = window
        if newest is not None:
            self._analyse(newest)

    def _drop(self, window: Window) -> None:
        utc = self._source.utc(self._frame(window))
        self._drops.note(utc, utc + self._recipe.window_seconds)
        self._meter.dropped()
        self.dropped += 1

    def _analyse(self, window: Window) -> None:
        probabilities = self._predictor.probabilities(window.samples)[0]  # (1, samples) -> (labels,)
        present = np.flatnonzero(probabilities >= self._threshold)
        start = self._frame(window)
        answer = _Answer(
            utc_start=self._source.utc(start),
            offset_seconds=start / self._source.sample_rate,
            found={self._predictor.labels[index]: float(probabilities[index]) for index in present},
        )
        self.analysed += 1
        if self._withholder:
            speech = self._speech.heard(window.samples[0])
            for earlier, withheld in self._withholder.push(answer.offset_seconds, speech, answer):
                self._take(earlier, withheld)
        else:
            self._take(answer, withheld=False)
        self._drops.over(answer.utc_start)
        end = start + min(self._recipe.window_seconds, window.audio_seconds) * self._source.sample_rate
        self._meter.analysed(self._source.age(end))

    def _take(self, answer: _Answer, withheld: bool) -> None:
        """Merge what was found in the next window that is decided."""
        utc_end = answer.utc_start + self._recipe.window_seconds
        if withheld:
            self._speeches.note(answer.utc_start, utc_end)
        else:
            self._speeches.over(answer.utc_start)
        found = {} if withheld else answer.found
        self._record(
            self._merger.push(answer.utc_start, utc_end, answer.offset_seconds, found, source=self._source.name)
        )

    def _record(self, changes: Changes) -> None:
        self._journal.record(changes)
        self.detections += len(changes.detections)
        for event in changes.closed:
            self.events += 1
            self._told(event)
            if self._keeper:
                self._keeper.closed(event, self._clear_until())

    def _clear_until(self) -> int | None:
        """The frame up to which it is known that nobody speaks; None where nobody asks."""
        if self._withholder is None:
            return None
        return math.floor(self._withholder.clear_until * self._source.sample_rate)

    def _no_clip(self, from_seconds: float, to_seconds: float) -> None:
        if self._keeper:
            rate = self._source.sample_rate
            self._keeper.withhold(math.floor(from_seconds * rate), math.ceil(to_seconds * rate))

    def _frame(self, window: Window) -> float:
        return self._origin + window.start_seconds * self._source.sample_rate


class _Losses:
    """Windows that were lost for one cause; those that are close to one another are one gap.

    detail: of the gap, with {} for the number of windows
    """

    def __init__(self, journal: Journal, cause: str, detail: str, apart_seconds: float) -> None:
        self._journal = journal
        self._cause, self._detail = cause, detail
        self._apart_seconds = apart_seconds
        self._gap: int | None = None
        self._count = 0
        self._from = self._until = 0.0  # UTC in seconds

    def note(self, utc_start: float, utc_end: float) -> None:
        """A window was lost."""
        self.over(utc_start)
        if self._gap is None:
            self._gap = self._journal.begin_gap(utc_start, self._cause, self._detail.format("some"))
            self._from, self._count = utc_start, 0
        self._count += 1
        self._until = utc_end

    def over(self, utc: float) -> None:
        """A window that begins at `utc` is looked at: end the gap if it is far from those that were lost."""
        if not self._from <= utc <= self._until + self._apart_seconds:  # before it: the clock was set back
            self.end()

    def end(self) -> None:
        """End the gap, if there is one."""
        if self._gap is not None:
            self._journal.end_gap(self._gap, self._until, self._detail.format(self._count))
            self._gap = None
