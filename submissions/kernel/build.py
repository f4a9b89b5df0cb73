"""Make the two folders that Kaggle is given: a dataset (code, bundles, wheels) and a kernel without internet.

    python submissions/kernel/build.py --model runs/b6                  # all folds of a run: submissions/kernel/built/
    python submissions/kernel/build.py --model runs/b6 --model runs/b3 --user alice
    python submissions/kernel/build.py --model runs/b6 --python-versions 3.12 3.13     # if Kaggle's image has them
    python submissions/kernel/build.py --model runs/b6 --wheels WHEELS                 # no network: from a folder of wheels

Takes seconds, and 22 MB of wheels for each Python the first time; a second build takes those of the first. push.py does the
rest. --user is the name in your Kaggle credentials unless it is given; if none is known, push.py puts it in.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.errors import run_script

HERE = Path(__file__).resolve().parent


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, action="append", required=True, help="bundle, fold or run; repeat it for an ensemble"
    )
    parser.add_argument("--combine", choices=["mean", "votes"], default="mean", help="of several, as for predict.py")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "built", help="folder for the two (%(default)s)")
    parser.add_argument("--user", help="your name on Kaggle (default: that of your credentials)")
    parser.add_argument("--name", default="birdcall", help="of the dataset, NAME-code, and of the kernel, NAME-kernel")
    parser.add_argument(
        "--python-versions",
        nargs="+",
        default=["3.11", "3.12"],
        metavar="3.X",
        help="of Kaggle's image, each of which gets wheels (default: 3.11 3.12)",
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to take instead of asking PyPI")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Build, and say what is in it."""
    arguments = parse(argv)
    from src import bundle, kaggle_client, kaggle_folders

    user = arguments.user or kaggle_client.known_user()
    if any(one.threshold_source == "default" for one in bundle.find(arguments.model)):
        print("a bundle's threshold was never fitted: run python evaluate.py on the run", file=sys.stderr)
    built = kaggle_folders.build(
        arguments.model,
        arguments.output,
        HERE / kaggle_folders.SCRIPT,
        user,
        arguments.name,
        arguments.python_versions,
        arguments.wheels,
        arguments.combine,
    )
    size = sum(file.stat().st_size for file in built.dataset.rglob("*") if file.is_file())
    print(f"{built.dataset}: {built.bundles} bundles, {len(built.wheels)} wheels, {size / 1e6:.0f} MB")
    print(f"{built.kernel}: {kaggle_folders.SCRIPT}, no internet")
    if not user:
        print(
            f"no Kaggle user is known: the folders say {kaggle_folders.UNKNOWN_USER}, push.py puts yours in",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    run_script(main)
