"""xeno-canto's metadata: the answers of its API as JSON (version 2 or 3), or a CSV with the same columns.

    entries = read_entries(Path("field/metadata.json"))                   # a dict a recording
    found = rows(entries, "metadata.json", ["blackbirds/XC123.mp3"])      # [("blackbirds/XC123.mp3", {...}), ...]

A recording's label is Genus_species, since xeno-canto knows no eBird codes; an entry may carry one as `ebird_code`. Its source
is recordist and date, its rating the quality (A is 5, E is 1).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from src.annotations import as_label
from src.competition import MISSING, read_table
from src.errors import UserError
from src.storage import read_text

if TYPE_CHECKING:
    from src.storage import Place

NO_SPECIES = ("Mystery", "Sonus")  # the genera of what is not identified and of soundscapes
QUALITY = {"A": 5.0, "B": 4.0, "C": 3.0, "D": 2.0, "E": 1.0}


def read_entries(path: Place) -> list[dict]:
    """The recordings of a metadata file: one answer, a list of answers, or a list of recordings; or a CSV of them.

    Raises UserError for a file that is absent or is none of these.
    """
    if path.suffix.lower() == ".csv":
        return read_table(path, ["id", "gen", "sp"]).to_dict("records")
    try:
        pages = json.loads(read_text(path).removeprefix("\ufeff"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; give --data the folder or the metadata file") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    entries: list = []
    for page in pages if isinstance(pages, list) else [pages]:
        inner = page.get("recordings") if isinstance(page, dict) else None
        entries += inner if isinstance(inner, list) else [page]
    entries = [entry if isinstance(entry, dict) else {} for entry in entries]
    if not any({"gen", "sp"} <= set(entry) for entry in entries):
        raise UserError(f"{path}: lacks recordings with id, gen and sp, as xeno-canto's API gives them")
    return entries


def rows(entries: list[dict], table: str, audio: Sequence[str], column: str = "") -> list[tuple[str, dict]]:
    """For each entry the path of its file ("": there is none) and its row for the table of recordings.

    table: the metadata file's name, for what is said of a fault
    audio: paths of the files that may be meant, by their name, XC<id>.* (or more after the number), or <id>.*
    column: what says the source, instead of recordist and date
    """
    if column and not any(column in entry for entry in entries):
        raise UserError(f"{table}: lacks the column {column}")
    by_id, by_name = _index(audio)
    scientific = [_scientific(entry) for entry in entries]
    code_of = {name: as_label(_text(entry, "ebird_code")) or name for entry, name in zip(entries, scientific) if name}
    found, taken, filenames = [], set(), set()
    for number, (entry, name) in enumerate(zip(entries, scientific), start=1):
        xc, file_name = re.sub("^XC", "", _text(entry, "id"), flags=re.IGNORECASE), _text(entry, "file-name")
        key = by_id.get(xc) or by_name.get(file_name) or ""
        filename = PurePosixPath(key).name or file_name or (f"XC{xc}" if xc else f"entry {number}")
        fault = ""
        if not name:
            fault = f"no label: {' '.join(filter(None, [_text(entry, 'gen'), _text(entry, 'sp')])) or 'nothing'} is no species"
        elif not key:
            fault = MISSING
        elif key in taken:
            fault = f"named again in {table}"
        else:
            # Two files of one name, in two folders.
            filename = key if filename in filenames else filename
            filenames.add(filename)
        taken.add(key)
        recordist, date = _text(entry, "rec"), _text(entry, "date")
        code = code_of.get(name, "")
        others = {code_of[other] for other in map(as_label, _also(entry.get("also"))) if other in code_of}
        row = {
            "filename": filename,
            "ebird_code": code,
            "secondary": " ".join(sorted(others - {code})),
            "source": (_text(entry, column) if column else recordist and date and f"{recordist} {date}") or filename,
            "rating": QUALITY.get(_text(entry, "q").upper(), np.nan),
            "fault": fault,
        }
        found.append((key, row))
    return found


def _index(audio: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The files by xeno-canto's number and by name; of several the first."""
    by_id: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for key in audio:
        path = PurePosixPath(key)
        by_name.setdefault(path.name, key)
        if number := re.match(r"XC(\d+)|(\d+)$", path.stem, re.IGNORECASE):
            by_id.setdefault(number[1] or number[2], key)
    return by_id, by_name


def _text(entry: dict, key: str) -> str:
    value = entry.get(key)
    return "" if value is None else str(value).strip()


def _scientific(entry: dict) -> str:
    """Genus_species; "" if an entry has none, as that of a soundscape."""
    genus, epithet = _text(entry, "gen"), _text(entry, "sp")
    return as_label(f"{genus} {epithet}") if genus and epithet and genus.capitalize() not in NO_SPECIES else ""


def _also(value: object) -> list[str]:
    """The background species: a list, or text that holds one, or names with something between them."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return re.split("[,;|]", value)
    return [str(name) for name in value] if isinstance(value, (list, tuple)) else []
