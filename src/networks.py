"""A backbone with a head, of whatever kind: the two stages that train it, and what of it goes to the field.

    network = open_network(backbone, recipe, labels, weights)
    embeddings = network.embed(prepared, recordings, store)       # what the frozen backbone makes of every window, cached
    network.fit_head(...), network.fine_tune(...)                 # which of them there are: has_head_stage, is_fine_tuned

Three kinds: an image network from TF-Hub, a network of audio (frozen, always), and the tiny one of our own (from scratch).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from src import audio_backbones, classifier, devices, embeddings, heads, optimizers, training
from src.audio_backbones import AudioModel
from src.backbones import Backbone, cached
from src.checkpoints import Checkpoint
from src.datasets import training_batches
from src.errors import UserError
from src.files import sha256
from src.history import History
from src.recipe import Recipe
from src.splits import Split
from src.waveforms import at_rate

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from src.augment import Clips
    from src.shards import Prepared


@dataclass(frozen=True)
class Place:
    """Where a training keeps its state: the fold's folder, and what the state is of."""

    folder: Path
    settings: str

    def checkpoint(self, stage: str) -> Checkpoint:
        """That of a stage."""
        return Checkpoint(self.folder, stage, self.settings)

    def check(self) -> None:
        """Raise UserError if a stage's checkpoint is of another training or damaged, before hours are spent on its way there."""
        for stage in ("head", "network"):
            self.checkpoint(stage).check()


@dataclass
class Network:
    """A backbone and its head.

    body: Keras, float32 (batch, mels, frames) in dB -> features; None for a network of audio, which is `audio`
    recipe: of the run; identity: what the backbone is, to the last weight, "" for one that starts at random
    """

    backbone: Backbone
    recipe: Recipe
    labels: tuple[str, ...]
    body: keras.Model | None
    audio: AudioModel | None
    identity: str
    strategy: tf.distribute.Strategy
    workers: int
    head: keras.Model | None = None
    whole: keras.Model | None = None

    @property
    def has_head_stage(self) -> bool:
        """Whether there are embeddings worth training a head on: those of a pretrained backbone."""
        return bool(self.identity)

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the backbone learns, too."""
        return self.body is not None and self.recipe.unfreeze != 0

    @property
    def is_chain(self) -> bool:
        """Whether the backbone is a .tflite file, which goes to the field as it is, before the head's own."""
        return self.audio is not None and self.audio.graph is None

    @property
    def bundle_recipe(self) -> Recipe:
        """The recipe of the exported network: its audio has the sample rate that the network wants."""
        return self.recipe if self.audio is None else at_rate(self.recipe, self.audio.sample_rate)

    @property
    def parameters(self) -> int:
        """Numbers in the network and its head; 0 where they cannot be counted."""
        if self.whole is not None:
            return self.whole.count_params()
        below = self.body.count_params() if self.body is not None else self.audio.parameters or self.backbone.parameters
        return below + self.head.count_params() if below else 0

    def embed(
        self, prepared: Prepared, recordings: pd.DataFrame, store: Path, clips: Clips | None = None
    ) -> tuple[np.ndarray, float]:
        """What the backbone as it is published makes of every window: float32 array [windows, features], kept in `store`.

        And the CPU seconds that making them took, now or when they were made.
        """
        size = self.recipe.batch_size
        with devices.memory(size):
            if self.audio is not None:
                return embeddings.embed_audio(self.audio, self.identity, prepared, recordings, store, clips, size)
            return embeddings.embed_images(self.body, self.identity, prepared, store, size, self.workers)

    def fit_head(self, found: np.ndarray, split: Split, place: Place, history: History) -> np.ndarray:
        """Train the head on embeddings, float32 [windows, features]; returns the validated windows' logits."""
        with self.strategy.scope():
            self.head = heads.build(self.labels, found.shape[1], self.recipe, found[split.train])
        plan = optimizers.head_plan(self.recipe, int(split.train.sum()))
        logits = training.answers(self.head)

        def batches(epoch: int, share: devices.Share) -> tf.data.Dataset:
            return heads.batches(found, split, self.recipe, epoch, plan.steps * share.a_step, share)

        def answer(keep: np.ndarray) -> np.ndarray:
            return logits(found[keep]).numpy()

        checkpoint = place.checkpoint(plan.name)
        training.fit(self.head, plan, batches, answer, split, self.recipe, checkpoint, history, strategy=self.strategy)
        return answer(split.validation)

    def fine_tune(self, prepared: Prepared, split: Split, place: Place, history: History) -> np.ndarray:
        """Train all that is unfrozen on augmented windows; returns the validated windows' logits."""
        with self.strategy.scope():
            if self.head is None:
                self.head = heads.build(self.labels, self.body.output.shape[1], self.recipe)
            self.whole = classifier.with_head(self.body, self.head)
        slow = classifier.unfreeze(self.whole, self.recipe)
        plan = optimizers.network_plan(self.recipe, int(split.train.sum()))
        weights = split.weights

        def batches(epoch: int, share: devices.Share) -> tf.data.Dataset:
            prepared.check_unchanged()
            keep = split.train & (np.arange(len(split.train)) % share.count == share.index)
            of_share = share.of(self.recipe)
            steps = plan.steps * share.a_step
            return training_batches(
                prepared, keep, split.targets, split.background, of_share, epoch, steps, self.workers, weights
            )

        logits = training.answers(self.whole)

        def answer(keep: np.ndarray) -> np.ndarray:
            return training.predict_logits(logits, prepared, keep, self.recipe.batch_size, self.workers)

        checkpoint = place.checkpoint(plan.name)
        training.fit(
            self.whole, plan, batches, answer, split, self.recipe, checkpoint, history, slow, strategy=self.strategy
        )
        return answer(split.validation)

    def listener(self) -> keras.Model:
        """The network as it goes to the field: float32 (batch, samples) -> probabilities; over features for a .tflite file."""
        if self.audio is None:
            return classifier.with_front_end(self.whole or classifier.with_head(self.body, self.head), self.recipe)
        if self.is_chain:
            return classifier.over_features(self.head)
        return classifier.over_audio(self.audio, self.head, self.bundle_recipe)


