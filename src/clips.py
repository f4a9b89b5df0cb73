"""The audio of detections, cut out of their recording at its own rate and with all its channels, to be listened to.

    clip_path(Path("clips"), "a/dawn.wav", [5.0, 10.0, "amerob", 0.9312])    # clips/amerob/a/dawn.wav_00005.000s_0.9312.wav
    cut(Path("forest/a/dawn.wav"), "a/dawn.wav", lines, Path("clips"))

A folder a species, so that all that was taken for one can be heard in a row; the name says where in the recording, in seconds,
and the probability. A clip is a WAV of 16 bits.
"""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from src.audio import AudioFile
from src.files import written_whole
from src.recording_files import output_path


def clip_path(folder: Path, name: str, line: list) -> Path:
    """Where the clip of a detection [start_s, end_s, species, probability] lies."""
    start, _, species, probability = line
    return output_path(folder / species.replace("/", "_"), name, f"_{start:09.3f}s_{probability:.4f}.wav")


def remove(folder: Path, name: str) -> None:
    """Take away all clips of a recording, and what was left of one when its writer was killed."""
    if not folder.is_dir():
        return
    for of_species in folder.iterdir():
        stem = output_path(of_species, name, "")
        pattern = re.compile(rf"\.?{re.escape(stem.name)}_\d{{5,}}\.\d{{3}}s_[01]\.\d{{4}}(\.\d+-\d+\.part)?\.wav")
        for path in stem.parent.iterdir() if stem.parent.is_dir() else ():
            if pattern.fullmatch(path.name):
                path.unlink()


def cut(recording: Path, name: str, lines: Iterable[list], folder: Path) -> None:
    """Write the clips of detections [start_s, end_s, species, probability], which come in the order of time.

    What is held is no longer than a clip and a block. Clips that are there are left as they are. Raises AudioError if
    nothing of the recording can be read.
    """
    placed = ((line, clip_path(folder, name, line)) for line in lines)
    waiting = ((line, path) for line, path in placed if not path.exists())
    line, path = next(waiting, (None, None))
    if line is None:
        return
    with AudioFile(recording) as audio:
        rate = audio.sample_rate
        held, start = np.zeros((0, audio.channels), np.float32), 0  # [frames, channels], and its first frame
        for block in chain(audio.blocks(), [None]):
            held = held if block is None else np.concatenate([held, block])
            while line is not None and (block is None or round(line[1] * rate) <= start + len(held)):
                _write(path, held[round(line[0] * rate) - start : round(line[1] * rate) - start], rate)
                line, path = next(waiting, (None, None))
            if line is None:
                return
            drop = min(max(round(line[0] * rate) - start, 0), len(held))
            held, start = held[drop:], start + drop


def _write(path: Path, samples: np.ndarray, rate: int) -> None:
    # Not straight to the disk, since libsndfile does not say that it is full; nor by its callbacks, where Ctrl-C is a traceback.
    encoded = io.BytesIO()
    with wave.open(encoded, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes())
    with written_whole(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
