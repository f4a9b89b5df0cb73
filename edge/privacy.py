"""Nobody who passes by is recorded: windows with human speech in them, and their neighbours, are withheld.

    speech = SpeechDetector(Path("speech.tflite"), recipe.sample_rate)      # made by python -m src.speech_model
    withholder = Withholder(recipe.window_seconds, no_clip)                 # no_clip(from_seconds, to_seconds): of this audio
    for window in ...:
        for payload, withheld in withholder.push(offset_seconds, speech.heard(window.samples[0]), payload):
            ...                                  # of earlier windows, in their order: each once, when it is decided
            withholder.clear_until               # a clip that is cut now has nothing from there on
    withholder.finish()                          # where hearing stops: what still waits

Who speaks is heard by windows before and after too softly to be noticed, so what overlaps or touches a window with speech
is withheld with it. A window is therefore decided when the last that touches it has been heard: a window's length after
its own end. A clip reaches beyond its event's windows, so there is more to it: it has nothing of what withheld windows
alone have heard, nor of what is not decided, nor of what no window heard, as when the model was too slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import soxr

from src.errors import UserError
from src.litert import Graph, input_shape

SAMPLE_RATE = 16000  # Hz, of what YAMNet hears
# Measured with windows of 5 s every 2.5 s, and their neighbours withheld. Of speech (a speaker each of English, French and
# Russian, 2 minutes) in rain that is 5 dB louder 77 % of the windows are found and all are withheld. Of 90 recordings of
# birds 4.7 % of the windows are withheld, some rightly; of two soundscapes, of 13 minutes, none. At 0.3 these are 94, 100,
# 9.8 and up to 12 %. Of one sentence of 2 to 4 s in a window, 10 dB louder than rain or birds, 92 % are found; of one word of
# half a second, every other.
SPEECH_PROBABILITY = 0.5
TOUCHING_SECONDS = 0.001  # windows begin on samples, so what should touch may miss by one

Payload = TypeVar("Payload")


class SpeechDetector:
    """Says of a window whether somebody speaks in it, with a file that `python -m src.speech_model` made.

    sample_rate: of the windows, in Hz; probability: of a speech class, from which on somebody speaks
    Raises UserError where the file is absent or is another model.
    """

    def __init__(self, path: Path, sample_rate: int, probability: float = SPEECH_PROBABILITY, threads: int = 1) -> None:
        self._path, self._rate, self._threads = Path(path), sample_rate, threads
        self._least = probability
        shape = input_shape(self._path)
        if len(shape) != 1:
            raise UserError(_other_model(self._path, f"takes {list(shape)} and not a waveform"))
        self._samples = SAMPLE_RATE  # the graph is made for windows of one length; another makes it anew
        self._graph = self._opened()
        if self._graph.output_size != 1:
            raise UserError(_other_model(self._path, f"gives {self._graph.output_size} numbers and not one"))

    def heard(self, window: np.ndarray) -> bool:
        """Whether somebody speaks in a window: float32 [samples], unit scale, before any high-pass above 300 Hz."""
        return not self.probability(window) < self._least  # what is not a number is not known to be silent

    def probability(self, window: np.ndarray) -> float:
        """How probable speech is in a window."""
        heard = soxr.resample(window, self._rate, SAMPLE_RATE) if self._rate != SAMPLE_RATE else window
        if len(heard) != self._samples:
            self._samples = len(heard)
            self._graph = self._opened()
        return float(self._graph.run(heard)[0, 0])

    def _opened(self) -> Graph:
        return Graph(self._path, (self._samples,), features=None, threads=self._threads)


def _other_model(path: Path, fault: str) -> str:
    return f"{path}: is no speech model: it {fault}; make one with python -m src.speech_model -o speech.tflite"


class Withholder(Generic[Payload]):
    """Keeps what was found in each window back until it is known whether somebody spoke next to it.

    Times are seconds since the source's first frame. Where they begin anew, at another source, what waits is decided by what
    is known, as by `finish`.

    no_clip: is told of audio that no clip may have, from and to
    withheld: windows so far that were
    clear_until: of audio before it all is known that `no_clip` is ever told
    """

    def __init__(self, window_seconds: float, no_clip: Callable[[float, float], None] = lambda *_: None) -> None:
        self.withheld = 0
        self.clear_until = 0.0
        self._window_seconds = window_seconds
        self._no_clip = no_clip
        self._begin()

    def _begin(self) -> None:
        self._waiting: deque[tuple[float, Payload]] = deque()
        self._speech: deque[float] = deque()  # the starts of windows with speech
        self._last: float | None = None  # the start of the last window
        self._last_decided: float | None = None
        self._voice: float | None = None  # the last start of `_speech`, until a window comes that does not touch it

    def push(self, start_seconds: float, speech: bool, payload: Payload) -> list[tuple[Payload, bool]]:
        """Take a window and what belongs to it; give what is decided now, in order: payloads, and whether each is withheld."""
        decided = [] if self._last is None or start_seconds > self._last else self.finish()
        heard_until = self._end(self._last)
        if start_seconds > heard_until + TOUCHING_SECONDS:
            self._no_clip(heard_until, start_seconds)
        self._watch_voice(start_seconds, speech)
        self._waiting.append((start_seconds, payload))
        self._last = self.clear_until = start_seconds
        while start_seconds >= self._end(self._waiting[0][0]) - TOUCHING_SECONDS:
            decided.append(self._decide())
        while self._speech and not self._touch(self._speech[0], self._waiting[0][0]):
            self._speech.popleft()
        return decided

    def _watch_voice(self, start_seconds: float, speech: bool) -> None:
        """Tell `no_clip` of what lies between the last window that no voice touches and the next one."""
        if speech:
            kept = [start for start, _ in self._waiting if not self._touch(start, start_seconds)]
            begins = self._end(kept[-1] if kept else self._last_decided)
            begins = begins if self._voice is None else min(begins, self._voice)
            self._no_clip(begins, start_seconds + self._window_seconds)
            self._speech.append(start_seconds)
            self._voice = start_seconds
        elif self._voice is not None and not self._touch(start_seconds, self._voice):
            self._no_clip(self._voice, start_seconds)
            self._voice = None

    def finish(self) -> list[tuple[Payload, bool]]:
        """Decide all that waits: no window will follow, or none that continues what was heard."""
        decided = [self._decide() for _ in range(len(self._waiting))]
        self.clear_until = self._end(self._last)
        self._begin()
        return decided

    def _decide(self) -> tuple[Payload, bool]:
        start_seconds, payload = self._waiting.popleft()
        self._last_decided = start_seconds
        withheld = any(self._touch(start_seconds, speech) for speech in self._speech)
        self.withheld += withheld
        return payload, withheld

    def _end(self, start_seconds: float | None) -> float:
        return 0.0 if start_seconds is None else start_seconds + self._window_seconds

    def _touch(self, one_start: float, other_start: float) -> bool:
        return abs(one_start - other_start) <= self._window_seconds + TOUCHING_SECONDS
