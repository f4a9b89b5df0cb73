"""A folder of labelled recordings, however it is laid out, as one table.

    recordings = read(DataSource("input/birdsong-recognition"))
    recordings = read(DataSource("field/2023", labels="field/2023.csv", ignored_labels=("unk", "squirrel")))

competition     train.csv and train_audio/<ebird_code>/<filename>
xeno-canto      the answers of xeno-canto's API (JSON, or CSV with id, gen, sp), and recordings named XC<id> or as there
timed labels    Raven selection tables or Audacity labels beside the recordings, or one table of them all (`labels`)
folders         <species>/**/<recording>; a folder named nocall, noise or background holds backgrounds

The first of these that a folder shows is taken. In the last two, labels that differ in case only are one, spelt as most often,
and a recording's name is its path below the folder. Of timed recordings, one that nobody labelled has its folder's name as
label only if folders are seen to name species: if some labelled recording has its own folder's name among its labels. Labels
hold no spaces ("Turdus merula" becomes "Turdus_merula"). A file at fault is a row with a `fault`, never the end of the run.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd

from src import xeno_canto
from src.annotations import AnnotationError, Event, Events, as_label, beside, find_recordings, parse, read_labels
from src.competition import (
    MISSING,
    NOCALL,
    NOWHERE,
    UNKNOWN,
    audio_files,
    path_in,
    read_backgrounds,
    read_recordings,
    read_table,
    recordings_table,
)
from src.errors import UserError
from src.storage import Stamp, is_remote, listing, name_of, place, reachable, read_text

if TYPE_CHECKING:
    from src.storage import Place

COMPETITION, XENO_CANTO, TIMED, FOLDERS = "competition", "xeno-canto", "timed labels", "folders"
BACKGROUNDS = (NOCALL, "noise", "background")
REQUESTS_AT_ONCE = 16
TAKEN = (
    "--data takes a folder with train.csv and train_audio/, with a sub-folder a species, with Raven or Audacity labels beside "
    "the recordings (or in a table: --labels), or with a xeno-canto metadata file (.json, .csv), or that file"
)


@dataclass(frozen=True)
class DataSource:
    """Where labelled recordings are and how they are read; saved with what is prepared from them."""

    data: str  # folder, metadata file, or s3:// URL
    nocall: str = ""  # folder of recordings without birds ("": DATA/nocall if there)
    labels: str = ""  # one table of timed labels for all recordings, see annotations.read_labels
    source_regex: str = ""  # its first group (or the whole match) in the path below DATA is the source
    source_column: str = ""  # of DATA/metadata.csv, train.csv or xeno-canto's metadata; see _by_column
    ignored_labels: tuple[str, ...] = ()  # no species: "?" among timed labels, a fault of a whole recording

    def to_dict(self) -> dict:
        """As JSON has it."""
        return {**asdict(self), "ignored_labels": list(self.ignored_labels)}

    @classmethod
    def from_dict(cls, values: dict) -> DataSource:
        """The inverse of `to_dict`."""
        return cls(**{**values, "ignored_labels": tuple(values.get("ignored_labels", ()))})

    @property
    def ignored(self) -> set[str]:
        """The ignored labels as they are compared."""
        return {as_label(label).casefold() for label in self.ignored_labels}


@dataclass(frozen=True)
class _Tree:
    """What is seen in a data folder before a recording is read. `files` and `labelled` are without the backgrounds' folder."""

    layout: str
    folder: Place
    files: dict[str, Stamp]
    nocall: Place | None = None
    nocall_prefix: str = ""  # where in `folder` it is, "nocall/"; "": elsewhere
    labelled: dict[str, list[str]] | None = None  # the annotation files beside each recording
    table: str = ""  # xeno-canto's metadata file
    entries: list[dict] | None = None

    def row(self, key: str, **columns: object) -> dict:
        """A row for a file of the folder."""
        name = {"filename": key, "source": key, "path": path_in(self.folder, key)}
        return {**name, **self.files.get(key, NOWHERE)._asdict(), **columns}


