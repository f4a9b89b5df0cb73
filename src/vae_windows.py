"""Augmentation by a variational autoencoder: variants of a fold's training windows, and how good the autoencoder is.

    prepared = extended(prepared, split, recipe, folder)        # the same windows, then recipe.vae_copies variants of each
    split = split_fold(prepared, folds, fold, recipe)           # variants are on the training side, as their windows are

    <folder>/checkpoint_vae.npz      the autoencoder after its last epoch; of the fold's training windows and no others
    <folder>/vae/shards/             the variants, as prepared windows are kept; their numbers follow the prepared shards'
    <folder>/vae/history.csv         its epochs;    <folder>/vae.json     what it loses, beside what plain blurring loses
    <folder>/vae.png                 windows of both sides, each with its reconstruction and two variants

A variant is decoded from a latent near the window's own (`near`), recipe.vae_spread times as far as what the autoencoder takes
for the same window. Of what decoding loses, recipe.vae_residue is given back. All is drawn from the recipe's seed and the
window's number: a run that was killed goes on and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from src import devices, vae_figures
from src.checkpoints import Checkpoint
from src.competition import NOCALL
from src.datasets import plain_batches, readable
from src.errors import UserError
from src.files import sha256, write_json, write_text, written_whole
from src.history import History
from src.recipe import Recipe
from src.shards import Added, Prepared
from src.spectrogram import to_bytes
from src.splits import Split
from src.vae import STAGE, Design, Vae, build, fit, plan_of

TRANSFORM = "vae"
SHUFFLE_STEP = 15_485_863  # between the seeds of two recipes' epochs


def extended(
    prepared: Prepared,
    split: Split,
    recipe: Recipe,
    folder: Path,
    strategy: tf.distribute.Strategy | None = None,
    workers: int = 2,
    trained_in: Path | None = None,
) -> Prepared:
    """The prepared windows and recipe.vae_copies variants of each original window of a bird that the fold learns from.

    folder: of the fold; what is there already is kept. trained_in: where the autoencoder itself is kept, if elsewhere
    returns: variants have transform "vae" and what was drawn for them as parameters; all else is of their window, the parent.
    Raises UserError as vae.fit does.
    """
    strategy = strategy or tf.distribute.get_strategy()
    rows = _rows(prepared, split, recipe)
    if devices.is_chief(strategy):
        prepared.check_unchanged()
        _clear_others(
            folder / "vae", f"{settings_of(prepared, split, recipe)} {recipe.vae_spread} {recipe.vae_residue}"
        )
        missing = [
            shard for shard, part in rows.groupby("shard") if not _is_whole(_shard(folder, shard), part, prepared)
        ]
        if missing or not (folder / "vae.png").exists():
            vae = trained(prepared, split, recipe, trained_in or folder, workers)
            for shard in tqdm(missing, unit="shard", desc="variants", disable=not missing):
                _write_shard(_shard(folder, shard), vae, prepared, rows[rows.shard == shard], recipe)
            _report(folder, vae, prepared, split, recipe)
    devices.together(strategy)
    contents = [sha256(_shard(folder, shard))[:16] for shard in rows.shard.unique()]
    return replace(
        prepared,
        index=pd.concat([prepared.index, rows], ignore_index=True),
        contents=(*prepared.contents, *contents),
        added=Added(folder / "vae", len(prepared.contents)),
    )


def trained(prepared: Prepared, split: Split, recipe: Recipe, folder: Path, workers: int = 2) -> Vae:
    """The autoencoder of a fold: from <folder>/checkpoint_vae.npz, or trained on the original windows of split.train."""
    design = design_of(recipe)
    keep = originals(split)
    vae = build(prepared.recipe.image_shape, design, recipe.seed)
    plan = plan_of(recipe, design, int(keep.sum()))

    def batches(epoch: int) -> tf.data.Dataset:
        seed = recipe.seed * SHUFFLE_STEP + epoch
        return plain_batches(prepared, keep, design.batch, workers, seed)

    checkpoint = Checkpoint(folder, STAGE, settings_of(prepared, split, recipe))
    with readable(prepared):
        fit(vae, batches, plan, recipe, checkpoint, History(folder / "vae"))
    return vae


def design_of(recipe: Recipe) -> Design:
    """The network's numbers; who has no memory for its batches is told to ask for smaller ones, and gets them."""
    design = Design()
    return replace(design, batch=min(design.batch, recipe.batch_size))


def originals(split: Split) -> np.ndarray:
    """Which windows the autoencoder learns from: bool array [windows]."""
    return split.train & (split.windows["transform"] == "").to_numpy()


def variants(vae: Vae, db: np.ndarray, generators: Sequence[np.random.Generator], recipe: Recipe) -> np.ndarray:
    """A variant of each window, as the module's docstring has it: float32 (batch, mels, frames) in dB -> the same."""
    levels = vae.levels(db)
    mean, deviation = vae.encode(db)
    drawn = np.stack([each.standard_normal(mean.shape[1:], np.float32) for each in generators])
    centre, width = near(mean, deviation, recipe.vae_spread)
    varied = vae.decode(centre + width * drawn, levels, db.shape[2]).numpy()
    if recipe.vae_residue:
        varied += recipe.vae_residue * (db - vae.decode(mean, levels, db.shape[2]).numpy())
    return varied


