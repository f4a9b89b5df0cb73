"""The predict core: a bundle and audio in, probabilities per window out. LiteRT only; no TensorFlow import.

    predictor = Predictor(bundle.find([Path("runs/b6")]))
    predictor.probabilities(windows)                     # float32 [windows, labels]
    prediction = predict_file(predictor, Path("dawn.flac"))
    prediction.start_seconds, prediction.probabilities   # [windows], [windows, labels]

evaluate.py, predict.py and edge/listen.py all ask this module. Several bundles are an ensemble: the mean of their
probabilities, after each bundle's own calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from src.audio import BLOCK_SECONDS, AudioFile, Window, file_windows
from src.bundle import FLOAT32, Bundle
from src.calibration import Calibration
from src.errors import UserError
from src.litert import Embedder, Graph, input_shape
from src.soundscape import Prediction, Rule, mean_decision


class Predictor:
    """One or more bundles that answer for the same audio.

    labels: ebird codes in the order of the columns; recipe: what the audio must be
    threshold, thresholds: the mean of the bundles', one number and float64 array [labels]
    decision: theirs, what decides beside the thresholds
    calibrated: False for what the networks themselves say, as out-of-fold predictions are
    precision: which of the bundles' LiteRT files are asked: "float32", "float16" or "int8"
    networks: what is asked in their place, one for each bundle: a window, float32 [samples] -> float32 [labels]; none: LiteRT
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        threads: int = 1,
        calibrated: bool = True,
        precision: str = FLOAT32,
        networks: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
    ) -> None:
        first = bundles[0].recipe
        for bundle in bundles[1:]:
            differing = [
                name
                for name in ("sample_rate", "window_seconds", "hop_seconds", "highpass_hz")
                if getattr(bundle.recipe, name) != getattr(first, name)
            ]
            if differing:
                names = ", ".join(differing)
                raise UserError(
                    f"{bundle.folder} and {bundles[0].folder} hear different audio ({names}): not one ensemble"
                )
        self.labels = bundles[0].labels
        self.recipe = first
        self.name = "+".join(dict.fromkeys(bundle.name for bundle in bundles))
        self.threshold = float(np.mean([bundle.threshold for bundle in bundles]))
        self.thresholds = np.mean([bundle.thresholds for bundle in bundles], axis=0)
        self.decision = mean_decision([bundle.decision for bundle in bundles])
        self._calibrations = [bundle.calibration if calibrated else Calibration() for bundle in bundles]
        self._networks = list(networks) or [_Model(bundle, threads, precision).run for bundle in bundles]

    @property
    def rule(self) -> Rule:
        """What the bundles make answers by."""
        return Rule(self.thresholds, self.decision)

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        """Answer for windows: float32 array [windows, window_samples], unit scale -> float32 array [windows, labels].

        Each window is answered alone, so no answer depends on what else is asked. Raises ValueError on another shape.
        """
        if windows.ndim != 2 or windows.shape[1] != self.recipe.window_samples:
            raise ValueError(f"windows must be [n, {self.recipe.window_samples}], not {list(windows.shape)}")
        answers = np.empty((len(self._networks), len(windows), len(self.labels)), np.float32)
        for row, network in enumerate(self._networks):
            for column, window in enumerate(windows):
                answers[row, column] = network(window)
            answers[row] = self._calibrations[row].apply(answers[row])
        return answers.mean(axis=0)


class _Model:
    """A bundle's LiteRT graph, or its two one after the other, one window at a time."""

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        samples, (*before, path) = bundle.recipe.window_samples, bundle.graphs(precision)
        self._first: Callable[[np.ndarray], np.ndarray] | None = None
        shape: tuple[int, ...] = (1, samples)
        if bundle.pieces is not None:
            shape = (1, input_shape(path)[-1])
            embedder = Embedder(before[0], bundle.pieces, shape[1], threads)
            found = len(embedder.embed(np.zeros(samples, np.float32)))
            if found != shape[1]:
                raise UserError(f"{before[0]}: gives {found} features, and {path.name} takes {shape[1]}")
            self._first = lambda window: embedder.embed(window)[None]
        elif before:
            front_end = Graph(before[0], shape, features=None, threads=threads)
            shape = (1, *input_shape(path)[1:])
            self._first = lambda window: front_end.run(window[None])
        self._graph = Graph(path, shape, threads=threads)
        if self._graph.output_size != len(bundle.labels):
            raise UserError(f"{path}: gives {self._graph.output_size} outputs for {len(bundle.labels)} labels")

    def run(self, window: np.ndarray) -> np.ndarray:
        return self._graph.run(self._first(window) if self._first else window[None])[0]


def answers(
    predictor: Predictor,
    audio: AudioFile,
    hop_seconds: float | None = None,
    block_seconds: float = BLOCK_SECONDS,
) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield each window of a file with its probabilities, float32 [labels]; no more than a block is held.

    Raises AudioError if nothing of the file can be read.
    """
    for window in file_windows(audio, predictor.recipe, "mono", hop_seconds, block_seconds):
        yield window, predictor.probabilities(window.samples)[0]  # (1, samples) -> (labels,)


def predict_file(
    predictor: Predictor,
    path: Path,
    hop_seconds: float | None = None,
    block_seconds: float = BLOCK_SECONDS,
) -> Prediction:
    """Answer for all windows of a file, whose audio is never held whole. Stereo is answered as its mean.

    Raises AudioError if nothing of the file can be read.
    """
    starts, found = [], []
    with AudioFile(path) as audio:
        for window, probabilities in answers(predictor, audio, hop_seconds, block_seconds):
            starts.append(window.start_seconds)
            found.append(probabilities)
        return Prediction(
            np.array(starts), np.array(found), predictor.recipe.window_seconds, audio.seconds_read, audio.fault
        )
