"""The page of explore.py: which figures and tables about the data it shows, and what to read in them.

sections = exploration_page.sections(output, described, tables, folds, seed=0, jobs=-1)    # draws the figures into `output`
left_out = page.write(output / "index.html", "Recordings of birds", sections)
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from src import data_figures, exploration, sound_figures
from src.page import Section

SOUNDSCAPES = 6  # drawn, of those with timed labels


def sections(
    folder: Path,
    described: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    folds: pd.DataFrame | str,
    seed: int,
    jobs: int,
) -> list[Section]:
    """Draw the figures into `folder` and say what is in them.

    described, tables, folds: of measuring.measure, exploration.tables and exploration.fold_counts
    """
    good = described[described.seconds > 0]
    heard = good[good.loudness_dbfs.notna()]
    quick = "Only headers were read (--quick): levels, bandwidth and duplicates are not known." if heard.empty else ""
    pages = [Section("In short", quick, [], [exploration.totals(described)]), _suspicious(tables["suspicious"])]
    if len(good):
        pages += _files(folder, good, tables, folds)
    if len(heard):
        pages += _sound(folder, heard, tables, seed, jobs)
    return [*pages, *_labels(folder, described, tables, len(heard) > 0)]


def _suspicious(found: pd.DataFrame) -> Section:
    if found.empty:
        return Section("Suspicious files", "None was found.")
    return Section(
        "Suspicious files",
        "Worth a look or a listen before training: a clipped or a narrow recording may still teach, the same audio under two "
        "labels does not. All of them are in suspicious.csv.",
        [],
        [found.what.value_counts(sort=False).rename("files").reset_index(), found],
    )


def _files(
    folder: Path, good: pd.DataFrame, tables: dict[str, pd.DataFrame], folds: pd.DataFrame | str
) -> list[Section]:
    """What headers and tables say."""
    parts = [
        Section(
            "Recordings and sources of each species",
            "A source is one recordist on one day: same bird, same microphone, same rain. Folds are grouped by source: a "
            "species with fewer sources than there are folds cannot be validated in each of them.",
            [data_figures.species(folder, tables["species"])],
            [tables["species"]],
        ),
        Section(
            "Lengths", "", [data_figures.lengths(folder, good)], [exploration.quantiles(good, {"seconds": "seconds"})]
        ),
        Section("Sampling rates", "", [data_figures.rates(folder, good)]),
        Section("Channels", "", [data_figures.channels(folder, good)]),
    ]
    if good.rating.notna().any():
        unrated = int(good.rating.isna().sum())
        text = f"From 0.5 (worst) to 5 (best), as given with the recordings; {unrated} have none."
        parts.append(Section("Ratings", text, [data_figures.ratings(folder, good)]))
    if isinstance(folds, str):
        return [*parts, Section("Balance of the folds", f"Not shown: {folds}.")]
    text = "The number of recordings; the darker, the greater the share of the species. Red: a fold that cannot validate it."
    return [*parts, Section("Balance of the folds", text, [data_figures.balance(folder, folds)])]


def _sound(folder: Path, heard: pd.DataFrame, tables: dict[str, pd.DataFrame], seed: int, jobs: int) -> list[Section]:
    """What the audio itself says."""
    waveforms, spectrograms = sound_figures.examples(folder, heard, seed, jobs)
    levels = {"peak_dbfs": "peak, dBFS", "loudness_dbfs": "loudness, dBFS", "floor_dbfs": "noise floor, dBFS"}
    levels |= {"range_db": "range above it, dB", "bandwidth_hz": "bandwidth, Hz"}
    twins = tables["duplicates"]
    return [
        Section(
            "Waveforms",
            f"Ten seconds of a recording of each species, drawn at random (seed {seed}): its first, or some with a timed label "
            "of it. Each panel has its own scale of amplitude; full scale is 1.",
            waveforms,
        ),
        Section(
            "Mel spectrograms",
            "The same ten seconds as a model sees them: 128 mel bands from 0.15 to 15 kHz, on a scale of dB that is each "
            "panel's own. An empty top is a recording without high frequencies.",
            spectrograms,
        ),
        Section(
            "Loudness and noise floor",
            "Loudness is the RMS of the whole recording, where a sine of full scale is -3 dBFS. The noise floor is the level "
            "that a tenth of the frames of 50 ms do not pass, the range above it reaches to the level that 95 % do not pass. "
            "On the dotted line a recording is as loud all the time.",
            [data_figures.loudness(folder, heard)],
            [exploration.quantiles(heard, levels)],
        ),
        Section(
            "Bandwidth",
            "The highest frequency in which there is anything at all (-110 dBFS in a sixty-fourth of the band): files that were "
            "cut at 8 or 16 kHz, or written at a higher rate than they were recorded at, show as bars below half their rate.",
            [data_figures.bandwidth(folder, heard)],
        ),
        Section(
            "Duplicates",
            "Groups of files that hold exactly the same audio, whatever their names and tags."
            if len(twins)
            else "No two recordings hold the same audio.",
            [],
            [twins] if len(twins) else [],
        ),
    ]


def _labels(folder: Path, described: pd.DataFrame, tables: dict[str, pd.DataFrame], sound: bool) -> list[Section]:
    """Secondary labels, and soundscapes with timed labels."""
    parts = []
    pairs = tables["co_occurrence"]
    if len(pairs):
        text = "How many recordings of a species name another that is heard in them too. All pairs are in co_occurrence.csv."
        matrix = exploration.co_occurrence(described)
        parts.append(Section("Secondary labels", text, [data_figures.co_occurrence(folder, matrix)], [pairs]))
    timed = described[(described.events != "") & (described.seconds > 0)]
    if sound and len(timed):
        shown = timed.head(SOUNDSCAPES)
        pictures = [
            sound_figures.soundscape(folder, number, row) for number, (_, row) in enumerate(shown.iterrows(), 1)
        ]
        text = (
            f"The first ten minutes of {len(shown)} of {len(timed)} recordings with timed labels, a minute a strip: in dB above "
            "the median of each mel band; above it a lane for each species, its calls tinted in the same colour below."
        )
        parts.append(Section("Soundscapes and their labels", text, [one for some in pictures for one in some]))
    return parts
