"""How good runs are, by what they say about recordings they never heard; the thresholds they need; the score of a submission.

    python evaluate.py runs/b6                                # scores, calibration and thresholds into the bundles, figures
    python evaluate.py runs/*                                 # and a table that compares them, with their ensemble
    python evaluate.py --submission submissions/submission.csv --truth truth.csv      # the competition's score

Writes RUN/evaluation.json, per_species.csv, confusions.csv, errors.csv, evaluation.png and errors.png, keeps the truth of the
soundscapes that it mixes and their answers in RUN/fold*/soundscapes.parquet and soundscape_windows.parquet, and of several
runs a comparison as CSV, Markdown and HTML.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from src import options
from src.errors import UserError, run_script

if TYPE_CHECKING:
    from src.evaluated_run import EvaluatedRun, Settings

SHOWN_CONFUSIONS = 10
SHOWN_ERRORS = 5


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=Path, nargs="*", help="runs, or folds of them; what is none is named and passed over"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/comparison"), help="of several (%(default)s)")
    parser.add_argument("--data", default="", help="where the recordings are now (default: where training found them)")
    options.add_storage(parser)
    parser.add_argument(
        "--nocall-share",
        type=float,
        help="expected share of rows without birds (the competition's, as far as it is known: 0.544)",
    )
    parser.add_argument("--bootstrap", type=int, default=200, metavar="N", help="draws of an interval (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws and the soundscapes (%(default)s)")
    mixed = parser.add_argument_group("soundscapes of held-out calls over held-out backgrounds, SNR 0 to 20 dB")
    mixed.add_argument("--minutes", type=int, default=30, help="a fold (%(default)s)")
    mixed.add_argument("--no-soundscapes", action="store_true", help="choose thresholds on clips")
    mixed.add_argument(
        "--background", default="", help="folder of recordings without birds, other than those trained on"
    )
    mixed.add_argument("--keep-soundscapes", type=Path, metavar="DIR", help="write them as WAV and CSV, to listen to")
    parser.add_argument("--submission", type=Path, help="CSV of row_id,birds to score")
    parser.add_argument(
        "--truth",
        type=Path,
        help="CSV of row_id,birds, or the host's example summary; with a RUN, only its species count",
    )
    arguments = parser.parse_args(argv)
    if not arguments.run and not arguments.submission:
        parser.error("give a run, or --submission and --truth")
    if bool(arguments.submission) != bool(arguments.truth):
        parser.error("--submission and --truth go together")
    if arguments.nocall_share is not None and not 0 < arguments.nocall_share < 1:
        parser.error("--nocall-share must lie between 0 and 1")
    if arguments.bootstrap < 1 or arguments.minutes < 1:
        parser.error("--bootstrap and --minutes must be 1 or more")
    if arguments.seed < 0:
        parser.error("--seed must be 0 or more")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Evaluate the runs, compare them, score the submission, whichever were given."""
    arguments = parse(argv)
    done, status = evaluate_runs(arguments) if arguments.run else ([], 0)
    if arguments.submission:
        score_submission(arguments, list(done[0].oof.labels) if done else None)
    return status


def evaluate_runs(arguments: argparse.Namespace) -> tuple[list[EvaluatedRun], int]:
    """Evaluate each run, and compare them if several were given. Returns them, and 1 if one of them failed."""
    from src import evaluated_run, evaluation, storage
    from src.competition import PUBLIC_NOCALL_SHARE

    storage.configure(arguments.storage_option)
    settings = evaluated_run.Settings(
        nocall_share=arguments.nocall_share or PUBLIC_NOCALL_SHARE,
        draws=arguments.bootstrap,
        seed=arguments.seed,
        data=arguments.data,
        minutes=0 if arguments.no_soundscapes else arguments.minutes,
        background=storage.absolute(arguments.background),
        keep_audio=arguments.keep_soundscapes,
    )
    given = list({path.resolve(): path for path in reversed(arguments.run)}.values())[::-1]
    done, status = [], 0
    for run in given:
        try:
            evaluation.folds_of(run)
        except UserError as error:
            if len(given) == 1:
                raise
            print(f"passed over: {error}", file=sys.stderr)
            continue
        try:
            done.append(evaluated_run.evaluate_run(run, settings))
        except UserError as error:
            if len(given) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)
            status = 1
            continue
        show(done[-1], evaluated_run.write(done[-1]))
    if not done:
        raise UserError(f"{', '.join(map(str, given))}: none of them is a run that can be evaluated")
    if len(done) > 1:
        compare(done, settings, arguments.output)
    return done, status


