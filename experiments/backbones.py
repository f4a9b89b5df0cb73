"""Which backbone? Those that are to be had without a network, frozen and fine-tuned, and their ensembles.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.backbones --data $DATA/birds --nocall $DATA/nocall --birdnet $DATA/hub/birdnet_stm32

The original study's Table 3 was of EfficientNet B0 to B7, InceptionV3, MobileNetV2, ResNetV2-152 and PNASNet over 264 species;
those weights are not to be had here. Frozen: five folds. Fine-tuned: two folds, 6 epochs. An ensemble is
the mean of its members' out-of-fold probabilities and costs no training. --birdnet: a network that was trained on birds, of
these very species perhaps, and so on recordings that are validated here; without it, its trials are left out. Costs about
20 CPU minutes frozen and 60 fine-tuned, for 429 recordings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.study import Ensemble, Question, Study, main, parser
from experiments.trials import FEW_EPOCHS, FEW_FOLDS, Trial, fine_tuned
from src.errors import run_script

IMAGES = ("mobilenet_v2_035", "mobilenet_v2", "efficientnet_lite0")
FROZEN = (*IMAGES, "yamnet")
BIRDNET = "birdnet_stm32 frozen (trained on birds)"
EVERY_WINDOW = {"windows_per_recording": 0, "quiet_share": 0.0}

STUDY = Study(
    "backbones",
    "Backbones, frozen and fine-tuned, and their ensembles",
    (
        Question(
            "Frozen, a head on embeddings, five folds",
            (
                *(Trial(f"{name} frozen", backbone=name) for name in FROZEN),
                Ensemble("mean of the three image networks", tuple(f"{name} frozen" for name in IMAGES)),
                Ensemble("mean of the three and yamnet", tuple(f"{name} frozen" for name in FROZEN)),
            ),
        ),
        Question(
            f"Fine-tuned, {FEW_FOLDS} folds, {FEW_EPOCHS} epochs",
            (
                Trial("mobilenet_v2_035 frozen, two folds", folds=FEW_FOLDS),
                *(fine_tuned(name, {}, name) for name in IMAGES),
                Ensemble("mean of the three fine-tuned", tuple(f"{name}, fine-tuned" for name in IMAGES)),
            ),
        ),
    ),
    options="--data $DATA/birds --nocall $DATA/nocall --birdnet $DATA/hub/birdnet_stm32",
)


def with_birdnet(path: Path | None) -> Study:
    """The study with the trials of a model by path, if there is one."""
    if not path:
        return STUDY
    frozen, fine_tuned = STUDY.questions
    model = str(path.resolve())
    default = Trial(BIRDNET, backbone=model)
    trained_on_birds = Question(
        "A network that was trained on birds: logistic regression on its embeddings, and the default's head, five folds",
        (
            Trial("birdnet_stm32, logistic regression, all windows", EVERY_WINDOW, backbone=model, logistic=True),
            Trial("birdnet_stm32, logistic regression, the default's windows", backbone=model, logistic=True),
            Trial("birdnet_stm32, the default's head, all windows", EVERY_WINDOW, backbone=model),
            default,
        ),
        "The baseline is scikit-learn's, its regularisation the default, on standardised embeddings of windows of birds.",
    )
    questions = (replace(frozen, trials=(*frozen.trials, default)), trained_on_birds, fine_tuned)
    return replace(STUDY, questions=questions)


def run() -> int:
    """The command."""
    options = parser(__doc__)
    options.add_argument("--birdnet", type=Path, help="the folder of BirdNET-STM32's SavedModel")
    arguments = options.parse_args()
    return main(with_birdnet(arguments.birdnet), arguments)


if __name__ == "__main__":
    run_script(run)
