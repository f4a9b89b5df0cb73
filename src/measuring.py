"""What recordings are like, measured once each: length, rate, channels, level, noise floor, bandwidth, faults.

    described = measure(recordings, Path("recordings.csv"))   # the recordings' table and what was measured, kept in that file
    measure_file("dawn.mp3")                                  # {"seconds": 312.5, "loudness_dbfs": -31.2, ...}

Levels are RMS in dBFS, DC taken off: a square wave of full scale is 0, a sine of full scale -3.0; digital silence is taken as
-140. Memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
import math
import time
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from src.audio import AudioError, AudioFile
from src.competition import COLUMNS, MISSING, read_table
from src.errors import UserError
from src.files import written_whole
from src.storage import local_copy

VERSION = "1"  # of the measurements: raise it when one of them changes its meaning, and all are made anew
HEADERS = ["seconds", "sample_rate", "channels"]
# Shares are of 1. range_db: from the noise floor to the level that 95 % of the frames do not pass. difference_db: of left and
# right, against the louder (-140: the same); balance_db: the louder channel's level less the softer's.
LEVELS = ["peak_dbfs", "loudness_dbfs", "floor_dbfs", "range_db", "clipped_share", "silent_share", "dc_offset"]
LEVELS += ["bandwidth_hz", "difference_db", "balance_db"]
TEXTS = ["content", "audio_sha256", "read_fault", "measured"]
MEASURES = HEADERS + LEVELS + TEXTS

LEAST_DB = -140.0
FRAME_SECONDS = 0.05  # of short-time levels
FRAMES_A_BLOCK = 200
CLIPPED = 0.999  # of full scale
SPECTRUM_SAMPLES = 2048
BANDS = 64  # of equal width, up to half the sample rate
HEARD_DBFS = -110.0  # in a band: above what a 16-bit file's rounding leaves there (-116), below any microphone's noise
SAVE_SECONDS = 30.0  # of measuring that a killed run may lose

_MAGIC = {
    b"fLaC": "FLAC",
    b"OggS": "OGG",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
    b"riff": "W64",
    b"wvpk": "WV",
}


class Meter:
    """Takes a file's blocks and keeps sums of them: memory does not grow with the file."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self.frame = max(1, round(FRAME_SECONDS * sample_rate))  # samples
        self.samples = self.clipped = 0
        self.peak = 0.0
        self.total, self.square = np.zeros(channels), np.zeros(channels)
        self.difference = 0.0
        self.level_edges = np.linspace(LEAST_DB, 30, 1701)  # a histogram by 0.1 dB: its size is that of no file
        self.levels = np.zeros(len(self.level_edges) - 1, int)
        self.silent = 0
        self.spectrum = np.zeros(SPECTRUM_SAMPLES // 2 + 1)  # power
        self.spectra = 0
        self.hann = np.hanning(SPECTRUM_SAMPLES + 1)[:-1].astype(np.float32)
        self.digest = hashlib.sha256(f"{sample_rate} {channels}".encode())

    def push(self, block: np.ndarray) -> None:
        """Take float32 [frames, channels]."""
        self.digest.update(np.ascontiguousarray(block).tobytes())
        magnitude, power = np.abs(block), np.square(block)
        self.samples += len(block)
        self.peak = max(self.peak, float(magnitude.max()))
        self.clipped += int((magnitude >= CLIPPED).sum())
        self.total += block.sum(axis=0, dtype=float)
        self.square += power.sum(axis=0, dtype=float)
        if self.channels > 1:
            self.difference += float(np.square(block[:, 0] - block[:, 1]).sum(dtype=float))
        # The last block's end, shorter than a frame, is left out, unless it is all there is.
        size = self.frame if self.levels.any() else min(self.frame, len(block))
        pieces = block[: len(block) // size * size].reshape(-1, size, self.channels)
        frames = np.square(pieces - pieces.mean(axis=1, keepdims=True)).mean(axis=(1, 2))  # power; DC is no sound
        self.levels += np.histogram(np.clip(_db(frames), LEAST_DB, 30), self.level_edges)[0]
        self.silent += int((frames == 0).sum())
        size = SPECTRUM_SAMPLES
        if len(block) < size and not self.spectra:
            block = np.pad(block, ((0, size - len(block)), (0, 0)))
        pieces = block[: len(block) // size * size].T.reshape(self.channels, -1, size)
        spectrum = np.fft.rfft(pieces * self.hann)  # (channels, pieces, bins)
        self.spectrum += (spectrum.real**2 + spectrum.imag**2).mean(axis=0).sum(axis=0)
        self.spectra += pieces.shape[1]

    def result(self) -> dict:
        """What LEVELS names, and the digest of the audio."""
        floor, loud = self._level_percentile(0.10), self._level_percentile(0.95)
        mean_square = np.maximum(0, self.square / self.samples - (self.total / self.samples) ** 2)  # without DC
        by_channel = _db(mean_square)
        stereo = self.channels > 1
        same_as = max(float(mean_square[:2].max()), 1e-14)
        return {
            "peak_dbfs": 2 * float(_db(self.peak)) if self.peak else LEAST_DB,
            "loudness_dbfs": float(_db(mean_square.mean())),
            "floor_dbfs": floor,
            "range_db": loud - floor,
            "clipped_share": self.clipped / (self.samples * self.channels),
            "silent_share": self.silent / max(1, self.levels.sum()),
            "dc_offset": float(np.abs(self.total / self.samples).max()),
            "bandwidth_hz": self._bandwidth(),
            "difference_db": float(_db(self.difference / self.samples / same_as)) if stereo else math.nan,
            "balance_db": float(by_channel.max() - by_channel.min()) if stereo else math.nan,
            "audio_sha256": self.digest.hexdigest(),
        }

    def _level_percentile(self, share: float) -> float:
        """The short-time level that a share of the frames does not pass."""
        place = int(np.searchsorted(np.cumsum(self.levels), share * self.levels.sum()))
        return float(self.level_edges[min(place, len(self.levels) - 1)])

    def _bandwidth(self) -> float:
        """The upper edge of the highest band in which there is more than a file format's own noise, in Hz."""
        # Scaled so that the bins sum to the mean square of the signal (Hann's mean square is 0.375).
        power = self.spectrum[1:] * (2 / (max(1, self.spectra) * SPECTRUM_SAMPLES**2 * 0.375))
        heard = np.flatnonzero(_db(power.reshape(BANDS, -1).sum(axis=1)) > HEARD_DBFS)
        return float((heard[-1] + 1) / BANDS * self.sample_rate / 2) if len(heard) else 0.0


def _db(power: np.ndarray | float) -> np.ndarray:
    """10 log10, no lower than LEAST_DB."""
    return 10 * np.log10(np.maximum(power, 10 ** (LEAST_DB / 10)))


def measure_file(path: str, quick: bool = False) -> dict:
    """What MEASURES names, of one file; with `quick` what its header says. One that cannot be read has 0 seconds and a fault."""
    found = {"seconds": 0.0}
    try:
        with local_copy(path) as local, AudioFile(local) as audio:
            found = {
                "seconds": 0.0,
                "sample_rate": audio.sample_rate,
                "channels": audio.channels,
                "content": content(local),
            }
            if quick:
                return {**found, "seconds": audio.frames_promised / audio.sample_rate, "measured": "header"}
            meter = Meter(audio.sample_rate, audio.channels)
            for block in audio.blocks(FRAMES_A_BLOCK * meter.frame / audio.sample_rate):
                meter.push(block)
            told = {"seconds": audio.seconds_read, "read_fault": audio.fault, "measured": VERSION}
            return {**found, **told, **meter.result()}
    except (AudioError, OSError, UserError) as error:
        return {**found, "read_fault": str(error)}


def content(path: Path) -> str:
    """The format that a file's first bytes show, as MP3; "" if they show none that is known here."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:3] == b"ID3" and len(head) >= 10:  # a tag before the audio; its size is in 7 bits a byte
            file.seek(10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0))))
            head = file.read(12) or b"\xff\xfb"
    if head[:4] in (b"RIFF", b"RF64"):
        return "WAV"
    if head[4:8] == b"ftyp":
        return "MP4"
    if len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0:
        return {0: "AAC", 1: "MP3", 2: "MP2", 3: "MP1"}[head[1] >> 1 & 3]
    return _MAGIC.get(head[:4], "")


def measure(recordings: pd.DataFrame, kept: Path, jobs: int = -1, quick: bool = False) -> pd.DataFrame:
    """Add to a table of recordings (see competition.COLUMNS) what is measured of each.

    kept: CSV of the result, written now and then: what it says of files that are unchanged is not measured again
    quick: read headers only; seconds are those that a header promises, levels are NaN
    returns: the table with the columns of MEASURES. `fault` says why a recording cannot be used, or what is wrong with it; one
        that cannot be read has 0 seconds.
    """
    for name, default in COLUMNS.items():  # whoever made the table
        if name not in recordings:
            recordings = recordings.assign(**{name: default})
    keys = list(zip(recordings.filename, recordings["size"].astype(str), recordings.changed.astype(str)))
    usable = recordings.fault == ""
    found = _read_kept(kept, quick)
    wanted = [(key, path) for key, path in zip(compress(keys, usable), recordings.path[usable]) if key not in found]
    results = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_measure_keyed)(key, path, quick) for key, path in wanted
    )
    what = "reading headers" if quick else "measuring"
    saved = time.monotonic()
    try:
        for key, values in tqdm(results, total=len(wanted), unit="recording", desc=what, disable=not wanted):
            found[key] = values
            if time.monotonic() - saved > SAVE_SECONDS:
                _write_kept(kept, _joined(recordings, keys, found))
                saved = time.monotonic()
    finally:
        described = _joined(recordings, keys, found)
        _write_kept(kept, described)
    return described


def _measure_keyed(key: tuple, path: str, quick: bool) -> tuple[tuple, dict]:
    return key, measure_file(path, quick)


def _read_kept(kept: Path, quick: bool) -> dict[tuple, dict]:
    """What an earlier run measured, by name, size and time of change. A file that could not be read is tried again."""
    if not kept.is_file():
        return {}
    try:
        table = read_table(kept, ["filename", "size", "changed", *MEASURES])
    except UserError:  # written by another version: all is measured anew
        return {}
    good = table[(table.measured == VERSION) | (quick & (table.measured == "header"))]
    good = good[good["size"] != str(COLUMNS["size"])]  # of unknown size: it may be another file by now
    numbers = good[HEADERS + LEVELS].apply(pd.to_numeric, errors="coerce")
    values = pd.concat([numbers, good[TEXTS]], axis=1).to_dict("records")
    return dict(zip(zip(good.filename, good["size"], good.changed), values))


def _joined(recordings: pd.DataFrame, keys: list[tuple], found: dict[tuple, dict]) -> pd.DataFrame:
    rows = [{} if fault else found.get(key, {}) for key, fault in zip(keys, recordings.fault)]
    measures = pd.DataFrame(rows, columns=MEASURES, index=recordings.index)
    measures[TEXTS] = measures[TEXTS].fillna("").astype(str)
    measures[HEADERS + LEVELS] = measures[HEADERS + LEVELS].astype(float)
    measures[HEADERS] = measures[HEADERS].fillna(0).astype({"sample_rate": int, "channels": int})
    table = pd.concat([recordings.drop(columns=MEASURES, errors="ignore"), measures], axis=1)
    return table.assign(fault=table.fault.where(table.fault != "", table.read_fault))


def _write_kept(kept: Path, described: pd.DataFrame) -> None:
    with written_whole(kept) as temporary:
        described.to_csv(temporary, index=False)


def failed(described: pd.DataFrame) -> pd.Series:
    """Whether a recording that should be there cannot be opened; one that was refused unopened (see its fault) has not failed."""
    return (described.seconds == 0) & ((described.read_fault != "") | described.fault.str.startswith(MISSING))
