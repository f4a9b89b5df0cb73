"""Options that several scripts share, so that they mean the same in each. Light: no script's --help waits for it.

add_recordings(parser)                    # --data, --nocall, --labels, --source-regex, ...
source = source_of(parser.parse_args())   # layouts.DataSource
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError
from src.recipe import Recipe, changed, preset

if TYPE_CHECKING:
    from src.augment import Clips
    from src.backbones import Backbone
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


def add_training(parser: argparse.ArgumentParser) -> None:
    """All that train.py can be told but --list-models. What is not given is the recipe's."""
    parser.add_argument("--fold", type=_fold, metavar="K|all", help="which fold to validate on; all: each in turn")
    parser.add_argument(
        "--model", nargs="+", help="of --list-models, or the path of a SavedModel folder or .tflite file"
    )
    parser.add_argument("--data", default=COMPETITION_DATA, help="as given to prepare.py")
    parser.add_argument("--folds", type=Path, default=Path("folds/folds.csv"), help="as given to prepare.py")
    parser.add_argument(
        "--prepared", default="input/prepared", help="as given to prepare.py, or one of the folders of windows in it"
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="where shards of a remote folder are kept (~/.cache/birdcall/shards)"
    )
    parser.add_argument("--cache-gb", type=float, default=20.0, help="at most; the least recently used go first")
    add_storage(parser)
    parser.add_argument("-o", "--output", type=Path, help="the run's folder (default: runs/MODEL)")
    progress = parser.add_mutually_exclusive_group()
    progress.add_argument("--resume", action="store_true", help="there must be finished epochs to go on after")
    progress.add_argument("--restart", action="store_true", help="train anew, whatever was finished")
    parser.add_argument("--keep-going", action="store_true", help="though some species of the fold cannot be learned")

    network = parser.add_argument_group("network")
    network.add_argument("--weights", type=Path, help="SavedModel folder of the module, instead of the cache")
    network.add_argument("--sample-rate", type=int, metavar="HZ", help="that a model given by path wants")
    network.add_argument("--window-seconds", type=float, metavar="S", help="that it hears at once")
    frozen = network.add_mutually_exclusive_group()
    frozen.add_argument("--freeze", action="store_true", help="keep the backbone's weights, train the head")
    frozen.add_argument(
        "--unfreeze", type=_layers, metavar="N|all", help="train its last N layers, or all, after the head"
    )
    network.add_argument(
        "--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="instead of the published size"
    )
    network.add_argument("--level-bands", action=argparse.BooleanOptionalAction, help="take each mel band's mean away")
    network.add_argument(
        "--batch-statistics", action=argparse.BooleanOptionalAction, help="batch norm by batches, not as published"
    )
    network.add_argument("--dropout", type=float)
    network.add_argument(
        "--background",
        type=Path,
        help="as given to prepare.py, for a network that hears audio and copies over backgrounds",
    )

    variants = parser.add_argument_group("augmentation")
    variants.add_argument(
        "--augment", choices=["vae"], help="add variants of training windows by an autoencoder of them"
    )
    variants.add_argument("--vae-epochs", type=int, help="of training it")
    variants.add_argument("--vae-copies", type=int, metavar="N", help="variants of each window of a bird (default: 1)")
    variants.add_argument(
        "--vae-spread", type=float, metavar="S", help="how far they stray (1: what passes for the window)"
    )
    variants.add_argument("--vae-residue", type=float, metavar="SHARE", help="of a window's own texture that they keep")

    teaching = parser.add_argument_group("what a window teaches")
    secondary = teaching.add_mutually_exclusive_group()
    secondary.add_argument("--secondary-weight", type=float, metavar="W", help="target of a secondary species")
    secondary.add_argument("--mask-secondary", action="store_true", default=None, help="leave it out (default)")
    teaching.add_argument("--label-smoothing", type=float)
    teaching.add_argument("--class-balance", type=float, metavar="POWER", help="of rarity, from 0 (none) to 1 (0.5)")
    teaching.add_argument("--call-weight", type=float, metavar="POWER", help="of a window's call score")

    fitting = parser.add_argument_group("training")
    fitting.add_argument("--optimizer", choices=["adam", "rmsprop"])
    fitting.add_argument("--epochs", type=int, help="of fine-tuning")
    fitting.add_argument("--steps-per-epoch", type=int, help="batches (default: all training windows once)")
    fitting.add_argument("--batch-size", type=int)
    fitting.add_argument("--learning-rate", type=float, help="greatest rate, after the warm-up")
    fitting.add_argument("--backbone-rate", type=float, metavar="SHARE", help="of it, at which the backbone learns")
    fitting.add_argument("--weight-decay", type=float)
    fitting.add_argument("--warmup-epochs", type=float)
    fitting.add_argument("--head-epochs", type=int)
    fitting.add_argument("--head-learning-rate", type=float)
    fitting.add_argument("--patience", type=int, help="stop after so many epochs without gain on the next fold")
    fitting.add_argument("--average", type=float, metavar="MOMENTUM", help="keep the weights' running mean (0.999)")
    fitting.add_argument("--seed", type=int)

    parser.add_argument("--int8", action="store_true", help="export the network in bytes, too, and say what that costs")
    parser.add_argument("--saved-model", action="store_true", help="export it for the GPU of a Jetson, too")
    where = parser.add_argument_group("where it runs")
    where.add_argument("--mixed-precision", action="store_true", default=None, help="float16 where a GPU gains by it")
    where.add_argument("--strategy", choices=["mirrored", "multiworker"], default="", help="several GPUs, or machines")
    where.add_argument(
        "--jobs", type=int, default=1, help="processes at once, where several folds or models are trained"
    )
    where.add_argument("--workers", type=_at_least_one, default=os.cpu_count(), help="threads that read and augment")


