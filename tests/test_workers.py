"""Work on a cluster: the same bytes come out of it, and a worker that dies costs no recording."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run
from joblib import delayed
from woods import contents, make_woods, prepare_arguments

from src.errors import UserError
from src.shard_files import read_records
from src.workers import Workers


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """56 recordings of a window of three species: four shards."""
    return make_woods(tmp_path_factory.mktemp("data") / "woods", 56, 5.0)


def command(data: Path, folder: Path, *more: str) -> list[str]:
    return prepare_arguments(data, folder, "--augment", "pitch", *more)


@pytest.fixture(scope="module")
def by_loky(data, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("loky")
    done = run("prepare.py", *command(data, folder, "--jobs", "2"))
    assert done.returncode == 0, done.stderr
    made = contents(folder)
    assert len([name for name in made if name.endswith(".bin")]) == 4
    return made


@pytest.fixture
def cluster() -> Iterator[object]:
    """Two dask workers, each a process of this machine, and their scheduler."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def test_dask_makes_the_same_bytes_though_a_worker_is_killed_on_the_way(cluster, data, by_loky, tmp_path):
    arguments = command(data, tmp_path, "--backend", "dask", "--scheduler", cluster.scheduler_address)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "prepare.py"), *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if sum(len(read_records(path)[1]) for path in tmp_path.rglob("*.jsonl")) >= 5:
            break
        time.sleep(0.02)
    assert process.poll() is None, "there is work left"
    assert not list(tmp_path.rglob("prepared.json"))
    killed = next(iter(cluster.workers.values())).process.pid
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert contents(tmp_path) == by_loky


def test_ray_makes_the_same_bytes(data, by_loky, tmp_path):
    done = run(
        "prepare.py", *command(data, tmp_path, "--backend", "ray", "--jobs", "2"), env={"RAY_USAGE_STATS_ENABLED": "0"}
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == by_loky


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_scheduler_that_is_not_there_is_a_sentence(backend, data, tmp_path):
    arguments = command(data, tmp_path, "--backend", backend, "--scheduler", "127.0.0.1:9")
    done = run("prepare.py", *arguments)
    assert done.returncode == 1
    assert f"--scheduler 127.0.0.1:9: no {backend} scheduler answers there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scheduler_without_a_cluster_s_backend_is_a_sentence():
    with pytest.raises(UserError, match="--scheduler is for --backend dask or ray"):
        list(Workers(2, scheduler="tcp://10.0.0.1:8786").run([delayed(abs)(-1)]))
    with pytest.raises(UserError, match="--backend must be loky, dask, ray"):
        list(Workers(2, backend="slurm").run([delayed(abs)(-1)]))


def test_results_come_as_they_are_ready():
    assert sorted(Workers(2).run(delayed(abs)(-number) for number in range(5))) == [0, 1, 2, 3, 4]
