"""What predict.py costs: to start, ten minutes, each ten minutes more, an hour's memory, two processes, batches and threads.

    python tests/bench/prediction.py                              # a network as large as EfficientNet B0; 5 minutes, two cores
    python tests/bench/prediction.py --model runs/b6 --only jobs  # of start, length, jobs, batches
    python tests/bench/prediction.py --only length --hours 15     # and a file of 15 hours: 5 minutes more, 2 GB of disk

Whole processes from start to CSV, on synthesised noise at 32 kHz, medians of --runs. Other work on the machine spoils wall
seconds: it prints the load, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from peers import untrained_apart
from processes import Used, measured, medians
from sounds import write_noise

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PARTS = ("start", "length", "jobs", "batches")
MINUTES = (10, 20, 60)
BATCHES, THREADS = (1, 2, 4, 8, 16), (1, 2)
WINDOWS = 96  # of each way to ask the network


class Bench:
    """A model, a folder to work in, and how often."""

    def __init__(self, model: Path, folder: Path, runs: int) -> None:
        self.model, self.folder, self.runs = model, folder, runs
        self._number = 0

    def predict(self, audio: Path, *more: str) -> Used:
        """The medians of some runs of predict.py, each with an output of its own."""
        return medians([self._once(audio, *more) for _ in range(self.runs)])

    def _once(self, audio: Path, *more: str) -> Used:
        self._number += 1
        output = self.folder / f"out{self._number}/detections.csv"
        return measured([sys.executable, ROOT / "predict.py", "--model", self.model, audio, "-o", output, *more])

    def start(self) -> None:
        """A file of one window: what comes before and after all others."""
        used = self.predict(write_noise(self.folder / "window.flac", 5))
        print(f"one window: {used.wall_seconds:.2f} s from start to CSV, {used.cpu_seconds:.2f} CPU s", flush=True)

    def length(self, hours: float) -> None:
        """Files of several lengths: CPU seconds and memory."""
        first = before = None
        for minutes in (*MINUTES, *([hours * 60] if hours else [])):
            audio = write_noise(self.folder / "long.flac", minutes * 60)
            used = self.predict(audio) if minutes <= max(MINUTES) else self._once(audio)
            line = f"{minutes:g} minutes: {used.cpu_seconds:.2f} CPU s, at most {used.peak_mib:.0f} MiB"
            if before:
                more = 10 * (used.cpu_seconds - before[1]) / (minutes - before[0])
                line += f" ({used.peak_mib / first:.3f} of the first's), {more:.2f} CPU s for each 10 minutes more"
            print(line, flush=True)
            first, before = first or used.peak_mib, (minutes, used.cpu_seconds)
            audio.unlink()

    def jobs(self, minutes: float = 30.0) -> None:
        """Four files by one process and by two, in turn, one LiteRT thread each."""
        for number in range(4):
            write_noise(self.folder / f"forest/{number}.flac", minutes * 60, number)
        ratios = []
        for _ in range(self.runs):
            one, two = (self._once(self.folder / "forest", "--threads", "1", "--jobs", str(jobs)) for jobs in (1, 2))
            ratios.append(one.wall_seconds / two.wall_seconds)
            print(
                f"four files of {minutes:g} minutes: one process {one.wall_seconds:.1f} s, two {two.wall_seconds:.1f} s: "
                f"{ratios[-1]:.2f} times as fast, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"two processes are {sorted(ratios)[len(ratios) // 2]:.2f} times as fast as one (median)")

    def batches(self) -> None:
        """Windows asked for one at a time and in batches, by one LiteRT thread and by two: CPU and wall ms a window."""
        import numpy as np

        from src import bundle
        from src.litert import Graph

        (path,) = bundle.find([self.model])[0].graphs()
        samples = bundle.find([self.model])[0].recipe.window_samples
        windows = np.random.default_rng(0).normal(0, 0.01, (max(BATCHES), samples)).astype(np.float32)
        print("threads  batch  CPU ms a window  ms a window  MiB of input and output tensors and all between")
        for threads in THREADS:
            for size in BATCHES:
                before = _resident_mib()
                graph = Graph(path, (size, samples), threads=threads)
                graph.run(windows[:size])
                cpu, wall = time.process_time(), time.monotonic()
                for _ in range(WINDOWS // size):
                    graph.run(windows[:size])
                cpu, wall = (1000 * (time.process_time() - cpu) / WINDOWS, 1000 * (time.monotonic() - wall) / WINDOWS)
                print(f"{threads:7} {size:6} {cpu:16.1f} {wall:12.1f} {_resident_mib() - before:6.0f}", flush=True)
                del graph


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="bundle, fold or run, instead of an untrained network")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--hours", type=float, default=0.0, help="also a file so long")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = Bench(arguments.model or untrained_apart(folder / "run"), folder, arguments.runs)
        for part in arguments.only:
            bench.length(arguments.hours) if part == "length" else getattr(bench, part)()


if __name__ == "__main__":
    main()
