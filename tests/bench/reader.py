"""The speed and the memory of the reader: windows a second from shards to training batches, on two cores.

    python tests/bench/reader.py                                   # 20,000 made-up windows of 128x313
    python tests/bench/reader.py --prepared runs/prepared/default-0a1b2c3d

Four windows in five are kept, as in a fold, one in eight of these may be mixed in as background, and batches are thrown away
where training would begin. Prints, for windows in order ("plain"), shuffled ones ("none"), each augmentation alone and all
together: windows a second (the median of some epochs, and their range), CPU milliseconds a window, and the seconds from the
start of an epoch to its first batch. Then the resident memory after each epoch, all augmentations on, of made-up sets of two
sizes, each read by a process of its own: what it has before the first is the libraries', the index's and the targets'. Takes
some minutes, and 40 kB of temporary disk a window. --cores 0 takes all cores there are, --memory alone leaves memory out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from src.quiet import native_stderr  # noqa: E402
from src.recipe import Recipe, preset  # noqa: E402
from src.shards import Prepared, open_prepared  # noqa: E402

WINDOWS_PER_SHARD = 100
LABELS = 264
OFF = {
    "background_probability": 0.0,
    "mixup_probability": 0.0,
    "gain_db": 0.0,
    "high_loss_db": 0.0,
    "mask_probability": 0.0,
    "roll": False,
}
ALONE = {
    "background": ["background_probability"],
    "mixup": ["mixup_probability"],
    "gain": ["gain_db"],
    "high loss": ["high_loss_db"],
    "masks": ["mask_probability"],
    "roll": ["roll"],
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, metavar="FOLDER", help="measure on these windows")
    parser.add_argument("--windows", type=int, default=20_000, help="made-up windows, without --prepared")
    parser.add_argument("--epochs", type=int, default=5, help="measured, of each kind")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[20_000, 60_000], metavar="WINDOWS", help="sizes of sets"
    )
    parser.add_argument("--only", nargs="*", help="of: plain none all " + " ".join(ALONE))
    parser.add_argument("--resident", action="store_true", help="print the memory after epochs as JSON, and no more")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory(prefix="birdread") as name:
        prepared = open_prepared(arguments.prepared) if arguments.prepared else made_up(Path(name), arguments.windows)
        if arguments.resident:
            print(json.dumps(resident(prepared, arguments.epochs, arguments.workers)))
            return 0
        print(f"{len(os.sched_getaffinity(0))} cores, {arguments.workers} workers")
        speeds(prepared, arguments.epochs, arguments.workers, arguments.only)
    for windows in arguments.memory:
        command = [sys.executable, __file__, "--resident", "--windows", windows, "--epochs", 3]
        command += ["--cores", arguments.cores, "--workers", arguments.workers]
        answer = subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout
        loaded, *after = json.loads(answer)
        epochs = ", ".join(f"{mebibytes:.0f}" for mebibytes in after)
        print(f"memory, {windows} windows: {loaded:.0f} MiB before the first epoch, {epochs} after each", flush=True)
    return 0


def made_up(folder: Path, windows: int) -> Prepared:
    """Shards of noise."""
    recipe = Recipe()
    generator = np.random.default_rng(0)
    (folder / "shards").mkdir()
    some = generator.integers(20, 200, (WINDOWS_PER_SHARD, *recipe.image_shape), np.uint8)
    for shard, first in enumerate(range(0, windows, WINDOWS_PER_SHARD)):
        some[: windows - first].tofile(folder / "shards" / f"shard-{shard:05d}.bin")
    number = np.arange(windows)
    index = pd.DataFrame({"window": number, "shard": number // WINDOWS_PER_SHARD, "row": number % WINDOWS_PER_SHARD})
    return Prepared(folder, recipe, tuple(f"bird{label}" for label in range(LABELS)), index, pd.DataFrame())


def epoch_of(prepared: Prepared, workers: int) -> Callable:
    """A function of (recipe, epoch) that gives the batches of an epoch; recipe None: the windows as they are, in order."""
    with native_stderr():  # the libraries have much to say at their first use
        import tensorflow as tf

        from src.datasets import plain_batches, training_batches

        tf.constant(0)
    recording = np.arange(len(prepared.index)) // 10
    keep = recording % 5 > 0
    background = keep & (recording % 10 == 1)
    targets = np.zeros((len(keep), len(prepared.labels)), np.float32)
    targets[np.arange(len(keep)), recording % targets.shape[1]] = 1

    def batches(recipe: Recipe | None, epoch: int):
        if recipe is None:
            return plain_batches(prepared, keep, 32, workers)
        steps = int(keep.sum()) // recipe.batch_size
        return training_batches(prepared, keep, targets, background, recipe, epoch, steps, workers)

    return batches


def speeds(prepared: Prepared, epochs: int, workers: int, only: list[str] | None) -> None:
    """Print a line for each kind of epoch."""
    full = preset("default")
    none = replace(full, **OFF)
    kinds = {"plain": None, "none": none}
    kinds |= {name: replace(none, **{field: getattr(full, field) for field in names}) for name, names in ALONE.items()}
    kinds["all"] = full
    batches = epoch_of(prepared, workers)
    print(f"{len(prepared.index)} windows of {'x'.join(map(str, prepared.recipe.image_shape))}")
    print(f"{'':12}{'windows/s':>10}{'range':>16}{'CPU ms':>9}{'first s':>9}")
    for name in only or kinds:
        measured = [timed(batches(kinds[name], epoch)) for epoch in range(-1, epochs)][1:]  # the first one warms up
        rate, cpu, first = np.array(measured).T
        spread = f"{rate.min():.0f}-{rate.max():.0f}"
        print(f"{name:12}{np.median(rate):10.0f}{spread:>16}{np.median(cpu):9.3f}{np.median(first):9.2f}", flush=True)


def timed(dataset) -> tuple[float, float, float]:
    """Windows a second, CPU milliseconds a window, seconds to the first batch."""
    started, cpu, windows, first = time.perf_counter(), time.process_time(), 0, 0.0
    for batch in dataset:
        db = batch[0] if isinstance(batch, tuple) else batch
        windows += db.shape[0]
        first = first or time.perf_counter() - started
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return windows / seconds, 1000 * cpu / windows, first


def resident(prepared: Prepared, epochs: int, workers: int) -> list[float]:
    """Resident MiB before the first and after each epoch with all augmentations."""
    batches = epoch_of(prepared, workers)
    measured = [_resident_mebibytes()]
    for epoch in range(epochs):
        for _ in batches(preset("default"), epoch):
            pass
        measured.append(_resident_mebibytes())
    return measured


def _resident_mebibytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
