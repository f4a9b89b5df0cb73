"""Figures about recordings, as PNG, each with a sentence on what is to be seen: what explore.py puts on its page.

    species(folder, exploration.by_species(described))        # -> Picture(folder/species.png, "Recordings and sources ...")
    balance(folder, exploration.fold_counts(described))       # -> Picture(folder/folds.png, ...)

They take the tables of exploration.py. Heights grow with the number of species, so that names stay legible.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from src.competition import NOCALL
from src.exploration import SAME_CHANNELS_DB
from src.figures import save

DARK, LIGHT, ACCENT = "#264653", "#8ab6b0", "#e76f51"
DPI = 110
WIDTH = 8.5  # inches
LOWEST_SHOWN_DBFS = -100  # what is lower is digital silence, whatever its number
ROW = 0.19  # inches a species: names of 8 points below each other
MOST_PAIRED = 60  # species a side of the co-occurrence matrix


@dataclass(frozen=True)
class Picture:
    """A PNG, and in words what is to be seen in it."""

    path: Path
    alt: str


def species(folder: Path, table: pd.DataFrame) -> Picture:
    """Recordings and sources of each species, the rarest below; without backgrounds, which would dwarf them."""
    table = table[table.ebird_code != NOCALL] if (table.ebird_code != NOCALL).any() else table
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + ROW * len(table)), layout="constrained")
    axes.barh(table.ebird_code, table.recordings, color=LIGHT, label="recordings")
    axes.barh(table.ebird_code, table.sources, color=DARK, height=0.35, label="sources (a recordist on a day)")
    axes.set(xlabel="number", ylim=(-0.7, len(table) - 0.3))
    _counted(axes.xaxis)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(top=True, labeltop=True)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)  # the bars may fill the axes
    rarest, commonest = table.iloc[0], table.iloc[-1]
    return saved(
        figure,
        folder / "species.png",
        f"Bars of recordings and sources of {len(table)} labels, from {rarest.ebird_code} with {rarest.recordings} "
        f"recordings to {commonest.ebird_code} with {commonest.recordings}.",
    )


def lengths(folder: Path, described: pd.DataFrame) -> Picture:
    """Lengths, on a logarithmic axis."""
    seconds = described.seconds[described.seconds > 0]
    around = np.sqrt(seconds.min() * seconds.max())
    low, high = min(seconds.min() * 0.9, around / 4), max(seconds.max() * 1.1, around * 4)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    kinds = _kinds(described[described.seconds > 0])
    axes.hist(
        [group.seconds for _, group, _ in kinds],
        bins=np.geomspace(low, high, 41),
        stacked=True,
        color=[colour for _, _, colour in kinds],
        label=[name for name, _, _ in kinds],
    )
    axes.set(xscale="log", xlabel="length in seconds (logarithmic)", ylabel="recordings", xlim=(low, high))
    ticks = [
        s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 90, 180, 360, 720, 1800, 3600, 14400, 43200) if low <= s <= high
    ]
    axes.set_xticks(ticks, [f"{s:g}" for s in ticks])
    axes.set_xticks([], minor=True)
    _counted(axes.yaxis)
    axes.legend()
    text = f"Histogram of lengths: median {seconds.median():.1f} s, from {seconds.min():.1f} to {seconds.max():.1f} s."
    return saved(figure, folder / "lengths.png", text)


def _kinds(described: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    """Recordings of species and backgrounds, with name and colour; without a kind of which there are none."""
    background = described.ebird_code == NOCALL
    kinds = [("species", described[~background], DARK), (NOCALL, described[background], ACCENT)]
    return [(f"{name} ({len(group)})", group, colour) for name, group, colour in kinds if len(group)]


def rates(folder: Path, described: pd.DataFrame) -> Picture:
    """Sampling rates."""
    counts = described.sample_rate[described.seconds > 0].value_counts().sort_index()
    counts.index = [f"{rate / 1000:g} kHz" for rate in counts.index]
    return _bars(folder / "rates.png", counts, "Sampling rates")


def channels(folder: Path, described: pd.DataFrame) -> Picture:
    """Mono, stereo, and stereo whose channels are the same."""
    good = described[described.seconds > 0]
    same = (good.channels > 1) & (good.difference_db < SAME_CHANNELS_DB)
    names = good.channels.map({1: "mono", 2: "stereo"}).fillna(good.channels.astype(str) + " channels")
    return _bars(folder / "channels.png", names.mask(same, "stereo, both the same").value_counts(), "Channels")


def ratings(folder: Path, described: pd.DataFrame) -> Picture:
    """Ratings as the recordists' colleagues gave them, by halves."""
    counts = described.rating.dropna().value_counts().sort_index()
    counts.index = [f"{rating:g}" for rating in counts.index]
    return _bars(folder / "ratings.png", counts, "Ratings")


