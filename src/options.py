"""Options that several scripts share, so that they mean the same in each. Light: no script's --help waits for it.

add_recordings(parser)                    # --data, --nocall, --labels, --source-regex, ...
source = source_of(parser.parse_args())   # layouts.DataSource
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from src.layouts import DataSource

COMPETITION_DATA = "input/birdsong-recognition"


def add_recordings(parser: argparse.ArgumentParser) -> None:
    """Where labelled recordings are and how they are read."""
    data = parser.add_argument_group("recordings")
    data.add_argument(
        "--data",
        default=COMPETITION_DATA,
        help="folder with train.csv and train_audio/, or with a folder a species, or with label files beside the recordings; "
        f"a xeno-canto metadata file; or s3://BUCKET/PREFIX (default: {COMPETITION_DATA})",
    )
    data.add_argument("--nocall", default="", help="folder of recordings without birds (default: DATA/nocall if there)")
    data.add_argument("--labels", default="", help="one table of timed labels for all recordings")
    data.add_argument("--source-regex", default="", help="what in a file's path names its source (default: the file)")
    data.add_argument("--source-column", default="", help="column of DATA/metadata.csv that names a file's source")
    data.add_argument("--ignore-labels", nargs="+", default=(), metavar="LABEL", help="labels that are no species")
    add_storage(data)


def add_storage(parser: argparse._ActionsContainer) -> None:
    """How a server is reached."""
    parser.add_argument(
        "--storage-option", action="append", default=[], metavar="KEY=VALUE", help="for s3://, as endpoint_url=..."
    )


def source_of(arguments: argparse.Namespace) -> DataSource:
    """What `add_recordings` was given; paths made absolute, since it is kept with what is made of it."""
    from src.layouts import DataSource
    from src.storage import absolute

    return DataSource(
        data=absolute(arguments.data),
        nocall=absolute(arguments.nocall),
        labels=absolute(arguments.labels),
        source_regex=arguments.source_regex,
        source_column=arguments.source_column,
        ignored_labels=tuple(arguments.ignore_labels),
    )
