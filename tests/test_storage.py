"""Recordings and windows in an object store: a real S3 server on loopback, read and written as it must be across the world."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from s3_server import S3Server
from woods import make_woods

from src import datasets, layouts, paths, preparation, shards, storage
from src.errors import UserError
from src.recipe import preset
from src.shard_cache import ShardCache


@pytest.fixture(scope="module")
def server():
    served = S3Server()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def woods(tmp_path_factory) -> Path:
    """24 recordings of 6 s in a folder a species, one of them broken."""
    folder = make_woods(tmp_path_factory.mktemp("data") / "woods", 24, 6.0)
    (folder / "a/r00.flac").write_bytes(b"not audio")
    return folder


@pytest.fixture
def bucket(server, woods, monkeypatch, tmp_path):
    """A new bucket that holds the recordings; the environment says where it is."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{abs(hash(str(tmp_path))):x}"
    files = s3fs.S3FileSystem()
    files.mkdir(name)
    for path in sorted(woods.rglob("*.flac")):
        files.pipe_file(f"{name}/woods/{path.relative_to(woods).as_posix()}", path.read_bytes())
    yield name
    server.latency(0)
    s3fs.S3FileSystem.clear_instance_cache()


def stored(folder) -> dict[str, bytes]:
    return {name: storage.read_bytes(folder / name) for name in storage.listing(folder)}


