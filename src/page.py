"""The page of explore.py: figures, tables and what to read in them, in one HTML file that opens without a network.

    sections = page.sections(output, described, tables, folds, seed=0, jobs=-1)    # draws the figures into `output`
    left_out = page.write(output / "index.html", "Recordings of birds", sections)

Follows the reader's light or dark setting and fits a phone: what is wider scrolls within itself.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from src import data_figures, exploration, sound_figures
from src.data_figures import Picture
from src.files import write_text

EMBEDDED_BYTES = 20_000_000  # of images: base64 makes 27 MB of them, which a phone still opens
LARGE_BYTES = 500_000  # of an image
SHOWN_ROWS = 300  # of a table
SOUNDSCAPES = 6  # drawn, of those with timed labels
OPEN_ROWS = 30  # a longer table is folded up

STYLE = """
:root { color-scheme: light dark; --line: #8886; --link: #1f6f66; }
@media (prefers-color-scheme: dark) { :root { --link: #7fd1c3; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
a, summary { color: var(--link); } nav ul { columns: 14rem; padding-left: 1.2rem; }
p { max-width: 44rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0; }
.wide img { display: block; max-width: 100%; min-width: min(40rem, 180vw); height: auto; background: white; border-radius: 4px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { white-space: nowrap; } td { max-width: 26rem; overflow-wrap: break-word; } .number { text-align: right; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, a few sentences (an empty line between paragraphs), pictures and tables."""

    title: str
    text: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[pd.DataFrame] = field(default_factory=list)


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


def write(path: Path, title: str, parts: Sequence[Section]) -> list[Path]:
    """Write the page, whole or not at all. Gives the pictures that were left out, and are named there, lest it grow too large."""
    left_out = _left_out([picture.path for section in parts for picture in section.pictures])
    names = {id(section): f"{number}-{_anchor(section.title)}" for number, section in enumerate(parts, 1)}
    contents = "".join(f'<li><a href="#{names[id(s)]}">{escape(s.title)}</a></li>' for s in parts)
    body = "\n".join(_section(section, names[id(section)], left_out) for section in parts)
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n{body}\n</body>\n</html>\n',
    )
    return left_out


def _left_out(paths: Sequence[Path]) -> list[Path]:
    """The images beyond EMBEDDED_BYTES, charts being taken before the large pages of spectrograms, and these in their order."""
    sizes = [path.stat().st_size for path in paths]
    total, left_out = 0, set()
    for _, number in sorted((size > LARGE_BYTES, number) for number, size in enumerate(sizes)):
        total += sizes[number]
        if total > EMBEDDED_BYTES:
            left_out.add(number)
    return [paths[number] for number in sorted(left_out)]


def _section(section: Section, name: str, left_out: Sequence[Path]) -> str:
    parts = [f'<section>\n<h2 id="{name}">{escape(section.title)}</h2>']
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text.split("\n\n") if paragraph]
    for picture in section.pictures:
        if picture.path not in left_out:
            content = base64.b64encode(picture.path.read_bytes()).decode()
            alt = escape(picture.alt, quote=True)
            parts.append(
                f'<div class="wide"><img src="data:image/png;base64,{content}" alt="{alt}" loading="lazy"></div>'
            )
    absent = [picture.path.name for picture in section.pictures if picture.path in left_out]
    if absent:
        parts.append(
            f"<p>Not on this page, which would grow too large, but beside it: {escape(', '.join(absent))}.</p>"
        )
    return "\n".join([*parts, *(_table(table) for table in section.tables), "</section>"])


def _table(table: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes]
    classes = [' class="number"' if number else "" for number in numeric]
    head = "".join(f'<th scope="col"{c}>{escape(str(name))}</th>' for name, c in zip(table.columns, classes))
    rows = "".join(
        "<tr>" + "".join(f"<td{c}>{escape(_cell(value))}</td>" for value, c in zip(row, classes)) + "</tr>\n"
        for row in table.head(SHOWN_ROWS).itertuples(index=False)
    )
    html = f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>'
    if len(table) > SHOWN_ROWS:
        html += f"<p>The first {SHOWN_ROWS} of {len(table)} rows.</p>"
    if len(table) > OPEN_ROWS:
        html = f"<details><summary>Table of {len(table)} rows</summary>{html}</details>"
    return html


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.1f}"
    return str(value)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
