"""From labelled recordings to folds and prepared windows.

    python prepare.py --data input/birdsong-recognition                              # 32 kHz, windows of 5 s
    python prepare.py --data input/birdsong-recognition --augment shift pitch stretch noise
    python prepare.py --data input/birdsong-recognition --recipe study2020           # as the original study did

Writes folds/folds.csv, once, and the windows to input/prepared/<data>/<recipe>/. Run again, it goes on where it was.
Cost: 24 CPU seconds for 429 recordings (137 minutes); with the four augmentations about 0.1 s a window more.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from src.errors import UserError, run_script


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line. Numbers that are not given are the recipe's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("input/birdsong-recognition"), help="folder with train.csv and train_audio/"
    )
    parser.add_argument(
        "--nocall", type=Path, help="folder of recordings without birds (default: DATA/nocall if there)"
    )
    parser.add_argument("--recipe", default="default", help="default or study2020")
    parser.add_argument(
        "--channels", choices=["mono", "split"], help="average a stereo file's channels, or make each a clip"
    )
    parser.add_argument("--highpass-hz", type=float, help="remove what lies below (0: nothing)")
    augmentation = parser.add_argument_group("offline augmentation")
    augmentation.add_argument(
        "--augment",
        nargs="*",
        metavar="TRANSFORM",
        help="shift, pitch, stretch, noise, or several on one copy: shift+noise",
    )
    augmentation.add_argument("--copies", type=int, help="copies of each window for each TRANSFORM")
    augmentation.add_argument("--shift-seconds", type=float, help="greatest shift, either way (0.5)")
    augmentation.add_argument("--pitch-semitones", type=float, help="greatest change, either way (2)")
    augmentation.add_argument("--stretch-fraction", type=float, help="greatest change of speed, either way (0.2)")
    augmentation.add_argument(
        "--noise-amplitude", type=float, help="standard deviation, 0.005 to 0.24 in the study (0.015)"
    )
    folds = parser.add_argument_group("folds")
    folds.add_argument("--folds", type=Path, default=Path("folds/folds.csv"), help="written once, then reused")
    folds.add_argument("--n-folds", type=int, help="of new folds (default: 5)")
    folds.add_argument("--new-folds", action="store_true", help="draw the folds anew")
    folds.add_argument("--seed", type=int, default=0, help="of the folds and the augmentation")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1, the default: one a core)")
    parser.add_argument("--keep-going", action="store_true", help="exit 0 though recordings failed")
    arguments = parser.parse_args(argv)
    if arguments.jobs == 0:
        parser.error("--jobs must be 1 or more, or -1 for one a core")
    if arguments.n_folds is not None and arguments.n_folds < 2:
        parser.error("--n-folds must be 2 or more")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Folds, then windows, then what became of each recording."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    # Imported after the command line, so that --help answers at once.
    from src import competition, folds, paths, shards
    from src.recipe import preset

    recipe = preset(
        arguments.recipe,
        channels=arguments.channels,
        highpass_hz=arguments.highpass_hz,
        augment=None if arguments.augment is None else tuple(arguments.augment),
        copies=arguments.copies,
        shift_seconds=arguments.shift_seconds,
        pitch_semitones=arguments.pitch_semitones,
        stretch_fraction=arguments.stretch_fraction,
        noise_amplitude=arguments.noise_amplitude,
        augment_seed=arguments.seed,
    )
    recordings = competition.read_recordings(arguments.data, arguments.nocall)

    if arguments.new_folds or not arguments.folds.exists():
        table = folds.make_folds(recordings, arguments.n_folds or 5, arguments.seed, arguments.jobs)
        folds.write_folds(arguments.folds, table)
    table = folds.read_folds(arguments.folds)
    if arguments.n_folds not in (None, table.fold.nunique()):
        raise UserError(
            f"{arguments.folds} has {table.fold.nunique()} folds; --new-folds draws {arguments.n_folds} anew"
        )
    folds.match_folds(recordings, table, arguments.folds)
    folds.match_sources(recordings, table, arguments.folds)
    for code, sources in folds.few_sources(table).items():
        logging.info(
            "%s has %d sources for %d folds: some folds cannot validate it", code, sources, table.fold.nunique()
        )

    prepared = shards.prepare(
        recordings, recipe, paths.prepared_folder(arguments.data, recipe), arguments.jobs, arguments.data
    )
    return report(prepared, arguments.keep_going)


def report(prepared, keep_going: bool) -> int:
    """Print the status table; 1 if a recording failed, unless `keep_going`."""
    status = prepared.status
    print(f"{'status':8} {'recordings':>10} {'minutes':>8} {'windows':>8}")
    for name, rows in status.groupby("status"):
        print(f"{name:8} {len(rows):10} {rows.seconds.sum() / 60:8.1f} {rows.windows.sum():8}")
    for row in status[status.reason != ""].itertuples():
        print(f"{row.status:8} {row.filename}: {row.reason}")
    print(f"every recording: {prepared.folder / 'status.csv'}\nwindows: {prepared.folder}")
    failed = int((status.status == "failed").sum())
    if failed and not keep_going:
        print(f"{failed} recordings failed, the rest is ready; --keep-going accepts that", file=sys.stderr)
    return int(failed > 0 and not keep_going)


if __name__ == "__main__":
    run_script(main)
