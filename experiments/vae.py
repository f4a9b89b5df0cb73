"""Does a variational autoencoder help as augmentation? Its variants of each training window are added, or they are not.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.vae --data $DATA/birds --nocall $DATA/nocall

The original study tried a convolutional autoencoder and gave it up. Here one is trained for each fold, on its training windows
alone, and its variants of them teach a head on a frozen mobilenet_v2_035, under folds grouped by source. Twice the windows are
twice the steps of training, so exact copies are a trial, too, and noise stands beside as an augmentation that costs nothing to
learn. Two folds, since each has an autoencoder of its own. Writes docs/experiments/vae.png, too: windows, their reconstructions
and variants. Costs about 20 CPU minutes for 429 recordings, 12 of them for 6 autoencoders.
"""

from __future__ import annotations

import argparse
import shutil

from experiments.study import Question, Study, main, parser
from experiments.trials import FEW_FOLDS, Bench, Trial
from src.errors import run_script

VARIANTS = Trial("variants", training={"vae_copies": 1}, folds=FEW_FOLDS)
STUDY = Study(
    "vae",
    "A variational autoencoder as augmentation",
    (
        Question(
            "mobilenet_v2_035 frozen, a head on its embeddings",
            (
                Trial("none", folds=FEW_FOLDS),
                Trial("exact copies", {"augment": ("shift",), "shift_seconds": 0.0}, folds=FEW_FOLDS),
                VARIANTS,
                Trial("variants with the residue", training={"vae_copies": 1, "vae_residue": 1.0}, folds=FEW_FOLDS),
                Trial("variants, twice as far", training={"vae_copies": 1, "vae_spread": 16.0}, folds=FEW_FOLDS),
                Trial("three variants", training={"vae_copies": 3}, folds=FEW_FOLDS),
                Trial("noise 0.015", {"augment": ("noise",), "noise_amplitude": (0.015, 0.015)}, folds=FEW_FOLDS),
            ),
            "Copies and noise are of all training windows, variants of those of birds. The residue is what a reconstruction "
            "loses, given back.",
        ),
    ),
)


def run() -> int:
    """The command: the study, and the figure of its first autoencoder."""
    arguments = parser(__doc__).parse_args()
    done = main(STUDY, arguments)
    draw(arguments)
    return done


def draw(arguments: argparse.Namespace) -> None:
    """Copy the figure of seed 0 and fold 0 beside the table, if it is there."""
    from src.layouts import DataSource
    from src.storage import absolute

    bench = Bench(DataSource(absolute(arguments.data), nocall=absolute(arguments.nocall)), arguments.work)
    figure = bench.folder(VARIANTS, seed=0, fold=0) / "vae.png"
    if figure.is_file():
        shutil.copyfile(figure, arguments.output / f"{STUDY.name}.png")


if __name__ == "__main__":
    run_script(run)
