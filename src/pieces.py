"""A window longer than what a network hears at once: how it is cut into pieces, and what becomes of the pieces' embeddings.

pieces = half_overlapping(66150)          # 3 s at 22050 Hz, each 1.5 s after the one before
pieces.cut(window)                        # float32 [pieces, 66150]
pieces.pool(embeddings)                   # float32 [pieces, features] -> [features]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POOLINGS = ("max", "mean")


@dataclass(frozen=True)
class Pieces:
    """How a window is cut for a model that hears less at once, and what becomes of the pieces' embeddings.

    size: samples of a piece (0: the whole window); hop: samples from one's start to the next one's
    pooling: "max": of each feature the greatest over the pieces, and over the frames of a model that answers for its own;
        "mean": their mean. A call may fill a tenth of a window: on data/birds, grouped folds, logistic regression on YAMNet
        gives .296 of windows and .338 of recordings by the greatest, .264 and .273 by the mean (BirdNET-STM32: .498 and .555,
        .481 and .542); both beside each other are no better.
    """

    size: int
    hop: int
    pooling: str = "max"

    def pool(self, embeddings: np.ndarray) -> np.ndarray:
        """One embedding of several: float32 [pieces, features] -> [features]."""
        return embeddings.max(axis=0) if self.pooling == "max" else embeddings.mean(axis=0, dtype=np.float32)

    def starts(self, samples: int) -> list[int]:
        """Where the pieces of a window of `samples` begin; the last is flush with its end, so that all of it is heard."""
        last = samples - self.size
        if not self.size or last <= 0:
            return [0]
        starts = list(range(0, last, self.hop))
        return [*starts, last]

    def cut(self, window: np.ndarray) -> np.ndarray:
        """The pieces of a window, float32 [samples] -> [pieces, size]; a shorter window gets zeros after its end."""
        size = self.size or len(window)
        padded = np.pad(window, (0, max(0, size - len(window))))
        return np.stack([padded[start : start + size] for start in self.starts(len(window))])


def half_overlapping(size: int) -> Pieces:
    """Pieces of `size` samples, each beginning at about half of the one before."""
    return Pieces(size, max(1, size // 2))
