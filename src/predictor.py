"""The predict core: a bundle and audio in, probabilities per window out. LiteRT only; no TensorFlow import.

    predictor = Predictor(bundle.find([Path("runs/b6")]))
    predictor.probabilities(windows)                     # float32 [windows, labels]
    ensemble = Ensemble(bundle.find([Path("runs/b6"), Path("runs/yamnet")]), combine=VOTES)
    prediction = predict_file(ensemble, Path("dawn.flac"), ensemble.hop_seconds)
    prediction.start_seconds, prediction.probabilities   # [windows], [windows, labels], or of votes [bundles, windows, labels]
    ensemble.rule().counted(prediction.probabilities)    # bool [windows, labels]

evaluate.py, predict.py and edge/listen.py all ask this module. Several bundles are an ensemble. Those that hear the same audio
are a Predictor: the mean of their probabilities, after each bundle's own calibration. An Ensemble takes any: a recording is
decoded once, and cut once for all of them whose sample rate, high-pass, window and hop agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from src.audio import BLOCK_SECONDS, AudioFile, Window, file_windows, windows_of_each
from src.bundle import FLOAT32, Bundle
from src.calibration import Calibration
from src.errors import UserError
from src.litert import Embedder, Graph, input_shape
from src.recipe import Recipe
from src.soundscape import Prediction, Rule, Votes, mean_decision
from src.spectrogram import image, log_mel

MEAN, VOTES = "mean", "votes"
# Of a recipe: bundles alike in it share windows.
HEARD = ("sample_rate", "window_seconds", "hop_seconds", "highpass_hz")
WINDOWS_AT_ONCE = 120  # ten minutes of the default's
SAME_SECONDS = 0.01  # windows of different sample rates that begin within so much of each other are the same


class Predictor:
    """One or more bundles that answer for the same audio.

    labels: ebird codes in the order of the columns; recipe: what the audio must be
    threshold, thresholds: the mean of the bundles', one number and float64 array [labels]
    decision: theirs, what decides beside it
    calibrated: False for what the networks themselves say, as out-of-fold predictions are
    precision: which of the bundles' LiteRT files are asked: "float32", "float16" or "int8"
    networks: what is asked in their place, one for each bundle: a window, float32 [samples] -> float32 [labels]; none: LiteRT

    Raises UserError for bundles that hear different audio: an Ensemble takes them.
    """

    combine = MEAN

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
            differing = [name for name in HEARD if getattr(bundle.recipe, name) != getattr(first, name)]
            if differing:
                names = ", ".join(differing)
                raise UserError(
                    f"{bundle.folder} and {bundles[0].folder} hear different audio ({names}), so no one window is for both: "
                    "predict.py takes them together, recording by recording"
                )
        self.bundles = list(bundles)
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

    @property
    def streams(self) -> list[Predictor]:
        """Itself: it hears one kind of audio."""
        return [self]

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        """Answer for windows: float32 array [windows, window_samples], unit scale -> float32 array [windows, labels].

        Each window is answered alone, so no answer depends on what else is asked. Raises ValueError on another shape.
        """
        return self.each(windows).mean(axis=0)

    def each(self, windows: np.ndarray) -> np.ndarray:
        """What each bundle answers, calibrated, as `probabilities` means it: float32 array [bundles, windows, labels]."""
        if windows.ndim != 2 or windows.shape[1] != self.recipe.window_samples:
            raise ValueError(f"windows must be [n, {self.recipe.window_samples}], not {list(windows.shape)}")
        answers = np.empty((len(self._networks), len(windows), len(self.labels)), np.float32)
        for row, network in enumerate(self._networks):
            for column, window in enumerate(windows):
                answers[row, column] = network(window)
            answers[row] = self._calibrations[row].apply(answers[row])
        return answers


class Ensemble:
    """One or more bundles that answer for a recording, whatever audio each of them hears.

    streams: a Predictor for each kind of audio. The first has the shortest windows, which are those that are answered:
        longer ones of other bundles are averaged onto them by the seconds they share
    bundles: in the order of the streams, which is that of their answers where they vote
    labels, name, threshold, thresholds, decision: as a Predictor has them; recipe: the first stream's
    combine: MEAN: probabilities and thresholds are the bundles' mean; VOTES: each answers by its own, see soundscape.Votes
    """

    def __init__(
        self, bundles: Sequence[Bundle], threads: int = 1, combine: str = MEAN, precision: str = FLOAT32
    ) -> None:
        alike: dict[tuple, list[Bundle]] = {}
        for one in bundles:
            alike.setdefault(tuple(getattr(one.recipe, name) for name in HEARD), []).append(one)
        groups = sorted(alike.values(), key=lambda group: group[0].recipe.window_seconds)
        self.streams = [Predictor(group, threads, precision=precision) for group in groups]
        self.bundles = [one for group in groups for one in group]
        self.labels = bundles[0].labels
        self.name = "+".join(dict.fromkeys(one.name for one in bundles))
        self.recipe = self.streams[0].recipe
        self.threshold = float(np.mean([one.threshold for one in bundles]))
        self.thresholds = np.mean([one.thresholds for one in bundles], axis=0)
        self.decision = mean_decision([one.decision for one in bundles])
        self.combine = combine

    @property
    def hop_seconds(self) -> float | None:
        """Between the answered windows, as the bundles' decision has it; None: as each bundle's recipe has it."""
        return hop_of(self.recipe, self.decision.overlap) if self.decision.overlap else None

    def rule(
        self,
        threshold: float | None = None,
        given: Mapping[str, float] | None = None,
        allowed: np.ndarray | None = None,
    ) -> Rule | Votes:
        """What makes answers of the probabilities.

        threshold: for all species, None: the bundles'; given: fields of a Decision that are not to be the bundles'
        allowed: bool array [labels], the only species that may be answered; None: all
        """
        given = given or {}
        decision = replace(self.decision, **given)
        if self.combine == MEAN:
            return Rule(self.thresholds if threshold is None else threshold, decision, allowed)
        own = [np.array(one.thresholds) if threshold is None else threshold for one in self.bundles]
        rules = [Rule(limits, replace(one.decision, **given), allowed) for limits, one in zip(own, self.bundles)]
        return Votes(tuple(rules), decision.most)


def _has_scipy() -> bool:
    """Whether SciPy is here, as on a desk; not on a small box, which is none the worse but for time."""
    try:
        import scipy.fft
        import scipy.sparse  # noqa: F401
    except ImportError:
        return False
    return True


class _Model:
    """A bundle's LiteRT graph, or its two one after the other, one window at a time.

    LiteRT takes as long for a log-mel spectrogram as for EfficientNet B0 on it (5.5 of 11 ms). Where SciPy is, and the bundle has
    the network alone, the image is made by what prepared the windows, in 1.2 ms: the same to 1e-4, so that probabilities agree
    to 1e-5.
    """

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
        elif bundle.network is not None and _has_scipy():
            path, recipe = bundle.network if precision == FLOAT32 else path, bundle.recipe
            shape = (1, *input_shape(path)[1:])
            self._first = lambda window: image(log_mel(window, recipe), recipe.level_bands)[None, :, :, None]
        elif before:
            front_end = Graph(before[0], shape, features=None, threads=threads)
            shape = (1, *input_shape(path)[1:])
            self._first = lambda window: front_end.run(window[None])
        self._graph = Graph(path, shape, threads=threads)
        if self._graph.output_size != len(bundle.labels):
            raise UserError(f"{path}: gives {self._graph.output_size} outputs for {len(bundle.labels)} labels")

    def run(self, window: np.ndarray) -> np.ndarray:
        return self._graph.run(self._first(window) if self._first else window[None])[0]


def hop_of(recipe: Recipe, overlap: float) -> float:
    """Seconds between windows of which neighbours overlap by at least this share of a window."""
    return min(recipe.hop_seconds, recipe.window_seconds * (1 - overlap))


def predict_file(
    core: Predictor | Ensemble,
    path: Path,
    hop_seconds: float | None = None,
    block_seconds: float = BLOCK_SECONDS,
) -> Prediction:
    """As `predict_audio`, of the file of this name. Raises AudioError if nothing of it can be read."""
    with AudioFile(path) as audio:
        return predict_audio(core, audio, hop_seconds, block_seconds)


def predict_audio(
    core: Predictor | Ensemble,
    audio: AudioFile,
    hop_seconds: float | None = None,
    block_seconds: float = BLOCK_SECONDS,
) -> Prediction:
    """Answer for all windows of a file, whose audio is never held whole. Stereo is answered as its mean.

    hop_seconds: between the starts of the answered windows; None: as each bundle's recipe has it. Bundles of longer windows
        overlap them by the same share
    Raises AudioError if nothing of the file can be read.
    """
    streams, votes = core.streams, core.combine == VOTES
    shares = [one.recipe.window_seconds / core.recipe.window_seconds for one in streams]
    hops = [None if hop_seconds is None else hop_seconds * share for share in shares]
    starts: list[list[float]] = [[] for _ in streams]
    said: list[list[np.ndarray]] = [[] for _ in streams]
    wanted = [(one.recipe, hop) for one, hop in zip(streams, hops)]
    for which, window in windows_of_each(audio, wanted, "mono", block_seconds):
        starts[which].append(window.start_seconds)
        said[which].append(_asked(streams[which], window, votes))
    heard = [_heard(one, of_stream, answers, audio) for one, of_stream, answers in zip(streams, starts, said)]
    return heard[0] if len(heard) == 1 else _together(heard, [len(one.bundles) for one in streams], votes)


def predictions(core: Predictor | Ensemble, audio: AudioFile, hop_seconds: float | None = None) -> Iterator[Prediction]:
    """As `predict_audio`, but WINDOWS_AT_ONCE windows at a time, in their order: nothing is held that grows with the file.

    Of bundles that hear different audio all windows come at once.
    """
    if len(core.streams) > 1:
        yield predict_audio(core, audio, hop_seconds)
        return
    starts: list[float] = []
    said: list[np.ndarray] = []
    windows = file_windows(audio, core.recipe, "mono", hop_seconds)
    for window in chain(windows, [None]):
        if starts and (window is None or len(starts) == WINDOWS_AT_ONCE):
            yield _heard(core.streams[0], starts, said, audio)
            starts, said = [], []
        if window is not None:
            starts.append(window.start_seconds)
            said.append(_asked(core.streams[0], window, core.combine == VOTES))


def _asked(stream: Predictor, window: Window, votes: bool) -> np.ndarray:
    """A stream's answer to a window: float32 [1, labels], or of each bundle, [bundles, 1, labels], where they vote."""
    each = stream.each(window.samples)  # (1, samples) -> (bundles, 1, labels)
    return each if votes else each.mean(axis=0)


