"""The competition's files (Cornell Birdcall Identification, `birdsong-recognition`): recordings, rows to answer, truth.

    recordings = read_recordings(Path("input/birdsong-recognition"))    # a table, one row a recording
    rows = read_rows(Path("input/birdsong-recognition/test.csv"))       # row_id, audio_id, end_seconds

The host's traps, as they are handled here: `seconds` is a window's end; rows of site_3 have none and stand for the whole
file; an empty `birds` cell means no call; secondary labels are a stringified list in the form of primary_label, some of
species outside the competition; four species have two scientific names, so everything is joined on the eBird code.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.audio import AUDIO_SUFFIXES
from src.errors import UserError

NOCALL = "nocall"


def read_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """A CSV of strings. Raises UserError if it is absent, is no CSV or lacks a needed column (says which)."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; see the README's section on getting the data") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8; save it as CSV UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        raise UserError(f"{path}: cannot be read as CSV separated by commas ({str(error).strip()})") from error
    missing = [column for column in needed if column not in table.columns]
    if missing:
        hint = "; it seems to be separated by semicolons, not commas" if ";" in "".join(table.columns) else ""
        raise UserError(f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}{hint}")
    return table


def read_recordings(data: Path, nocall: Path | None = None) -> pd.DataFrame:
    """The labelled recordings of a data folder and the backgrounds without birds, one row each, sorted by filename.

    data: folder with train.csv and train_audio/<ebird_code>/<filename>
    nocall: folder of background clips, with or without a nocall.csv; None: `data`/nocall if it is there
    returns: columns filename (unique), path, ebird_code ("nocall" for backgrounds), secondary (codes, separated by
        spaces), source (recordist and date; what folds are grouped by)
    """
    table = read_table(
        data / "train.csv", ["filename", "ebird_code", "secondary_labels", "primary_label", "recordist", "date"]
    )
    code_of_label = dict(zip(table.primary_label, table.ebird_code))
    recordings = pd.DataFrame(
        {
            "filename": table.filename,
            "path": [str(data / "train_audio" / code / name) for code, name in zip(table.ebird_code, table.filename)],
            "ebird_code": table.ebird_code,
            "secondary": [
                " ".join(secondary_codes(text, code_of_label, primary))
                for text, primary in zip(table.secondary_labels, table.ebird_code)
            ],
            "source": [
                f"{recordist} {date}" if recordist.strip() and date.strip() else filename
                for recordist, date, filename in zip(table.recordist, table.date, table.filename)
            ],
        }
    )
    if nocall is None and (data / NOCALL).is_dir():
        nocall = data / NOCALL
    if nocall is not None:
        recordings = pd.concat([recordings, read_backgrounds(nocall)], ignore_index=True)
    twice = recordings.filename[recordings.filename.duplicated()].unique()
    if len(twice):
        raise UserError(f"{data}: {', '.join(twice[:5])} more than once; file names must be unique, backgrounds' too")
    return recordings.sort_values("filename", ignore_index=True)


def read_backgrounds(folder: Path) -> pd.DataFrame:
    """Clips without birds, as rows of `read_recordings`; nocall.csv, if there, groups them by its source_id."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: holds no audio files; --nocall takes a folder of recordings without birds")
    source_of = {}
    if (folder / "nocall.csv").is_file():
        listed = read_table(folder / "nocall.csv", ["filename", "source_id"])
        source_of = dict(zip(listed.filename, listed.source_id))
    return pd.DataFrame(
        {
            "filename": [path.name for path in paths],
            "path": [str(path) for path in paths],
            "ebird_code": NOCALL,
            "secondary": "",
            "source": [source_of.get(path.name, path.name) for path in paths],
        }
    )


def secondary_codes(text: str, code_of_label: dict[str, str], primary: str) -> list[str]:
    """The eBird codes in a stringified list of labels like 'Vireo latimeri_Puerto Rican Vireo', without the primary's.

    Labels of species that are not in the competition are left out. Raises UserError if the text is no list.
    """
    if not text.strip():
        return []
    try:
        labels = ast.literal_eval(text)
        return sorted({code_of_label[label] for label in labels if label in code_of_label} - {primary})
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"train.csv: secondary_labels {text!r} is not a list of labels") from error


def species(recordings: pd.DataFrame) -> list[str]:
    """The eBird codes to be told apart, sorted; nocall is not one."""
    return sorted(set(recordings.ebird_code) - {NOCALL})


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
