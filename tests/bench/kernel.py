"""How long the Kaggle kernel would take over the hidden test set: the built script, measured on files like its own.

    python tests/bench/kernel.py                                # a network as large as EfficientNet B0; 2 minutes on two cores
    python tests/bench/kernel.py --model runs/b6                # yours, all its folds
    python tests/bench/kernel.py --network tiny --files 4 --minutes 10

Synthesises mp3 files, lays them out as on Kaggle, runs what build.py made without a network if that can be (unshare), and
prints what the script says of its speed, and the CPU seconds of its whole process. A network is not trained for this: its
time does not depend on its weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sounds import write_noise  # noqa: E402
from untrained import NETWORKS, untrained  # noqa: E402


def main() -> None:
    """Make everything, run the script, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", help="bundle, fold or run, instead of an untrained one")
    parser.add_argument("--network", choices=NETWORKS, default="b0", help="an untrained one for 264 species")
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each file")
    parser.add_argument("--wheels", type=Path, help="as for build.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = arguments.model or [untrained(folder / "run", arguments.network)]
        build(models, folder / "built", arguments.wheels)
        root = folder / "kaggle"
        lay_out(root, folder / "built/dataset", arguments.files, arguments.minutes)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        apart = ["unshare", "-n"]
        if subprocess.run([*apart, "true"], capture_output=True).returncode:
            apart = []
        subprocess.run(
            [*apart, sys.executable, folder / "built/kernel/kernel.py"],
            env={**os.environ, "BIRDCALL_KAGGLE_ROOT": str(root)},
            cwd=root / "working",
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{cpu_seconds:.1f} CPU seconds for the whole process, {os.cpu_count()} cores")


def build(models: list[Path], output: Path, wheels: Path | None) -> None:
    """Run build.py for the Python that runs this."""
    command = [sys.executable, ROOT / "submissions/kernel/build.py", "-o", output]
    for model in models:
        command += ["--model", model]
    command += ["--python-versions", f"{sys.version_info.major}.{sys.version_info.minor}"]
    subprocess.run([*command, *(["--wheels", wheels] if wheels else [])], check=True)


def lay_out(root: Path, dataset: Path, files: int, minutes: float) -> None:
    """Folders as on Kaggle, with noise and whistles at 32 kHz as test audio, and a row for each 5 s of it."""
    seconds = round(minutes * 60)
    data = root / "input/birdsong-recognition"
    (root / "working").mkdir(parents=True)
    (root / "input").mkdir()
    (root / "input/birdcall-code").symlink_to(dataset.resolve())
    rows = ["site,row_id,seconds,audio_id"]
    for number in range(files):
        name = f"file{number}"
        write_noise(data / f"test_audio/{name}.mp3", seconds, number)
    rows += [f"site_1,site_1_{name}_{end},{end},{name}" for end in range(5, seconds + 1, 5)]
    (data / "test.csv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
