"""Pictures of prepared windows: a recording's windows with their augmented copies, and which of its windows were kept.

draw_recording(path, prepared, "XC12345")     # a row a window, a column a copy
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from src import storage
from src.errors import UserError
from src.files import written_whole
from src.shards import Prepared

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_WINDOWS = 40  # in one picture


def find_recording(prepared: Prepared, name: str) -> str:
    """The one recording called `name`, with or without its suffix and folder. Raises UserError if there is none, or several."""
    names = prepared.status.filename
    exact = names[names == name]
    stems = names.map(lambda filename: Path(filename).stem)
    found = exact if len(exact) else names[(stems == Path(name).stem) | (names.map(lambda n: Path(n).name) == name)]
    if len(found) == 1:
        return found.iloc[0]
    if len(found):
        raise UserError(f"{prepared.folder}: {name} may be {', '.join(found[:5])}; give the whole name")
    raise UserError(
        f"{prepared.folder}: no recording is called {name}; {prepared.folder / 'status.csv'} names them all"
    )


def read_images(prepared: Prepared, rows: pd.DataFrame) -> list[np.ndarray]:
    """The stored images of some rows of the index, uint8 [mels, frames] each."""
    size, content, images = prepared.window_bytes, {}, []
    for row in rows.itertuples():
        if row.shard not in content:
            content[row.shard] = storage.read_bytes(prepared.shard_path(row.shard))
        image = np.frombuffer(content[row.shard], np.uint8, size, row.row * size)
        images.append(image.reshape(prepared.recipe.image_shape))
    return images


def draw_recording(path: Path, prepared: Prepared, name: str) -> None:
    """A PNG of a recording's kept windows, in the order of time, each with its copies and what was drawn for them.

    Raises UserError if the recording is unknown or none of its windows were kept.
    """
    filename = find_recording(prepared, name)
    rows = prepared.index[prepared.index.filename == filename]
    outcome = prepared.status[prepared.status.filename == filename].iloc[0]
    if rows.empty:
        raise UserError(
            f"{filename}: no window of it was kept: {outcome.status}, {outcome.reason or 'without a reason'}"
        )
    families = [family for _, family in rows.groupby("parent", sort=True)]
    shown = families[:MOST_WINDOWS]
    columns = max(len(family) for family in shown)
    figure, axes = plt.subplots(
        len(shown), columns, figsize=(3.6 * columns + 0.6, 2.3 * len(shown) + 1.0), squeeze=False, layout="constrained"
    )
    for family, line in zip(shown, axes):
        images = read_images(prepared, family)
        low, high = np.percentile(images[0], [5, 99.8])
        for axis, image, row in zip(line, images, family.itertuples()):
            draw_image(axis, image, prepared, low, max(high, low + 1))
            axis.set_title(_title(row), fontsize=8, loc="left")
        for axis in line[len(images) :]:
            axis.axis("off")
    left_out = f"; the first {MOST_WINDOWS} of {len(families)} windows" if len(families) > MOST_WINDOWS else ""
    remark = f"; {outcome.reason}" if outcome.reason else ""
    figure.suptitle(
        f"{filename}, {outcome.ebird_code}, {outcome.seconds:.1f} s: {len(families)} windows kept{remark}{left_out}",
        fontsize=10,
    )
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=80)
    plt.close(figure)


def draw_image(axis: Axes, image: np.ndarray, prepared: Prepared, low: float, high: float) -> None:
    """One stored window, uint8 [mels, frames], with its axes; colours from low to high."""
    recipe = prepared.recipe
    extent = (0, recipe.window_seconds, 0, recipe.n_mels)
    axis.imshow(image, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma")
    axis.tick_params(labelsize=6)
    axis.set_yticks([0, recipe.n_mels], [f"{recipe.fmin_hz / 1000:.1f}", f"{recipe.fmax_hz / 1000:.0f} kHz"])
    axis.set_xticks([0, recipe.window_seconds], ["0", f"{recipe.window_seconds:g} s"])


def _title(row: object) -> str:
    """What an image is: a window's place, label and score, or a copy's transform and what was drawn for it."""
    if row.transform == "":
        label = " ".join(filter(None, [row.ebird_code, row.others]))
        channel = f" channel {row.channel}" if row.channel else ""
        return f"{row.start_seconds:g} s{channel}: {label}\nscore {row.call_score:.1f} dB"
    drawn = []
    for parameters in json.loads(row.parameters).values():
        drawn += [
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in parameters.items()
        ]
    return f"{row.transform}\n{textwrap.shorten(', '.join(drawn), 46, placeholder=' ...')}"
