"""Train one fold of one model: prepared windows in, a bundle and out-of-fold predictions out.

    python train.py --fold 0 --model b6                             # fine-tune EfficientNet-B6 on folds 1-4, validate on 0
    python train.py --fold 0 --model mobilenet_v2_035 --freeze      # train the head only: seconds, on cached embeddings
    python train.py --fold 0 --model tiny --data input/sample       # a small network of our own; needs no download
    python train.py --fold 0 --model yamnet                         # a network that hears audio; or the path of one
    python train.py --fold 0 --model b6 --augment vae               # with variants of its windows by an autoencoder of them
    python train.py --fold all --model b0 b3 --jobs 2               # all folds of two models, a process each
    python train.py --fold 0 --model b6                             # again: goes on after the last finished epoch
    python train.py --list-models                                   # what there is, and where its weights are

Writes runs/<model>/fold<k>/: bundle/, oof.parquet, history.csv and .png, tensorboard/, run.json, checkpoints. Cost: see the
README's tables.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from src import options
from src.errors import UserError, run_script

if TYPE_CHECKING:
    from src.networks import Place


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line. Numbers that are not given are the recipe's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--list-models", action="store_true", help="print a table of models and leave")
    options.add_training(parser)
    arguments = parser.parse_args(argv)
    if not arguments.list_models and not (arguments.fold and arguments.model):
        parser.error("--fold and --model are needed, or --list-models")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """List models, or train one fold here, or several in processes of their own."""
    arguments = parse(argv)
    if arguments.list_models:
        from src import model_table

        print(model_table.text())
        return 0
    if arguments.fold == "all" or len(arguments.model) > 1:
        from src import many

        return many.train(Path(__file__), argv if argv is not None else sys.argv[1:], arguments)
    return train_fold(arguments, int(arguments.fold), arguments.model[0])


def train_fold(arguments: argparse.Namespace, fold: int, model: str) -> int:
    """Split, build, fit the head, fine-tune, predict out of fold, export and check."""
    started = time.perf_counter(), time.process_time()
    from src import backbones, folds, paths, quiet, storage

    # First what needs no TensorFlow, so that a mistake is told at once.
    storage.configure(arguments.storage_option)
    backbone = backbones.get(model, arguments.sample_rate, arguments.window_seconds)
    root, data = storage.place(arguments.prepared), storage.place(arguments.data)
    windows = paths.find_prepared(root, data)
    table = folds.read_folds(arguments.folds)
    print("starting TensorFlow", file=sys.stderr)

    # Imported after the command line, so that --help answers at once; quietly, since TensorFlow talks about CUDA.
    with quiet.native_stderr():
        from src import (
            devices,
            files,
            layouts,
            lighter,
            networks,
            oof,
            runs,
            shards,
            splits,
            training,
            vae_windows,
        )
        from src.history import History

        strategy = devices.start(arguments.strategy, bool(arguments.mixed_precision))
    print(f"training on {devices.describe(strategy)}", file=sys.stderr)

    cache = shards.default_cache(arguments.cache_dir, arguments.cache_gb)
    prepared = shards.open_prepared(windows, cache)
    recordings = layouts.read(layouts.DataSource.from_dict(prepared.source))
    shards.check_labels(prepared, recordings)
    if told := options.drop_unread(arguments, backbone):
        print(told, file=sys.stderr)
    recipe = options.training_recipe(arguments, prepared.recipe, backbone)
    folds.match_alike(prepared.alike(), table, arguments.folds)
    split = splits.split_fold(prepared, table, fold, recipe)
    splits.check_learnable(split, fold, arguments.keep_going)

    network = networks.open_network(backbone, recipe, split.labels, arguments.weights, strategy, arguments.workers)
    settings = f"{recipe!r} {split.digest} {prepared.digest} {network.identity}"
    place = networks.Place(paths.fold_folder(arguments.output or paths.RUNS / backbone.name, fold), settings)
    chief = devices.is_chief(strategy)
    with contextlib.ExitStack() as alone:
        if chief:
            alone.enter_context(files.locked(place.folder / ".lock"))  # one training a folder at a time
        if runs.is_finished(place.folder, settings, arguments.int8) and not arguments.restart:
            print(f"{place.folder} is trained already with these settings; --restart trains anew", file=sys.stderr)
            return 0
        go_on_or_begin(place, arguments, chief)
        if recipe.vae_copies:
            prepared = vae_windows.extended(prepared, split, recipe, place.folder, strategy, arguments.workers)
            split = splits.split_fold(prepared, table, fold, recipe)

        history, embedding_cpu_seconds = History(place.folder), 0.0
        if network.has_head_stage:
            store = paths.embeddings_folder(root, data)
            clips = options.clips_of(arguments, prepared.recipe)
            embeddings, embedding_cpu_seconds = network.embed(prepared, recordings, store, clips)
            logits = network.fit_head(embeddings, split, place, history)
        if network.is_fine_tuned:
            logits = network.fine_tune(prepared, split, place, history)

        predictions = training.out_of_fold(logits, split)
        if chief:
            history.draw()
            oof.write(place.folder, predictions)
            spent = (
                vae_windows.cpu_seconds(place.folder) + embedding_cpu_seconds + float(history.table().cpu_seconds.sum())
            )
            about = runs.about(prepared, network, split, fold, spent)
            learned = split.windows[split.train] if arguments.int8 else None
            differences = runs.publish(
                place.folder, network, recordings, predictions, about, learned, arguments.saved_model
            )
            costs = spent, embedding_cpu_seconds
            runs.write_run(place, prepared, network, split, started, costs, differences)
        devices.together(strategy)

    by_window, by_recording = oof.accuracies(oof.as_arrays(predictions, split.labels))
    print(f"fold {fold}: window accuracy {by_window:.3f}, recording accuracy {by_recording:.3f}")
    if arguments.int8:
        in_bytes = lighter.window_accuracy(network, place.folder / "bundle", prepared, split)
        print(f"in int8: window accuracy {in_bytes:.3f}")
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{seconds[0]:.0f} s, {seconds[1]:.0f} CPU s; {place.folder / 'bundle'}")
    return 0


def go_on_or_begin(place: Place, arguments: argparse.Namespace, chief: bool) -> None:
    """Keep what is in the fold's folder, or make room for a new training, as --resume and --restart say."""
    from src import runs

    begun = runs.has_begun(place.folder)
    if arguments.resume and not begun:
        raise UserError(f"{place.folder}: no checkpoint there, so there is nothing to resume")
    if begun and not arguments.restart:
        place.check()
        if chief:
            runs.remove_parts(place.folder)
        print(f"going on after the last finished epoch in {place.folder}; --restart trains anew", file=sys.stderr)
    elif chief:
        runs.begin(place.folder)


if __name__ == "__main__":
    run_script(main)
