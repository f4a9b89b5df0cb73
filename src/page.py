"""A page for a browser: figures, tables and what to read in them, in one HTML file that opens without a network.

    section = Section("Lengths", "How long recordings are.", [Picture(Path("lengths.png"), "A histogram")], [table])
    left_out = page.write(output / "index.html", "Recordings of birds", [section])

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

from src.data_figures import Picture
from src.files import write_text

EMBEDDED_BYTES = 20_000_000  # of images: base64 makes 27 MB of them, which a phone still opens
LARGE_BYTES = 500_000  # of an image
SHOWN_ROWS = 300  # of a table
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
    """A heading, a few sentences (an empty line between paragraphs), pictures and tables.

    decimals: of the numbers in the tables that are no integers
    """

    title: str
    text: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[pd.DataFrame] = field(default_factory=list)
    decimals: int = 1


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
    return "\n".join([*parts, *(_table(table, section.decimals) for table in section.tables), "</section>"])


def _table(table: pd.DataFrame, decimals: int) -> str:
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes]
    classes = [' class="number"' if number else "" for number in numeric]
    head = "".join(f'<th scope="col"{c}>{escape(str(name))}</th>' for name, c in zip(table.columns, classes))
    rows = "".join(
        "<tr>" + "".join(f"<td{c}>{escape(_cell(value, decimals))}</td>" for value, c in zip(row, classes)) + "</tr>\n"
        for row in table.head(SHOWN_ROWS).itertuples(index=False)
    )
    html = f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>'
    if len(table) > SHOWN_ROWS:
        html += f"<p>The first {SHOWN_ROWS} of {len(table)} rows.</p>"
    if len(table) > OPEN_ROWS:
        html = f"<details><summary>Table of {len(table)} rows</summary>{html}</details>"
    return html


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.{decimals}f}"
    return str(value)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
