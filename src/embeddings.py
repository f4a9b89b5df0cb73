"""What a frozen backbone makes of every prepared window: computed once, kept, and used by every head, fold and seed.

    features, cpu_seconds = embed_images(body, identity, prepared, store)              # float32 [windows, features]
    features, cpu_seconds = embed_audio(model, identity, prepared, recordings, store, clips)

Kept in `store`, a file for each shard, named by what they were made of: a run that is killed goes on with the next shard,
and windows that were prepared anew are embedded anew, those of unchanged shards are not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from src.datasets import plain_batches, readable
from src.files import locked, write_text, written_whole
from src.waveforms import windows_of

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from src.audio_backbones import AudioModel
    from src.augment import Clips
    from src.shards import Prepared


# Of what lies between a stored window and a network: raise it when that changes, and what is kept is made anew.
VERSION = 2


def embed_images(
    body: keras.Model, identity: str, prepared: Prepared, store: Path, batch_size: int = 32, workers: int = 2
) -> tuple[np.ndarray, float]:
    """Features of all windows by `body`, a model of float32 (batch, mels, frames) in dB -> (batch, features).

    identity: what the body is, to the last weight: another one must have another
    returns: float32 array [windows, features] in the index's order, and the CPU seconds it took when it was made
    """
    answer = tf.function(lambda db: body(db, training=False), reduce_retracing=True)

    def of_shard(keep: np.ndarray) -> np.ndarray:
        with readable(prepared):
            return np.concatenate([answer(db).numpy() for db in plain_batches(prepared, keep, batch_size, workers)])

    return _by_shard(of_shard, identity, prepared, store)


def embed_audio(
    model: AudioModel,
    identity: str,
    prepared: Prepared,
    recordings: pd.DataFrame,
    store: Path,
    clips: Clips | None = None,
    batch_size: int = 32,
) -> tuple[np.ndarray, float]:
    """Features of all windows by a model of audio, from the recordings themselves. Arguments and result as in embed_images.

    recordings: columns filename, path; clips: for copies over a background. Raises UserError as waveforms.windows_of does.
    """
    from dataclasses import replace

    def of_shard(keep: np.ndarray) -> np.ndarray:
        part = replace(prepared, index=prepared.index[keep])
        order = {window: row for row, window in enumerate(part.index.window)}
        found = np.zeros((len(order), model.features), np.float32)
        for numbers, waveforms in windows_of(part, recordings, model.sample_rate, clips):
            found[[order[number] for number in numbers]] = model.embed(waveforms, batch_size)
        return found

    return _by_shard(of_shard, identity, prepared, store)


def _by_shard(
    of_shard: Callable[[np.ndarray], np.ndarray], identity: str, prepared: Prepared, store: Path
) -> tuple[np.ndarray, float]:
    shards = prepared.index.shard.to_numpy()
    paths = dict(_places(identity, prepared, store))
    missing = [shard for shard, path in paths.items() if not path.exists()]
    for shard in tqdm(missing, unit="shard", desc="embedding", disable=not missing):
        # Several folds at once want the same: one makes it, the others wait for it.
        with locked(paths[shard].with_suffix(".lock")):
            if paths[shard].exists():
                continue
            started = time.process_time()
            prepared.check_unchanged()
            features = of_shard(shards == shard).astype(np.float32, copy=False)
            write_text(paths[shard].with_suffix(".cpu"), f"{time.process_time() - started:.3f}")
            with written_whole(paths[shard]) as temporary:
                np.save(temporary, features)
        paths[shard].with_suffix(".lock").unlink(missing_ok=True)
    parts = [np.load(path, mmap_mode="r") for path in paths.values()]
    together = np.empty((len(shards), parts[0].shape[1]), np.float32)
    for shard, part in zip(paths, parts):
        together[shards == shard] = part
    costs = [path.with_suffix(".cpu") for path in paths.values()]
    return together, sum(float(path.read_text()) for path in costs if path.is_file())


def _places(identity: str, prepared: Prepared, store: Path) -> Iterator[tuple[int, Path]]:
    """(shard, file of its features). A shard's content names it; its place among others does not."""
    name = hashlib.sha256(f"{VERSION} {identity}".encode()).hexdigest()[:12]
    for shard, content in enumerate(prepared.contents):
        if (prepared.index.shard == shard).any():
            yield shard, store / name / f"{prepared.recipe.prepared_id}-{shard:05d}-{content}.npy"
