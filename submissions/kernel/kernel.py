"""The Kaggle kernel: answer the competition's test audio and write submission.csv. No internet; one file.

    python submissions/kernel/kernel.py        # on Kaggle; elsewhere: BIRDCALL_KAGGLE_ROOT=FOLDER, laid out like /kaggle

It finds the dataset that build.py made among what is attached, installs from it what the image lacks, and asks its predict
core. While Kaggle runs a commit there is no test_audio: then it says so, answers the example audio (example_submission.csv)
to see that all works, and every row of test.csv is nocall. A file that cannot be read costs its own rows. No file is started
that would pass the time limit: 2 h, or BIRDCALL_KAGGLE_SECONDS, less 5 minutes for what comes before and after. About 150
files of 10 minutes are to be answered; the last line says how long they would take at the speed of this run.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

COMPETITION = "birdsong-recognition"
MARGIN_SECONDS = 300.0
NEEDED = {"ai_edge_litert.interpreter": "ai-edge-litert", "soundfile": "soundfile", "soxr": "soxr"}


def main() -> None:
    """Find everything, answer, write."""
    started = time.monotonic()
    root = Path(os.environ.get("BIRDCALL_KAGGLE_ROOT", "/kaggle"))
    limit = os.environ.get("BIRDCALL_KAGGLE_SECONDS", "7200")
    if not limit.replace(".", "", 1).isdigit():
        sys.exit(f"error: BIRDCALL_KAGGLE_SECONDS={limit}: must be a number of seconds, as 7200")
    deadline = started + float(limit) - MARGIN_SECONDS
    dataset = attached(root, "birdcall.json", "the dataset that build.py made")
    data = attached(root, "test.csv", f"the competition's data ({COMPETITION})")
    with tempfile.TemporaryDirectory() as scratch:  # not the working folder, which Kaggle keeps
        install_what_is_missing(part(dataset, "wheels", scratch), Path(scratch, "installed"))
        sys.path.insert(0, str(part(dataset, "code", scratch)))
        from src.errors import UserError

        try:
            combine = json.loads((dataset / "birdcall.json").read_text(encoding="utf-8")).get("combine", "mean")
            answer(data, part(dataset, "bundles", scratch), combine, root / "working", deadline)
        except UserError as error:
            sys.exit(f"error: {error}")


def attached(root: Path, holds: str, told: str) -> Path:
    """The folder of the input with a file of this name, in either of Kaggle's layouts; the competition's own one first."""
    found = [
        file.parent
        for pattern in (f"{COMPETITION}/{holds}", f"competitions/{COMPETITION}/{holds}", f"*/{holds}", f"*/*/*/{holds}")
        for file in sorted((root / "input").glob(pattern))
    ]
    if not found:
        sys.exit(f"error: {root / 'input'}: {told} is not attached to this kernel (no {holds}); add it to its inputs")
    return found[0]


def part(dataset: Path, name: str, scratch: str) -> Path:
    """A folder of the dataset, which Kaggle has unzipped, or has left as an archive."""
    archive = dataset / f"{name}.zip"
    if (dataset / name).is_dir():
        return dataset / name
    if not archive.is_file():
        sys.exit(f"error: {dataset / name}: missing; upload the dataset with --dir-mode zip, as push.py does")
    unzipped = Path(scratch, name)
    with zipfile.ZipFile(archive) as file:
        file.extractall(unzipped)
    return unzipped


def install_what_is_missing(wheels: Path, target: Path) -> None:
    """Install from the dataset's wheels each package whose import fails, and nothing else."""
    for module, package in NEEDED.items():
        try:
            importlib.import_module(module)
            continue
        except Exception as error:  # an ImportError, or what a library of another ABI or a missing one ends in
            print(f"{package}: not in this image ({error}); installed from the dataset", flush=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(target),
        ]
        done = subprocess.run([*command, "--find-links", str(wheels), package], capture_output=True, text=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            sys.exit(f"error: no wheel of {package} for Python {version}: build with --python-versions {version}")
        if str(target) not in sys.path:
            sys.path.insert(0, str(target))
        for name in [name for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
            del sys.modules[name]  # the half that was imported
        importlib.invalidate_caches()
        try:
            importlib.import_module(module)
        except Exception as error:
            sys.exit(f"error: {package}: was installed and cannot be imported on Python {version} ({error})")


def answer(data: Path, bundles: Path, combine: str, working: Path, deadline: float) -> None:
    """Write working/submission.csv for data/test.csv."""
    from src import bundle, competition, outputs, predictor

    core = predictor.Ensemble(bundle.find(sorted(bundles.iterdir())), os.cpu_count() or 1, combine)
    rows = competition.read_rows(data / "test.csv")
    output, test_audio = working / "submission.csv", data / "test_audio"
    if test_audio.is_dir():
        answers = ask(core, rows, test_audio, deadline)
        birds = answers.birds
    else:
        print(
            f"{test_audio}: not there, so this is the commit run: all {len(rows)} rows are answered nocall", flush=True
        )
        birds = {row_id: set() for row_id in rows.row_id}
        answers = None
    outputs.write_submission(output, birds, birds.values())
    print(f"{output}: {len(birds)} rows, {sum(map(bool, birds.values()))} with birds", flush=True)
    examples, summary = data / "example_test_audio", data / "example_test_audio_summary.csv"
    if answers is None and examples.is_dir() and summary.is_file():
        answers = ask(core, competition.read_rows(summary), examples, deadline)
        outputs.write_submission(working / "example_submission.csv", answers.birds, answers.birds.values())
        print(f"{working / 'example_submission.csv'}: the example audio: {answers.describe()}")
    print(answers.projection() if answers else "no example audio either, so no speed was measured")


def ask(core, rows, folder: Path, deadline: float):
    """Answer rows and log what was wrong, which does not fail the kernel: it must give a file, or nothing is scored."""
    from src import answering

    answers = answering.answer_rows(core, rows, folder, core.rule(), core.hop_seconds, deadline)
    for name, reason in answers.faults:
        print(f"{name}: {reason}", file=sys.stderr)
    if answers.late:
        late = int(rows.audio_id.isin(answers.late).sum())
        print(
            f"time limit: {len(answers.late)} of {rows.audio_id.nunique()} files were not started, and their {late} rows "
            f"are answered nocall: {', '.join(answers.late)}",
            file=sys.stderr,
        )
    return answers


if __name__ == "__main__":
    if "--help" in sys.argv:  # not argparse: how Kaggle calls the script is its own affair
        print(__doc__)
    else:
        main()
