"""The competition's files (Cornell Birdcall Identification, `birdsong-recognition`): recordings, rows to answer, truth.

    python -m src.competition download                                  # gets them: see competition_download.py
    recordings = read_recordings(Path("input/birdsong-recognition"))    # a table, one row a recording; see COLUMNS
    rows = read_rows(Path("input/birdsong-recognition/test.csv"))       # row_id, audio_id, end_seconds

The host's traps, as they are handled here: `seconds` is a window's end; rows of site_3 have none and stand for the whole
file; an empty `birds` cell means no call; secondary labels are a stringified list in the form of primary_label, some of
species outside the competition; four species have two scientific names, so everything is joined on the eBird code. A row of
train.csv or a file that is at fault costs itself, never the run: it stays in the table, with the reason in `fault`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before pandas is imported, so that --help answers at once; ends the process
    from src.competition_download import main
    from src.errors import run_script

    run_script(main)

import ast
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.audio import AUDIO_SUFFIXES
from src.errors import UserError
from src.soundscape import NOCALL
from src.storage import Stamp, is_remote, listing, name_of, place, read_text

if TYPE_CHECKING:
    from src.storage import Place

COMPETITION_FILES = ("train.csv", "test.csv", "example_test_audio_summary.csv")
# All-nocall scored this on the public board: what is known of how many rows of a soundscape are empty.
PUBLIC_NOCALL_SHARE = 0.544
UNKNOWN = "?"  # a timed label of something that is no class
MISSING = "missing from disk"
NOWHERE = Stamp(-1, "")

# The table of recordings, whatever it was read from (see layouts.read), and what a column holds unless a reader says more.
COLUMNS = {
    "filename": "",  # unique among the rows without a fault
    "path": "",  # on this disk, or a URL
    "ebird_code": "",  # the label; "nocall" for backgrounds
    "secondary": "",  # other labels somewhere in the recording, separated by spaces
    "source": "",  # recordist and date, or what else folds are grouped by
    "events": "",  # JSON [[start_seconds, end_seconds, code], ...] by time; "": the label is of the whole recording
    "rating": np.nan,  # 1 (bad) to 5; NaN: unknown
    "fault": "",  # why the row cannot be used
    "remark": "",  # what was amiss though it can be
    "size": -1,  # bytes; -1: unknown
    "changed": "",
}


def read_table(path: Place, needed: Sequence[str]) -> pd.DataFrame:
    """A CSV of strings. Raises UserError if it is absent, is no CSV or lacks a needed column (says which)."""
    try:
        # Not utf-8-sig by pandas: the file may be on a server, and is fetched by one request.
        text = read_text(place(path)).removeprefix("\ufeff")
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        hint = "; see the README's section on getting the data" if Path(str(path)).name in COMPETITION_FILES else ""
        raise UserError(f"{path}: not there{hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8; save it as CSV UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        raise UserError(f"{path}: cannot be read as CSV separated by commas ({str(error).strip()})") from error
    missing = [column for column in needed if column not in table.columns]
    if missing:
        hint = "; it seems to be separated by semicolons, not commas" if ";" in "".join(table.columns) else ""
        raise UserError(f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}{hint}")
    return table


def recordings_table(rows: Iterable[dict]) -> pd.DataFrame:
    """Rows (dicts with some of COLUMNS) as the table of recordings, sorted by filename."""
    table = pd.DataFrame([_writable({**COLUMNS, **row}) for row in rows], columns=list(COLUMNS))
    return table.astype({"rating": float, "size": int}).sort_values("filename", kind="stable", ignore_index=True)


def _writable(row: dict) -> dict:
    """The row, with a fault and its name escaped if the name is not UTF-8: no table could hold it."""
    try:
        f"{row['filename']}{row['path']}".encode()
    except UnicodeEncodeError:
        escaped = {key: row[key].encode("utf-8", "backslashreplace").decode() for key in ("filename", "path", "source")}
        return {**row, **escaped, "fault": "its name is not UTF-8; rename it"}
    return row


def audio_files(files: Iterable[str]) -> list[str]:
    """Those paths that are audio by their suffix; not hidden ones, such as the `._XC1.mp3` that macOS leaves."""
    paths = map(PurePosixPath, files)
    return [
        str(path)
        for path in paths
        if path.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in path.parts)
    ]


def path_in(folder: Place, key: str) -> str:
    """The path or URL of a file by its path relative to a folder."""
    return f"{str(folder).rstrip('/')}/{key}" if is_remote(folder) else str(folder / key)


def read_recordings(data: Place, nocall: Place | None = None, files: dict[str, Stamp] | None = None) -> pd.DataFrame:
    """The labelled recordings of a data folder and the backgrounds without birds, one row each, sorted by filename.

    data: folder with train.csv and train_audio/<ebird_code>/<filename>
    nocall: folder of background clips, with or without a nocall.csv; None: `data`/nocall if it is there
    files: `listing(data)`, if the caller has it
    returns: columns as in COLUMNS. Rows of train.csv whose file is absent, and files that train.csv does not name, are
        among them with a fault
    """
    needed = ["filename", "ebird_code", "secondary_labels", "primary_label", "recordist", "date"]
    table = read_table(data / "train.csv", needed)
    files = listing(data) if files is None else files
    code_of_label = dict(zip(table.primary_label, table.ebird_code.str.strip()))
    rows, listed, usable = [], set(), set()
    for entry in table.to_dict("records"):
        name, code = entry["filename"].strip(), entry["ebird_code"].strip()
        key = f"train_audio/{code}/{name}"
        fault = remark = ""
        if not code:
            fault = "no label"
        elif key not in files:
            fault = MISSING
        elif name in usable:
            fault = "named again in train.csv"
        else:
            usable.add(name)
        try:
            secondary = secondary_codes(entry["secondary_labels"], code_of_label, code)
        except UserError:
            secondary, remark = [], "secondary_labels is not a list of labels; taken as none"
        of_a_day = entry["recordist"].strip() and entry["date"].strip()
        rows.append(
            {
                "filename": name,
                "path": path_in(data, key),
                "ebird_code": code,
                "secondary": " ".join(secondary),
                "source": f"{entry['recordist']} {entry['date']}" if of_a_day else name,
                "rating": _rating(entry.get("rating", "")),
                "fault": fault,
                "remark": remark,
                **files.get(key, NOWHERE)._asdict(),
            }
        )
        listed.add(key)
    rows += _unlisted(data, files, listed, usable)
    if nocall is None and any(key.startswith(f"{NOCALL}/") for key in files):
        nocall = data / NOCALL
    if nocall is not None:
        rows += read_backgrounds(nocall, taken={row["filename"] for row in rows})
    return recordings_table(rows)


def _rating(text: str) -> float:
    """xeno-canto's stars; 0 is what it writes where nobody has voted."""
    number = pd.to_numeric(text, errors="coerce")
    return float(number) if number > 0 else np.nan


