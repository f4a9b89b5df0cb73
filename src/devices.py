"""What training runs on: a processor or a GPU, several of them, or several machines.

    strategy = devices.start("")                # or "mirrored", "multiworker"; before anything else of TensorFlow
    share = devices.Share(0, 1, 32)             # which part of each batch a reader makes

Several machines run the same command, each with TF_CONFIG saying who all are and which of them it is, as TensorFlow's own
tf.distribute wants it; the first (the chief) writes the run's folder. They must see the same data and the same folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from src.errors import UserError
from src.recipe import Recipe

STRATEGIES = ("mirrored", "multiworker")
EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Share:
    """One reader's part of the training windows and of each batch: the `index`-th of `count`.

    batch_size: windows at once; a_step: so many batches of them a step, one for each device that the reader feeds
    """

    index: int
    count: int
    batch_size: int
    a_step: int = 1

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with the batch of this part, and random numbers of its own."""
        return replace(recipe, batch_size=self.batch_size, seed=recipe.seed + 7907 * self.index)


Batches = Callable[[int, Share], tf.data.Dataset]  # of an epoch


def start(strategy: str = "", mixed_precision: bool = False) -> tf.distribute.Strategy:
    """Prepare the devices; must be called before TensorFlow computes anything.

    strategy: "" for one device, "mirrored" for all GPUs of this machine, "multiworker" for what TF_CONFIG lists
    Raises UserError if TF_CONFIG is needed and is not there or makes no sense.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Taken as it is needed, instead of all at once: another run may share the device.
        tf.config.experimental.set_memory_growth(gpu, True)
    if mixed_precision and gpus:
        # By rewriting graphs, since a TF-Hub module's own is in float32 whatever policy Keras has.
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision": True})
    if mixed_precision and not gpus:
        print("TensorFlow sees no GPU: --mixed-precision changes nothing", file=sys.stderr)
    if not gpus:
        # The same sums in the same order, so that a resumed training ends with the very weights of an undisturbed one.
        tf.config.experimental.enable_op_determinism()
    if strategy == "mirrored":
        return tf.distribute.MirroredStrategy()
    if strategy == "multiworker":
        _check_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def describe(strategy: tf.distribute.Strategy) -> str:
    """What training runs on, for a person."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    here = (
        ", ".join(names) or "the CPU: TensorFlow sees no GPU (for NVIDIA's: pip install 'tensorflow[and-cuda]==2.21.0')"
    )
    replicas = strategy.num_replicas_in_sync
    return here if replicas == 1 else f"{replicas} replicas, here {here}"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run's folder."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def _check_cluster() -> None:
    try:
        described = json.loads(os.environ["TF_CONFIG"])
        workers, task = described["cluster"]["worker"], described["task"]
        ok = task["type"] == "worker" and 0 <= task["index"] < len(workers)
    except (KeyError, ValueError, TypeError):
        ok = False
    if not ok:
        raise UserError(
            "--strategy multiworker needs the environment variable TF_CONFIG, with all workers and which of them this is, as "
            f"{EXAMPLE}"
        )


def each_batch(strategy: tf.distribute.Strategy, batches: Batches, epoch: int, batch_size: int) -> Iterable:
    """One epoch's batches, one a step: each reader makes its own share of them.

    Raises UserError if the batch cannot be shared equally.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches(epoch, Share(0, 1, batch_size))
    if batch_size % replicas:
        shareable = batch_size // replicas * replicas or replicas
        raise UserError(f"--batch-size {batch_size} cannot be shared by {replicas} replicas; take {shareable}")

    def of_reader(context: tf.distribute.InputContext) -> tf.data.Dataset:
        size = context.get_per_replica_batch_size(batch_size)
        fed = context.num_replicas_in_sync // context.num_input_pipelines
        made = batches(epoch, Share(context.input_pipeline_id, context.num_input_pipelines, size, fed))
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return made.with_options(options)

    return strategy.distribute_datasets_from_function(of_reader)


def together(strategy: tf.distribute.Strategy) -> None:
    """Wait until all workers are here: one that leaves early looks like one that died."""
    if strategy.num_replicas_in_sync > 1:
        strategy.reduce("SUM", strategy.run(tf.function(lambda: tf.constant(1.0))), axis=None)


def agree(strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]) -> None:
    """Give all replicas the mean of what each has in these variables: the statistics of batch norm, which no gradient moves."""
    if strategy.num_replicas_in_sync == 1 or not variables:
        return

    def of_replica() -> None:
        means = tf.distribute.get_replica_context().all_reduce("MEAN", [tf.identity(each.value) for each in variables])
        for variable, mean in zip(variables, means):
            variable.assign(mean)

    strategy.run(tf.function(of_replica))


@contextmanager
def exact() -> Iterator[None]:
    """Compute on the processor in full precision, whatever training ran on: what is compared to the last digits."""
    shortened = tf.config.optimizer.get_experimental_options().get("auto_mixed_precision", False)
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": False})
    try:
        with tf.device("/CPU:0"):
            yield
    finally:
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision": shortened})


@contextmanager
def memory(batch_size: int) -> Iterator[None]:
    """Around what computes batches: being out of memory is a sentence that names the batch size to try."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        fix = f"try --batch-size {batch_size // 2}" if batch_size > 1 else "try a smaller --image-size"
        raise UserError(f"out of memory with batches of {batch_size} windows; {fix}") from error
