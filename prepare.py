"""From labelled recordings to folds and prepared windows.

    python prepare.py --data input/birdsong-recognition                              # 32 kHz, windows of 5 s
    python prepare.py --data input/birdsong-recognition --augment shift pitch stretch noise
    python prepare.py --data input/birdsong-recognition --augment background --background input/quiet --snr-db 0 15
    python prepare.py --data input/birdsong-recognition --recipe study2020           # as the original study did
    python prepare.py --data my_birds --folds folds/my_birds.csv                     # my_birds/<species>/*.wav, no train.csv
    python prepare.py --data s3://bucket/birds --prepared s3://bucket/prepared       # not on this disk
    python prepare.py --data input/birdsong-recognition --show XC12345               # a picture of what became of it
    python prepare.py --list                                                         # what is prepared, and how big it is

Writes folds/folds.csv, once, and the windows to input/prepared/<data>/<recipe>/. Run again, it goes on where it was.
Cost: about 8 ms of CPU for each 5 s of audio, and 25 ms for each copy by pitch or stretch; a window takes 40 kB.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from src import options
from src.errors import UserError, run_script


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line. Numbers that are not given are the recipe's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_recordings(parser)
    windows = parser.add_argument_group("windows")
    windows.add_argument("--recipe", default="default", help="default or study2020")
    windows.add_argument(
        "--channels", choices=["mono", "split"], help="average a stereo file's channels, or make each a clip"
    )
    windows.add_argument("--highpass-hz", type=float, help="remove what lies below (0: nothing)")
    windows.add_argument("--windows-per-recording", type=int, metavar="N", help="keep those that call most (0: all)")
    windows.add_argument("--quiet-share", type=float, help="of a recording's windows kept as examples of nocall")
    augmentation = parser.add_argument_group("offline augmentation")
    augmentation.add_argument(
        "--augment",
        nargs="*",
        metavar="TRANSFORM",
        help="shift, pitch, stretch, noise, background, or several on one copy: shift+noise",
    )
    augmentation.add_argument("--copies", type=int, help="copies of each window for each TRANSFORM")
    augmentation.add_argument("--shift-seconds", type=float, help="greatest shift, either way (0.5)")
    augmentation.add_argument("--pitch-semitones", type=float, help="greatest change, either way (2)")
    augmentation.add_argument("--stretch-fraction", type=float, help="greatest change of speed, either way (0.2)")
    augmentation.add_argument(
        "--noise-amplitude",
        type=float,
        nargs="+",
        metavar="AMPLITUDE",
        help="standard deviation, or two to draw between: 0.005 0.24 in the study (0.015)",
    )
    augmentation.add_argument("--background", type=Path, metavar="DIR", help="recordings that 'background' mixes in")
    augmentation.add_argument(
        "--snr-db", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the window to them (0 15)"
    )
    folds = parser.add_argument_group("folds")
    folds.add_argument("--folds", type=Path, default=Path("folds/folds.csv"), help="written once, then reused")
    folds.add_argument("--n-folds", type=int, help="of new folds (default: 5)")
    folds.add_argument("--new-folds", action="store_true", help="draw the folds anew")
    folds.add_argument("--seed", type=int, default=0, help="of the folds and the augmentation")
    work = parser.add_argument_group("work")
    work.add_argument("--prepared", default="input/prepared", help="where windows go; may be s3://BUCKET/PREFIX")
    work.add_argument("--jobs", type=int, default=-1, help="processes (-1, the default: one a core)")
    work.add_argument("--backend", choices=["loky", "dask", "ray"], default="loky", help="this machine, or a cluster")
    work.add_argument("--scheduler", default="", metavar="ADDRESS", help="of the cluster, as tcp://10.0.0.1:8786")
    work.add_argument("--keep-going", action="store_true", help="exit 0 though recordings failed")
    instead = parser.add_argument_group("instead of preparing").add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="print what is prepared, and how big it is")
    instead.add_argument("--show", metavar="NAME", help="draw the windows and copies of a recording, as XC12345")
    parser.add_argument("-o", "--output", type=Path, help="the picture of --show (default: NAME.png in input/explored)")
    arguments = parser.parse_args(argv)
    if arguments.noise_amplitude and len(arguments.noise_amplitude) > 2:
        parser.error("--noise-amplitude takes one number, or two to draw between")
    if arguments.jobs == 0:
        parser.error("--jobs must be 1 or more, or -1 for one a core")
    if arguments.n_folds is not None and arguments.n_folds < 2:
        parser.error("--n-folds must be 2 or more")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Windows, then folds, then what became of each recording."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    # Imported after the command line, so that --help answers at once.
    from src import layouts, paths, preparation, storage
    from src.workers import Workers

    storage.configure(arguments.storage_option)
    root = storage.place(storage.absolute(arguments.prepared))
    if arguments.list:
        return list_prepared(root)
    if arguments.show:
        return show(paths.find_prepared(root, storage.place(arguments.data)), arguments.show, arguments.output)

    source = options.source_of(arguments)
    recipe, clips = recipe_of(arguments)
    recordings = layouts.read(source)
    check_folds(recordings, arguments)
    prepared = preparation.prepare(
        recordings,
        recipe,
        paths.prepared_folder(root, storage.place(arguments.data), recipe),
        source.to_dict(),
        clips,
        Workers(arguments.jobs, arguments.backend, arguments.scheduler),
        tuple(arguments.storage_option),
    )
    write_folds(recordings, prepared, arguments)
    return report(prepared, arguments.keep_going)


def recipe_of(arguments: argparse.Namespace) -> tuple:
    """The recipe that the command line asks for, and the clips that it mixes in."""
    from src import augment
    from src.recipe import preset

    recipe = preset(
        arguments.recipe,
        channels=arguments.channels,
        highpass_hz=arguments.highpass_hz,
        windows_per_recording=arguments.windows_per_recording,
        quiet_share=arguments.quiet_share,
    )
    clips = augment.Clips()
    if arguments.background:
        clips, faults = augment.find_clips(arguments.background.resolve(), recipe)
        for name, fault in faults.items():
            print(f"not mixed in: {arguments.background / name}: {fault}", file=sys.stderr)
        if not any("background" in entry for entry in arguments.augment or recipe.augment):
            raise UserError(
                "--background is mixed in by --augment background (or shift+background, ...), which is not there"
            )
    return changed_augmentation(recipe, clips, arguments), clips


def changed_augmentation(recipe, clips, arguments: argparse.Namespace):
    """The recipe with what the command line says of augmentation."""
    from src.recipe import changed

    return changed(
        recipe,
        augment=None if arguments.augment is None else tuple(arguments.augment),
        copies=arguments.copies,
        shift_seconds=arguments.shift_seconds,
        pitch_semitones=arguments.pitch_semitones,
        stretch_fraction=arguments.stretch_fraction,
        noise_amplitude=arguments.noise_amplitude and (arguments.noise_amplitude[0], arguments.noise_amplitude[-1]),
        background=clips.digest or None,
        snr_db=arguments.snr_db and tuple(arguments.snr_db),
        augment_seed=arguments.seed,
    )


def check_folds(recordings, arguments: argparse.Namespace) -> None:
    """Before the long work: whether the folds that are there fit these recordings, or new ones can be drawn."""
    from src import folds

    usable = recordings[recordings.fault == ""]
    if arguments.new_folds or not arguments.folds.exists():
        folds.check_enough(usable, arguments.n_folds or 5)
        return
    table = folds.read_folds(arguments.folds)
    if arguments.n_folds not in (None, table.fold.nunique()):
        raise UserError(
            f"{arguments.folds} has {table.fold.nunique()} folds; --new-folds draws {arguments.n_folds} anew"
        )
    folds.match_folds(usable, table, arguments.folds)
    folds.match_sources(usable, table, arguments.folds)


def write_folds(recordings, prepared, arguments: argparse.Namespace) -> None:
    """Draw the folds, unless they are there; recordings of the same audio are one source."""
    from src import folds

    if arguments.new_folds or not arguments.folds.exists():
        usable = recordings[recordings.fault == ""].reset_index(drop=True)
        table = folds.make_folds(usable, arguments.n_folds or 5, arguments.seed, prepared.alike())
        folds.write_folds(arguments.folds, table)
    table = folds.read_folds(arguments.folds)
    folds.match_alike(prepared.alike(), table, arguments.folds)
    for code, sources in folds.few_sources(table).items():
        logging.info(
            "%s has %d sources for %d folds: some folds cannot validate it", code, sources, table.fold.nunique()
        )


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


def list_prepared(root) -> int:
    """Print each folder of windows under a root: its size, what it holds, and how its recipe differs from the default."""
    from src import paths
    from src.recipe import Recipe

    if not root.exists():
        raise UserError(f"{root}: no such folder")
    found = list(paths.all_prepared(root))
    for entry in found:
        print(f"{entry['bytes'] / 1e6:10.1f} MB  {entry['folder']}")
        if "source" not in entry and "recipe" in entry:
            print(f"{'':14}made by an earlier version of this software: of no use to this one, remove it")
            continue
        if "recipe" not in entry:
            print(f"{'':14}not whole: its preparation was interrupted; the same command goes on, or remove it")
            continue
        recipe, default = Recipe.from_dict(entry["recipe"]).to_dict(), Recipe().to_dict()
        differing = [f"{key}={value}" for key, value in recipe.items() if value != default[key]]
        print(
            f"{'':14}{entry['recordings']} recordings, {len(entry['labels'])} species, from {entry['source'].get('data')}"
        )
        print(f"{'':14}recipe: {', '.join(differing) or 'the default'}")
    print(f"{sum(entry['bytes'] for entry in found) / 1e6:10.1f} MB  together, folders under {root}: {len(found)}")
    return 0


def show(folder, name: str, output: Path | None) -> int:
    """Draw a recording's windows and their augmented copies."""
    from src import shards, window_figures

    prepared = shards.open_prepared(folder)
    output = output or Path("input/explored") / prepared.folder.parent.name / f"{Path(name).name}.png"
    window_figures.draw_recording(output, prepared, name)
    print(output)
    return 0


if __name__ == "__main__":
    run_script(main)
