"""Columns of the live spectrogram from audio at any rate, cheaply: 20 a second, 96 bands of 125 Hz, a byte each.

    columns = Columns(48000)
    for column, utc in columns.hear(mono, utc):    # float32 [samples], and when the first of them was heard
        writer.push(column, utc)                   # edge/live.py

Linear in frequency, as field biologists read it. A byte is a level between LOW_DB and HIGH_DB of edge/live.py: the loudest
bin of the band, since a bird's whistle is narrower than a band.
"""

from __future__ import annotations

import numpy as np

from edge.live import BANDS, COLUMNS_PER_SECOND, HIGH_DB, HIGH_HZ, LOW_DB, LOW_HZ

SEAM_SECONDS = 0.25  # a block that begins so much off the end of the one before it does not continue it


class Columns:
    """A running spectrogram of one microphone at one rate; the cut of the audio into blocks does not change it.

    Bands above half the sample rate are 0. Samples that are not numbers are taken as silence.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._hop = sample_rate / COLUMNS_PER_SECOND  # samples
        # At least the hop, or a click could fall between two columns; a Hann window sees about half of its length.
        self._size = 1 << max(4, int(np.ceil(np.log2(self._hop))))
        self._window = np.hanning(self._size + 1)[:-1].astype(np.float32)
        bins = np.fft.rfftfreq(self._size, 1 / sample_rate)  # Hz
        edges = np.linspace(LOW_HZ, HIGH_HZ, BANDS + 1)
        starts = np.searchsorted(bins, edges[:-1])
        self._bands = int(np.sum(starts < len(bins)))  # those with a bin or more
        self._starts, self._end = starts[: self._bands], int(np.searchsorted(bins, HIGH_HZ))
        self._unit = (2 / self._window.sum()) ** 2  # makes a bin's power that of a sine of full scale
        self._waiting = np.zeros(0, np.float32)
        self._first = 0  # the number of its first sample
        self._number = 0  # of the next column
        self._utc: float | None = None  # of the sample after it

    def hear(self, mono: np.ndarray, utc: float) -> list[tuple[np.ndarray, float]]:
        """The columns that are whole now, uint8 [BANDS], the lowest first, each with the time of its middle.

        mono: float32 [samples], unit scale; utc: when its first sample was heard, in seconds since 1970
        """
        if self._utc is None or abs(utc - self._utc) > SEAM_SECONDS:
            self._waiting, self._first, self._number = self._waiting[:0], 0, 0
        self._waiting = np.concatenate([self._waiting, mono])
        end = self._first + len(self._waiting)
        self._utc = utc + len(mono) / self._rate
        begins, begin = [], round(self._number * self._hop)
        while begin + self._size <= end:
            begins.append(begin)
            self._number += 1
            begin = round(self._number * self._hop)
        if not begins:
            return []
        frames = np.stack([self._waiting[start - self._first :][: self._size] for start in begins])
        middles = [self._utc - (end - start - self._size / 2) / self._rate for start in begins]
        drop = min(begin, end) - self._first
        self._waiting, self._first = self._waiting[drop:], self._first + drop
        return list(zip(self._bytes(frames), middles))

    def _bytes(self, frames: np.ndarray) -> np.ndarray:
        """float32 [columns, size] to uint8 [columns, BANDS]."""
        spectrum = np.fft.rfft(frames * self._window, axis=1)[:, : self._end]
        power = spectrum.real**2 + spectrum.imag**2
        loudest = np.maximum.reduceat(power, self._starts, axis=1) * self._unit
        level = 10 * np.log10(np.nan_to_num(loudest, nan=0.0, posinf=0.0) + 1e-20)
        columns = np.zeros((len(frames), BANDS), np.uint8)
        columns[:, : self._bands] = np.clip((level - LOW_DB) * (255 / (HIGH_DB - LOW_DB)), 0, 255)
        return columns
