"""Which species call in each five seconds of a recording.

    python predict.py --model runs/b6 --test-csv input/birdsong-recognition/test.csv -o submissions/submission.csv
    python predict.py --model runs/b6 RECORDING_OR_FOLDER... -o detections.csv

--model is a bundle, a fold, a run (all its folds as an ensemble) or several. Files are read in blocks: a long one needs no
more memory than a short one. Exit status 1 if any audio was missing, unreadable or cut short: its name and the reason are
on stderr, and its rows are answered as far as they can be, else `nocall`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError, run_script

if TYPE_CHECKING:
    import numpy as np

    from src.predictor import Predictor
    from src.recipe import Recipe


LEAST_HOP_SECONDS = 0.1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "audio", type=Path, nargs="*", metavar="RECORDING_OR_FOLDER", help="audio files, or folders of them"
    )
    parser.add_argument(
        "--model", type=Path, action="append", required=True, help="bundle, fold or run; repeat it for an ensemble"
    )
    parser.add_argument("--test-csv", type=Path, help="rows to answer: row_id, seconds (end of the window), audio_id")
    parser.add_argument(
        "--test-audio", type=Path, help="folder of their audio (default: test_audio beside the test.csv)"
    )
    parser.add_argument("-o", "--output", type=Path, help="CSV to write (submissions/submission.csv or detections.csv)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="probability from which a species counts (default: the bundle's, one for each species)",
    )
    parser.add_argument(
        "--overlap", type=float, help="seconds by which neighbouring windows overlap; a row averages them"
    )
    parser.add_argument("--threads", type=int, default=2, help="of the network")
    arguments = parser.parse_args(argv)
    if bool(arguments.audio) == bool(arguments.test_csv):
        parser.error("give either --test-csv or recordings")
    if arguments.threads < 1:
        parser.error("--threads must be 1 or more")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        parser.error("--threshold is a probability, from 0 to 1")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Load the model, answer, and say what could not be answered."""
    arguments = parse(argv)
    from src import bundle, predictor

    output = arguments.output or Path("submissions/submission.csv" if arguments.test_csv else "detections.csv")
    check_writable(output)
    bundles = bundle.find(arguments.model)
    core = predictor.Predictor(bundles, arguments.threads)
    hop_seconds = hop_of(core.recipe, arguments.overlap)
    threshold = core.thresholds if arguments.threshold is None else arguments.threshold
    if arguments.threshold is None and any(one.threshold_source == "default" for one in bundles):
        print(f"threshold {core.threshold} was never fitted: run python evaluate.py on the run", file=sys.stderr)

    if arguments.test_csv:
        faults = answer_rows(arguments, core, threshold, hop_seconds, output)
    else:
        faults = answer_files(arguments, core, threshold, hop_seconds, output)
    for name, reason in faults:
        print(f"{name}: {reason}", file=sys.stderr)
    return int(bool(faults))


def check_writable(output: Path) -> None:
    """Raise UserError now, and not after hours of work, if `output` cannot be written or would replace a recording."""
    from src.audio import AUDIO_SUFFIXES
    from src.files import check_replaceable

    if output.suffix.lower() in AUDIO_SUFFIXES:
        raise UserError(f"{output}: has the name of a recording; -o takes the name of a CSV file")
    check_replaceable(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from error


def hop_of(recipe: Recipe, overlap: float | None) -> float:
    """Seconds between the starts of neighbouring windows."""
    if overlap is None:
        return recipe.hop_seconds
    greatest = recipe.window_seconds - LEAST_HOP_SECONDS
    if not 0 <= overlap <= greatest:
        raise UserError(
            f"--overlap must lie in [0, {greatest:g}] for windows of {recipe.window_seconds:g} s, not {overlap:g}"
        )
    return recipe.window_seconds - overlap


def answer_rows(
    arguments: argparse.Namespace, core: Predictor, threshold: float | np.ndarray, hop_seconds: float, output: Path
) -> list[tuple[str, str]]:
    """Write a submission for a test.csv: every row once, in its order. Returns (file, what was wrong) pairs."""
    from src import answering, competition, outputs

    rows = competition.read_rows(arguments.test_csv)
    folder = arguments.test_audio or arguments.test_csv.parent / "test_audio"
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; the audio of {arguments.test_csv} is given with --test-audio FOLDER"
        )
    answers = answering.answer_rows(core, rows, folder, threshold, hop_seconds)
    outputs.write_submission(output, answers.birds, answers.birds.values())
    print(f"{output}: {answers.describe()}")
    return answers.faults


def answer_files(
    arguments: argparse.Namespace, core: Predictor, threshold: float | np.ndarray, hop_seconds: float, output: Path
) -> list[tuple[str, str]]:
    """Write the detections of recordings and folders. Returns (file, what was wrong) pairs."""
    from tqdm import tqdm

    from src import audio, outputs, predictor

    tables, faults, seconds = [], [], 0.0
    for path in tqdm(find_recordings(arguments.audio), unit="file", desc="predicting"):
        try:
            prediction = predictor.predict_file(core, path, hop_seconds)
        except audio.AudioError as error:
            faults.append((str(path), str(error)))
            continue
        if prediction.fault:
            faults.append((str(path), prediction.fault))
        seconds += prediction.seconds
        tables.append(outputs.detections(str(path), prediction, core.labels, threshold))

    number = outputs.write_detections(output, tables)
    print(f"{output}: {number} detections in {len(tables)} files, {seconds / 60:.1f} minutes")
    return faults


def find_recordings(paths: list[Path]) -> list[Path]:
    """The audio files given and those in the folders given, each once; names on stderr what is passed over.

    Raises UserError if a folder holds none.
    """
    from src.audio import AUDIO_SUFFIXES

    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(file for file in path.rglob("*") if file.is_file())
        inside = [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]
        if not inside:
            raise UserError(f"{path}: holds no audio files ({', '.join(AUDIO_SUFFIXES)})")
        others = sorted({file.suffix.lower() or file.name for file in files} - set(AUDIO_SUFFIXES))
        if others:
            number = len(files) - len(inside)
            print(
                f"{path}: {number} files are no audio by their names and are passed over ({', '.join(others)})",
                file=sys.stderr,
            )
        found += inside
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


if __name__ == "__main__":
    run_script(main)
