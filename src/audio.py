"""From a file or a microphone to windows: decode, channels, resample, high-pass, cut. Streaming; NumPy, soundfile and soxr only.

    with AudioFile("dawn.mp3") as audio:
        for window in file_windows(audio, recipe):
            window.start_seconds, window.samples      # 0.0, float32 [channels, recipe.window_samples]
        audio.fault                                   # "" or what was wrong with the file

Memory does not grow with the file. Training, batch prediction and the live listener all cut their windows here, so that a
window holds the same samples wherever it is met; block sizes do not change them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from src import quiet
from src.containers import is_cut, promised_frames
from src.recipe import Recipe
from src.storage import local_copy

BLOCK_SECONDS = 10.0
PIECE_SECONDS = 0.5  # read at once: what a damaged place costs at most
# What libsndfile reads, and what it does not though it is audio: such a file is tried, so that it fails by name.
READABLE_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
READABLE_SUFFIXES += (
    ".avr",
    ".ircam",
    ".mp1",
    ".mp2",
    ".nist",
    ".paf",
    ".pvf",
    ".rf64",
    ".sd2",
    ".sds",
    ".snd",
    ".sph",
)
READABLE_SUFFIXES += (".voc", ".wavex")
UNREADABLE_SUFFIXES = (".m4a", ".aac", ".mp4", ".wma", ".wv", ".ape", ".amr", ".webm", ".3gp", ".ac3", ".m4b", ".mka")
UNREADABLE_SUFFIXES += (".mov", ".spx", ".tta", ".w4v", ".wac")  # the last two: Wildlife Acoustics' own
AUDIO_SUFFIXES = READABLE_SUFFIXES + UNREADABLE_SUFFIXES
LEAST_RATE_HZ, GREATEST_RATE_HZ = 1000, 1_000_000  # outside, a header is damaged: blocks would be of any size


class AudioError(Exception):
    """No audio can be had from this file. The text says why, without the file's name."""


@dataclass(frozen=True)
class Window:
    """One window of audio.

    samples: float32 array [channels, window_samples], unit scale, at the recipe's sample rate, zeros after the audio's end
    start_seconds: where it begins in the audio
    audio_seconds: how much of it is audio and not padding
    """

    start_seconds: float
    audio_seconds: float
    samples: np.ndarray


class _Sequential(soundfile.SoundFile):
    """Reads on without seeking. soundfile seeks after each read of a seekable file, and after a seek mpg123 decodes the
    next mp3 frame without the bits it borrows from the one before: block edges would be audible and would differ with the
    blocks' size (0.04 of full scale on a real soundscape, by blocks of 10 s).
    """

    def seekable(self) -> bool:
        """Never: see the class."""
        return False


