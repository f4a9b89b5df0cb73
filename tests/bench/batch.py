"""What --jobs 2 is worth: four soundscapes answered by one process and by two, one LiteRT thread each.

    python tests/bench/batch.py --model runs/b6/fold0/bundle                  # 4 files of 30 minutes; 2 minutes on two cores
    python tests/bench/batch.py --model runs/b6/fold0/bundle --minutes 60 --memory

Synthesises noise, answers it, and prints wall seconds, CPU seconds and the speed-up, the start of the processes included. Other
work on the machine spoils it: it prints the load, too. --memory: also the greatest memory of one process, on one file of a minute
and on one of --minutes, with Parquet.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Make the files, answer them, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="bundle, fold or run")
    parser.add_argument("--minutes", type=float, default=30.0, help="of each of the four files")
    parser.add_argument("--memory", action="store_true", help="also how much memory a short and a long file take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for number in range(4):
            write_noise(folder / f"forest/{number}.flac", arguments.minutes * 60, number)
        wall = {}
        for jobs in (1, 2, 1, 2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.monotonic()
            answer(arguments.model, folder / "forest", folder / f"{jobs}-{len(wall)}-{started}", "--jobs", str(jobs))
            seconds = time.monotonic() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            wall.setdefault(jobs, []).append(seconds)
            load = os.getloadavg()[0]
            print(f"{jobs} jobs: {seconds:.1f} s, {cpu_seconds:.1f} CPU seconds, load {load:.1f}", flush=True)
        print(f"two jobs are {min(wall[1]) / min(wall[2]):.2f} times as fast as one (the better of two runs each)")
        if arguments.memory:
            write_noise(folder / "minute.flac", 60, 0)
            for path in (folder / "minute.flac", folder / "forest/0.flac"):
                print(f"{path.name}: {memory_mib(arguments.model, path, folder / path.stem):.0f} MiB at most")


def write_noise(path: Path, seconds: float, seed: int) -> None:
    """A FLAC of quiet noise at 32 kHz, written minute by minute."""
    import numpy as np
    import soundfile

    generator, left = np.random.default_rng(seed), round(seconds * 32000)
    path.parent.mkdir(exist_ok=True)
    with soundfile.SoundFile(path, "w", 32000, 1) as file:
        while left > 0:
            file.write(generator.normal(0, 0.01, min(left, 60 * 32000)).astype(np.float32))
            left -= 60 * 32000


def command(model: Path, audio: Path, output: Path, *more: str) -> list[str]:
    """predict.py on these files, with a thread each, into a folder of its own."""
    line = [sys.executable, str(ROOT / "predict.py"), "--model", str(model), str(audio), "-o", str(output / "d.csv")]
    return [*line, "--threads", "1", *more]


def answer(model: Path, audio: Path, output: Path, *more: str) -> None:
    """Run it."""
    subprocess.run(command(model, audio, output, *more), check=True, capture_output=True)


def memory_mib(model: Path, audio: Path, output: Path) -> float:
    """The greatest memory of its process, in MiB; in a process of its own, since the system keeps the maximum of all."""
    lines = (
        "import resource, subprocess, sys\n"
        f"subprocess.run({command(model, audio, output, '--parquet', str(output))!r}, check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


if __name__ == "__main__":
    main()
