"""What should the network see? Nothing below 1400 Hz, or all; five seconds, or ten.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.front_end --data $DATA/birds --nocall $DATA/nocall

The original study cut away what is below 1400 Hz and took windows of 10 s. Windows of 10 s are the best two of a recording, as
much audio as the best four of 5 s; squeezed into the same square image, or in one twice as wide, where a second is as many
pixels. Windows differ in length, so the figure that can be compared is the recordings'. Costs about 12 CPU minutes for 429
recordings.
"""

from __future__ import annotations

from experiments.study import Question, Study, main, parser
from experiments.trials import Trial
from src.errors import run_script

TEN_SECONDS = {"window_seconds": 10.0, "hop_seconds": 10.0, "windows_per_recording": 2}

STUDY = Study(
    "front_end",
    "High-pass and length of a window",
    (
        Question(
            "mobilenet_v2_035 frozen, a head on its embeddings",
            (
                Trial("5 s, no high-pass"),
                Trial("high-pass 1400 Hz", {"highpass_hz": 1400.0}),
                Trial("high-pass and mel bands from 1400 Hz", {"highpass_hz": 1400.0, "fmin_hz": 1400.0}),
                Trial("10 s", TEN_SECONDS),
                Trial("10 s, image 224 x 448", TEN_SECONDS, {"image_size": (224, 448)}),
                Trial(
                    "10 s every 5 s, four a recording", {**TEN_SECONDS, "hop_seconds": 5.0, "windows_per_recording": 4}
                ),
            ),
            "The clips without birds are of 5 s, so half of a window of 10 s of them is silence: AUROC and row F1 are "
            "flattered there.",
        ),
    ),
)

if __name__ == "__main__":
    run_script(lambda: main(STUDY, parser(__doc__).parse_args()))