def _unlisted(data: Place, files: dict[str, Stamp], listed: set[str], names: set[str]) -> list[dict]:
    """Rows for the files of train_audio that train.csv does not name."""
    rows = []
    for key in audio_files(key for key in files if key.startswith("train_audio/") and key not in listed):
        name = PurePosixPath(key).name
        row = {
            "filename": key if name in names else name,
            "path": path_in(data, key),
            "ebird_code": key.split("/")[1] if key.count("/") > 1 else "",
            "source": name,
            "fault": "on disk but not in train.csv",
            **files[key]._asdict(),
        }
        rows.append(row)
    return rows


def read_backgrounds(folder: Place, prefix: str = "", taken: Collection[str] = ()) -> list[dict]:
    """Clips without birds, as rows for `recordings_table`; nocall.csv, if there, groups them by its source_id.

    prefix: put before each file's relative path to make its name ("nocall/"); "": the bare name, if it is unique
    taken: names that other recordings have
    """
    try:
        files = listing(folder)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no such folder; --nocall takes a folder of recordings without birds") from error
    clips = audio_files(files)
    if not clips:
        raise UserError(f"{folder}: holds no audio files; --nocall takes a folder of recordings without birds")
    source_of = {}
    if "nocall.csv" in files:
        listed = read_table(folder / "nocall.csv", ["filename", "source_id"])
        source_of = dict(zip(listed.filename.str.strip(), listed.source_id))
    bare = Counter(PurePosixPath(key).name for key in clips)
    rows = []
    for key in clips:
        name = PurePosixPath(key).name
        filename = prefix + key if prefix or bare[name] > 1 else name
        if filename in taken:
            filename = f"{name_of(folder)}/{key}"
        row = {
            "filename": filename,
            "path": path_in(folder, key),
            "ebird_code": NOCALL,
            "source": source_of.get(key) or source_of.get(name) or filename,
            **files[key]._asdict(),
        }
        rows.append(row)
    return rows


