"""Which species call in each five seconds of a recording.

    python predict.py --model runs/b6 --test-csv input/birdsong-recognition/test.csv -o submissions/submission.csv
    python predict.py --model runs/b6 RECORDING_OR_FOLDER... -o detections.csv
    python predict.py --model runs/b6 forest -o forest.csv --jobs -1 --raven tables --clips clips    # a process a core
    python predict.py --model runs/b6 forest -o forest.csv --parquet matrices --plot pictures --utc-offset -4
    python predict.py --model runs/b6 dawn.flac -o dawn.csv --profile                # and where the time went
    python predict.py --model runs/b6 --model runs/yamnet --combine votes forest -o forest.csv    # an ensemble
    python predict.py --model runs/b6 /shared/forest -o /shared/forest.csv --backend dask --scheduler tcp://10.0.0.1:8786

--model is a bundle, a fold, a run (all its folds as an ensemble) or several, whatever audio each of them hears: a recording is
decoded once. Files are read in blocks: a long one needs no more memory than a short one. What became of each recording is in
status.csv beside the output, and in short on stderr; exit status 1 if any audio was missing, unreadable or cut short. Its rows
are answered as far as they can be, else `nocall`.

Stopped or killed, the same command goes on: what is finished of each recording lies in OUTPUT.parts. A recording, a model or
an option that has changed is done anew. Remove that folder when you need it no more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError, run_script

if TYPE_CHECKING:
    from src.batch import Question
    from src.recipe import Recipe
    from src.status import Tally
    from src.workers import Workers


LEAST_HOP_SECONDS = 0.1
FOLDERS = ("raven", "audacity", "parquet", "clips", "plot")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "audio", type=Path, nargs="*", metavar="RECORDING_OR_FOLDER", help="audio files, or folders of them"
    )
    parser.add_argument(
        "--model", type=Path, action="append", required=True, help="bundle, fold or run; repeat it for an ensemble"
    )
    parser.add_argument(
        "--combine",
        choices=["mean", "votes"],
        default="mean",
        help="several bundles: the mean of their probabilities and thresholds, or what more than half of them answer",
    )
    parser.add_argument("--test-csv", type=Path, help="rows to answer: row_id, seconds (end of the window), audio_id")
    parser.add_argument(
        "--test-audio", type=Path, help="folder of their audio (default: test_audio beside the test.csv)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="probability from which a species counts (default: the bundle's, one for each species)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SECONDS",
        help="by which neighbouring windows overlap; a row averages them (default: what evaluate.py found for the bundle)",
    )
    deciding = parser.add_argument_group(
        "what decides beside the threshold (default: what evaluate.py found for the bundle)"
    )
    deciding.add_argument("--neighbours", type=float, metavar="SHARE", help="of the rows before and after, from 0 to 1")
    deciding.add_argument("--strict", type=float, metavar="LOGITS", help="by which a file's threshold is raised")
    deciding.add_argument("--loose", type=float, metavar="LOGITS", help="by which its rows' are then lowered")
    deciding.add_argument("--at-most", type=int, metavar="K", help="species a row, the likeliest; 0: any number")
    deciding.add_argument("--species", type=Path, metavar="FILE", help="the only ones to answer, a code a line")
    deciding.add_argument(
        "--precision", choices=["float32", "float16", "int8"], default="float32", help="of the bundle's graphs"
    )
    outputs = parser.add_argument_group("what is written")
    outputs.add_argument(
        "-o", "--output", type=Path, help="CSV of answers (submissions/submission.csv or detections.csv)"
    )
    outputs.add_argument(
        "--status", type=Path, metavar="FILE", help="what became of each (status.csv beside the output)"
    )
    outputs.add_argument("--raven", type=Path, metavar="DIR", help="a Raven selection table a recording")
    outputs.add_argument("--audacity", type=Path, metavar="DIR", help="a file of Audacity labels a recording")
    outputs.add_argument("--parquet", type=Path, metavar="DIR", help="all probabilities, a Parquet file a recording")
    outputs.add_argument("--clips", type=Path, metavar="DIR", help="the audio of each detection, a folder a species")
    outputs.add_argument("--plot", type=Path, metavar="DIR", help="spectrogram and detections, a PNG each ten minutes")
    outputs.add_argument(
        "--utc-offset",
        type=float,
        metavar="HOURS",
        help="of recorders whose files' names hold local time, as -4 in Puerto Rico; without it their UTC is left empty",
    )
    work = parser.add_argument_group("work")
    work.add_argument("--jobs", type=int, default=1, help="files at once, in processes (default: 1; -1: one a core)")
    work.add_argument("--threads", type=int, default=1, help="of the network in each process (default: 1)")
    work.add_argument("--backend", choices=["loky", "dask", "ray"], default="loky", help="this machine, or a cluster")
    work.add_argument("--scheduler", default="", metavar="ADDRESS", help="of the cluster, as tcp://10.0.0.1:8786")
    work.add_argument("--profile", action="store_true", help="say at the end where the CPU time went (--jobs 1)")
    arguments = parser.parse_args(argv)
    if bool(arguments.audio) == bool(arguments.test_csv):
        parser.error("give either --test-csv or recordings")
    if arguments.jobs == 0 or arguments.jobs < -1:
        parser.error("--jobs must be 1 or more, or -1 for one a core")
    if arguments.threads < 1:
        parser.error("--threads must be 1 or more")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        parser.error("--threshold is a probability, from 0 to 1")
    if arguments.utc_offset is not None and not -12 <= arguments.utc_offset <= 14:
        parser.error("--utc-offset is in hours, from -12 to 14")
    if arguments.profile and (arguments.jobs != 1 or arguments.backend != "loky"):
        parser.error("--profile sees this process only: leave --jobs and --backend out")
    if arguments.test_csv and (given := [name for name in FOLDERS if getattr(arguments, name)]):
        parser.error(f"--{given[0]} is for recordings, not for --test-csv")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Answer, and say where the time went if that is asked."""
    arguments = parse(argv)
    if not arguments.profile:
        return answer(arguments)
    from src.profiling import profiled

    with profiled(sys.stderr, ("src.answering",) if arguments.test_csv else ("src.detecting", "src.outputs")):
        return answer(arguments)


