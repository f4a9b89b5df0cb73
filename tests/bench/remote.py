"""An epoch of training batches from a bucket across the world against one from this disk.

    python tests/bench/remote.py --latency 0.15             # an epoch of the network "tiny"; 3 minutes on two cores
    python tests/bench/remote.py --latency 0.15 --reader    # reading alone, which no network keeps up with

A real S3 server on loopback (on the same cores) that waits before it answers each request. Prints the seconds of an epoch, from
when the first shard has come: from this disk, from the bucket with an empty cache, and from the bucket again.
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
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--windows", type=int, default=130, help="a shard")
    parser.add_argument(
        "--reader", action="store_true", help="read and augment only: the server must keep up with that"
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
    from src.recipe import changed, preset

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
    common = {"recipe": recipe, "labels": ("a", "b"), "index": index, "status": pd.DataFrame()}
    here = shards.Prepared(folder=folder / "p", **common)
    there = shards.Prepared(folder=remote_folder, **common, contents=("0",) * arguments.shards, cache=cache)
    server.latency(arguments.latency)
    arrived = []

    def noted(prepared):
        """The same windows, with a note of when the first shard has come."""

        class Noted(shards.Prepared):
            def local_shards(self, wanted):
                for path in super().local_shards(wanted):
                    arrived.append(time.perf_counter())
                    yield path

        return Noted(**{field: getattr(prepared, field) for field in prepared.__dataclass_fields__})

    keep, background = np.ones(len(index), bool), np.arange(len(index)) % 10 == 0
    targets = np.eye(2, dtype=np.float32)[np.arange(len(index)) % 2]
    steps = len(index) // recipe.batch_size
    model = None
    if not arguments.reader:
        model = a_step(changed(recipe, backbone="tiny", epochs=10), steps)
    seconds = {}
    order = [("this disk, to warm up", here, 0), ("this disk", here, 1), ("bucket, empty cache", there, 1)]
    order += [("bucket, again", there, 2), ("this disk, again", here, 2)]
    for name, prepared, epoch in order:
        arrived.clear()
        batches = datasets.training_batches(noted(prepared), keep, targets, background, recipe, epoch, steps)
        asked = time.perf_counter()
        for batch in batches:
            if model:
                model(*batch, np.ones(recipe.batch_size, np.float32))
        seconds[name] = time.perf_counter() - arrived[0]
        print(
            f"{name:24} {seconds[name]:6.2f} s after the first shard, which took {arrived[0] - asked:.2f} s", flush=True
        )
    local = (seconds["this disk"] + seconds["this disk, again"]) / 2
    what = "read" if arguments.reader else "trained on"
    print(f"{len(index)} windows {what}, {arguments.latency * 1000:.0f} ms before each answer")
    ratios = [seconds[name] / local for name in ("bucket, empty cache", "bucket, again")]
    print(f"empty cache: {ratios[0]:.2f} times this disk; again: {ratios[1]:.2f}")


def a_step(tiny, steps: int):
    """A function that trains the tiny network on one batch."""
    import tensorflow as tf

    from src import backbones, classifier, heads, optimizers, training

    body = classifier.body(tiny, backbones.get("tiny"))
    model = classifier.with_head(body, heads.build(("a", "b"), body.output.shape[1], tiny))
    variables = list(model.trainable_variables)
    optimizer = optimizers.build(tiny, optimizers.network_plan(tiny, steps * tiny.batch_size), variables, [])
    return training.step_of(model, optimizer, variables, tiny, tf.distribute.get_strategy())


if __name__ == "__main__":
    main()
