"""How good an autoencoder of mel windows is, in decibels and to look at.

sums = sum(losses(vae, db) for db in batches); as_figures(sums)       # beside what plain blurring loses
draw(path, prepared, windows, lines, ...)                             # windows, reconstructions, variants
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from src.files import written_whole
from src.recipe import Recipe
from src.shards import Prepared
from src.spectrogram import to_bytes
from src.window_figures import draw_image

if TYPE_CHECKING:
    from src.vae import Vae

LOUD_DB = 10.0  # above its band's median over the window: a value of a call, or of whatever else is no hiss
BLOCK = (2, 2)  # mel bands and frames of a blurred block: a number for four values, as the latent has
SHOWN_OF_A_SIDE = 4


def blurred(db: np.ndarray) -> np.ndarray:
    """Windows (batch, mels, frames) with the mean of each BLOCK in its place: as few numbers as the latent has."""
    bands, frames = BLOCK
    mels, length = db.shape[1:]
    padded = np.pad(db, ((0, 0), (0, -mels % bands), (0, -length % frames)), mode="edge")
    batch, height, width = padded.shape
    means = padded.reshape(batch, height // bands, bands, width // frames, frames).mean(axis=(2, 4))
    return means.repeat(bands, axis=1).repeat(frames, axis=2)[:, :mels, :length]


def losses(vae: Vae, db: np.ndarray) -> np.ndarray:
    """Sums over windows, float32 (batch, mels, frames) in dB, to be added up over batches and given to `as_figures`."""
    from src.vae import nats

    mean, deviation = vae.encode(db)
    levels = np.broadcast_to(db.mean(axis=2, keepdims=True), db.shape)
    rivals = [vae.decode(mean, vae.levels(db), db.shape[2]).numpy(), blurred(db), levels]
    loud = db - np.median(db, axis=2, keepdims=True) > LOUD_DB
    wrong = [np.abs(db - rival) for rival in rivals]
    each = nats(mean, deviation).numpy()
    cells = np.prod(each.shape[:3])
    return np.array(
        [
            db.size,
            loud.sum(),
            *(w.sum() for w in wrong),
            *(w[loud].sum() for w in wrong),
            cells,
            *each.sum(axis=(0, 1, 2)),
        ],
        np.float64,
    )


def as_figures(sums: np.ndarray) -> dict[str, float | list[float]]:
    """Mean absolute errors in dB, of all values and of loud ones, and the KL divergence of each latent in nats a cell."""
    size, loud, every, of_loud, cells = sums[0], max(sums[1], 1), sums[2:5], sums[5:8], sums[8]
    found: dict[str, float | list[float]] = {}
    for number, name in enumerate(("autoencoder", "blurred", "band_means")):
        found[f"{name}_db"] = round(float(every[number] / size), 3)
        found[f"{name}_loud_db"] = round(float(of_loud[number] / loud), 3)
    found["nats_a_cell"] = round(float(sums[9:].sum() / cells), 3)
    found["nats_of_each_latent"] = np.round(sums[9:] / cells, 3).tolist()
    return found


def loudest(index: pd.DataFrame, keep: np.ndarray, most: int) -> np.ndarray:
    """Numbers of some kept windows, each the one of its species that calls most."""
    rows = index[keep].sort_values("call_score", ascending=False, kind="stable")
    return rows.drop_duplicates("ebird_code").window.to_numpy()[:most]


def draw(
    path: Path,
    prepared: Prepared,
    windows: Sequence[int],
    lines: Sequence[np.ndarray],
    learned: int,
    recipe: Recipe,
    measured: dict[str, dict],
) -> None:
    """A PNG with a row a window: as it was, reconstructed, and two variants.

    lines: float32 (4, mels, frames) in dB, for each of `windows`; the first `learned` of them were learned from
    measured: as_figures of each side
    """
    figure, axes = plt.subplots(len(lines), 4, figsize=(18, 2.4 * len(lines) + 1), squeeze=False, layout="constrained")
    heads = ("window", "reconstruction", "variant", "another variant")
    for place, (line, number, of_row) in enumerate(zip(lines, windows, axes)):
        images = to_bytes(line, prepared.recipe)
        low, high = np.percentile(images[0], [5, 99.8])
        row = prepared.index.iloc[number]
        side = "learned from" if place < learned else "never seen"
        for image, head, axis in zip(images, heads, of_row):
            draw_image(axis, image, prepared, low, max(high, low + 1))
            wrong = np.abs(image.astype(float) - images[0]).mean() * prepared.recipe.range_db / 255
            said = f"{row.ebird_code}, {side}" if head == heads[0] else f"{wrong:.1f} dB from the window"
            axis.set_title(f"{head}: {said}", fontsize=8, loc="left")
    said = [
        f"{side}: loses {found['autoencoder_db']:.2f} dB, {found['autoencoder_loud_db']:.2f} of what is loud (2x2 blocks "
        f"{found['blurred_db']:.2f}, {found['blurred_loud_db']:.2f})"
        for side, found in measured.items()
    ]
    spread = f"variants at spread {recipe.vae_spread:g}, {recipe.vae_residue:.0%} of the residue kept"
    figure.suptitle(f"{'; '.join(said)}\n{spread}", fontsize=10)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=80)
    plt.close(figure)