def open_network(
    backbone: Backbone,
    recipe: Recipe,
    labels: tuple[str, ...],
    weights: Path | None,
    strategy: tf.distribute.Strategy,
    workers: int = 2,
) -> Network:
    """Load a backbone, and make its random numbers those of recipe.seed.

    weights: SavedModel folder to use instead of what the backbone's handle names. Raises UserError if the weights are not to
    be had or do not fit, or the recipe asks of the backbone what it cannot do.
    """
    keras.utils.set_random_seed(recipe.seed)
    own = not backbone.handle and not backbone.path
    if own and recipe.unfreeze == 0:
        raise UserError(f"{backbone.name} starts at random: there is nothing to freeze; leave --freeze out")
    if backbone.kind == "audio":
        if recipe.unfreeze != 0:
            raise UserError(f"{backbone.name} hears audio, and such networks are kept frozen: leave --unfreeze out")
        audio = audio_backbones.load(backbone, weights)
        identity = f"{_source(backbone, weights)} {backbone.sample_rate} {backbone.peak} {audio.pieces}"
        return Network(backbone, recipe, labels, None, audio, identity, strategy, workers)
    with strategy.scope():
        body = classifier.body(recipe, backbone, weights)
    identity = "" if own else f"{_source(backbone, weights)} {recipe.image_size} {recipe.level_bands}"
    return Network(backbone, recipe, labels, body, None, identity, strategy, workers)


def _source(backbone: Backbone, weights: Path | None) -> str:
    """What the backbone is, to the last weight: a digest of its files where they are at hand, else its handle."""
    found = cached(backbone)
    place = weights or (Path(backbone.path) if backbone.path else found[1] if found else None)
    if place is None:
        return backbone.handle
    if place.is_file():
        return sha256(place)
    # All of them: a mel matrix beside a network that wants one is as much of it as its weights are.
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return hashlib.sha256("".join(sha256(path) for path in files).encode()).hexdigest()