class AudioFile:
    """An audio file read in blocks. After reading, `fault` says what was wrong with it ("" if nothing).

    Raises AudioError where nothing can be read: absent, empty, not audio.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.frames_read = 0
        self.fault = ""
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise AudioError(error.strerror or str(error)) from error
        if self.path.is_dir():
            raise AudioError("is a folder")
        if size == 0:
            raise AudioError("is an empty file")
        try:
            with open(self.path, "rb"):  # libsndfile's word for a file that may not be read is "System error"
                pass
        except OSError as error:
            raise AudioError(error.strerror or str(error)) from error
        try:
            with quiet.native_stderr():  # mpg123 remarks on tags and damaged frames; what matters is how much was read
                self._file = _Sequential(os.fsencode(self.path))  # bytes: a name need not be UTF-8
        except (soundfile.LibsndfileError, OSError) as error:
            reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
            if "does not exist" in reason:  # libsndfile's word for an mp3 it can make nothing of, which is there
                reason = "not audio, or damaged from its beginning"
            if self.path.suffix.lower() in UNREADABLE_SUFFIXES:
                reason = "a format that libsndfile does not read; convert it to FLAC: ffmpeg -i IN OUT.flac"
            raise AudioError(f"cannot be decoded: {reason.strip()}") from error
        self.sample_rate = self._file.samplerate  # Hz
        if not LEAST_RATE_HZ <= self.sample_rate <= GREATEST_RATE_HZ:
            raise AudioError(f"cannot be decoded: its header says {self.sample_rate} Hz")
        self.channels = self._file.channels
        # libsndfile cuts a WAV's length to what the file holds; its header says what was meant.
        self.frames_promised = max(self._file.frames, promised_frames(self.path, self._file.format))

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def seconds_read(self) -> float:
        """Seconds of audio decoded so far."""
        return self.frames_read / self.sample_rate

    def blocks(self, block_seconds: float = BLOCK_SECONDS) -> Iterator[np.ndarray]:
        """Yield float32 arrays [frames, channels], unit scale, until the file ends or breaks.

        A file that ends early is a fault, not an error: what was read counts. Raises AudioError if nothing could be read.
        """
        size = max(1, round(block_seconds * self.sample_rate))
        piece_size = min(size, max(1, round(PIECE_SECONDS * self.sample_rate)))
        ended = False
        while not ended:
            pieces, frames = [], 0
            while frames < size and not ended:
                try:
                    with quiet.native_stderr():
                        piece = self._file.read(min(piece_size, size - frames), dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    seconds = (self.frames_read + frames) / self.sample_rate
                    self.fault = f"broken after {seconds:.1f} s: {error.error_string.strip()}"
                    ended = True
                    break
                ended = len(piece) == 0
                pieces.append(piece)
                frames += len(piece)
            if frames == 0:
                break
            self.frames_read += frames
            block = np.concatenate(pieces)
            if not np.isfinite(block).all():
                self.fault = self.fault or "holds samples that are not numbers, taken as silence"
                block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
            yield block
        if self.frames_read == 0:
            raise AudioError(f"holds no audio{': ' + self.fault if self.fault else ''}")
        missing = self.frames_promised - self.frames_read
        # An mp3 without a length in its header has one guessed from the file's size, tags included: on the recordings of
        # xeno-canto 0.3 to 0.9 s too long for one in six.
        allowed = self.sample_rate if self._file.format == "MP3" else 0
        if not self.fault and missing > allowed:
            promised = self.frames_promised / self.sample_rate
            self.fault = f"truncated: {self.seconds_read:.1f} s of {promised:.1f} s could be read"
        elif not self.fault and is_cut(self.path, self._file.format):
            self.fault = f"truncated: its end is missing after {self.seconds_read:.1f} s"


class Resampler:
    """Continuous sample rate conversion (soxr, HQ) of blocks [frames, channels]; n frames in give round(n * ratio) out."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._ratio = to_rate / from_rate
        self._received = self._given = 0
        self._stream = (
            None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32")
        )

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Take a block and give what is ready; with `last` give all the rest."""
        if self._stream is None:
            return block
        self._received += len(block)
        ready = self._stream.resample_chunk(np.ascontiguousarray(block, dtype=np.float32), last=last)
        if last:  # the filter's tail may be a frame too long, which would make a window of one sample
            ready = ready[: max(0, round(self._received * self._ratio) - self._given)]
        self._given += len(ready)
        return ready


class Highpass:
    """Linear-phase FIR high-pass (windowed sinc, Blackman) of blocks [frames, channels], without delay.

    -6 dB at `cutoff_hz`, under -60 dB below half of it. An FIR since its state is its input: any cut into blocks gives the same.
    """

    def __init__(self, cutoff_hz: float, sample_rate: int, channels: int) -> None:
        half = math.ceil(2.75 * sample_rate / cutoff_hz)
        time = np.arange(-half, half + 1)
        lowpass = np.sinc(2 * cutoff_hz / sample_rate * time) * np.blackman(2 * half + 1)
        taps = -lowpass / lowpass.sum()
        taps[half] += 1.0
        self._taps = taps.astype(np.float32)
        self._history = np.zeros((2 * half, channels), np.float32)
        self._delay = half  # outputs still to be thrown away at the start

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Take a block and give what is ready; with `last` give all the rest."""
        if last:
            block = np.concatenate([block, np.zeros((len(self._taps) // 2, block.shape[1]), np.float32)])
        extended = np.concatenate([self._history, block])
        self._history = extended[len(block) :]
        size = 1 << (len(extended) - 1).bit_length()
        spectrum = np.fft.rfft(extended, size, axis=0) * np.fft.rfft(self._taps, size)[:, None]
        filtered = np.fft.irfft(spectrum, size, axis=0)[len(self._taps) - 1 : len(extended)].astype(np.float32)
        skip = min(self._delay, len(filtered))
        self._delay -= skip
        return filtered[skip:]


class WindowStream:
    """Blocks of audio in, windows out. Window i begins at i * hop_seconds.

    Of n samples come 1 window if n <= window, else ceil((n - window) / hop) + 1: all audio is covered, the last is padded.
    """

    def __init__(self, sample_rate: int, recipe: Recipe, channels: int = 1, hop_seconds: float | None = None) -> None:
        self._rate = recipe.sample_rate
        self._size = recipe.window_samples
        self._hop = round((recipe.hop_seconds if hop_seconds is None else hop_seconds) * self._rate)
        if self._hop < 1:
            raise ValueError(f"hop_seconds must be a sample or more, not {hop_seconds}")
        self._stages = [Resampler(sample_rate, self._rate, channels)]
        if recipe.highpass_hz > 0:
            self._stages.append(Highpass(recipe.highpass_hz, self._rate, channels))
        self._buffer = np.zeros((0, channels), np.float32)
        self._buffer_start = 0  # of the audio, in samples; so is what follows
        self._next_start = 0

    def push(self, block: np.ndarray, last: bool = False) -> Iterator[Window]:
        """Take float32 [frames, channels] at the native rate and yield the windows that are whole; with `last`, the rest too."""
        for stage in self._stages:
            block = stage.push(block, last)
        self._buffer = np.concatenate([self._buffer, block])
        end = self._buffer_start + len(self._buffer)
        while self._next_start + self._size <= end:
            yield self._cut(end)
        if last and end > 0 and (self._next_start == 0 or self._next_start - self._hop + self._size < end):
            yield self._cut(end)

    def finish(self) -> Iterator[Window]:
        """Yield what is left: at most a few whole windows and a padded one."""
        return self.push(self._buffer[:0], last=True)

    def _cut(self, end: int) -> Window:
        start = self._next_start - self._buffer_start
        samples = self._buffer[start : start + self._size]
        audio_samples = len(samples)
        if audio_samples < self._size:
            samples = np.concatenate([samples, np.zeros((self._size - audio_samples, samples.shape[1]), np.float32)])
        window = Window(self._next_start / self._rate, audio_samples / self._rate, np.ascontiguousarray(samples.T))
        self._next_start += self._hop
        drop = min(self._next_start, end) - self._buffer_start
        self._buffer = self._buffer[drop:]
        self._buffer_start += drop
        return window


def file_windows(
    audio: AudioFile,
    recipe: Recipe,
    channels: str = "mono",
    hop_seconds: float | None = None,
    block_seconds: float = BLOCK_SECONDS,
) -> Iterator[Window]:
    """Yield a file's windows; `channels` is "mono" (their mean) or "split" (all of them, in one window each).

    Raises AudioError if the file gives no window.
    """
    for _, window in windows_of_each(audio, [(recipe, hop_seconds)], channels, block_seconds):
        yield window


def windows_of_each(
    audio: AudioFile,
    wanted: Sequence[tuple[Recipe, float | None]],
    channels: str = "mono",
    block_seconds: float = BLOCK_SECONDS,
) -> Iterator[tuple[int, Window]]:
    """Yield a file's windows as several recipes have them, decoding it once: (which of those wanted, its next window).

    wanted: recipes, each with the seconds between its windows, None: the recipe's
    Raises AudioError if the file gives no window of one of them.
    """
    streams: list[WindowStream] = []
    numbers = [0] * len(wanted)
    for block in audio.blocks(block_seconds):
        if channels == "mono":
            block = block.mean(axis=1, keepdims=True)
        if not streams:
            streams = [WindowStream(audio.sample_rate, recipe, block.shape[1], hop) for recipe, hop in wanted]
        for which, stream in enumerate(streams):
            for window in stream.push(block):
                numbers[which] += 1
                yield which, window
    for which, stream in enumerate(streams):
        for window in stream.finish():
            numbers[which] += 1
            yield which, window
    for number, (recipe, _) in zip(numbers, wanted):
        if not number:
            raise AudioError(f"holds no audio: {audio.frames_read} frames are no sample at {recipe.sample_rate} Hz")


def some_windows(
    path: str, recipe: Recipe, channels: str = "mono", starts: set[float] | None = None, most: int = 16
) -> dict[float, np.ndarray]:
    """A recording's windows by their start in seconds, float32 [channels, window_samples]; none if it cannot be read.

    path: here or on a server; starts: which ones; None: the first `most`
    """
    found: dict[float, np.ndarray] = {}
    try:
        with local_copy(path) as local, AudioFile(local) as audio:
            for window in file_windows(audio, recipe, channels):
                if starts is None or window.start_seconds in starts:
                    found[window.start_seconds] = window.samples
                if len(found) == (most if starts is None else len(starts)):
                    break
    except (AudioError, FileNotFoundError):
        return {}
    return found
