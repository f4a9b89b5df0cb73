"""Take what build.py made to Kaggle: the dataset, the kernel, and a submission whose score is printed.

    python submissions/kernel/push.py                      # all of it; an hour or two, most of it waiting for the score
    python submissions/kernel/push.py --no-submit          # until the kernel has run once, without test_audio
    python submissions/kernel/push.py -m "b6, five folds"

Needs a Kaggle account that has accepted the competition's rules, and a token (https://www.kaggle.com/settings/api) in
KAGGLE_API_TOKEN or ~/.kaggle/access_token. Run again, it makes a new version of the dataset and of the kernel. If it is
stopped while it waits, Kaggle goes on. The score goes to standard output, all else to standard error.
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
        "folder", type=Path, nargs="?", default=HERE / "built", help="what build.py wrote (default: %(default)s)"
    )
    parser.add_argument("--user", help="who is to own them on Kaggle (default: whose credentials they are)")
    parser.add_argument("-m", "--message", default="", help="described so, the version and the submission")
    parser.add_argument("--no-submit", action="store_true", help="end when the kernel has run")
    parser.add_argument("--poll-seconds", type=float, default=30.0, help="between two questions whether it is done")
    parser.add_argument("--limit-hours", type=float, default=4.0, help="for each thing that is waited for")
    arguments = parser.parse_args(argv)
    if arguments.poll_seconds < 0 or arguments.limit_hours <= 0:
        parser.error("--poll-seconds must be 0 or more, and --limit-hours above 0")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Push, wait, submit, wait, print the score."""
    arguments = parse(argv)
    from src import kaggle_client
    from src.kaggle_push import Push

    api = kaggle_client.logged_in()
    user = arguments.user or kaggle_client.user_of(api)
    push = Push(api, arguments.folder, user, arguments.poll_seconds, arguments.limit_hours * 3600)
    push.dataset(arguments.message)
    version = push.kernel()
    if arguments.no_submit:
        return 0
    scores = push.submit(version, arguments.message or f"{push.kernel_id} version {version}")
    print(f"public  {scores.public or 'none'}\nprivate {scores.private or 'none'}")
    return 0


if __name__ == "__main__":
    run_script(main)