def training_recipe(arguments: argparse.Namespace, prepared: Recipe, backbone: Backbone) -> Recipe:
    """What `add_training` was given, else the preset's numbers, for windows that were prepared by `prepared`.

    A network of audio is frozen unless asked for.
    """
    frozen = arguments.freeze or (backbone.kind == "audio" and arguments.unfreeze is None)
    if arguments.augment == "vae" and backbone.kind == "audio":
        raise UserError(f"{backbone.name} hears audio, and an autoencoder makes spectrograms: leave --augment vae out")
    if arguments.int8 and backbone.kind == "audio":
        raise UserError(f"--int8: {backbone.name} hears audio, and has no spectrogram to begin at: leave it out")
    copies, masked = arguments.vae_copies, arguments.mask_secondary
    if arguments.secondary_weight is not None:
        masked = False
    of_vae = ("vae_copies", "vae_epochs", "vae_spread", "vae_residue")
    if arguments.augment != "vae" and (given := [name for name in of_vae if getattr(arguments, name) is not None]):
        raise UserError(f"--{given[0].replace('_', '-')} is of --augment vae: give both or neither")
    return changed(
        preset(prepared.name).on_windows_of(prepared),
        backbone=backbone.name,
        unfreeze=0 if frozen else arguments.unfreeze,
        image_size=arguments.image_size and tuple(arguments.image_size),
        level_bands=arguments.level_bands,
        batch_statistics=arguments.batch_statistics,
        dropout=arguments.dropout,
        vae_copies=1 if arguments.augment == "vae" and copies is None else copies,
        vae_epochs=arguments.vae_epochs,
        vae_spread=arguments.vae_spread,
        vae_residue=arguments.vae_residue,
        secondary_target=arguments.secondary_weight,
        mask_secondary=masked,
        label_smoothing=arguments.label_smoothing,
        class_balance=arguments.class_balance,
        call_weight=arguments.call_weight,
        optimizer=arguments.optimizer,
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps_per_epoch,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        backbone_rate=arguments.backbone_rate,
        weight_decay=arguments.weight_decay,
        warmup_epochs=arguments.warmup_epochs,
        head_epochs=arguments.head_epochs,
        head_learning_rate=arguments.head_learning_rate,
        patience=arguments.patience,
        average=arguments.average,
        mixed_precision=arguments.mixed_precision,
        seed=arguments.seed,
    )


def drop_unread(arguments: argparse.Namespace, backbone: Backbone) -> str:
    """Take back the options given that change nothing for this backbone: with or without them it is the same training.

    Returns a sentence that names them; "" if there are none.
    """
    fine_tuning = ["batch_statistics", "backbone_rate", "epochs", "steps_per_epoch", "learning_rate", "warmup_epochs"]
    fine_tuning += ["weight_decay"]
    if backbone.kind == "audio":
        why, names = "hears audio and is kept as it is", ["image_size", "level_bands", *fine_tuning]
    elif not backbone.handle and not backbone.path:
        why, names = "is a network of our own, trained from the start", ["weights", "image_size", "unfreeze"]
        names += ["batch_statistics", "backbone_rate", "head_epochs", "head_learning_rate", "background"]
    else:
        why, names = "sees images", ["background", *(fine_tuning if arguments.freeze else [])]
        why += " and is frozen" if arguments.freeze else ""
    given = [name for name in names if getattr(arguments, name) not in (None, "")]
    for name in given:
        setattr(arguments, name, "" if isinstance(getattr(arguments, name), str) else None)
    told = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    return f"{backbone.name} {why}: {told} will change nothing" if given else ""


def clips_of(arguments: argparse.Namespace, recipe: Recipe) -> Clips | None:
    """The clips that copies were mixed over, for a network that hears audio; None if no folder is given."""
    if not arguments.background:
        return None
    from src.augment import find_clips

    clips = find_clips(arguments.background, recipe)[0]
    digest = clips.digest
    if recipe.background and digest.rsplit("-", 1)[-1] != recipe.background.rsplit("-", 1)[-1]:  # its name may change
        raise UserError(
            f"--background {arguments.background}: holds other clips than the copies were mixed over ({digest}, not "
            f"{recipe.background}); give the folder that prepare.py was given"
        )
    return clips


def _fold(text: str) -> str:
    if text != "all" and not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fold's number nor all")
    return text


def _at_least_one(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def _layers(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of layers nor all; none is --freeze")
    return int(text)
