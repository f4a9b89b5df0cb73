"""The journal's tables as CSV, for spreadsheets and R: what `edge/journal.py export` and the page's download give.

with open("events.csv", "w", encoding="utf-8", newline="") as file:
    export(folder / "journal.sqlite", "events", parse_utc("2026-11-25"), None, file)
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from edge.tables import TABLES, read_only, utc_text
from src.errors import UserError
from src.files import written_lines

SPREADSHEET_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def export(path: Path, table: str, since: float | None, until: float | None, file: TextIO) -> int:
    """Write a table of the journal as CSV: the rows from `since` on and before `until`, in UTC seconds; returns how many."""
    time_column = "utc" if table == "health" else "utc_start"
    conditions, values = [], []
    for sign, seconds in ((">=", since), ("<", until)):
        if seconds is not None:
            conditions.append(f" {time_column} {sign} ?")
            values.append(utc_text(seconds))
    query = f"select * from {table}" + (" where" + " and".join(conditions) if conditions else "") + " order by id"
    with closing(read_only(path)) as connection:
        cursor = connection.execute(query, values)
        write_rows(file, [[column[0] for column in cursor.description]])
        return write_rows(file, cursor)


def write_rows(file: TextIO, rows: Iterable[Sequence]) -> int:
    """Write rows as CSV; returns how many. A text that a spreadsheet would take for a formula gets a ' before it."""
    writer = csv.writer(file, lineterminator="\n")
    count = 0
    for row in rows:
        writer.writerow(
            f"'{value}" if isinstance(value, str) and value.startswith(SPREADSHEET_FORMULAS) else value for value in row
        )
        count += 1
    return count


def parse_utc(text: str) -> float:
    """A day or a time as a user writes it, UTC unless it says otherwise, as seconds since 1970. Raises UserError."""
    try:
        time_ = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (time_ if time_.tzinfo else time_.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError) as error:
        raise UserError(f"{text!r} is no day and no time; write 2026-11-25 or 2026-11-25T10:00:05Z") from error


def main(text: str) -> int:
    """The command line of edge/journal.py, whose docstring is `text`. Raises UserError."""
    description, _, commands = text.partition("\n\n")
    options = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": "examples:\n" + commands}
    parser = argparse.ArgumentParser(description=description, **options)
    command = parser.add_subparsers(metavar="export", required=True).add_parser(
        "export", help="write a table as CSV", description="Write a table of the record as CSV.", **options
    )
    add = command.add_argument
    add("folder", type=Path, metavar="FOLDER", help="that listen.py -o was given")
    add("-o", "--output", type=Path, metavar="FILE", help="CSV file; the terminal if not given")
    add("--table", choices=TABLES, default="events", help="%(default)s")
    add("--since", metavar="UTC", help="a day or a time, from which on")
    add("--until", metavar="UTC", help="a day or a time, before which")
    args = parser.parse_args()

    journal = args.folder if args.folder.suffix == ".sqlite" else args.folder / "journal.sqlite"
    since, until = (None if text is None else parse_utc(text) for text in (args.since, args.until))
    if (
        args.output
        and args.output.resolve().parent == journal.resolve().parent
        and args.output.name.startswith(journal.name)
    ):
        raise UserError(f"{args.output}: is the journal itself; name another file for the CSV")
    read_only(journal).close()  # before an output is begun
    with written_lines(args.output) if args.output else nullcontext(sys.stdout) as file:
        rows = export(journal, args.table, since, until, file)
        file.flush()
    print(f"{rows} rows of {args.table}", file=sys.stderr)
    return 0
