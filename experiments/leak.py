"""How much does a split that leaks flatter? Windows, or recordings, dealt out at random, against folds grouped by source.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.leak --data $DATA/birds --nocall $DATA/nocall

A source is a recordist on a day. Windows dealt at random have neighbours from the same recording on the other side; recordings
dealt at random have the same bird at the same microphone there. Frozen mobilenet_v2_035 and yamnet, the default's windows, and
all windows as a notebook would cut them. Costs about 20 CPU minutes for 429 recordings.
"""

from __future__ import annotations

from experiments.study import Question, Study, main, parser
from experiments.trials import GROUPED, RANDOM_RECORDINGS, RANDOM_WINDOWS, Trial
from src.errors import run_script

SPLITS = (GROUPED, RANDOM_RECORDINGS, RANDOM_WINDOWS)
EVERY_WINDOW = {"windows_per_recording": 0, "quiet_share": 0.0}

PAIRED = (
    "The same windows, network and training; only who is on which side differs. What looks better is the flattery. Folds are "
    "of other windows here, so differences are paired by seed: all windows together."
)

STUDY = Study(
    "leak",
    "How much does a leaking split flatter?",
    (
        Question(
            "The default's windows, mobilenet_v2_035 frozen",
            tuple(Trial(f"mobilenet_v2_035, {split}", split=split) for split in SPLITS),
            PAIRED,
            by_seed=True,
        ),
        Question(
            "All windows of each recording, mobilenet_v2_035 frozen",
            tuple(Trial(f"all windows, {split}", EVERY_WINDOW, split=split) for split in (GROUPED, RANDOM_WINDOWS)),
            by_seed=True,
        ),
        Question(
            "The default's windows, yamnet frozen",
            tuple(Trial(f"yamnet, {split}", backbone="yamnet", split=split) for split in SPLITS),
            by_seed=True,
        ),
    ),
)

if __name__ == "__main__":
    run_script(lambda: main(STUDY, parser(__doc__).parse_args()))
