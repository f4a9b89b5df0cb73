"""The listening loop: audio from a source, windows, the predict core, detections out; and the count of all of it.

    listener = Listener(source, predictor, threshold=predictor.thresholds, hop_seconds=5.0, journal=journal)
    listener.run(stop)                       # until the source ends or `stop` is set
    print(listener.summary())

src.audio.WindowStream cuts the windows: one here holds the samples that predict.py hears in a recording of the same.
"""

from __future__ import annotations

import statistics
import sys
import threading
from collections import deque
from collections.abc import Iterable

import numpy as np

from edge.journal import Detection, Journal, utc_text
from edge.recorder import Recorder
from edge.sources import FilePlayer, Heard, Microphone
from src.audio import Window, WindowStream
from src.predictor import Predictor

MEDIAN_OF = 10_000  # the last answers that the median time is of


class Listener:
    """One source, one predictor, one run.

    received: frames taken from the source; lost: frames its ring lost between them
    analysed, dropped: windows answered, and windows passed over since a newer one was whole
    detections: species in windows with a probability of `threshold` (one for all, or float array [labels]) or more

    After a loss the windows begin anew at the first frame heard again: none spans the gap or holds invented silence,
    and each keeps its true time and offset.
    """

    def __init__(
        self,
        source: Microphone | FilePlayer,
        predictor: Predictor,
        threshold: float | np.ndarray,
        hop_seconds: float,
        journal: Journal,
        recorder: Recorder | None = None,
    ) -> None:
        self.received = self.lost = self.analysed = self.dropped = self.detections = 0
        self._source = source
        self._predictor = predictor
        self._threshold = threshold
        self._hop_seconds = hop_seconds
        self._journal = journal
        self._recorder = recorder
        self._position = 0  # the next frame of the source
        self._overflows = 0
        self._seconds_to_answer: deque[float] = deque(maxlen=MEDIAN_OF)
        self._worst_seconds = 0.0
        self._begin_windows(0)

    def run(self, stop: threading.Event, duration: float | None = None) -> None:
        """Listen until `stop` is set, the source ends or `duration` seconds were heard.

        Of a file the last, short window is answered too, padded as predict.py pads it; of a microphone it is not.
        Raises UserError when the source dies or the journal takes no more.
        """
        limit = None if duration is None else round(duration * self._source.sample_rate)
        while not stop.is_set() and (limit is None or self._position < limit):
            heard = self._source.read()
            if heard is None:
                break
            if limit is not None:
                heard = Heard(heard.first_frame, heard.frames[: max(0, limit - heard.first_frame)])
            self._hear(heard)
        # A resampler or a high-pass holds its last milliseconds back: there may be a whole window for a microphone.
        last = self._windows.finish()
        if self._source.live:
            last = (window for window in last if window.audio_seconds >= self._predictor.recipe.window_seconds)
        self._answer(last)

    def summary(self) -> str:
        """What was heard and answered, a line each."""
        lines = [
            f"listened to {self._source.name} for {self._position / self._source.sample_rate:.1f} s",
            f"  samples received  {self.received}",
            f"  samples lost      {self.lost}",
            f"  input overflows   {self._source.overflows}",
            f"  windows analysed  {self.analysed}",
            f"  windows dropped   {self.dropped}",
            f"  detections        {self.detections}",
        ]
        if self._seconds_to_answer:
            median = statistics.median(self._seconds_to_answer)
            lines.append(f"  end of window to answer  median {median:.3f} s, worst {self._worst_seconds:.3f} s")
        return "\n".join(lines)

    def _begin_windows(self, first_frame: int) -> None:
        self._windows = WindowStream(self._source.sample_rate, self._predictor.recipe, 1, self._hop_seconds)
        self._origin = first_frame  # of the source, where `_windows` has its 0 s

    def _hear(self, heard: Heard) -> None:
        lost = heard.first_frame - self._position
        if lost:
            seconds = lost / self._source.sample_rate
            _warn(f"lost {lost} samples ({seconds:.2f} s): the model or the disk stood still for too long")
            self._begin_windows(heard.first_frame)
        if self._source.overflows > self._overflows:
            self._overflows = self._source.overflows
            _warn(f"input overflow no. {self._overflows}: the system lost samples before they reached the listener")
        if self._recorder:
            self._recorder.write(heard.frames, lost)
        self.lost += lost
        self.received += len(heard.frames)
        self._position = heard.first_frame + len(heard.frames)
        mono = heard.frames.mean(axis=1, keepdims=True)  # (frames, 1)
        self._answer(self._windows.push(mono))

    def _answer(self, windows: Iterable[Window]) -> None:
        """Analyse the windows of a file; of a live source the newest only, or answers would come later and later."""
        newest: Window | None = None
        for window in windows:
            if not self._source.live:
                self._analyse(window)
                continue
            if newest is not None:
                if self.dropped == 0:
                    _warn(
                        "windows are dropped: the model is slower than the hop; a longer --hop or a smaller model helps"
                    )
                self.dropped += 1
            newest = window
        if newest is not None:
            self._analyse(newest)

    def _analyse(self, window: Window) -> None:
        probabilities = self._predictor.probabilities(window.samples)[0]  # (1, samples) -> (labels,)
        rate = self._source.sample_rate
        length = self._predictor.recipe.window_seconds
        start = self._origin + window.start_seconds * rate  # in frames of the source, and so is the next
        end = start + min(length, window.audio_seconds) * rate
        utc_start = self._source.utc(start)
        present = np.flatnonzero(probabilities >= self._threshold)
        found = [
            Detection(
                utc_start=utc_start,
                utc_end=utc_start + length,
                species=self._predictor.labels[index],
                probability=float(probabilities[index]),
                model=self._predictor.name,
                source=self._source.name,
                offset_seconds=start / rate,
            )
            for index in present[np.argsort(-probabilities[present], kind="stable")]
        ]
        self._journal.write(found)
        self.analysed += 1
        self.detections += len(found)
        for detection in found:
            print(self._line(detection), flush=True)
        seconds = self._source.age(end)
        self._seconds_to_answer.append(seconds)
        self._worst_seconds = max(self._worst_seconds, seconds)

    def _line(self, detection: Detection) -> str:
        line = f"{utc_text(detection.utc_start)}  {detection.species}  {detection.probability:.2f}"
        return line if self._source.live else f"{line}  {detection.offset_seconds:.3f} s"


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
