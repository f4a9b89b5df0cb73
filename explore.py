"""What is in the data, before training: tables, figures and a page of them that opens without a network.

    python explore.py --data input/birdsong-recognition                 # open input/explored/birdsong-recognition/index.html
    python explore.py --data input/sample --folds folds/sample.csv -o /tmp/sample
    python explore.py --data field/2023 --labels field/2023.csv         # soundscapes with timed labels
    python explore.py --data input/birdsong-recognition --quick         # headers only

Counts recordings, sources, lengths, rates, channels and ratings; measures loudness, noise floor and bandwidth; draws ten seconds
of each species and soundscapes with their timed labels; lists duplicates and what is suspicious. Writes to OUTPUT
(input/explored/<data>) index.html, PNGs, recordings.csv, species.csv, suspicious.csv, duplicates.csv and co_occurrence.csv.
Measures a recording once: run again, it goes on where it was. Exit status 1 if a recording cannot be opened.
Cost: 35 CPU seconds for 429 recordings (137 minutes), 14 when run again; 4 with --quick.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src import options
from src.errors import run_script


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_recordings(parser)
    parser.add_argument(
        "--folds", type=Path, help="whose balance to show (default: folds/folds.csv if about these recordings)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="read headers only: no levels, duplicates, pictures of sound"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the recordings that are drawn (0)")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1, the default: one a core)")
    parser.add_argument("-o", "--output", type=Path, help="folder to write to (default: input/explored/DATA)")
    arguments = parser.parse_args(argv)
    if arguments.jobs == 0:
        parser.error("--jobs must be 1 or more, or -1 for one a core")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Measure, count, draw, write the page."""
    arguments = parse(argv)
    from src import exploration, exploration_page, layouts, measuring, page, storage

    storage.configure(arguments.storage_option)
    source = options.source_of(arguments)
    name = storage.name_of(storage.place(arguments.data))
    output = arguments.output or Path("input/explored") / name
    recordings = layouts.read(source)
    described = measuring.measure(recordings, output / "recordings.csv", arguments.jobs, arguments.quick)
    tables = exploration.tables(described)
    exploration.write_tables(output, tables)
    folds = exploration.fold_counts(described, arguments.folds)
    sections = exploration_page.sections(output, described, tables, folds, arguments.seed, arguments.jobs)
    left_out = page.write(output / "index.html", f"Recordings of {name}", sections)

    print(tables["species"].to_string(index=False, float_format="%.1f"))
    print(exploration.summary(described))
    for what, rows in tables["suspicious"].groupby("what", sort=False):
        print(f"{what}: {len(rows)}")
    failed = described[measuring.failed(described)]
    for row in failed.itertuples():
        print(f"{row.path or row.filename}: {row.fault}", file=sys.stderr)
    pictures = sum(len(section.pictures) for section in sections)
    print(f"{output}: index.html, {pictures} figures, recordings.csv, {', '.join(f'{table}.csv' for table in tables)}")
    if left_out:
        print(f"{len(left_out)} figures are beside index.html and not in it, which would grow too large")
    return int(len(failed) > 0)


if __name__ == "__main__":
    run_script(main)