def balance(folder: Path, counts: pd.DataFrame) -> Picture:
    """Recordings of each species (rows) in each fold (columns); the darker, the greater share of the species."""
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    figure, axes = plt.subplots(figsize=(2.5 + 0.9 * counts.shape[1], 0.8 + ROW * len(counts)), layout="constrained")
    most = max(0.5, shares.max())
    axes.imshow(shares, aspect="auto", cmap="YlGnBu", vmin=0, vmax=most)
    for row, column in np.ndindex(shares.shape):
        number, share = counts.iat[row, column], shares[row, column]
        colour = "red" if number == 0 else "white" if share > 0.6 * most else "black"
        _cell(axes, row, column, number, colour)
    axes.set_yticks(range(len(counts)), counts.index, fontsize=8)
    axes.set_xticks(range(counts.shape[1]), [f"fold {fold}" for fold in counts.columns])
    axes.tick_params(top=True, labeltop=True)
    empty = int((counts.to_numpy() == 0).sum())
    text = f"Recordings of {len(counts)} labels in {counts.shape[1]} folds; {empty} pairs of label and fold are empty."
    return saved(figure, folder / "folds.png", text)


def loudness(folder: Path, described: pd.DataFrame) -> Picture:
    """Loudness against noise floor, with the histogram of each."""
    heard = described[described.loudness_dbfs.notna()]
    figure, axes = plt.subplot_mosaic(
        [["x", "."], ["xy", "y"]], figsize=(WIDTH, 6.5), width_ratios=(4, 1), height_ratios=(1, 4), layout="constrained"
    )
    limits = {}
    for axis, column in (("x", "floor_dbfs"), ("y", "loudness_dbfs")):
        limits[axis] = max(LOWEST_SHOWN_DBFS - 2, heard[column].min() - 3), 1
    for name, group, colour in _kinds(heard):
        x, y = (group[column].clip(lower=LOWEST_SHOWN_DBFS) for column in ("floor_dbfs", "loudness_dbfs"))
        size = 30 if len(heard) < 100 else 14 if len(heard) < 3000 else 4
        axes["xy"].scatter(x, y, s=size, color=colour, alpha=0.5, linewidths=0, label=name)
        bins = np.arange(LOWEST_SHOWN_DBFS, 3, 2)
        axes["x"].hist(x, bins=bins, color=colour, alpha=0.6)
        axes["y"].hist(y, bins=bins, color=colour, alpha=0.6, orientation="horizontal")
    axes["xy"].axline((-50, -50), slope=1, color="grey", linewidth=0.8, linestyle=":")
    axes["xy"].set(
        xlim=limits["x"], ylim=limits["y"], xlabel="noise floor, dBFS (a tenth of the frames of 50 ms is softer)"
    )
    axes["xy"].set_ylabel("loudness, dBFS (RMS of the whole recording)")
    axes["xy"].legend(loc="lower right")
    axes["xy"].grid(alpha=0.3)
    axes["x"].set(xlim=limits["x"], ylabel="recordings")
    axes["y"].set(ylim=limits["y"], xlabel="recordings")
    _counted(axes["x"].yaxis)
    _counted(axes["y"].xaxis)
    for axis in "xy":
        ticks = [
            tick
            for tick in range(-100, 1, 10 if axis == "y" or limits[axis][0] > -70 else 20)
            if limits[axis][0] <= tick
        ]
        names = [f"\u2264{tick}" if tick == LOWEST_SHOWN_DBFS else str(tick) for tick in ticks]
        getattr(axes["xy"], f"set_{axis}ticks")(ticks, names)
        getattr(axes[axis], f"set_{axis}ticks")(ticks, [])
    text = (
        f"Loudness against noise floor of {len(heard)} recordings: medians {heard.loudness_dbfs.median():.0f} and "
        f"{heard.floor_dbfs.median():.0f} dBFS."
    )
    return saved(figure, folder / "loudness.png", text)