def test_the_scripts_prepare_and_train_between_buckets_as_on_this_disk(bucket, server, woods, tmp_path):
    shared = ["--folds", tmp_path / "folds.csv"]
    local = run("prepare.py", "--data", woods, "--n-folds", 3, "--keep-going", *shared, cwd=tmp_path)
    assert local.returncode == 0, local.stderr
    remote = ["--data", f"s3://{bucket}/woods", "--prepared", f"s3://{bucket}/prepared"]
    done = run("prepare.py", *remote, "--keep-going", "--jobs", 2, *shared, env=server.env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "r00.flac: cannot be decoded" in done.stdout

    ours = paths.find_prepared(tmp_path / "input/prepared", woods)
    theirs = paths.find_prepared(storage.place(f"s3://{bucket}/prepared"), storage.place(f"s3://{bucket}/woods"))
    here, there = stored(ours), stored(theirs)
    assert set(here) - {"shards/.locks"} == set(there)
    for name in there:
        if name.endswith((".bin", ".parquet", ".csv")):
            assert here[name] == there[name], name
    assert not list((tmp_path / "cache/birdcall/staging").rglob("*.bin")), "what was uploaded does not stay here"

    trained = run(
        "train.py", "--fold", 0, "--model", "tiny", *remote, *shared, "--epochs", 1, "--cache-dir", tmp_path / "shards",
        env=server.env, cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs/tiny/fold0/bundle/model.tflite").is_file()
    assert sum(path.stat().st_size for path in (tmp_path / "shards").glob("[!.]*/*.bin")) == sum(
        len(content) for name, content in here.items() if name.endswith(".bin")
    )
    listed = run("prepare.py", "--list", "--prepared", f"s3://{bucket}/prepared", env=server.env, cwd=tmp_path)
    assert f"24 recordings, 3 species, from s3://{bucket}/woods" in listed.stdout
    shown = run("prepare.py", *remote, "--show", "r05", "-o", tmp_path / "r05.png", env=server.env, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


def prepare(bucket: str, prefix: str = "p") -> shards.Prepared:
    source = layouts.DataSource(data=f"s3://{bucket}/woods")
    folder = storage.place(f"s3://{bucket}/{prefix}")
    return preparation.prepare(layouts.read(source), preset("default"), folder, source.to_dict())


def test_a_recording_is_one_request_and_what_is_done_is_not_asked_for_again(bucket, server):
    server.requests()
    prepare(bucket)
    asked = server.requests()
    recordings = [request for request in asked if request.endswith(".flac")]
    assert len(recordings) == len(set(recordings)) == 24
    assert all(request.startswith("GET") for request in recordings)
    prepare(bucket)
    again = server.requests()
    assert not [request for request in again if ".flac" in request or ".bin" in request]
    assert len(again) < 20, "listings and shards, not recordings"


def test_a_recording_that_changed_on_the_server_is_noticed(bucket, woods):
    before = prepare(bucket)
    storage.upload(woods / "b/r01.flac", storage.place(f"s3://{bucket}/woods/c/r02.flac"))
    after = prepare(bucket)
    digest = [made.status.set_index("filename").digest for made in (before, after)]
    assert list(digest[0].index[digest[0] != digest[1]]) == ["c/r02.flac"]
    assert after.alike() == [["b/r01.flac", "c/r02.flac"]]


def test_training_reads_the_same_batches_from_a_bucket_a_shard_a_request_and_none_in_the_next_epoch(
    bucket, server, woods, tmp_path
):
    source = layouts.DataSource(data=str(woods))
    local = preparation.prepare(layouts.read(source), preset("default"), tmp_path / "p", source.to_dict())
    remote = prepare(bucket)
    keep = np.ones(len(local.index), bool)
    background = np.arange(len(keep)) % 5 == 0
    targets = np.eye(3, dtype=np.float32)[np.arange(len(keep)) % 3]

    def epoch(prepared, number):
        batches = datasets.training_batches(
            prepared, keep, targets, background, preset("default", batch_size=8), number, 5
        )
        return [(db.numpy(), target.numpy()) for db, target in batches]

    server.requests()
    for number in (0, 1):
        for (db, target), (same_db, same_target) in zip(epoch(local, number), epoch(remote, number)):
            np.testing.assert_array_equal(db, same_db)
            np.testing.assert_array_equal(target, same_target)
    asked = server.requests()
    n_shards = local.index.shard.nunique()
    assert len(asked) == n_shards, "windows and backgrounds share what is fetched"


@pytest.fixture
def many(bucket) -> tuple[list[str], list[str]]:
    """100 small files in the bucket: their URLs and names."""
    folder = storage.place(f"s3://{bucket}/many")
    urls = [f"s3://{bucket}/many/f{number:03d}.bin" for number in range(100)]
    for number, url in enumerate(urls):
        place = storage.place(url)
        place.fs.pipe_file(place.path, bytes([number]) * 1000)
    assert len(storage.listing(folder)) == 100
    return urls, [f"many/{url.rsplit('/', 1)[1]}" for url in urls]


def test_files_come_in_order_whole_and_fetched_ahead_of_the_reader(many, server, tmp_path):
    server.latency(0.1)
    server.most_at_once()
    cache = ShardCache(tmp_path / "c", 10**9)
    read = [path.read_bytes() for path in cache.in_order(*many)]
    assert read == [bytes([number]) * 1000 for number in range(100)]
    assert server.most_at_once() >= 8


def test_the_cache_is_bounded_and_the_least_recently_used_go_first(many, server, tmp_path):
    urls, names = many
    cache = ShardCache(tmp_path / "c", 60_000)
    most = 0
    for path in cache.in_order(urls, names):
        assert path.read_bytes()
        most = max(most, len(list((tmp_path / "c").glob("many/f*.bin"))))
    assert most <= 60 + 24, "of 1000 bytes each; what is under way comes on top"
    kept = {f"many/{path.name}" for path in (tmp_path / "c").glob("many/f*.bin")}
    assert names[-1] in kept
    assert names[0] not in kept
    server.requests()
    list(cache.in_order(urls[-10:], names[-10:]))
    assert server.requests() == []


def test_tensorflow_reads_through_a_cache_that_holds_little_more_than_what_is_ahead(many, tmp_path):
    import tensorflow as tf

    urls, names = many
    cache = ShardCache(tmp_path / "c", 30_000)
    files = tf.data.Dataset.from_generator(
        lambda: (str(path) for path in cache.in_order(urls, names)), output_signature=tf.TensorSpec((), tf.string)
    )
    records = files.interleave(lambda file: tf.data.FixedLengthRecordDataset(file, 1000), 8, num_parallel_calls=2)
    for _ in range(2):
        assert sorted(record[0] for record in records.as_numpy_iterator()) == list(range(100))


def test_a_server_that_comes_back_is_asked_again(many, tmp_path, monkeypatch):
    cache = ShardCache(tmp_path / "c", 10**9)

    def away(*_):
        raise UserError("the storage does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "download", away)
        with pytest.raises(UserError, match="does not answer"):
            list(cache.in_order(*many))
    assert len([path.read_bytes() for path in cache.in_order(*many)]) == 100


def test_readers_that_stop_early_do_not_disturb_others(many, server, tmp_path):
    server.latency(0.01)
    for round_ in range(4):
        cache = ShardCache(tmp_path / f"c{round_}", 10**9)
        read = []
        reader = threading.Thread(target=lambda: read.extend(p.read_bytes() for p in cache.in_order(*many)))  # noqa: B023
        reader.start()
        for _ in range(5):
            for _ in zip(cache.in_order(*many), range(2)):
                pass
        reader.join()
        assert len(read) == 100


def test_a_cache_too_small_to_read_ahead_is_a_sentence(many, tmp_path):
    with pytest.raises(UserError, match="give more with --cache-gb"):
        list(ShardCache(tmp_path / "c", 5000).in_order(*many))


def test_two_readers_at_once_fetch_each_file_once(many, server, tmp_path):
    server.requests()
    server.latency(0.02)
    cache = ShardCache(tmp_path / "c", 10**9)
    readers = [threading.Thread(target=lambda: list(cache.in_order(*many))) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(server.requests()) == 100


def test_a_reader_that_stops_early_leaves_nothing_under_way(many, server, tmp_path):
    cache = ShardCache(tmp_path / "c", 10**9)
    for _ in zip(cache.in_order(*many), range(3)):
        pass
    deadline = time.monotonic() + 10
    while cache._wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cache._wanted == {}
    assert [path.read_bytes()[0] for path in cache.in_order(*many)] == list(range(100))


def test_storage_options_say_where_the_server_is(bucket, server, woods, tmp_path):
    environment = {"AWS_ENDPOINT_URL": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "FSSPEC_S3": "{}"}
    options = []
    for option in (f"endpoint_url={server.url}", "key=test", "secret=test"):
        options += ["--storage-option", option]
    arguments = ["--data", f"s3://{bucket}/woods", "--folds", tmp_path / "f.csv", "--n-folds", 2, "--jobs", 2]
    done = run("prepare.py", *arguments, *options, "--keep-going", env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wrong = run("prepare.py", *arguments, "--storage-option", "endpoint", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "must be KEY=VALUE" in wrong.stderr


@pytest.mark.parametrize(
    ("data", "endpoint", "sentence"),
    [
        ("s3://nobodys/woods", None, "no such folder"),
        ("s3://nobodys/woods", "http://127.0.0.1:9", "the storage does not answer"),
        ("gopher://woods", None, "gopher"),
    ],
)
def test_a_bucket_or_server_that_is_not_there_is_a_sentence(bucket, server, tmp_path, data, endpoint, sentence):
    env = {**server.env, **({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})}
    done = run("prepare.py", "--data", data, "--folds", tmp_path / "f.csv", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_upload_that_was_killed_is_done_again_from_what_was_finished_here(bucket, server, woods, tmp_path):
    lines = (
        "import sys, runpy; from src import storage\n"
        "def upload(*_):\n    import os; os._exit(9)\n"
        "storage.upload = upload\n"
        f"sys.argv = ['prepare.py', *{['--data', f's3://{bucket}/woods', '--prepared', f's3://{bucket}/k']!r},"
        f" '--jobs', '1', '--n-folds', '2', '--keep-going', '--folds', {str(tmp_path / 'f.csv')!r}]\n"
        f"runpy.run_path({str(ROOT / 'prepare.py')!r}, run_name='__main__')\n"
    )
    environment = {**os.environ, **server.env, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", lines], env=environment, cwd=tmp_path, capture_output=True)
    assert killed.returncode == 9
    assert not storage.place(f"s3://{bucket}/k").exists()
    server.requests()
    lines = lines.replace("storage.upload = upload\n", "")
    again = subprocess.run([sys.executable, "-c", lines], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len([request for request in server.requests() if request.endswith(".flac")]) < 24


def test_a_mounted_folder_and_a_local_one_are_plain_paths():
    assert isinstance(storage.place("input/birds"), Path)
    assert storage.name_of(Path("input/birds/")) == "birds"
    assert storage.name_of(storage.place("s3://bucket/birds/")) == "birds"
    assert storage.absolute("s3://bucket/x") == "s3://bucket/x"
    assert storage.absolute("x") == str(Path("x").resolve())


def test_workers_of_another_process_know_the_options(monkeypatch):
    monkeypatch.delenv("FSSPEC_S3", raising=False)
    lines = (
        "import os, json; from joblib import delayed; from src import storage; from src.workers import Workers\n"
        "storage.configure(['endpoint_url=http://e', 'anon=true'])\n"
        "print(*Workers(2).run(delayed(os.environ.get)('FSSPEC_S3') for _ in range(2)), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT)
    for line in done.stdout.splitlines():
        assert json.loads(line) == {"endpoint_url": "http://e", "anon": True}
    assert len(done.stdout.splitlines()) == 2, done.stderr
