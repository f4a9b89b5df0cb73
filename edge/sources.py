"""Where the listener's audio comes from: a microphone through PortAudio, or a file played as if it were one.

    with Microphone("pulse", channels=1, sample_rate=None, wanted_rate=32000) as source:
        heard = source.read()                # waits 50 ms; heard.first_frame, heard.frames
        source.utc(heard.first_frame)        # when that frame was heard

Both have name, live, sample_rate, channels, overflows, read(), utc() and age(). A live source does not wait for its
reader; a file does. `sounddevice` is imported only when a microphone is asked for.
"""

from __future__ import annotations

import atexit
import math
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.ring import RingBuffer
from src.audio import BLOCK_SECONDS, AudioError, AudioFile
from src.errors import UserError

POLL_SECONDS = 0.05
RING_SECONDS = 30.0  # how long a model or a disk may stall before audio is lost
SILENT_SECONDS = 5.0  # a stream that gives nothing for so long has died, whatever it says
CLOSE_SECONDS = 3.0
CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Heard:
    """Frames from a source: float32 [frames, channels], unit scale; `first_frame` counts from the source's first."""

    first_frame: int
    frames: np.ndarray


class SampleClock:
    """The UTC time of each frame of a live stream, from the times at which blocks arrived.

    A block may come late and never early, so the least of (arrival - length so far) dates the first frame best. Only
    the last one to two minutes count: a sound card's clock strays by seconds a day, and a box without a clock battery
    is set right by the network some time after it began to listen.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._recent = self._older = math.inf  # dates of frame 0, UTC in seconds since 1970
        self._turn = 0  # the frame at which `_recent` becomes `_older`

    def note(self, frames: int, arrived: float) -> None:
        """Frame number `frames` - 1 was the last of a block that arrived at the UTC time `arrived`."""
        start = arrived - frames / self._rate
        if frames >= self._turn:
            self._turn = frames + round(CLOCK_SECONDS * self._rate)
            self._older, self._recent = self._recent, start
        self._recent = min(self._recent, start)

    def utc(self, frame: float) -> float:
        """When the frame was heard, in seconds since 1970."""
        return min(self._recent, self._older) + frame / self._rate


class Microphone:
    """A microphone. Its callback only copies into a ring and notes the time; `read` does the rest in another thread.

    device: part of the device's name, upper or lower case; None for the default input
    sample_rate: Hz that must be had; None for `wanted_rate`, or the device's own where it refuses that
    overflows: how often PortAudio reported that it lost frames before the callback; how many, it does not say

    Raises UserError where there is no such microphone or it does not take the settings.
    """

    live = True

    def __init__(self, device: str | None, channels: int, sample_rate: int | None, wanted_rate: int) -> None:
        self._sounddevice = _import_sounddevice()
        info = _find_device(self._sounddevice, device)
        self.name = str(info["name"])
        self.channels = channels
        self.overflows = 0
        if channels > info["max_input_channels"]:
            raise UserError(
                f"microphone {self.name!r} has {info['max_input_channels']} channels, not the {channels} of --channels"
            )
        self.sample_rate = self._agree_on_rate(info, sample_rate, wanted_rate)
        self.ring = RingBuffer(round(RING_SECONDS * self.sample_rate), channels)
        self._clock = SampleClock(self.sample_rate)
        self._arrival = (0, time.time(), time.monotonic())  # of the last block: frames so far, UTC, monotonic
        self._silent_polls = 0
        try:
            self._stream = self._sounddevice.InputStream(
                samplerate=self.sample_rate,
                device=info["index"],
                channels=channels,
                dtype="float32",
                callback=self._callback,
            )
        except self._sounddevice.PortAudioError as error:
            raise UserError(f"microphone {self.name!r} cannot be opened: {error}") from error

    def _agree_on_rate(self, info: dict[str, Any], asked: int | None, wanted: int) -> int:
        own = round(info["default_samplerate"])
        try:
            self._sounddevice.check_input_settings(info["index"], self.channels, "float32", samplerate=asked or wanted)
        except self._sounddevice.PortAudioError as error:
            refuses_rate = len(error.args) > 1 and error.args[1] == -9997  # paInvalidSampleRate
            if not refuses_rate:
                raise UserError(f"microphone {self.name!r} cannot be opened: {error}") from error
            if asked:
                raise UserError(
                    f"microphone {self.name!r} does not take {asked} Hz; its own rate is {own} Hz"
                ) from error
            print(f"microphone {self.name!r} does not take {wanted} Hz: listening at its own {own} Hz", file=sys.stderr)
            return own
        return asked or wanted

    def _callback(self, frames: np.ndarray, count: int, times: Any, status: Any) -> None:
        self.ring.write(frames)
        self._arrival = (self.ring.written, time.time(), time.monotonic())
        if status.input_overflow:
            self.overflows += 1

    def __enter__(self) -> Microphone:
        try:
            self._stream.start()
        except self._sounddevice.PortAudioError as error:
            raise UserError(f"microphone {self.name!r} cannot be started: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        closing = threading.Thread(target=self._stream.close, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            # A sound server that hangs holds its streams for ever, and would hold PortAudio's own end at exit as well.
            atexit.unregister(self._sounddevice._exit_handler)

    def read(self) -> Heard:
        """Wait a moment and give the frames that have come, perhaps none. Raises UserError when the stream has died.

        Frames the ring lost show as a `first_frame` above the end of the last read.
        """
        time.sleep(POLL_SECONDS)
        alive = self._stream.active  # asked before the ring is emptied, so that the last frames are still given
        frames_so_far, utc, _ = self._arrival
        if frames_so_far:
            self._clock.note(frames_so_far, utc)
        first_frame, frames = self.ring.read()
        # Polls are counted and not seconds: a reader that was held up itself must not take that for silence.
        self._silent_polls = 0 if len(frames) else self._silent_polls + 1
        if self._silent_polls and not alive:
            raise UserError(f"microphone {self.name!r} has stopped: unplugged, or the sound server ended; start again")
        if self._silent_polls * POLL_SECONDS >= SILENT_SECONDS:
            raise UserError(f"microphone {self.name!r} has given nothing for {SILENT_SECONDS:g} s; start again")
        return Heard(first_frame, frames)

    def utc(self, frame: float) -> float:
        """When the frame was heard, in seconds since 1970."""
        return self._clock.utc(frame)

    def age(self, frame: float) -> float:
        """Seconds since the frame was heard."""
        frames_so_far, _, arrived = self._arrival
        return time.monotonic() - arrived + (frames_so_far - frame) / self.sample_rate


class FilePlayer:
    """A recording played as if it were a microphone, except that it waits: a slow reader hears it later, and all of it.

    speed: 1 is real time, 10 ten times as fast, 0 as fast as it is read
    fault: after the end, "" or what was wrong with the file

    Its time runs with the recording from the moment it begins: a frame 60 s into it is dated 60 s later at any speed.
    Raises UserError where the file is absent or holds no audio.
    """

    live = False
    overflows = 0

    def __init__(self, path: Path, speed: float) -> None:
        self.path = Path(path)
        self.name = str(path)
        try:
            self._file = AudioFile(self.path)
        except AudioError as error:
            raise UserError(f"{self.path}: {error}") from error
        self.sample_rate = self._file.sample_rate
        self.channels = self._file.channels
        block_seconds = min(POLL_SECONDS * speed, BLOCK_SECONDS) if speed else BLOCK_SECONDS
        self._blocks = self._file.blocks(block_seconds)
        self._pace = speed * self.sample_rate if speed else math.inf  # frames/s
        self._given = 0

    def __enter__(self) -> FilePlayer:
        self._began_utc = time.time()
        self._began = self._gave = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    @property
    def fault(self) -> str:
        """What was wrong with the file so far; empty if nothing."""
        return self._file.fault

    def read(self) -> Heard | None:
        """The next block, once it is due; None after the last. Raises UserError if the file holds no audio."""
        try:
            frames = next(self._blocks, None)
        except AudioError as error:
            raise UserError(f"{self.path}: {error}") from error
        if frames is None:
            return None
        first_frame = self._given
        self._given += len(frames)
        time.sleep(max(0.0, self._began + self._given / self._pace - time.monotonic()))
        self._gave = time.monotonic()
        return Heard(first_frame, frames)

    def utc(self, frame: float) -> float:
        """When the frame is heard at real time, in seconds since 1970."""
        return self._began_utc + frame / self.sample_rate

    def age(self, frame: float) -> float:
        """Seconds since the frame was played."""
        return time.monotonic() - self._gave + (self._given - frame) / self._pace


def describe_devices() -> str:
    """A line for each input device: its name, channels and own sample rate. Raises UserError where there is none."""
    sounddevice = _import_sounddevice()
    default = sounddevice.default.device[0]
    lines = []
    for info in _input_devices(sounddevice):
        mark = "*" if info["index"] == default else " "
        lines.append(f"{mark} {info['name']}  {info['max_input_channels']} channels  {info['default_samplerate']:g} Hz")
    return "\n".join(lines)


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise UserError("a microphone needs sounddevice: pip install -r edge/requirements.txt") from error
    except OSError as error:
        raise UserError(
            "a microphone needs PortAudio, which is not installed: sudo apt-get install libportaudio2"
        ) from error
    return sounddevice


def _input_devices(sounddevice: Any) -> list[dict[str, Any]]:
    devices = [info for info in sounddevice.query_devices() if info["max_input_channels"] > 0]
    if not devices:
        raise UserError(
            "no microphone: PortAudio sees no input device; plug one in, or play a recording with --input FILE"
        )
    return devices


def _find_device(sounddevice: Any, name: str | None) -> dict[str, Any]:
    devices = _input_devices(sounddevice)
    names = ", ".join(repr(info["name"]) for info in devices)
    if name is None:
        default = sounddevice.default.device[0]
        found = [info for info in devices if info["index"] == default]
        if not found:
            raise UserError(f"there is no default microphone; choose one with --device: {names}")
        return found[0]
    found = [info for info in devices if info["name"].lower() == name.lower()]
    found = found or [info for info in devices if name.lower() in info["name"].lower()]
    if len(found) != 1:
        raise UserError(
            f"{'no microphone is' if not found else 'several microphones are'} called {name!r}; there are {names}"
        )
    return found[0]