def secondary_codes(text: str, code_of_label: dict[str, str], primary: str) -> list[str]:
    """The eBird codes in a stringified list of labels like 'Vireo latimeri_Puerto Rican Vireo', without the primary's.

    Labels of species that are not in the competition are left out. Raises UserError if the text is no list.
    """
    if not text.strip():
        return []
    try:
        labels = ast.literal_eval(text)
        return sorted({code_of_label[label] for label in labels if label in code_of_label} - {primary})
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"train.csv: secondary_labels {text!r} is not a list of labels") from error


def species(recordings: pd.DataFrame) -> list[str]:
    """The codes to be told apart, sorted: those of recordings without a fault and of their timed labels; nocall is not one."""
    usable = recordings[recordings.fault == ""]
    timed = (code for text in usable.events if text for _, _, code in json.loads(text))
    return sorted({*usable.ebird_code, *timed} - {NOCALL, UNKNOWN})


def read_rows(path: Path) -> pd.DataFrame:
    """The rows to answer, in the file's order, from a test.csv or from the host's example summary.

    returns: columns row_id (unique), audio_id (the audio file's name without its end), end_seconds (float; NaN: the row
        stands for the whole file)
    """
    header = read_table(path, [])
    if "filename_seconds" in header.columns:
        # The host's example: `filename` lacks the date that `filename_seconds` and the audio's name have.
        row_id = header.filename_seconds
        rows = pd.DataFrame(
            {"row_id": row_id, "audio_id": row_id.str.rsplit("_", n=1).str[0], "end_seconds": header.seconds}
        )
    else:
        table = read_table(path, ["row_id", "audio_id", "seconds"])
        rows = pd.DataFrame({"row_id": table.row_id, "audio_id": table.audio_id, "end_seconds": table.seconds})
    rows["audio_id"] = rows.audio_id.str.strip()
    if rows.empty:
        raise UserError(f"{path}: holds no row to answer")
    if rows.row_id.duplicated().any():
        names = rows.row_id[rows.row_id.duplicated()].unique()
        raise UserError(f"{path}: names the row {names[0]} more than once")
    numbers = pd.to_numeric(rows.end_seconds.replace("", np.nan), errors="coerce")
    wrong = rows.row_id[(numbers.isna() & (rows.end_seconds != "")) | (numbers <= 0)]
    if len(wrong):
        raise UserError(f"{path}: seconds of row {wrong.iloc[0]} is not a number above 0")
    return rows.assign(end_seconds=numbers.astype(float))


def find_audio(folder: Path, audio_id: str) -> Path | None:
    """The file of an audio_id: `<audio_id>.<suffix>`, or with more between them (the host's `.pt540.mp3`); None if absent."""
    candidates = sorted(
        path
        for path in folder.iterdir()
        if path.name.startswith(f"{audio_id}.") and path.suffix.lower() in AUDIO_SUFFIXES
    )
    return candidates[0] if candidates else None


def read_truth(path: Path, labels: Sequence[str] | None = None) -> dict[str, set[str]]:
    """The species of each row, from a truth file, a submission (row_id, birds) or the host's example summary.

    labels: codes that count; others (squirrel, unk, species outside the competition) are left out, and a row that held
        nothing else is nocall. None: all count.
    returns: row_id -> set of codes, {"nocall"} where there is none
    """
    header = read_table(path, ["birds"])
    column = "filename_seconds" if "filename_seconds" in header.columns else "row_id"
    table = read_table(path, [column, "birds"])
    twice = table[column][table[column].duplicated()]
    if len(twice):
        raise UserError(f"{path}: names the row {twice.iloc[0]} more than once")
    known = None if labels is None else {*labels, NOCALL}
    truth = {}
    for row_id, birds in zip(table[column], table.birds):
        codes = {code for code in birds.split() if known is None or code in known}
        truth[row_id] = codes or {NOCALL}
    return truth


def read_events(path: Path) -> pd.DataFrame:
    """The host's timed labels of the example soundscapes (example_test_audio_metadata.csv), in the order of time.

    returns: columns audio_id, ebird_code (squirrel, unk and others that are no class among them), start_seconds,
        end_seconds, certainty ("c": certain, "l": likely, "q": questionable)
    """
    table = read_table(path, ["file_id", "ebird_code", "time_start", "time_end", "certainty"])
    try:
        times = table[["time_start", "time_end"]].astype(float)
    except ValueError as error:
        raise UserError(f"{path}: times must be seconds ({error})") from error
    events = pd.DataFrame(
        {
            "audio_id": table.file_id,
            "ebird_code": table.ebird_code,
            "start_seconds": times.time_start,
            "end_seconds": times.time_end,
            "certainty": table.certainty,
        }
    )
    return events.sort_values(["audio_id", "start_seconds"], ignore_index=True)