def bandwidth(folder: Path, described: pd.DataFrame) -> Picture:
    """The highest frequency in which there is anything, by sampling rate."""
    heard = described[described.bandwidth_hz.notna()]
    groups = [(rate, group.bandwidth_hz / 1000) for rate, group in heard.groupby("sample_rate")]
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    highest = heard.sample_rate.max() / 2000
    axes.hist(
        [values for _, values in groups],
        bins=np.linspace(0, highest, 49),
        stacked=True,
        color=plt.get_cmap("viridis")(np.linspace(0, 0.9, len(groups))),
        label=[f"{rate / 1000:g} kHz" for rate, _ in groups],
    )
    axes.set(xlabel="highest frequency with energy, kHz", ylabel="recordings", xlim=(0, highest * 1.02))
    _counted(axes.yaxis)
    axes.legend(title="sampling rate", loc="upper left")
    text = f"Histogram of the highest frequency with energy: median {heard.bandwidth_hz.median() / 1000:.1f} kHz."
    return saved(figure, folder / "bandwidth.png", text)


def co_occurrence(folder: Path, pairs: pd.DataFrame) -> Picture:
    """How often a species' recordings (rows) name another as secondary (columns), of those most often in a pair."""
    rows = pairs.sum(axis=1).nlargest(MOST_PAIRED).index.sort_values()
    columns = pairs.sum(axis=0).nlargest(MOST_PAIRED).index.sort_values()
    shown = pairs.loc[rows, columns].to_numpy()
    size = (1.8 + 0.27 * len(columns), 1.8 + 0.24 * len(rows))
    figure, axes = plt.subplots(figsize=(max(6, size[0]), size[1]), layout="constrained")
    norm = LogNorm(1, max(2, shown.max()))
    axes.imshow(np.ma.masked_equal(shown, 0), aspect="auto", cmap="YlGnBu", norm=norm)
    for row, column in zip(*np.nonzero(shown)):
        colour = "white" if norm(shown[row, column]) > 0.6 else "black"
        _cell(axes, row, column, shown[row, column], colour)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=90)
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.set(xlabel="secondary species", ylabel="species of the recording")
    left = max(len(pairs) - len(rows), pairs.shape[1] - len(columns))
    text = f"Matrix of {len(rows)} species and the {len(columns)} that their recordings name as secondary"
    return saved(
        figure, folder / "co_occurrence.png", text + (f"; {left} rarer ones are left out." if left > 0 else ".")
    )


def _bars(path: Path, counts: pd.Series, what: str) -> Picture:
    figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.32 * len(counts)), layout="constrained")
    bars = axes.barh(counts.index, counts, color=DARK, height=0.7)
    axes.bar_label(bars, padding=3, fontsize=9)
    axes.set(xlabel="recordings", xlim=(0, counts.max() * 1.1))
    axes.invert_yaxis()
    _counted(axes.xaxis)
    named = ", ".join(f"{name}: {count}" for name, count in counts.items())
    return saved(figure, path, f"{what}: {named}.")


def _cell(axes: plt.Axes, row: int, column: int, number: int, colour: str) -> None:
    """A number in a matrix; not asked for its size by the layout, which would take minutes over thousands."""
    text = axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=7.5)
    text.set_in_layout(False)


def _counted(axis: Axis) -> None:
    """Whole numbers on an axis of counts, and nothing between them."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def saved(figure: plt.Figure, path: Path, alt: str) -> Picture:
    """Write a figure as PNG and give it with what is to be seen in it."""
    save(figure, path, DPI)
    return Picture(path, alt)
