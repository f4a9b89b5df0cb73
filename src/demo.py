"""The whole road on the built-in sample: sample, windows, training, evaluation, prediction, score.

    python -m src.demo              # about 4 minutes on two cores, no network, no account

Each stage is the command a user would type, and is printed. Writes submissions/sample.csv and submissions/sample.png.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from src import bundle, competition, metrics
from src.errors import UserError, run_script

SAMPLE = Path("input/sample")
FOLDS = Path("folds/sample.csv")
RUN = Path("runs/demo")
SUBMISSION = Path("submissions/sample.csv")
FIGURE = Path("submissions/sample.png")

STAGES = {
    "sample": f"-m src.sample -o {SAMPLE}",
    # The sample holds a recording that cannot be decoded, as the real data does: --keep-going.
    "prepare": f"prepare.py --data {SAMPLE} --folds {FOLDS} --augment shift pitch stretch noise --keep-going",
    "train": f"train.py --fold 0 --model tiny --data {SAMPLE} --folds {FOLDS} --epochs 14 -o {RUN}",
    "evaluate": f"evaluate.py {RUN}",
    "predict": f"predict.py --model {RUN} --test-csv {SAMPLE}/test.csv -o {SUBMISSION}",
}


def main() -> int:
    """Run the stages, then print what came out."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    seconds = {}
    for name, arguments in STAGES.items():
        print(f"\n$ python {arguments}", flush=True)
        started = time.perf_counter()
        if subprocess.run([sys.executable, *shlex.split(arguments)], check=False).returncode:
            raise UserError(f"the stage {name} failed: see above")
        seconds[name] = time.perf_counter() - started

    labels = bundle.find([RUN])[0].labels
    truth = competition.read_truth(SAMPLE / "truth.csv", labels)
    answers = competition.read_truth(SUBMISSION)
    _draw(labels, truth, answers)
    _print_table(labels, truth, answers, seconds)
    return 0


def _draw(labels: tuple[str, ...], truth: dict[str, set[str]], answers: dict[str, set[str]]) -> None:
    """One soundscape with its true and predicted rows: the first that is answered in rows of five seconds."""
    from src import figures

    rows = competition.read_rows(SAMPLE / "test.csv").dropna(subset="end_seconds")
    rows = rows[rows.audio_id == rows.audio_id.iloc[0]].sort_values("end_seconds")
    recording = competition.find_audio(SAMPLE / "test_audio", rows.audio_id.iloc[0])
    recipe = bundle.find([RUN])[0].recipe
    true, answered = [truth[row] for row in rows.row_id], [answers[row] for row in rows.row_id]
    figures.soundscape(FIGURE, recording, recipe, labels, true, answered, rows.end_seconds)


def _print_table(
    labels: tuple[str, ...], truth: dict[str, set[str]], answers: dict[str, set[str]], seconds: dict[str, float]
) -> None:
    true, answered = list(truth.values()), [answers[row] for row in truth]
    kept = bundle.find([RUN])[0]
    codes = [*labels, competition.NOCALL]
    f1 = metrics.species_f1(true, answered, codes)
    rows = [sum(code in row for row in true) for code in codes]
    print(
        f"\nrow F1      {metrics.row_f1(true, answered):.3f}   on {len(true)} rows of soundscapes the model never heard"
    )
    print(f"all nocall  {metrics.row_f1(true, [set()] * len(true)):.3f}   on the same rows")
    print(f"threshold   {kept.threshold:.2f}    fitted on {kept.threshold_source}\n")
    table = pd.DataFrame({"species": codes, "rows": rows, "F1": [f1[code] for code in codes]})
    print(table.to_string(index=False, float_format="%.2f"))
    print("\n" + "  ".join(f"{name} {value:.0f} s" for name, value in seconds.items()), end="")
    print(f"  together {sum(seconds.values()):.0f} s")
    print(f"\nsubmission  {SUBMISSION}\nfigure      {FIGURE}")


if __name__ == "__main__":
    run_script(main)
