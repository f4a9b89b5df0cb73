"""Where in a recording the calls are: a score for each window, and which windows to keep.

    floor = NoiseFloor(recipe)
    for image in images: floor.add(image, 5.0)             # stored log-mel, uint8 [mels, frames], seconds of audio
    score = call_score(images[3], floor.median(), recipe)  # dB, 0 where nothing stands out
    calls, quiet = choose(scores, recipe)                  # indices of the windows to keep

The mask is the median clipping of Lasseck ("Bird song classification in field recordings", NIPS4B 2013) as used for signal and
noise separation by Sprengel et al. ("Audio based bird species identification using deep learning techniques", BirdCLEF 2016):
a pixel is signal where its magnitude exceeds three times the median of its band over the recording and three times that
of its frame, and what is smaller than a structuring element is dropped. They keep all signal frames; here a window's
score is how far, in dB, the loudest signal pixel stands above the band's median, averaged over the window's frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.recipe import Recipe

CLIPPING_DB = 20 * np.log10(3)  # three times the median, in magnitude
# The structuring element, (bands, seconds): a whistle is two mel bands wide, a click is shorter than 30 ms.
LEAST_BANDS, LEAST_SECONDS = 2, 0.04
QUIET_OF_BEST = 0.1  # of the recording's best score: at most this is near silent


class NoiseFloor:
    """The median level of each mel band over a recording of any length, by histograms of its stored bytes."""

    def __init__(self, recipe: Recipe) -> None:
        self._counts = np.zeros((recipe.n_mels, 256), np.int64)
        self._frames_per_second = recipe.sample_rate / recipe.hop_length

    def add(self, image: np.ndarray, audio_seconds: float) -> None:
        """Count a window: uint8 [mels, frames], of which audio_seconds are audio and the rest padding."""
        frames = max(1, min(image.shape[1], int(audio_seconds * self._frames_per_second)))
        offsets = np.arange(len(image), dtype=np.int64)[:, None] * 256
        self._counts += np.bincount((image[:, :frames] + offsets).ravel(), minlength=self._counts.size).reshape(
            self._counts.shape
        )

    def median(self) -> np.ndarray:
        """uint8 [mels]"""
        below = self._counts.cumsum(axis=1)
        return (below < (below[:, -1:] + 1) // 2).sum(axis=1).astype(np.uint8)


def call_mask(image: np.ndarray, floor: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Which pixels belong to something that stands out: bool [mels, frames].

    image: uint8 [mels, frames]; floor: uint8 [mels], the recording's median of each band
    """
    clip = round(CLIPPING_DB * 255 / recipe.range_db)
    frame_median = np.partition(image, len(image) // 2, axis=0)[len(image) // 2]
    # The larger of the two medians decides; as int16, since the sum may exceed a byte.
    signal = image > np.maximum(floor[:, None], frame_median[None, :]).astype(np.int16) + clip
    least_frames = max(1, round(LEAST_SECONDS * recipe.sample_rate / recipe.hop_length))
    return _opened(_opened(signal, LEAST_BANDS, axis=0), least_frames, axis=1)


def _opened(mask: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Morphological opening by a line: runs of True along `axis` that are shorter than `length` are dropped."""
    size = mask.shape[axis]
    if length <= 1 or size < length:
        return mask

    def part(first: int, last: int) -> tuple:
        return (slice(first, last), slice(None)) if axis == 0 else (slice(None), slice(first, last))

    eroded = mask[part(0, size - length + 1)].copy()
    for step in range(1, length):
        eroded &= mask[part(step, size - length + 1 + step)]
    opened = np.zeros_like(mask)
    for step in range(length):
        opened[part(step, size - length + 1 + step)] |= eroded
    return opened


def call_score(image: np.ndarray, floor: np.ndarray, recipe: Recipe) -> float:
    """How much a window calls, in dB: the excess of its loudest structured band over the floor, averaged over its frames.

    image: uint8 [mels, frames]; floor: uint8 [mels]. 0 where nothing stands out.
    """
    excess = np.where(call_mask(image, floor, recipe), image.astype(np.int16) - floor[:, None], 0)
    return float(excess.max(axis=0).mean() * recipe.range_db / 255)


def choose(scores: Sequence[float], recipe: Recipe) -> tuple[list[int], list[int]]:
    """Which windows to keep, in the order of time: (those that call, those that are kept as nocall).

    scores: one a window. All call if recipe.windows_per_recording is 0; else the best of them, but none that is near silent
    beside the best. Of the rest, a quiet_share of all windows is kept as nocall, the quietest first, if it is near silent.
    """
    best_first = sorted(range(len(scores)), key=lambda window: (-scores[window], window))
    if not recipe.windows_per_recording:
        return sorted(best_first), []
    limit = QUIET_OF_BEST * max(scores, default=0.0)
    calls = [window for window in best_first[: recipe.windows_per_recording] if scores[window] >= limit]
    rest = [window for window in best_first[len(calls) :][::-1] if scores[window] <= limit]
    return sorted(calls), sorted(rest[: round(recipe.quiet_share * len(scores))])