def show(done: EvaluatedRun, drawn: int) -> None:
    """Print a run's evaluation."""
    found = done.found
    print(f"{done.run}: {done.names}, out of fold")
    for name, value in found.scores.items():
        low, high = found.intervals.get(name, (float("nan"), float("nan")))
        limits = f"  ({low:.3f} to {high:.3f})" if low == low else ""
        note = "  (the share that windows without birds are weighted to)" if name == "row_f1_all_nocall" else ""
        print(f"  {name:30} {value:.3f}{limits}{note}" if isinstance(value, float) else f"  {name:30} {value}")
    print(f"  {'threshold':30} {found.threshold:.3f}  (now in the bundles, fitted on {done.kept})")
    calibration = found.fitted.calibration
    print(f"  {'calibration':30} {calibration.slope:.2f} x logit {calibration.intercept:+.2f}  (in the bundles, too)")
    fitted = (
        "each fitted on other sources" if found.fitted_elsewhere else "fitted on these very rows, for want of others"
    )
    print(f"\nthresholds and their row F1 on {found.fitted_on}, {fitted}; kept: {found.chosen}")
    print(found.decisions.to_string(index=False, float_format="%.3f"))
    print("\n" + found.per_species.to_string(index=False, float_format="%.2f", na_rep=""))
    if len(found.confusions):
        print("\nmost confused")
        print(found.confusions.head(SHOWN_CONFUSIONS).to_string(index=False, float_format="%.2f"))
    if len(found.errors):
        print("\nworst errors")
        print(found.errors.head(SHOWN_ERRORS).to_string(index=False, float_format="%.2f"))
    print("", *done.remarks, sep="\n")
    if len(found.errors) and not drawn:
        print("no spectrograms of errors (errors.png): their recordings are not there or cannot be read; see --data")
    files = "per_species.csv, confusions.csv, errors.csv, evaluation.png" + (", errors.png" if drawn else "")
    print(f"{done.run / 'evaluation.json'}, {files}\n")


def compare(done: list[EvaluatedRun], settings: Settings, output: Path) -> None:
    """Write and print the comparison of several runs."""
    from src import comparison

    table, remarks = comparison.compare(done, settings)
    left_out = comparison.write(output, table, done, remarks)
    print(comparison.markdown(comparison.readable(table)))
    print(*remarks, sep="\n")
    if left_out:
        print(f"{len(left_out)} figures are not in comparison.html, which would grow too large")
    print(f"{output}: comparison.csv, comparison.md, comparison.html, comparison.png")


def score_submission(arguments: argparse.Namespace, labels: list[str] | None) -> None:
    """Print the competition's score of a submission, beside that of answering nocall everywhere."""
    from src import competition, metrics

    truth = competition.read_truth(arguments.truth, labels)
    answers = competition.read_truth(arguments.submission)
    missing = [row_id for row_id in truth if row_id not in answers]
    if missing:
        raise UserError(
            f"{arguments.submission}: lacks {len(missing)} rows of {arguments.truth}, {missing[0]} among them"
        )
    true, answered = list(truth.values()), [answers[row_id] for row_id in truth]
    print(f"row F1      {metrics.row_f1(true, answered):.4f}  ({len(truth)} rows)")
    print(f"all nocall  {metrics.row_f1(true, [set()] * len(true)):.4f}")
    called = sorted(set().union(*true) | set().union(*answered))
    for code, score in metrics.species_f1(true, answered, called).items():
        print(f"  {code:10} {score:.3f}")


if __name__ == "__main__":
    run_script(main)