def _heard(stream: Predictor, starts: Sequence[float], said: Sequence[np.ndarray], audio: AudioFile) -> Prediction:
    """Answers of `_asked` to the windows that begin at these seconds, together."""
    together = np.concatenate(said, axis=-2)
    return Prediction(np.array(starts), together, stream.recipe.window_seconds, audio.seconds_read, audio.fault)


def _together(heard: Sequence[Prediction], bundles: Sequence[int], votes: bool) -> Prediction:
    """The answers of several streams on the windows of the first: those of all bundles where they vote, else their mean.

    bundles: how many each stream has
    """
    first = heard[0]
    # At another sample rate a file may be a sample shorter, and a window of that sample alone is not there.
    ends = [one.start_seconds[-1] + one.window_seconds for one in heard]
    starts = first.start_seconds[first.start_seconds < min(ends)]
    said = [_same_windows(one, starts, first.window_seconds).probabilities for one in heard]
    if votes:
        return replace(first, start_seconds=starts, probabilities=np.concatenate(said))
    mean = np.average(said, axis=0, weights=bundles).astype(np.float32)
    return replace(first, start_seconds=starts, probabilities=mean)


def _same_windows(one: Prediction, starts: np.ndarray, window_seconds: float) -> Prediction:
    """A stream's answers on these windows: its own where they are the same ones."""
    own = one.start_seconds[: len(starts)]
    if (
        one.window_seconds == window_seconds
        and len(own) == len(starts)
        and np.allclose(own, starts, rtol=0, atol=SAME_SECONDS)
    ):
        return replace(one, start_seconds=own, probabilities=one.probabilities[..., : len(own), :])
    return one.on(starts, window_seconds)
