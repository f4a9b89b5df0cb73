"""The journal's tables as CSV, for spreadsheets and R: what `edge/journal.py export` and the page's download give.

with open("events.csv", "w", encoding="utf-8", newline="") as file:
    export(folder / "journal.sqlite", "events", parse_utc("2026-11-25"), None, file)
"""

from __future__ import annotations

import csv
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from edge.tables import read_only, utc_text
from src.errors import UserError


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
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column[0] for column in cursor.description)
        rows = 0
        for rows, row in enumerate(cursor, start=1):  # noqa: B007
            writer.writerow(row)
        return rows


def parse_utc(text: str) -> float:
    """A day or a time as a user writes it, UTC unless it says otherwise, as seconds since 1970. Raises UserError."""
    try:
        time_ = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise UserError(f"{text!r} is no day and no time; write 2026-11-25 or 2026-11-25T10:00:05Z") from error
    return (time_ if time_.tzinfo else time_.replace(tzinfo=timezone.utc)).timestamp()
