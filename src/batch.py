"""Many recordings, each analysed once: on several processes or machines, killed and gone on with, none costing another.

    question = Question.of(bundles, threads=1)
    analyse(Detecting(question), recordings, Parts(folder, question.digest), Workers(2))
    parts.outcome(recordings[0])                   # what became of it; its answers are parts.lines(recordings[0])

What is done with a recording is a Task's. A recording that cannot be read is failed, and so is one over which a worker was
killed twice, the second time alone. A model is loaded once by each process.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from joblib import delayed
from tqdm import tqdm

from src import bundle
from src.audio import AudioError
from src.bundle import FLOAT32, Bundle
from src.errors import UserError
from src.files import sha256
from src.parts import Part, Parts
from src.predictor import MEAN, Ensemble
from src.recording_files import Recording
from src.soundscape import Rule, Votes
from src.status import FAILED, Outcome
from src.workers import WorkerKilledError, Workers

FORMAT = 1  # of the parts: raise it when the code that makes them changes what it makes
SHAPING_PACKAGES = ("soxr", "soundfile", "ai-edge-litert")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Question:
    """What every recording is asked, and by which model. Small: it travels to every worker.

    bundles: their folders, absolute; digest: of all that shapes the answers
    threads: of the network; precision: of the bundles' graphs; combine: how several bundles answer, see predictor.Ensemble
    threshold: None: the bundles' own; allowed: the only species to answer, () for all
    hop_seconds: between the starts of neighbouring windows; None: as the bundles have it
    given: fields of a Decision, with their values, that are not to be the bundles'
    """

    bundles: tuple[str, ...]
    digest: str
    threads: int
    threshold: float | None
    hop_seconds: float | None
    given: tuple[tuple[str, float], ...] = ()
    allowed: tuple[str, ...] = ()
    precision: str = FLOAT32
    combine: str = MEAN

    @staticmethod
    def of(
        bundles: Sequence[Bundle],
        threads: int = 1,
        threshold: float | None = None,
        hop_seconds: float | None = None,
        given: Mapping[str, float] | None = None,
        allowed: Sequence[str] = (),
        precision: str = FLOAT32,
        combine: str = MEAN,
    ) -> Question:
        """The question put by these bundles. Raises UserError for fields of a decision that make no sense."""
        fields = tuple(sorted((given or {}).items()))
        replace(bundles[0].decision, **dict(fields))  # now, and not in a worker
        described = [sha256(one.folder / "bundle.json") for one in bundles]  # which holds the checksums of the graphs
        shaping = [FORMAT, described, threshold, hop_seconds, fields, list(allowed), precision, combine]
        shaping += [version(name) for name in SHAPING_PACKAGES]
        digest = hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:16]
        folders = tuple(str(one.folder.resolve()) for one in bundles)
        return Question(folders, digest, threads, threshold, hop_seconds, fields, tuple(allowed), precision, combine)

    def core(self) -> Ensemble:
        """The model, loaded once by each process."""
        return _core(self.bundles, self.threads, self.combine, self.precision, self.digest)

    def hop(self) -> float | None:
        """Seconds between the starts of neighbouring windows; None: as each bundle's recipe has it."""
        return self.core().hop_seconds if self.hop_seconds is None else self.hop_seconds

    def rule(self) -> Rule | Votes:
        """What makes answers of probabilities."""
        core = self.core()
        allowed = np.array([label in self.allowed for label in core.labels]) if self.allowed else None
        return core.rule(self.threshold, dict(self.given), allowed)


class Task(Protocol):
    """What is done with each recording. It travels to the workers, so it holds plain values only."""

    def analyse(self, recording: Recording, part: Part) -> Outcome:
        """Answer for a recording, line by line. Raises AudioError if nothing of it can be read."""

    def lacks(self, recording: Recording, parts: Parts) -> bool:
        """Whether something is missing that is made of a finished recording beside its part."""

    def complete(self, recording: Recording, parts: Parts) -> bool:
        """Make it, if the answers suffice; False: the recording has to be analysed again."""


