"""Does offline augmentation help, and which? Time shift, pitch, stretch, noise from 0.005 to 0.24, one by one and together.

    export TFHUB_CACHE_DIR=$DATA/hub
    python -m experiments.augmentation --data $DATA/birds --nocall $DATA/nocall

The original study's Table 2 (there: 76.1 % without, 82.3 shift, 82.3 pitch, 84.6 stretch, 88.3 noise at 0.015, with 20 species
and another classifier). Here a copy of each training window is added for each augmentation, under folds grouped by source, a
frozen mobilenet_v2_035 and a head. Twice the windows are twice the steps of training, so exact copies are a trial, too. An
autoencoder's variants have a study of their own, vae.py. Costs about 35 CPU minutes for 429 recordings.
"""

from __future__ import annotations

from experiments.study import Question, Study, main, parser
from experiments.trials import Trial
from src.errors import run_script

NOISE = (0.005, 0.015, 0.03, 0.06, 0.12, 0.24)  # standard deviation, of a waveform in [-1, 1]

STUDY = Study(
    "augmentation",
    "Offline augmentation, one by one",
    (
        Question(
            "mobilenet_v2_035 frozen, a head on its embeddings",
            (
                Trial("none"),
                Trial("exact copies", {"augment": ("shift",), "shift_seconds": 0.0}),
                Trial("shift", {"augment": ("shift",)}),
                Trial("pitch", {"augment": ("pitch",)}),
                Trial("stretch", {"augment": ("stretch",)}),
                *(Trial(f"noise {s:g}", {"augment": ("noise",), "noise_amplitude": (s, s)}) for s in NOISE),
                Trial("shift, pitch, stretch, noise 0.015", {"augment": ("shift", "pitch", "stretch", "noise")}),
            ),
            "Shift up to 0.5 s, pitch up to 2 semitones, stretch up to 20 %: a copy each.",
        ),
    ),
)

if __name__ == "__main__":
    run_script(lambda: main(STUDY, parser(__doc__).parse_args()))
