"""Adam or RMSprop? Of a head on a frozen network's embeddings, and of a network that is fine-tuned.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.optimizers --data $DATA/birds --nocall $DATA/nocall

The original study chose between them at one rate. They take steps of other lengths at the same rate, so each has two.
Frozen: five folds; fine-tuned: two folds, 6 epochs of mobilenet_v2_035. Costs about 5 CPU minutes frozen and 35
fine-tuned, for 429 recordings.
"""

from __future__ import annotations

from experiments.study import Question, Study, main, parser
from experiments.trials import Trial, fine_tuned
from src.errors import run_script

ADAM, RMSPROP = {"optimizer": "adam"}, {"optimizer": "rmsprop"}


STUDY = Study(
    "optimizers",
    "Adam against RMSprop",
    (
        Question(
            "The head of mobilenet_v2_035 frozen, five folds",
            (
                Trial("Adam 1e-3", training=ADAM),
                Trial("Adam 3e-4", training={**ADAM, "head_learning_rate": 3e-4}),
                Trial("RMSprop 1e-3", training=RMSPROP),
                Trial("RMSprop 3e-4", training={**RMSPROP, "head_learning_rate": 3e-4}),
            ),
        ),
        Question(
            "mobilenet_v2_035 fine-tuned, two folds",
            (
                fine_tuned("Adam 1e-3", ADAM),
                fine_tuned("Adam 3e-4", {**ADAM, "learning_rate": 3e-4}),
                fine_tuned("RMSprop 1e-3", RMSPROP),
                fine_tuned("RMSprop 3e-4", {**RMSPROP, "learning_rate": 3e-4}),
            ),
            "The rate is the head's; the backbone learns at 0.3 of it. The head of RMSprop is trained by RMSprop, too.",
        ),
    ),
)

if __name__ == "__main__":
    run_script(lambda: main(STUDY, parser(__doc__).parse_args()))