def layout_of(source: DataSource) -> str:
    """ "competition", "xeno-canto", "timed labels" or "folders". Raises UserError if it is none of them."""
    data = place(source.data)
    with reachable(data):
        if (data / "train.csv").is_file():  # which spares the listing of many files on a server
            return COMPETITION
    return _look(source).layout


def read(source: DataSource) -> pd.DataFrame:
    """All recordings of a data source, sorted by filename, with the columns of competition.COLUMNS.

    Rows with a `fault` are there to be reported. Raises UserError if there is no recording that can be used, if a table
    lacks a needed column, or if the storage does not answer.
    """
    tree = _look(source)
    if tree.layout == COMPETITION:
        table = read_recordings(tree.folder, tree.nocall, tree.files)
    else:
        rows = {XENO_CANTO: _xeno_canto, TIMED: _timed, FOLDERS: _folders}[tree.layout](source, tree)
        if tree.nocall is not None:
            prefix = "" if tree.layout == XENO_CANTO else tree.nocall_prefix
            rows += read_backgrounds(tree.nocall, prefix, {row["filename"] for row in rows})
        table = recordings_table(rows)
    _group(table, source, tree)
    _ignore(table, source)
    if not (table.fault == "").any():
        why = f"; the first, {table.filename[0]}: {table.fault[0]}" if len(table) else ""
        raise UserError(f"{source.data}: none of its {len(table)} recordings can be used{why}")
    return table


def _look(source: DataSource) -> _Tree:
    """What the data folder shows. One listing, and the metadata file if there may be one."""
    data, metadata = place(source.data), None
    try:
        if data.suffix.lower() in (".json", ".csv") and (is_remote(data) or not data.is_dir()):
            data, metadata = data.parent, data
        files = listing(data)
    except FileNotFoundError as error:
        raise UserError(f"{source.data}: no such folder; {TAKEN}") from error
    if "test.csv" in files and "train.csv" not in files and not source.labels:
        raise UserError(
            f"{source.data}: has the competition's test.csv and no train.csv, so nothing there is labelled to learn from; get it "
            "with python -m src.competition download, or name another folder"
        )
    if metadata is None and "train.csv" in files:
        tree = _Tree(COMPETITION, data, files, place(source.nocall) if source.nocall else None)
    else:
        nocall = place(source.nocall) if source.nocall else data / NOCALL
        prefix = _inside(nocall, data)
        if not source.nocall and not any(key.startswith(prefix) for key in files):
            nocall = None
        files = {key: stamp for key, stamp in files.items() if not prefix or not key.startswith(prefix)}
        labelled = beside(files)
        found = _metadata_in(data, files) if metadata is None else {metadata.name: xeno_canto.read_entries(metadata)}
        if found:
            ((table, entries),) = found.items()
            tree = _Tree(XENO_CANTO, data, files, nocall, prefix, {}, table, entries)
        else:
            audio = audio_files(files)
            if not audio or not (source.labels or labelled or any("/" in key for key in audio)):
                raise UserError(f"{source.data}: holds no recordings with labels; {TAKEN}")
            layout = TIMED if source.labels or labelled else FOLDERS
            tree = _Tree(layout, data, files, nocall, prefix, labelled)
    if source.labels and tree.layout != TIMED:
        raise UserError(
            f"--labels: {source.data} has labels of its own; give the folder of the recordings alone as --data"
        )
    return tree


def _inside(folder: Place, data: Place) -> str:
    """The path of a folder below another, with "/" at its end; "" if it is elsewhere."""
    inner, outer = (str(path).rstrip("/") if is_remote(path) else str(Path(path).absolute()) for path in (folder, data))
    return inner.removeprefix(f"{outer}/") + "/" if inner.startswith(f"{outer}/") else ""


def _metadata_in(folder: Place, files: dict[str, Stamp]) -> dict[str, list[dict]]:
    """The one xeno-canto metadata file that lies in a folder, with its entries; {} if there is none."""
    stems = {PurePosixPath(key).stem for key in audio_files(files)}
    found = {}
    for key in files:
        path = PurePosixPath(key)
        # What is named like a recording is about that recording.
        if "/" in key or path.suffix.lower() not in (".json", ".csv") or path.stem in stems or key.startswith("."):
            continue
        try:
            found[key] = xeno_canto.read_entries(folder / key)
        except UserError as error:
            # Another table is none of ours, but a broken metadata.json must not pass for one.
            if path.stem.lower() == "metadata" and error.__cause__ is not None:
                raise
    if len(found) > 1:
        raise UserError(
            f"{folder}: holds several files of xeno-canto's, {', '.join(found)}; give one of them as --data"
        )
    return found