def near(mean: tf.Tensor, deviation: tf.Tensor, spread: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and deviation of the latents of a window's variants, from those of its posterior: shapes as given.

    What the window says of its latent counts 1 / spread^2 of what it does: 1 gives the posterior itself, much gives the prior,
    and what lies between is `spread` times as wide where the window says a lot, but nowhere wider than the prior. Below 1 it
    is the posterior made narrower, 0 being the window's own latent.
    """
    heat = spread**2
    wider = 1 + max(heat - 1, 0) * tf.square(deviation)
    return mean / wider, spread * deviation / tf.sqrt(wider)


def _rows(prepared: Prepared, split: Split, recipe: Recipe) -> pd.DataFrame:
    """The variants' rows of the index: a shard of them for each that has windows to vary."""
    index = prepared.index
    chosen = index[originals(split) & (index.ebird_code != NOCALL).to_numpy()]
    if chosen.empty:
        raise UserError("no original window of a bird is learned from: an autoencoder has nothing to vary")
    rows = chosen.loc[chosen.index.repeat(recipe.vae_copies)].reset_index(drop=True)
    numbers = {shard: len(prepared.contents) + place for place, shard in enumerate(chosen.shard.unique())}
    drawn = {"spread": recipe.vae_spread, "residue": recipe.vae_residue, "seed": recipe.seed}
    copy = rows.groupby("parent").cumcount()
    rows["parameters"] = [json.dumps({TRANSFORM: {**drawn, "copy": number}}) for number in copy.tolist()]
    rows["transform"] = TRANSFORM
    rows["shard"] = rows.shard.map(numbers)
    rows["row"] = rows.groupby("shard").cumcount()
    rows["window"] = len(index) + np.arange(len(rows))
    return rows


def _write_shard(path: Path, vae: Vae, prepared: Prepared, rows: pd.DataFrame, recipe: Recipe) -> None:
    """All variants of one shard's windows, as they are stored."""
    keep = prepared.index.window.isin(rows.parent).to_numpy()
    parents = iter(rows.parent.unique())
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        for db in _batches(prepared, keep, vae.design.batch):
            families = [next(parents) for _ in db]
            copies = []
            for copy in range(recipe.vae_copies):
                generators = [np.random.default_rng((recipe.seed, parent, copy)) for parent in families]
                with devices.memory(vae.design.batch):
                    copies.append(to_bytes(variants(vae, db, generators, recipe), prepared.recipe))
            file.write(np.stack(copies, axis=1).tobytes())  # (batch, copies, mels, frames)


def _batches(prepared: Prepared, keep: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Windows in the index's order: float32 arrays (batch, mels, frames) in dB."""
    with readable(prepared):
        for db in plain_batches(prepared, keep, size):
            yield db.numpy()


def cpu_seconds(folder: Path) -> float:
    """What training the autoencoder in `folder` took; 0 where there is none."""
    path = folder / "vae/history.csv"
    return float(pd.read_csv(path).cpu_seconds.sum()) if path.is_file() else 0.0


def settings_of(prepared: Prepared, split: Split, recipe: Recipe) -> str:
    """All that shapes the autoencoder of a fold: where this is the same, its weights are."""
    windows = hashlib.sha256("\n".join(prepared.contents).encode() + originals(split).tobytes()).hexdigest()
    return f"{design_of(recipe)!r} {prepared.recipe.image_shape} {recipe.vae_epochs} {recipe.seed} {windows}"


def _shard(folder: Path, number: int) -> Path:
    return folder / "vae" / "shards" / f"shard-{number:05d}.bin"


def _is_whole(path: Path, rows: pd.DataFrame, prepared: Prepared) -> bool:
    return path.is_file() and path.stat().st_size == len(rows) * prepared.window_bytes


def _clear_others(folder: Path, settings: str) -> None:
    """Remove variants that were made with other settings."""
    path = folder / "made_by.txt"
    if not path.is_file() or path.read_text(encoding="utf-8") != settings:
        shutil.rmtree(folder / "shards", ignore_errors=True)
        for name in ("vae.png", "vae.json"):
            (folder.parent / name).unlink(missing_ok=True)
        write_text(path, settings)


def _report(folder: Path, vae: Vae, prepared: Prepared, split: Split, recipe: Recipe) -> None:
    """Write vae.json and vae.png."""
    birds = (prepared.index.ebird_code != NOCALL).to_numpy()
    sides = {"trained on": originals(split) & birds, "validated": split.validation & birds}
    measured = {}
    for side, keep in sides.items():
        sums = sum(vae_figures.losses(vae, db) for db in _batches(prepared, keep, vae.design.batch))
        measured[side] = vae_figures.as_figures(sums)
    write_json(folder / "vae.json", measured)
    shown = [vae_figures.loudest(prepared.index, keep, vae_figures.SHOWN_OF_A_SIDE) for keep in sides.values()]
    lines = []
    for number in np.concatenate(shown):
        (db,) = _batches(prepared, prepared.index.window.to_numpy() == number, 1)
        again = vae.decode(vae.encode(db)[0], vae.levels(db), db.shape[2]).numpy()
        varied = [variants(vae, db, [np.random.default_rng((recipe.seed, number, copy))], recipe) for copy in range(2)]
        lines.append(np.concatenate([db, again, *varied]))
    vae_figures.draw(folder / "vae.png", prepared, np.concatenate(shown), lines, len(shown[0]), recipe, measured)
