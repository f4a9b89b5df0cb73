"""What does each part of the default recipe bring? Each is taken away in turn, all else being as it is.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.ablation --data $DATA/birds --nocall $DATA/nocall

What is about data and labels is answered with a head on a frozen mobilenet_v2_035's embeddings, five folds: what secondary
labels teach, which windows are taken, levelled bands. What is about fine-tuning, with mobilenet_v2_035 on two folds, 6
epochs: mixing (mixup, backgrounds), masks, batch statistics, the image's size. Where other windows are taken, others are
validated, too: compare the recordings' accuracy there. Costs about 15 CPU minutes frozen and 45 fine-tuned, for 429
recordings.
"""

from __future__ import annotations

from experiments.study import Question, Study, main, parser
from experiments.trials import FEW_EPOCHS, FEW_FOLDS, Trial, fine_tuned
from src.errors import run_script

IGNORED = {"mask_secondary": False, "secondary_target": 0.0}
EVERY_WINDOW = {"windows_per_recording": 0, "quiet_share": 0.0}


STUDY = Study(
    "ablation",
    "What each part of the default recipe brings",
    (
        Question(
            "Data and labels: mobilenet_v2_035 frozen, five folds",
            (
                Trial("the default"),
                Trial("secondary labels ignored", training=IGNORED),
                Trial("secondary labels half a yes", training={**IGNORED, "secondary_target": 0.5}),
                Trial("secondary labels taught in full", training={**IGNORED, "secondary_target": 1.0}),
                Trial("all windows, no quiet ones as nocall", EVERY_WINDOW),
                Trial("no quiet windows as nocall", {"quiet_share": 0.0}),
                Trial("no levelled bands", training={"level_bands": False}),
                Trial("rare species not weighted up", training={"class_balance": 0.0}),
                Trial("rare species weighted up in full", training={"class_balance": 1.0}),
                Trial("windows weighted by call score", training={"call_weight": 0.5}),
            ),
            "In the default, secondary species are left out of the loss, and rare ones weighted up by the root of their rarity.",
        ),
        Question(
            f"Fine-tuning: mobilenet_v2_035, {FEW_FOLDS} folds, {FEW_EPOCHS} epochs",
            (
                fine_tuned("the default", {}),
                fine_tuned("image 128 x 313", {"image_size": (128, 313)}),
                fine_tuned("no mixing", {"mixup_probability": 0.0, "background_probability": 0.0}),
                fine_tuned("no masks", {"mask_probability": 0.0}),
                fine_tuned("batch statistics moving", {"batch_statistics": True}),
            ),
        ),
    ),
)

if __name__ == "__main__":
    run_script(lambda: main(STUDY, parser(__doc__).parse_args()))