def _xeno_canto(source: DataSource, tree: _Tree) -> list[dict]:
    """Rows of xeno-canto's entries, and of files that it does not name."""
    audio = audio_files(tree.files)
    found = xeno_canto.rows(tree.entries, tree.table, audio, source.source_column)
    unlisted = sorted(set(audio) - {key for key, _ in found})
    rows = [tree.row(key, **({} if key else {"path": ""}), **row) for key, row in found]
    return rows + [tree.row(key, fault=f"on disk but not in {tree.table}") for key in unlisted]


def _folder_label(key: str) -> str:
    """The label that a file's uppermost folder gives; "" for a file in none."""
    top, slash, _ = key.partition("/")
    label = as_label(top) if slash else ""
    return NOCALL if label.casefold() in BACKGROUNDS else label


def _spelling(labels: Iterable[str]) -> dict[str, str]:
    """For each label without case, how it is spelt most often."""
    count = Counter(labels)
    return {label.casefold(): label for label in sorted(count, key=lambda label: (count[label], label))}


def _folders(source: DataSource, tree: _Tree) -> list[dict]:
    """Rows of recordings that their folder labels."""
    audio = audio_files(tree.files)
    spelling = _spelling(map(_folder_label, audio))
    if len(spelling.keys() - {""}) == 1 and all(key.count("/") > 1 for key in audio) and tree.nocall is None:
        only = audio[0].split("/")[0]
        raise UserError(
            f"{source.data}: the one folder in it, {only}, names no species; is --data {tree.folder / only} meant?"
        )
    rows = []
    for key in audio:
        label = spelling[_folder_label(key).casefold()]
        rows.append(tree.row(key, ebird_code=label, fault="" if label else "no label: lies in no species' folder"))
    return rows


def _timed(source: DataSource, tree: _Tree) -> list[dict]:
    """Rows of recordings with timed labels, and of those beside them without."""
    audio, rows = audio_files(tree.files), []
    table = name_of(place(source.labels)) if source.labels else ""
    if source.labels:
        events, absent = find_recordings(read_labels(source.labels), audio, table)
        rows += [
            tree.row(name or table, path="", fault=MISSING if name else "a line of it names no recording")
            for name in absent
        ]
    else:
        keys = list(tree.labelled)
        # Many small files: on a server, asking for one after the other would take minutes.
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            events = dict(zip(keys, pool.map(lambda key: _parse_files(tree.folder, tree.labelled[key]), keys)))
    timed = {key: found for key, found in events.items() if not isinstance(found, AnnotationError)}
    named = {key: {event.code.casefold() for event in found} for key, found in timed.items()}
    in_species_folders = any(_folder_label(key).casefold() in codes for key, codes in named.items())
    spelling = _spelling([event.code for found in timed.values() for event in found] + [*map(_folder_label, audio)])
    spelling.update(dict.fromkeys(source.ignored, UNKNOWN))
    for key in audio:
        label = _folder_label(key)
        if key in timed:
            spelt = sorted({event._replace(code=spelling[event.code.casefold()]) for event in timed[key]})
            rows.append(tree.row(key, ebird_code=_most_labelled(spelt), events=json.dumps(spelt)))
        elif key in events:
            rows.append(tree.row(key, fault=str(events[key])))
        elif label == NOCALL or (label and in_species_folders):
            rows.append(
                tree.row(key, ebird_code=label if label.casefold() in source.ignored else spelling[label.casefold()])
            )
        else:
            rows.append(tree.row(key, fault=f"not in {table}" if table else "no labels beside it"))
    return rows


