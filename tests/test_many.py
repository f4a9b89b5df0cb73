"""Several trainings at once: all folds by one command, and one training by several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run

from src import competition, folds, many
from src.errors import UserError

FAST = ["--model", "tiny", "--epochs", "1", "--steps-per-epoch", "4", "--batch-size", "16", "--workers", "1"]


def test_all_folds_are_trained_a_process_each_and_again_nothing_is_left_to_do(prepared_sample):
    recordings = competition.read_recordings(prepared_sample["data"])
    table = folds.make_folds(recordings, 2, alike=prepared_sample["prepared"].alike())
    folds.write_folds(prepared_sample["folder"] / "two.csv", table)
    base = ["--fold", "all", *FAST, "--data", prepared_sample["data"], "-o", "runs/every", "--jobs", 2]
    base += ["--folds", "two.csv"]
    done = run("train.py", *base, cwd=prepared_sample["folder"])
    assert done.returncode == 0, done.stderr
    assert "2 of 2 trained" in done.stdout
    folders = [prepared_sample["folder"] / f"runs/every/fold{fold}" for fold in range(2)]
    tables = [pd.read_parquet(folder / "oof.parquet") for folder in folders]
    assert [set(table.fold) for table in tables] == [{0}, {1}]
    assert all("window accuracy" in (folder / "train.log").read_text() for folder in folders)
    (folders[1] / "run.json").unlink()
    (folders[1] / "checkpoint_network.npz").write_bytes(b"damaged")
    again = run("train.py", *base, cwd=prepared_sample["folder"])
    assert again.returncode == 1
    assert "1 of 2 trained" in again.stdout
    assert again.stdout.count("is trained already with these settings") == 1
    assert "tiny fold 1: error: " in again.stdout


def test_what_is_passed_on_is_all_but_what_differs_between_them():
    own = ["--fold", "all", "--model", "b0", "b3", "-o", "runs/x", "--jobs=2"]
    others = ["--epochs", "3", "--image-size", "64", "96", "--freeze", "--learning-rate", "-1"]
    assert many.without([*own[:5], *others, *own[5:]]) == others


def test_two_models_of_one_name_would_share_a_folder_and_are_refused(prepared_sample, tmp_path):
    arguments = ["--fold", 0, "--model", "tiny", "tiny", "--data", prepared_sample["data"]]
    done = run("train.py", *arguments, cwd=prepared_sample["folder"])
    assert done.returncode == 1
    assert "two of them are called tiny" in done.stderr


def test_workers_without_a_cluster_are_told_how_to_name_one(prepared_sample, monkeypatch):
    from src import devices

    for config in ("", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}'):
        monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(UserError, match="needs the environment variable TF_CONFIG"):
            devices.start("multiworker")


def test_several_devices_of_one_machine_take_as_many_steps_as_one(prepared_sample, tmp_path):
    lines = (
        "import sys\n"
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "from src import devices\n"
        "devices.start = lambda *_: tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])\n"
        "import train\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", lines, "--fold", "0", *FAST, "--data", str(prepared_sample["data"])]
    command += ["-o", str(tmp_path / "mirrored"), "--strategy", "mirrored", "--epochs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=prepared_sample["folder"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    history = pd.read_csv(tmp_path / "mirrored/fold0/history.csv")
    assert history.learning_rate.iloc[-1] == pytest.approx(0, abs=1e-9), "the cosine came to its end"
    assert history.loss.iloc[0] > 0.1


def test_two_worker_processes_share_an_epoch_and_end_with_equal_weights(prepared_sample, tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\n"
        "import numpy as np\n"
        "import train\n"
        "from src import networks\n"
        "kept = networks.Network.fine_tune\n"
        "def fine_tune(self, *arguments):\n"
        "    logits = kept(self, *arguments)\n"
        "    np.savez(sys.argv[1], logits, *[np.asarray(variable) for variable in self.whole.variables])\n"
        "    return logits\n"
        "networks.Network.fine_tune = fine_tune\n"
        "sys.exit(train.main(sys.argv[2:]))\n"
    )
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second)]
    workers = []
    for index in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(driver), str(tmp_path / f"weights{index}.npz"), "--fold", "0", *FAST]
        command += ["--data", str(prepared_sample["data"]), "-o", "runs/shared", "--strategy", "multiworker"]
        log = open(tmp_path / f"worker{index}.log", "w")  # noqa: SIM115
        workers.append(
            subprocess.Popen(command, env=environment, cwd=prepared_sample["folder"], stdout=log, stderr=log)
        )
    statuses = [worker.wait(timeout=240) for worker in workers]
    told = "".join((tmp_path / f"worker{index}.log").read_text()[-3000:] for index in range(2))
    assert statuses == [0, 0], told
    assert "2 replicas" in told
    with np.load(tmp_path / "weights0.npz") as one, np.load(tmp_path / "weights1.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
        moved = [one[name] for name in one.files]
        assert all(np.isfinite(values).all() for values in moved)
    assert len(pd.read_csv(prepared_sample["folder"] / "runs/shared/fold0/history.csv")) == 1
    assert (prepared_sample["folder"] / "runs/shared/fold0/bundle/bundle.json").is_file()