def answer(arguments: argparse.Namespace) -> int:
    """Load the model, answer, and say what could not be answered."""
    from src import bundle
    from src.batch import Question
    from src.files import locked
    from src.soundscape import read_species
    from src.workers import Workers

    output = arguments.output or Path("submissions/submission.csv" if arguments.test_csv else "detections.csv")
    status = arguments.status or output.parent / "status.csv"
    check_writable(arguments, output, status)
    bundles = bundle.find(arguments.model)
    shortest = min((one.recipe for one in bundles), key=lambda recipe: recipe.window_seconds)
    allowed = read_species(arguments.species, bundles[0].labels) if arguments.species else ()
    question = Question.of(
        bundles,
        arguments.threads,
        arguments.threshold,
        given_hop(shortest, arguments.overlap),
        given_decision(arguments),
        allowed,
        arguments.precision,
        arguments.combine,
    )
    core = question.core()  # now: a model that cannot be loaded is no recording's fault
    if arguments.threshold is None and any(one.threshold_source == "default" for one in bundles):
        print(f"threshold {core.threshold} was never fitted: run python evaluate.py on the run", file=sys.stderr)

    workers = Workers(arguments.jobs, arguments.backend, arguments.scheduler)
    answer_all = answer_rows if arguments.test_csv else answer_files
    with locked(parts_folder(output) / "lock"):
        tally = answer_all(arguments, question, workers, output, status)
    print(tally.describe(status), file=sys.stderr)
    return int(not tally.whole)


