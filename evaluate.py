"""How good a run is, by its out-of-fold predictions; the threshold it needs; and the score of a submission.

    python evaluate.py runs/b6                                # scores, threshold into the bundles, tables and a figure
    python evaluate.py --submission submissions/submission.csv --truth truth.csv      # the competition's score

Writes RUN/evaluation.json, per_species.csv and evaluation.png. Costs seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from src.errors import UserError, run_script

# All-nocall scored this on the competition's public board: what is known of how many rows of a soundscape are empty.
PUBLIC_NOCALL_SHARE = 0.544


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run or one of its folds")
    parser.add_argument("--data", help="the recordings, to check the bundles on (default: where training found them)")
    parser.add_argument(
        "--nocall-share",
        type=float,
        default=PUBLIC_NOCALL_SHARE,
        help="expected share of rows without birds (%(default)s)",
    )
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
    if not 0 < arguments.nocall_share < 1:
        parser.error("--nocall-share must lie between 0 and 1")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Score the run, then the submission, whichever were given."""
    arguments = parse(argv)
    labels = evaluate_run(arguments) if arguments.run else None
    if arguments.submission:
        score_submission(arguments, labels)
    return 0


def evaluate_run(arguments: argparse.Namespace) -> list[str]:
    """Print and write a run's evaluation, keep the threshold in its bundles; returns the species."""
    from src import bundle, evaluation, figures, oof
    from src.files import write_json, written_whole

    folders = evaluation.folds_of(arguments.run)
    bundles = bundle.find(folders)
    labels = bundles[0].labels
    predictions = oof.read(folders, labels)
    found = evaluation.evaluate(predictions, arguments.nocall_share)
    names = ", ".join(folder.name for folder in folders)
    evaluation.keep_threshold(folders, found, f"out-of-fold windows of {names}")

    write_json(arguments.run / "evaluation.json", {"threshold": found.threshold, "folds": names, **found.scores})
    with written_whole(arguments.run / "per_species.csv") as temporary:
        found.per_species.to_csv(temporary, index=False)
    figures.evaluation(arguments.run / "evaluation.png", predictions, found, arguments.nocall_share)

    print(f"{arguments.run}: {names}, out of fold")
    for name, value in found.scores.items():
        note = "  (the share that windows without birds are weighted to)" if name == "row_f1_all_nocall" else ""
        print(f"  {name:30} {value:.3f}{note}" if isinstance(value, float) else f"  {name:30} {value}")
    print(f"  {'threshold':30} {found.threshold:.3f}  (now in the bundles)")
    print(found.per_species.to_string(index=False, float_format="%.2f"))
    if found.scores["row_f1_fitted_on_itself"] <= found.scores["row_f1_all_nocall"] + 1e-6:
        print("no threshold does better than answering nocall everywhere: the model has learned too little")
    if not found.scores["nocall_windows"]:
        print(
            "no window without birds was validated: the threshold knows nothing of empty rows; see prepare.py --nocall"
        )
    check_bundles(folders, arguments.data)
    print(f"{arguments.run / 'evaluation.json'}, per_species.csv, evaluation.png")
    return list(labels)


def check_bundles(folders: list[Path], data: str | None) -> None:
    """Print how far the bundles' answers to some recordings, by the predict core, are from the out-of-fold predictions."""
    import numpy as np

    from src import layouts, runs, storage

    source = runs.source_of(folders[0])
    if data:
        source = {**source, "data": storage.absolute(str(data))}
    try:
        recordings = layouts.read(layouts.DataSource.from_dict(source))
    except (UserError, OSError) as error:
        print(
            f"the recordings are not where they were in training ({error}): bundles are not checked on them; see --data"
        )
        return
    answered, predicted = runs.compare_with_bundle(folders, recordings)
    if not len(answered):
        print(f"{source['data']}: none of the folds' recordings can be read: the bundles are not checked on them")
        return
    difference = np.abs(answered - predicted).max(axis=1)
    print(
        f"the bundles' answers to {len(answered)} of these windows, from the recordings: "
        f"mean difference {difference.mean():.4f}, greatest {difference.max():.3f}"
    )


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
