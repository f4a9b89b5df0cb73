"""An epoch of training batches from a bucket across the world against one from this disk.

    python tests/bench/remote.py --latency 0.15             # 2 minutes on two cores

A real S3 server on loopback that waits before it answers each request. Prints the seconds of an epoch from this disk, from the
bucket with an empty cache (from the first batch on, which is when the first shards have come), and from the bucket again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.15, help="seconds before each answer")
    parser.add_argument("--shards", type=int, default=120)
    parser.add_argument("--windows", type=int, default=130, help="a shard")
    parser.add_argument(
        "--plain", action="store_true", help="without augmentation: the fastest there is to keep up with"
    )
    arguments = parser.parse_args()
    from s3_server import S3Server

    server = S3Server()
    os.environ.update(server.env)
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(server, Path(folder), arguments)
    finally:
        server.stop()


def measure(server, folder: Path, arguments: argparse.Namespace) -> None:
    """Write shards here and there, then read them."""
    import numpy as np
    import pandas as pd

    from src import datasets, shards, storage
    from src.recipe import preset

    recipe = preset("default")
    generator = np.random.default_rng(0)
    rows = []
    remote_folder = storage.place("s3://bench/p")
    remote_folder.fs.mkdir("bench")
    for shard in range(arguments.shards):
        path = folder / "p/shards" / f"shard-{shard:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        generator.integers(60, 200, (arguments.windows, *recipe.image_shape), np.uint8).tofile(path)
        storage.upload(path, shards.shard_stem(remote_folder, shard).with_suffix(".bin"))
        rows += [{"window": len(rows) + row, "shard": shard, "row": row} for row in range(arguments.windows)]
    index = pd.DataFrame(rows)
    cache = shards.default_cache(folder / "cache", 20)
    common = {"recipe": recipe, "labels": ("a",), "index": index, "status": pd.DataFrame()}
    here = shards.Prepared(folder=folder / "p", **common)
    there = shards.Prepared(folder=remote_folder, **common, contents=("0",) * arguments.shards, cache=cache)
    server.latency(arguments.latency)
    seconds = {}
    order = [("this disk, to warm up", here, 0), ("this disk", here, 1), ("bucket, empty cache", there, 1)]
    order += [("bucket, again", there, 2), ("this disk, again", here, 2)]
    for name, prepared, epoch in order:
        keep = np.ones(len(index), bool)
        if arguments.plain:
            batches = datasets.plain_batches(prepared, keep, recipe.batch_size)
        else:
            targets, background = np.zeros((len(index), 1), np.float32), np.arange(len(index)) % 10 == 0
            steps = len(index) // recipe.batch_size
            batches = datasets.training_batches(prepared, keep, targets, background, recipe, epoch, steps)
        asked = time.perf_counter()
        first = 0.0
        for _ in batches:
            first = first or time.perf_counter()
        seconds[name] = time.perf_counter() - first
        print(f"{name:24} {seconds[name]:6.2f} s after the first batch, which took {first - asked:.2f} s", flush=True)
    local = (seconds["this disk"] + seconds["this disk, again"]) / 2
    print(f"{len(index)} windows, {arguments.latency * 1000:.0f} ms before each answer")
    ratios = [seconds[name] / local for name in ("bucket, empty cache", "bucket, again")]
    print(f"empty cache: {ratios[0]:.2f} times this disk; again: {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