def analyse(task: Task, recordings: Sequence[Recording], parts: Parts, workers: Workers) -> None:
    """See to it that each recording has its part. Raises UserError for a fault that is not one recording's."""
    workers.check()
    parts.open()
    waiting = [one for one in recordings if not one.fault and (not parts.finished(one) or task.lacks(one, parts))]
    # The largest first, so that at the end nobody waits long for the last one.
    waiting.sort(key=lambda one: -_size(one))
    with tqdm(total=len(recordings), initial=len(recordings) - len(waiting), unit="file", desc="predicting") as bar:
        while waiting:
            waiting = _until_killed(task, waiting, parts, workers, bar)
    absent = [one for one in recordings if not one.fault and parts.outcome(one) is None]
    # A recording that was written to meanwhile is not what it was: its part says what was read of it.
    if absent and not any(parts.path(one).exists() for one in absent):
        raise UserError(
            f"{parts.folder}: {len(absent)} parts are not there though they were made; do all workers see this folder and "
            "the recordings under the same paths?"
        )


def _until_killed(task: Task, waiting: list[Recording], parts: Parts, workers: Workers, bar: tqdm) -> list[Recording]:
    """Work on what waits; returns what still does after a worker was killed, [] if all is done."""
    jobs = workers.jobs if workers.jobs > 0 else os.cpu_count() or 1
    if workers.backend == "loky":
        workers = replace(workers, jobs=min(jobs, len(waiting)))
    parent = os.getpid() if workers.backend == "loky" and workers.jobs != 1 else 0
    done: set[str] = set()
    try:
        for path in workers.run(delayed(_one)(task, one, parts, parent) for one in waiting):
            done.add(path)
            bar.update()
        return []
    except WorkerKilledError:
        left = [one for one in waiting if one.path not in done and not parts.finished(one)]
        at_hand = [one for one in left if parts.was_at_hand(one)]
        bar.update(len(waiting) - len(done) - len(left))
        if not at_hand:
            raise  # none of them was to blame
    tqdm.write(f"a worker was killed; {len(at_hand)} files that were at hand are tried again, one by one", sys.stderr)
    for one in at_hand:
        _alone(task, one, parts, workers)
        bar.update()
    alone = {one.path for one in at_hand}
    return [one for one in left if one.path not in alone]


def _alone(task: Task, recording: Recording, parts: Parts, workers: Workers) -> None:
    """Analyse one recording in a process of its own; if that is killed, too, the recording is failed."""
    try:
        # Two workers, of which one has nothing to do: one would be this process.
        list(
            replace(workers, jobs=2).run(
                [delayed(_one)(task, recording, parts, os.getpid() if workers.backend == "loky" else 0)]
            )
        )
    except WorkerKilledError:
        parts.was_at_hand(recording)
        parts.fail(recording, "the process that read it was killed, twice: out of memory, or a fault in a decoder")


def _one(task: Task, recording: Recording, parts: Parts, parent: int) -> str:
    """Analyse one recording, in whatever process. Returns its path."""
    if parent and os.getppid() != parent:
        os._exit(1)  # the run that started this worker was killed: nothing else would stop it
    with parts.at_hand(recording):
        try:
            if parts.finished(recording) and task.complete(recording, parts):
                return recording.path
            with parts.written(recording) as part:
                part.finish(task.analyse(recording, part))
        except AudioError as error:
            parts.fail(recording, str(error))
        except OSError as error:
            if error.errno in NO_ROOM:
                raise UserError(
                    f"{error.filename or parts.folder}: {error.strerror}; what was finished is kept: make room and run the "
                    "same command again"
                ) from error
            if error.filename not in (None, recording.path):
                raise
            parts.fail(recording, error.strerror or str(error))
        except UserError:
            raise
        except Exception as error:
            # What no one foresaw about one recording must not cost the others.
            parts.fail(recording, f"{type(error).__name__}: {error}")
    return recording.path


def outcome_of(recording: Recording, parts: Parts) -> Outcome:
    """What became of a recording after `analyse`."""
    if recording.fault:
        return Outcome(recording.shown, FAILED, reason=recording.fault)
    return parts.outcome(recording) or Outcome(
        recording.shown, FAILED, reason="was changed while it was read; run again"
    )


def _size(recording: Recording) -> int:
    try:
        return Path(recording.path).stat().st_size
    except OSError:
        return 0


@lru_cache(maxsize=1)  # of a worker that lives on, as dask's do, only the last one
def _core(folders: tuple[str, ...], threads: int, combine: str, precision: str, digest: str) -> Ensemble:
    return Ensemble([bundle.load(Path(folder)) for folder in folders], threads, combine, precision)
