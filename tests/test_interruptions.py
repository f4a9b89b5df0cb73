"""A preparation that is killed, meets a full disk or a changed source: never twice, never half."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, lacking, run
from woods import RATE, contents, make_woods, prepare_arguments

from src.shard_files import ShardWriter, read_records


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """36 recordings of 6 s, two windows, of three species, in a folder a species."""
    return make_woods(tmp_path_factory.mktemp("data") / "woods", 36, 6.0)


def command(data: Path, folder: Path, *more: str) -> list[str]:
    return prepare_arguments(data, folder, "--augment", "pitch", "noise", "--jobs", "2", *more)


def windows_folder(folder: Path) -> Path:
    return next((folder / "p/woods").iterdir())


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run("prepare.py", *command(data, folder))
    assert done.returncode == 0, done.stderr
    return contents(windows_folder(folder))


def finished(folder: Path) -> set[str]:
    """The recordings that are done, in whole shards and in those under way."""
    return {record.outcome["filename"] for path in folder.rglob("*.jsonl") for record in read_records(path)[1]}


def test_killed_again_and_again_it_redoes_nothing_and_ends_with_the_same_bytes(data, undisturbed, tmp_path):
    copy = tmp_path / "copy/woods"
    shutil.copytree(data, copy, copy_function=shutil.copy2)
    arguments = [sys.executable, str(ROOT / "prepare.py"), *command(copy, tmp_path)]
    done_before: set[str] = set()
    for wanted in (3, 14, 25):
        process = subprocess.Popen(
            arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, cwd=ROOT
        )
        deadline = time.monotonic() + 120
        while len(finished(tmp_path)) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if wanted % 2:  # now all of its workers, now the main process only, which leaves them as orphans
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        assert not list(tmp_path.rglob("prepared.json"))
        assert not list(tmp_path.rglob("index.parquet"))
        time.sleep(0.3)
        done_now = finished(tmp_path)
        assert done_before <= done_now
        assert len(done_now) >= wanted
        done_before = done_now
        # What is finished is made unusable behind its back, without another size or time: redone, it would not be the same.
        for name in done_now:
            stat = (copy / name).stat()
            (copy / name).write_bytes(b"\0" * stat.st_size)
            os.utime(copy / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    last = run("prepare.py", *command(copy, tmp_path))
    assert last.returncode == 0, last.stderr
    now = contents(windows_folder(tmp_path))
    differing = [name for name in {*now, *undisturbed} if now.get(name) != undisturbed.get(name)]
    # These hold the times and places of the source files, which are copies here.
    assert all(name == "prepared.json" for name in differing), differing


def test_run_again_it_does_nothing_and_a_changed_and_a_deleted_source_are_all_that_is_redone(data, tmp_path):
    copy = tmp_path / "copy/woods"
    shutil.copytree(data, copy, copy_function=shutil.copy2)
    assert run("prepare.py", *command(copy, tmp_path)).returncode == 0
    times = {path: path.stat().st_mtime_ns for path in windows_folder(tmp_path).rglob("shard-*")}
    assert run("prepare.py", *command(copy, tmp_path)).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in windows_folder(tmp_path).rglob("shard-*")} == times
    before = read_index(tmp_path)
    for path in sorted(copy.rglob("*.flac")):
        stat = path.stat()
        if path.name == "r05.flac":
            soundfile.write(path, np.random.default_rng(9).normal(0, 0.05, 5 * RATE), RATE)
        elif path.name == "r07.flac":
            path.unlink()
        else:
            path.write_bytes(b"\0" * stat.st_size)  # redone, it would fail
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = run("prepare.py", *command(copy, tmp_path))
    assert done.returncode == 0, done.stderr
    after = read_index(tmp_path)
    assert set(before.filename) - set(after.filename) == {"b/r07.flac"}
    assert len(before[before.filename == "c/r05.flac"]) == 2 * 3
    assert len(after[after.filename == "c/r05.flac"]) == 1 * 3
    assert len(after) == len(before) - 2 * 3 - 3


def read_index(folder: Path):
    import pandas as pd

    return pd.read_parquet(windows_folder(folder) / "index.parquet")


FULL = """
set -e
mount -t tmpfs -o size={size} tmpfs {mount}
if {prepare} > {log} 2>&1; then echo "no error" >> {log}; fi
ls -lRa {mount} > {log}.files
cat {mount}/p/woods/*/shards/shard-*.jsonl > {log}.whole 2>/dev/null || true
mount -o remount,size=64m {mount}
{prepare} > {log}.again 2>&1
cp -r {mount}/p {out}
umount {mount}
"""


def test_on_a_full_disk_it_says_so_and_goes_on_when_there_is_room(data, undisturbed, tmp_path):
    mount, out, log = tmp_path / "mount", tmp_path / "out", tmp_path / "log"
    for folder in (mount, out):
        folder.mkdir()
    arguments = [sys.executable, str(ROOT / "prepare.py"), *command(data, mount)]
    script = FULL.format(size="5m", mount=mount, out=out, log=log, prepare=" ".join(arguments))
    can = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    namespace = ["unshare", "-m"] if can else ["unshare", "-rm"]
    if subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", str(mount)], capture_output=True).returncode:
        lacking("no right to mount a small tmpfs")
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr + log.read_text()
    said = log.read_text()
    assert "the disk is full; what was finished is kept: make room" in said
    assert "no error" not in said
    assert "Traceback" not in said
    assert "prepared.json" not in Path(f"{log}.files").read_text(), "what is not whole does not look whole"
    now = contents(windows_folder(tmp_path / "out"))
    assert {name for name in {*now, *undisturbed} if now.get(name) != undisturbed.get(name)} == set()


def test_a_shard_under_way_is_taken_up_after_its_last_good_recording(tmp_path):
    stem = tmp_path / "shard-00000"
    with ShardWriter(stem, ["v1"]) as writer:
        assert writer.take_up([["a"], ["b"], ["c"]]) == 0
        for name in "abc":
            writer.write(name.encode() * 5)
            writer.finish([name], {"filename": name}, [])
        writer.write(b"half of d")
    part = tmp_path / ".shard-00000.part.bin"
    content = bytearray(part.read_bytes())
    content[7] ^= 1  # in b: a page that never reached the disk
    part.write_bytes(bytes(content))
    with ShardWriter(stem, ["v1"]) as writer:
        assert writer.take_up([["a"], ["b"], ["c"]]) == 1
    assert part.read_bytes() == b"aaaaa"
    with ShardWriter(stem, ["v2"]) as writer:
        assert writer.take_up([["a"]]) == 0, "made by another version"


def test_a_last_line_that_was_cut_off_is_not_believed(tmp_path):
    stem = tmp_path / "shard-00000"
    with ShardWriter(stem, []) as writer:
        writer.take_up([])
        for name in "ab":
            writer.write(b"x" * 4)
            writer.finish([name], {"filename": name}, [])
    lines = tmp_path / ".shard-00000.part.jsonl"
    text = lines.read_text()
    for cut in range(len(text.splitlines()[0]) + 2, len(text)):
        lines.write_text(text[:cut])
        _, records = read_records(lines)
        names = [record.outcome["filename"] for record in records]
        assert names == ["a", "b"][: len(names)]
        for record in records:
            assert json.dumps(record.outcome)
    assert names == ["a", "b"], "all but the line's end"


def test_two_writers_of_one_shard_wait_for_each_other(tmp_path):
    lines = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from src.shard_files import ShardWriter\n"
        "with ShardWriter(Path(sys.argv[2]), ['v']) as writer:\n"
        "    done = writer.take_up([['a'], ['b']])\n"
        "    before = len(writer.published())\n"
        "    for name in ['a', 'b'][done:]:\n"
        "        writer.write(b'x' * 1000); time.sleep(0.3); writer.finish([name], {'filename': name}, [])\n"
        "    writer.publish()\n"
    )
    stem = tmp_path / "shard-00000"
    processes = [subprocess.Popen([sys.executable, "-c", lines, str(ROOT), str(stem)]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert stem.with_suffix(".bin").read_bytes() == b"x" * 2000
    assert [record.outcome["filename"] for record in read_records(stem.with_suffix(".jsonl"))[1]] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "shard-00000.bin", "shard-00000.jsonl"]


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_killed_while_it_is_published_a_shard_is_taken_up_whole(tmp_path, renamed):
    lines = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from src import shard_files\n"
        "kept, done = os.replace, []\n"
        "def replace(old, new):\n"
        "    if not str(new).endswith('.part.jsonl'):\n"
        f"        len(done) == {renamed} and os._exit(9)\n"
        "        done.append(new)\n"
        "    kept(old, new)\n"
        "os.replace = replace\n"
        "with shard_files.ShardWriter(Path(sys.argv[2]), ['v']) as writer:\n"
        "    for name in 'ab'[writer.take_up([['a'], ['b']]):]:\n"
        "        writer.write(b'x' * 1000); writer.finish([name], {'filename': name}, [])\n"
        "    writer.publish()\n"
    )
    stem = tmp_path / "shard-00000"
    killed = subprocess.run([sys.executable, "-c", lines, str(ROOT), str(stem)])
    assert killed.returncode == (9 if renamed < 2 else 0)
    with ShardWriter(stem, ["v"]) as writer:
        if renamed < 2:
            assert writer.take_up([["a"], ["b"]]) == 2
            writer.publish()
        else:
            assert sorted(writer.published()) == ['["a"]', '["b"]']
    assert stem.with_suffix(".bin").read_bytes() == b"x" * 2000


def test_a_name_with_an_odd_line_end_in_it_is_read_back(tmp_path):
    stem = tmp_path / "shard-00000"
    with ShardWriter(stem, []) as writer:
        writer.take_up([])
        for name in ("a\u2028b", "c\x85d", "\u00fc"):
            writer.write(b"x")
            writer.finish([name], {"filename": name}, [])
        writer.publish()
    records = read_records(stem.with_suffix(".jsonl"))[1]
    assert [record.made_of for record in records] == [["a\u2028b"], ["c\x85d"], ["\u00fc"]]


def test_workers_whose_run_was_killed_stop_after_the_recording_at_hand(data, tmp_path):
    arguments = [sys.executable, str(ROOT / "prepare.py"), *command(data, tmp_path, "--copies", "4")]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 120
    while len(finished(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    at_kill = len(finished(tmp_path))
    time.sleep(4)
    assert len(finished(tmp_path)) <= at_kill + 2
