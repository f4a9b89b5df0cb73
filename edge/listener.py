"""The listening loop: audio from a capture into everything that is done with it, and the count of all of it.

    with Capture(open_source, journal, say) as capture:
        listener = Listener(capture, predictor, predictor.thresholds, 2.5, journal)
        listener.run(stop)                       # until the source ends or `stop` is set
    print(listener.summary())

One loop in one thread: it reads, and hands each block to the levels (capture.py), the live picture, the recording, the
clips and the analysis; it tells systemd and the journal once in a while that it lives. Nothing in it waits for a network
or a disk that is full.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from edge.analysis import Analysis
from edge.capture import Capture
from edge.columns import Columns
from edge.events import Event
from edge.health import HealthMeter, Totals, line
from edge.journal import SCHEDULE, Journal, utc_text
from edge.keeper import Keeper
from edge.levels import Levels
from edge.live import LiveWriter
from edge.privacy import SpeechDetector
from edge.recorder import Recorder
from edge.schedule import Schedule
from edge.source import Heard, Source
from edge.tables import Health
from edge.terminal import forget, is_gone
from edge.watchdog import Watchdog
from src.predictor import Predictor

MOST_LINES = 1000  # for the terminal, while the journal takes no rows


class Listener:
    """One capture, one predictor, one run.

    threshold: least probability of a detection, one for all or float array [labels]
    keeper, speech, schedule, live, recorder: clips, privacy, hours, the live spectrogram, WAV files of all that is heard
    meter: of the health line; the journal's folder is on the disk whose room it tells
    say: prints a line for people

    received: frames taken from sources; analysis has the other counts
    """

    def __init__(
        self,
        capture: Capture,
        predictor: Predictor,
        threshold: float | np.ndarray,
        hop_seconds: float,
        journal: Journal,
        *,
        meter: HealthMeter | None = None,
        keeper: Keeper | None = None,
        speech: SpeechDetector | None = None,
        schedule: Schedule | None = None,
        live: LiveWriter | None = None,
        recorder: Recorder | None = None,
        watchdog: Watchdog | None = None,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.received = 0
        self._capture = capture
        self._journal = journal
        self._meter = meter or HealthMeter(journal.path.parent)
        self._keeper = keeper
        self._schedule = schedule
        self._live = live
        self._recorder = recorder
        self._watchdog = watchdog or Watchdog()
        self._say = say
        self.analysis = Analysis(
            predictor, threshold, hop_seconds, journal, self._meter, self._tell, keeper=keeper, speech=speech
        )
        self._rate = predictor.recipe.sample_rate
        self._quiet_seconds = predictor.recipe.window_seconds  # after so long without a frame, what was heard is over
        self._source: Source | None = None
        self._frames = 0  # of the source, lost ones too
        self._position = 0  # its next frame
        self._earlier_seconds = 0.0  # of the sources before
        self._heard_at = time.monotonic()
        self._outside: int | None = None  # the gap, outside the hours
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._remark = ""
        self._slow_said = self._low_said = self._output_said = False
        self._sources = 0

    def run(self, stop: threading.Event, duration: float | None = None) -> None:
        """Listen until `stop` is set, the source ends or `duration` seconds were heard.

        Raises UserError for what waiting does not mend.
        """
        self._watchdog.ready()
        try:
            while not stop.is_set() and (duration is None or self._seconds < duration):
                heard = self._capture.read()
                if heard is None:
                    break
                if len(heard.frames):
                    self._hear(heard, duration)
                else:
                    self._hear_nothing()
                self._look_around()
            self.analysis.stop()
        finally:
            self._watchdog.stopping()
            self.analysis.settle()
            self._enter_hours(time.time() if self._by_the_clock else self._source.utc(self._position))
            self._note(self._meter.take(time.time(), *self._totals()))
            self._print_lines()
            if self._output_said:
                forget(sys.stdout)

    @property
    def _by_the_clock(self) -> bool:
        """Is it now that is heard, or nothing yet? A recording has a time of its own."""
        return self._source is None or self._source.live

    @property
    def _heard_of(self) -> str:
        if self._source is None:
            return "nothing"
        return self._source.name if self._source.live or self._sources == 1 else f"{self._sources} recordings"

    def summary(self) -> str:
        """What was heard and answered, a line each."""
        analysis, keeper = self.analysis, self._keeper
        lines = [
            f"listened to {self._heard_of} for {self._seconds:.1f} s",
            f"  samples received  {self.received}",
            f"  samples lost      {self._capture.lost}",
            f"  input overflows   {self._capture.overflows}",
            f"  windows analysed  {analysis.analysed}",
            f"  windows dropped   {analysis.dropped}",
            f"  detections        {analysis.detections}",
            f"  events            {analysis.events}",
        ]
        if analysis.withheld is not None:
            lines.append(f"  windows withheld  {analysis.withheld}")
        if keeper:
            lines.append(f"  clips kept        {keeper.kept}")
            lines.append(f"  clips lost        {keeper.lost}")
        return "\n".join(lines)

    @property
    def _seconds(self) -> float:
        """How much time was heard or lost while a source ran."""
        return self._earlier_seconds + (self._frames / self._source.sample_rate if self._source else 0.0)

    def _hear(self, heard: Heard, duration: float | None) -> None:
        source = heard.source
        if source is not self._source:
            self._earlier_seconds = self._seconds
            self._source, self._frames, self._position = source, 0, heard.first_frame
            self._columns = Columns(source.sample_rate)
            self._sources += 1
            if source.sample_rate < self._rate and not self._low_said:
                self._low_said = True
                self._say(
                    f"{source.name} has nothing above {source.sample_rate / 2000:g} kHz, and the model looks for birds up to "
                    f"{self._rate / 2000:g} kHz: it will miss those that call higher"
                )
        self._frames += heard.first_frame - self._position
        if duration is not None:
            left = round((duration - self._earlier_seconds) * source.sample_rate) - self._frames
            heard = Heard(heard.first_frame, heard.frames[: max(0, left)], source)
        self._frames += len(heard.frames)
        self._position = heard.first_frame + len(heard.frames)
        self.received += len(heard.frames)
        self._heard_at = time.monotonic()
        self._meter.heard(len(heard.frames))
        if self._recorder:
            self._recorder.hear(heard)
        mono = heard.frames.mean(axis=1, keepdims=True)  # (frames, 1)
        utc = source.utc(heard.first_frame)
        if self._live:
            for column, middle_utc in self._columns.hear(mono[:, 0], utc):
                self._live.push(column, middle_utc)
        if self._within_hours(utc):
            self.analysis.push(heard, mono)

    def _hear_nothing(self) -> None:
        """Nothing has come: once that lasts, the events that go on are over; it may be days until there is a source again."""
        if time.monotonic() - self._heard_at >= self._quiet_seconds:
            self._heard_at = time.monotonic()
            self.analysis.settle()
        if self._by_the_clock:
            self._within_hours(time.time())

    def _within_hours(self, utc: float) -> bool:
        """Is this one of the hours to listen? Outside there is a gap, and no analysis."""
        if self._schedule is None or self._schedule.listening(utc):
            self._enter_hours(utc)
            return True
        if self._outside is None:
            self.analysis.stop(padded=False)
            self._outside = self._journal.begin_gap(utc, SCHEDULE, self._schedule.text)
            self._say(f"outside the hours ({self._schedule.text}): listening goes on {self._next_change(utc)}")
        return False

    def _enter_hours(self, utc: float) -> None:
        if self._outside is not None:
            self._journal.end_gap(self._outside, utc)
            self._outside = None

    def _next_change(self, utc: float) -> str:
        change = self._schedule.next_change(utc)
        return f"at {utc_text(change)}" if change is not None else "when they come again, which is in no week from now"

    def _look_around(self) -> None:
        """What is done in every round, and costs next to nothing."""
        self._watchdog.alive()
        self._print_lines()
        health = self._meter.due(time.time(), *self._totals())
        if health:
            self._note(health)
            self._watchdog.status(line(health))
        if self.analysis.dropped and not self._slow_said:
            self._slow_said = True
            self._say("windows are dropped: the model is slower than the hop; a longer --hop or a smaller model helps")

    def _totals(self) -> tuple:
        """What the meter asks others for."""
        capture, keeper = self._capture, self._keeper
        totals = Totals(
            lost=capture.lost,
            overflows=capture.overflows,
            withheld=self.analysis.withheld,
            clips_lost=keeper.lost if keeper else None,
        )
        return totals, capture.levels, keeper.bytes if keeper else None

    def _note(self, health: Health) -> None:
        """A health line, for the journal and the log; and what somebody should do about the microphone."""
        self._journal.write_health(health)
        self._say(line(health))
        remark = ""
        if health.level_dbfs is not None:
            measured = (health.level_dbfs, health.peak_dbfs, health.clipped_share, health.zero_share)
            remark = Levels(health.received, *measured).remark
        if remark and remark != self._remark:
            self._say(remark)
        self._remark = remark

    def _tell(self, event: Event) -> None:
        """A line on standard output for an event that is over, once it is in the journal."""
        text = f"{utc_text(event.utc_start)}  {event.species}  {event.probability:.2f}"
        text += f"  {event.utc_end - event.utc_start:.1f} s"
        self._lines.append(text if self._source.live else f"{text}  at {event.offset_seconds:.3f} s")

    def _print_lines(self) -> None:
        if not self._journal.flush():
            return
        try:
            while self._lines:
                print(self._lines.popleft(), flush=True)
        except OSError as error:
            if not self._output_said:
                self._say(f"standard output takes no lines ({error.strerror}): events go on into the journal")
            self._output_said = True
            if is_gone(error):
                forget(sys.stdout)