def _most_labelled(events: list[Event]) -> str:
    """The species with the most labelled seconds; nocall if there is none."""
    seconds = defaultdict(float)
    for start, end, code in events:
        seconds[code] += end - start
    seconds.pop(UNKNOWN, None)
    return min(seconds, key=lambda code: (-seconds[code], code), default=NOCALL)


def _parse_files(folder: Place, keys: list[str]) -> Events:
    """The events of all annotation files of one recording."""
    found = set()
    for key in keys:
        name = PurePosixPath(key).name
        try:
            found |= set(parse(read_text(folder / key)))
        except AnnotationError as error:
            return AnnotationError(f"{name}: {error}")
        except UnicodeDecodeError:
            return AnnotationError(f"{name}: is not UTF-8")
        except OSError as error:
            return AnnotationError(f"{name}: cannot be read ({error.strerror or error})")
    return sorted(found)


def _group(table: pd.DataFrame, source: DataSource, tree: _Tree) -> None:
    """Fill in the sources that the user has named, by a pattern or a table; what they leave out is a source of its own."""
    if source.source_regex and source.source_column:
        raise UserError("--source-regex and a source column cannot both say what the source is; give one of them")
    start = path_in(tree.folder, "x")[:-1]
    relative = [
        path[len(start) :] if path.startswith(start) else name for path, name in zip(table.path, table.filename)
    ]
    if source.source_regex:
        found, remark = _by_pattern(source.source_regex, relative), "its path does not match --source-regex"
    else:
        found, remark = _by_column(source, tree, relative)
    if found is None:
        return
    # nocall.csv knows better about the backgrounds than a pattern that was made for the others.
    grouped = (table.ebird_code == NOCALL) & (table.events == "") & (table.source != table.filename)
    own = pd.Series(found, index=table.index, dtype=object).mask(grouped, "")
    table["source"] = own.where(own != "", table.source).astype(table.source.dtype)
    left = (own == "") & (table.ebird_code != NOCALL) & (table.fault == "")
    table.loc[left, "remark"] = [f"{text}; {remark}" if text else remark for text in table.remark[left]]


def _by_pattern(regex: str, relative: list[str]) -> list[str]:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UserError(f"--source-regex {regex}: is no regular expression ({error})") from error
    matches = [pattern.search(path) for path in relative]
    found = [(match[1 if pattern.groups else 0] or "") if match else "" for match in matches]
    if not any(found):
        raise UserError(
            f"--source-regex {regex}: matches none of {len(relative)} paths, the first of them {relative[0]}"
        )
    return found


def _by_column(source: DataSource, tree: _Tree, relative: list[str]) -> tuple[list[str] | None, str]:
    """Each file's source by metadata.csv: the given column, or `source`, or recordist and date; None if it has no say.

    In the competition's layout a column must be given, and is train.csv's. xeno-canto's reader looks it up itself.
    """
    column = source.source_column
    name = "train.csv" if tree.layout == COMPETITION else "metadata.csv"
    found_unasked = name in tree.files and tree.layout != COMPETITION and source.labels != path_in(tree.folder, name)
    if tree.layout == XENO_CANTO or not (column or found_unasked):
        return None, ""
    listed = read_table(tree.folder / name, ["filename", *([column] if column else [])])
    columns = [column] if column else ["source"] if "source" in listed.columns else ["recordist", "date"]
    if not set(columns) <= set(listed.columns):
        return None, ""
    values = listed[columns].apply(lambda row: " ".join(row) if all(cell.strip() for cell in row) else "", axis=1)
    source_of = dict(zip(listed.filename.str.strip(), values))
    found = [source_of.get(path) or source_of.get(PurePosixPath(path).name) or "" for path in relative]
    return found, f"not in {name}, or without a source there"


def _ignore(table: pd.DataFrame, source: DataSource) -> None:
    """Take out the labels that are no species, where a label is of the whole recording."""
    ignored = source.ignored
    if not ignored:
        return
    table["secondary"] = [
        " ".join(code for code in text.split() if code.casefold() not in ignored) for text in table.secondary
    ]
    alone = table.ebird_code.str.casefold().isin(ignored) & (table.fault == "") & (table.events == "")
    table.loc[alone, "fault"] = "its label is among the ignored ones"
