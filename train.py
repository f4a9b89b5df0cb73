"""Train one fold of one model: prepared windows in, a bundle and out-of-fold predictions out.

    python train.py --fold 0 --model b6                             # fine-tune EfficientNet-B6 on folds 1-4, validate on 0
    python train.py --fold 0 --model mobilenet_v2_035 --freeze      # train the head only
    python train.py --fold 0 --model tiny --data input/sample       # a small network of our own; needs no download
    python train.py --fold 0 --model b6                             # again: goes on after the last finished epoch

Writes runs/<model>/fold<k>/: bundle/, oof.parquet, history.csv, run.json, checkpoint.npz. Cost: see the README's tables.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from src import options
from src.errors import UserError, run_script


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line. Numbers that are not given are the recipe's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, required=True, help="which fold to validate on")
    parser.add_argument(
        "--model", required=True, help="b0 to b7, mobilenet_v2_035, tiny, ...: src/backbones.py lists them"
    )
    parser.add_argument("--data", default="input/birdsong-recognition", help="as given to prepare.py")
    parser.add_argument("--folds", type=Path, default=Path("folds/folds.csv"), help="as given to prepare.py")
    parser.add_argument(
        "--prepared", default="input/prepared", help="as given to prepare.py, or one of the folders of windows in it"
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="where shards of a remote folder are kept (~/.cache/birdcall/shards)"
    )
    parser.add_argument("--cache-gb", type=float, default=20.0, help="at most; the least recently used go first")
    options.add_storage(parser)
    parser.add_argument("-o", "--output", type=Path, help="the run's folder (default: runs/MODEL)")
    parser.add_argument("--weights", type=Path, help="SavedModel folder of the TF-Hub module, instead of the cache")
    parser.add_argument(
        "--freeze", action="store_true", default=None, help="keep the backbone's weights, train the head"
    )
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="instead of the published size"
    )
    parser.add_argument("--optimizer", choices=["adam", "rmsprop"])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps-per-epoch", type=int, help="batches (default: all training windows once)")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float, help="greatest rate, after the warm-up (default 1e-3)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that read and augment")
    progress = parser.add_mutually_exclusive_group()
    progress.add_argument("--resume", action="store_true", help="there must be finished epochs to go on after")
    progress.add_argument("--restart", action="store_true", help="train anew, whatever was finished")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Split, build, fit, predict out of fold, export and check."""
    arguments = parse(argv)
    started = time.perf_counter(), time.process_time()
    print("starting TensorFlow", file=sys.stderr)
    from src import quiet

    # Imported after the command line, so that --help answers at once; quietly, since TensorFlow talks about CUDA.
    with quiet.native_stderr():
        from src import backbones, classifier, folds, layouts, oof, paths, runs, shards, storage, training
        from src.recipe import changed

        device = training.prepare_device()
    print(f"training on {device}", file=sys.stderr)

    storage.configure(arguments.storage_option)
    data = storage.place(arguments.data)
    cache = shards.default_cache(arguments.cache_dir, arguments.cache_gb)
    prepared = shards.open_prepared(paths.find_prepared(storage.place(arguments.prepared), data), cache)
    recordings = layouts.read(layouts.DataSource.from_dict(prepared.source))
    recipe = changed(
        prepared.recipe,
        backbone=backbones.get(arguments.model).name,
        freeze=arguments.freeze,
        image_size=arguments.image_size and tuple(arguments.image_size),
        optimizer=arguments.optimizer,
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps_per_epoch,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    shards.check_labels(prepared, recordings)
    table = folds.read_folds(arguments.folds)
    folds.match_alike(prepared.alike(), table, arguments.folds)
    folder = paths.fold_folder(arguments.output or paths.RUNS / recipe.backbone, arguments.fold)
    split = training.split_fold(prepared, table, arguments.fold, recipe)
    if runs.is_finished(folder, recipe, split, arguments.weights) and not arguments.restart:
        print(f"{folder} is trained already with these settings; --restart trains anew", file=sys.stderr)
        return 0

    model = classifier.build(recipe, split.labels, arguments.weights)
    go_on_or_begin(folder, arguments)
    history = training.fit(model, prepared, split, recipe, folder, arguments.workers, str(arguments.weights or ""))

    predictions = training.out_of_fold(model, prepared, split, recipe, arguments.workers)
    oof.write(folder, predictions)
    listener = classifier.with_front_end(model, recipe)
    difference = runs.publish(folder, listener, split.labels, recipe, recordings, predictions)
    runs.write_run(folder, prepared.source, arguments.weights, recipe, model, split, history, started, difference)

    by_window, by_recording = oof.accuracies(oof.as_arrays(predictions, split.labels))
    print(f"fold {arguments.fold}: window accuracy {by_window:.3f}, recording accuracy {by_recording:.3f}")
    print(
        f"{time.perf_counter() - started[0]:.0f} s, {time.process_time() - started[1]:.0f} CPU s; {folder / 'bundle'}"
    )
    return 0


def go_on_or_begin(folder: Path, arguments: argparse.Namespace) -> None:
    """Keep what is in the fold's folder, or make room for a new training, as --resume and --restart say."""
    from src import runs

    checkpoint = folder / "checkpoint.npz"
    if arguments.resume and not checkpoint.exists():
        raise UserError(f"{checkpoint}: not there, so there is nothing to resume")
    if arguments.restart or not checkpoint.exists():
        runs.begin(folder)
    else:
        print(f"going on after the last finished epoch in {folder}; --restart trains anew", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