def check_writable(arguments: argparse.Namespace, output: Path, status: Path) -> None:
    """Raise UserError now, and not after hours of work, if something cannot be written or would replace a recording."""
    from src.audio import AUDIO_SUFFIXES
    from src.files import check_replaceable

    for path in (output, status):
        if path.suffix.lower() in AUDIO_SUFFIXES:
            raise UserError(f"{path}: has the name of a recording; give the name of a CSV file")
        check_replaceable(path)
    if arguments.test_csv and arguments.test_csv.resolve() in (output.resolve(), status.resolve()):
        raise UserError(f"{arguments.test_csv}: is the table of rows to answer; give the output another name with -o")
    if output.resolve() == status.resolve():
        raise UserError(f"{output}: is the status table's name; give another with --status FILE")
    for path in filter(Path.is_dir, arguments.audio):
        if arguments.clips and path.resolve() in (arguments.clips.resolve(), *arguments.clips.resolve().parents):
            raise UserError(
                f"--clips {arguments.clips}: lies in {path}, and the next run would take clips for recordings; give the clips a "
                "folder elsewhere"
            )
    folders = [getattr(arguments, name) for name in FOLDERS]
    for folder in [output.parent, status.parent, *filter(None, folders)]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            name = output if folder == output.parent else folder
            raise UserError(f"{name}: cannot be written ({error.strerror})") from error


def parts_folder(output: Path) -> Path:
    """Where what is finished of each recording is kept."""
    return output.with_name(f"{output.name}.parts").absolute()


def given_decision(arguments: argparse.Namespace) -> dict[str, float]:
    """What is to decide beside the threshold whatever was found for the bundles: fields of a Decision."""
    names = {"neighbours": "neighbours", "strict": "strict", "loose": "loose", "at_most": "most"}
    return {field: getattr(arguments, name) for name, field in names.items() if getattr(arguments, name) is not None}


def given_hop(recipe: Recipe, overlap: float | None) -> float | None:
    """Seconds between the starts of neighbouring windows; None: as it was found for the bundles.

    recipe: of the shortest windows, which are those that are answered
    """
    if overlap is None:
        return None
    greatest = recipe.window_seconds - LEAST_HOP_SECONDS
    if not 0 <= overlap <= greatest:
        raise UserError(
            f"--overlap must lie in [0, {greatest:g}] for windows of {recipe.window_seconds:g} s, not {overlap:g}"
        )
    return recipe.window_seconds - overlap


def answer_rows(
    arguments: argparse.Namespace, question: Question, workers: Workers, output: Path, status: Path
) -> Tally:
    """Write a submission for a test.csv: every row once, in its order."""
    from src import answering, batch, competition, outputs
    from src.parts import Parts

    rows = competition.read_rows(arguments.test_csv)
    folder = arguments.test_audio or arguments.test_csv.parent / "test_audio"
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; the audio of {arguments.test_csv} is given with --test-audio FOLDER"
        )
    begun = time.monotonic()
    recordings = answering.of_rows(rows, folder)
    parts = Parts(parts_folder(output), question.digest)
    batch.analyse(answering.Answering(question), recordings, parts, workers)
    answers = answering.collected(rows, recordings, parts, begun)
    outputs.write_submission(output, answers.birds, answers.birds.values())
    print(f"{output}: {answers.describe()}")
    return outputs.write_status(status, answers.outcomes)


def answer_files(
    arguments: argparse.Namespace, question: Question, workers: Workers, output: Path, status: Path
) -> Tally:
    """Write the detections of recordings and folders, and whatever else is wanted of them."""
    from src import batch, detecting, outputs, recording_files
    from src.parts import Parts

    parts = Parts(parts_folder(output), question.digest)
    ours = [parts.folder, *filter(None, [arguments.clips])]  # clips are audio, but no recordings
    recordings = recording_files.find(arguments.audio, ours)
    if all(
        one.fault or not Path(one.path).exists() for one in recordings
    ):  # a path that was mistyped: no answers are made empty
        reasons = ", ".join(f"{one.shown}: {one.fault or 'no such file'}" for one in recordings[:3])
        raise UserError(f"no recordings there, and nothing is written: {reasons}")
    parquet, clips, plots = (
        str(folder.absolute()) if folder else "" for folder in (arguments.parquet, arguments.clips, arguments.plot)
    )
    task = detecting.Detecting(question, arguments.utc_offset, parquet, clips, plots)
    batch.analyse(task, recordings, parts, workers)
    tables = outputs.Tables(output, status, arguments.raven, arguments.audacity)
    number, tally = outputs.write_tables(tables, recordings, parts, question.core().recipe, arguments.utc_offset)
    print(f"{output}: {number} detections in {tally.answered} files, {tally.seconds / 60:.1f} minutes")
    return tally


if __name__ == "__main__":
    run_script(main)
