"""What is in the data, before training: a table and a figure.

    python explore.py --data input/birdsong-recognition
    python explore.py --data input/sample -o /tmp/figures

Prints recordings, sources, minutes and channels; writes OUTPUT/species.csv and OUTPUT/overview.png (input/explored/<data>).
Costs 3 s for 300 recordings: only their headers are read. Exit status 1 if one cannot be opened.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src.errors import run_script


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("input/birdsong-recognition"), help="folder with train.csv")
    parser.add_argument(
        "--nocall", type=Path, help="folder of recordings without birds (default: DATA/nocall if there)"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder to write to (default: input/explored/DATA)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Read the headers, count, draw."""
    arguments = parse(argv)
    from src import competition, exploration, figures
    from src.files import written_whole

    recordings = competition.read_recordings(arguments.data, arguments.nocall)
    described = exploration.describe(recordings)
    species = exploration.by_species(described)
    output = arguments.output or Path("input/explored") / arguments.data.resolve().name
    with written_whole(output / "species.csv") as temporary:
        species.to_csv(temporary, index=False)
    figures.overview(output / "overview.png", described, species)

    print(species.to_string(index=False, float_format="%.1f"))
    print(exploration.summary(described))
    for row in described[described.fault != ""].itertuples():
        print(f"{row.path}: {row.fault}", file=sys.stderr)
    print(f"{output / 'species.csv'}, {output / 'overview.png'}")
    return int((described.fault != "").any())


if __name__ == "__main__":
    run_script(main)
