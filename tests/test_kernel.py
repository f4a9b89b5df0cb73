"""The Kaggle kernel: what is built runs there without a network, is pushed, is scored; and the data comes from Kaggle."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, lacking, run, tone
from kaggle_server import TOKEN, KaggleServer

from src import answering, audio, competition, kaggle_folders
from src.predictor import Prediction, Predictor
from src.soundscape import Rule

RATE = 32000
MIB = 1 << 20  # the client's unit: what breaks off loses what it had of one
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TEST_CSV = (
    "site,row_id,seconds,audio_id\n"
    "site_1,site_1_a_10,10.0,a\nsite_1,site_1_a_5,5.0,a\nsite_3,site_3_b,,b\n"
    "site_1,site_1_broken_5,5.0,broken\nsite_3,site_3_broken,,broken\n"
)
NOTHING = [(row, "nocall") for row in ("site_1_a_10", "site_1_a_5", "site_3_b", "site_1_broken_5", "site_3_broken")]
# Makes a package of the environment seem absent; one that is installed elsewhere is found.
LACKING = """
import sys
from importlib.machinery import PathFinder

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name == "ai_edge_litert":
            spec = PathFinder.find_spec(name, [each for each in sys.path if "site-packages" not in each])
            if spec is None:
                raise ModuleNotFoundError("No module named 'ai_edge_litert'")
            return spec

sys.meta_path.insert(0, Lacking())
"""


@pytest.fixture(scope="module")
def without_network() -> list[str]:
    """What to put before a command so that it has no network, not even loopback."""
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    lacking("this machine does not let a process be without a network (unshare -n, unshare -rn)")
    raise AssertionError


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """The wheels of what the kernel may lack, packed from what is installed here: no network is needed."""
    folder = tmp_path_factory.mktemp("wheels")
    for package in ("ai-edge-litert", "soundfile", "soxr"):
        installed = metadata.distribution(package)
        tag = installed.read_text("WHEEL").split("Tag: ")[-1].split()[0]
        path = folder / f"{package.replace('-', '_')}-{installed.version}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for file in installed.files:
                if "__pycache__" not in file.parts and ".." not in file.parts:
                    wheel.write(file.locate(), str(file))
    return folder


@pytest.fixture(scope="module")
def built(tone_bundle, wheels, tmp_path_factory) -> Path:
    """What build.py makes of the bundle that hears tones. Do not change it."""
    folder = tmp_path_factory.mktemp("built")
    done = build(tone_bundle.folder.parent, wheels, folder)
    assert done.returncode == 0, done.stderr
    return folder


def build(model: Path, wheels: Path, folder: Path, *more: object, env: dict | None = None):
    options = ["--python-versions", PYTHON, "--wheels", wheels, "-o", folder, *more]
    return run(
        "submissions/kernel/build.py", "--model", model, *options, env={"KAGGLE_USERNAME": "alice", **(env or {})}
    )


@pytest.fixture
def kaggle(built, tmp_path) -> Path:
    """A folder laid out like /kaggle, with test audio of known tones and one mp3 that is broken."""
    root = tmp_path / "kaggle"
    data = root / "input/birdsong-recognition"
    (data / "test_audio").mkdir(parents=True)
    (root / "working").mkdir()
    (root / "input/birdcall-code").symlink_to(built / "dataset")
    quiet = tone(5, RATE)
    soundfile.write(data / "test_audio/a.mp3", np.concatenate([tone(5, RATE, "low"), quiet]), RATE)
    soundfile.write(data / "test_audio/b.mp3", np.concatenate([quiet, tone(5, RATE, "mid", "high")]), RATE)
    (data / "test_audio/broken.mp3").write_bytes(b"not an mp3" * 99)
    (data / "test.csv").write_text(TEST_CSV)
    return root


def run_kernel(script: Path, root: Path, without_network: list[str], **env: str) -> subprocess.CompletedProcess:
    # From a folder and with a path on which this repository is not: its code must come from the dataset.
    environment = {**os.environ, "PYTHONPATH": "", "BIRDCALL_KAGGLE_ROOT": str(root), **env}
    command = [*without_network, sys.executable, str(script)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root / "working")


def answers(path: Path) -> list[tuple[str, str]]:
    table = pd.read_csv(path)
    assert list(table.columns) == ["row_id", "birds"]
    return list(zip(table.row_id, table.birds))


def test_two_folders_are_built_with_all_that_kaggle_needs(built, tone_bundle):
    kernel = json.loads((built / "kernel/kernel-metadata.json").read_text())
    assert kernel["id"] == "alice/birdcall-kernel"
    assert kernel["enable_internet"] is False
    assert kernel["is_private"] is True
    assert kernel["dataset_sources"] == ["alice/birdcall-code"]
    assert kernel["competition_sources"] == ["birdsong-recognition"]
    script = ROOT / "submissions/kernel/kernel.py"
    assert (built / "kernel" / kernel["code_file"]).read_bytes() == script.read_bytes()
    assert len(list((built / "kernel").iterdir())) == 2
    assert all(f'"{package}"' in script.read_text() for package in kaggle_folders.PACKAGES), "the script installs them"

    dataset = built / "dataset"
    described = json.loads((dataset / "dataset-metadata.json").read_text())
    assert described["id"] == "alice/birdcall-code"
    assert len(described["licenses"]) == 1
    (kept,) = (dataset / "bundles").iterdir()
    assert (kept / "model.tflite").read_bytes() == tone_bundle.graphs()[-1].read_bytes()
    assert (dataset / "code/src/answering.py").is_file()
    assert sorted(path.name.split("-")[0] for path in (dataset / "wheels").iterdir()) == [
        *("ai_edge_litert", "soundfile", "soxr")
    ]


def test_a_build_replaces_its_own_folders_only_and_needs_no_network_for_wheels_it_has(built, tone_bundle, tmp_path):
    folder = tmp_path / "built"
    shutil.copytree(built, folder)
    (folder / "dataset/code/src/stale.py").touch()
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "KAGGLE_USERNAME": ""}
    unreachable["KAGGLE_CONFIG_DIR"] = str(tmp_path)
    arguments = ["--model", tone_bundle.folder, "-o", folder, "--python-versions"]
    done = run("submissions/kernel/build.py", *arguments, PYTHON, env=unreachable)
    assert done.returncode == 0, done.stderr
    assert not (folder / "dataset/code/src/stale.py").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["dataset", "kernel"]
    assert "no Kaggle user is known" in done.stderr

    before = (folder / "dataset/birdcall.json").stat().st_mtime_ns
    done = run("submissions/kernel/build.py", *arguments, "3.99", env=unreachable)
    assert done.returncode == 1
    assert "no wheel of ai-edge-litert==" in done.stderr
    assert "for Python 3.99" in done.stderr
    assert "PyPI cannot be reached" in done.stderr
    assert "--wheels" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "dataset/birdcall.json").stat().st_mtime_ns == before

    (tmp_path / "mine/dataset").mkdir(parents=True)
    (tmp_path / "mine/dataset/thesis.txt").touch()
    done = run("submissions/kernel/build.py", "--model", tone_bundle.folder, "-o", tmp_path / "mine")
    assert done.returncode == 1
    assert "was not built by this command" in done.stderr
    assert (tmp_path / "mine/dataset/thesis.txt").is_file()


def test_the_kernel_answers_every_row_without_a_network_and_a_broken_file_costs_its_own(built, kaggle, without_network):
    done = run_kernel(built / "kernel/kernel.py", kaggle, without_network)
    assert done.returncode == 0, done.stderr
    assert answers(kaggle / "working/submission.csv") == [
        *(("site_1_a_10", "nocall"), ("site_1_a_5", "low"), ("site_3_b", "high mid")),
        *(("site_1_broken_5", "nocall"), ("site_3_broken", "nocall")),
    ]
    assert "broken.mp3: cannot be decoded" in done.stderr
    assert "its 2 rows are answered nocall" in done.stderr
    assert "150 files of 10 min would take" in done.stdout
    assert [path.name for path in (kaggle / "working").iterdir()] == ["submission.csv"]


def test_the_commit_run_says_that_there_is_no_test_audio_and_tries_the_examples(built, kaggle, without_network):
    data = kaggle / "input/birdsong-recognition"
    (data / "test_audio").rename(data / "example_test_audio")
    summary = "filename,birds,seconds,filename_seconds\na,low,5,a_5\na,,10,a_10\n"
    (data / "example_test_audio_summary.csv").write_text(summary)
    done = run_kernel(built / "kernel/kernel.py", kaggle, without_network)
    assert done.returncode == 0, done.stderr
    assert "test_audio: not there, so this is the commit run: all 5 rows are answered nocall" in done.stdout
    assert answers(kaggle / "working/submission.csv") == NOTHING
    assert answers(kaggle / "working/example_submission.csv") == [("a_5", "low"), ("a_10", "nocall")]
    assert "150 files of 10 min would take" in done.stdout

    shutil.rmtree(data / "example_test_audio")
    (kaggle / "working/submission.csv").unlink()
    done = run_kernel(built / "kernel/kernel.py", kaggle, without_network)
    assert done.returncode == 0, done.stderr
    assert answers(kaggle / "working/submission.csv") == NOTHING
    assert "no example audio either" in done.stdout


def test_bundles_of_different_sample_rates_vote_in_the_kernel_if_it_was_built_so(
    tone_bundle, tone_bundle_16k, wheels, kaggle, without_network, tmp_path
):
    """Two of three hear `high`, and one of them wants to be sure of `low`, as does the one that does not hear `high`."""
    models = []
    for name, of, thresholds in (
        ("a", tone_bundle, [0.5, 0.5, 0.5]), ("b", tone_bundle, [1.0, 0.5, 0.5]), ("c", tone_bundle_16k, [1.0, 0.5, 0.5]),
    ):  # fmt: skip
        models.append(Path(shutil.copytree(of.folder, tmp_path / name / "bundle")))
        path = models[-1] / "bundle.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "thresholds": thresholds}))
    more = [option for model in models[1:] for option in ("--model", model)]
    answered = {}
    for combine in ("mean", "votes"):
        done = build(models[0], wheels, tmp_path / combine, *more, "--combine", combine)
        assert done.returncode == 0, done.stderr
        (kaggle / "input/birdcall-code").unlink()
        (kaggle / "input/birdcall-code").symlink_to(tmp_path / combine / "dataset")
        done = run_kernel(tmp_path / combine / "kernel/kernel.py", kaggle, without_network)
        assert done.returncode == 0, done.stderr
        answered[combine] = dict(answers(kaggle / "working/submission.csv"))
    assert answered["votes"]["site_1_a_5"] == "nocall" and answered["votes"]["site_3_b"] == "high mid"
    assert answered["mean"]["site_1_a_5"] == "low", "the mean of three sure ones reaches the mean of their thresholds"


def test_no_file_is_started_after_the_limit_and_the_log_says_which(built, kaggle, without_network):
    done = run_kernel(built / "kernel/kernel.py", kaggle, without_network, BIRDCALL_KAGGLE_SECONDS="0")
    assert done.returncode == 0, done.stderr
    assert answers(kaggle / "working/submission.csv") == NOTHING
    assert (
        "time limit: 3 of 3 files were not started, and their 5 rows are answered nocall: a, b, broken" in done.stderr
    )


def test_a_file_is_not_started_that_would_pass_the_limit(tone_bundle, tmp_path, monkeypatch):
    class Clock:
        seconds = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.seconds

    def predict(core: Predictor, path: Path, hop_seconds: float) -> Prediction:
        Clock.seconds += {"a": 30.0, "b": 10.0, "c": 10.0}[path.stem]
        if path.stem == "b":
            raise audio.AudioError("is no audio")
        return Prediction(np.array([0.0]), np.array([[0.9, 0.1, 0.1]], np.float32), 5.0, 5.0, "")

    monkeypatch.setattr(answering, "time", Clock)
    monkeypatch.setattr(answering.predictor, "predict_file", predict)
    for name in "abcd":
        (tmp_path / f"{name}.mp3").touch()
    rows = competition.read_rows(write(tmp_path / "test.csv", "row_id,seconds,audio_id\n1,5,a\n2,5,b\n3,5,c\n4,5,d\n"))
    core = Predictor([tone_bundle])
    # c begins after 40 s: as slow as a it would end at 70 s.
    stopped = answering.answer_rows(core, rows, tmp_path, Rule(0.5), 5.0, deadline=70.0)
    assert stopped.birds == {"1": {"low"}, "2": set(), "3": set(), "4": set()}
    assert stopped.late == ["c", "d"]
    assert [Path(name).name for name, _ in stopped.faults] == ["b.mp3", "c.mp3", "d.mp3"]
    assert "its 1 rows are answered nocall" in stopped.faults[1][1]
    Clock.seconds = 0.0
    assert answering.answer_rows(core, rows[:3], tmp_path, Rule(0.5), 5.0, deadline=71.0).late == []
    Clock.seconds = 0.0
    assert answering.answer_rows(core, rows[:3], tmp_path, Rule(0.5), 5.0, deadline=math.inf).birds["3"] == {"low"}


def test_the_projection_is_the_measured_speed():
    measured = answering.Answers({"1": set()}, [], [], audio_seconds=1200.0, seconds=6.0)
    assert measured.projection() == (
        "answered 20.0 min of audio in 6.0 s; 150 files of 10 min would take 7.5 min of the kernel's 120"
    )
    assert "no speed was measured" in answering.Answers({}, [], [], 0.0, 1.0).projection()


def test_the_limit_must_be_a_number(built, kaggle, without_network):
    done = run_kernel(built / "kernel/kernel.py", kaggle, without_network, BIRDCALL_KAGGLE_SECONDS="2h")
    assert done.returncode == 1
    assert "BIRDCALL_KAGGLE_SECONDS=2h: must be a number of seconds" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("absent", ["birdcall-code", "birdsong-recognition"])
def test_what_is_not_attached_is_named(built, kaggle, without_network, absent):
    path = kaggle / "input" / absent
    path.rename(kaggle / absent)
    done = run_kernel(built / "kernel/kernel.py", kaggle, without_network)
    assert done.returncode == 1
    assert "is not attached to this kernel" in done.stderr
    assert "Traceback" not in done.stderr


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def server() -> Iterator[KaggleServer]:
    server = KaggleServer()
    yield server
    server.stop()


def at_home(server: KaggleServer, tmp_path: Path) -> dict:
    """The server's variables, in a home without credentials."""
    return {**server.env, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "KAGGLE_CONFIG_DIR": str(tmp_path)}


def push(folder: Path, server: KaggleServer, tmp_path: Path, *more: object, **env: str):
    options = ["--poll-seconds", "0.01", *more]
    return run("submissions/kernel/push.py", folder, *options, env={**at_home(server, tmp_path), **env})


def test_what_is_pushed_is_scored_pushed_again_and_runs(built, kaggle, server, without_network, tmp_path):
    folder = tmp_path / "built"
    shutil.copytree(built, folder)
    done = push(folder, server, tmp_path, "-m", "tones")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "public  0.567\nprivate 0.612\n"
    assert sorted(server.uploads) == ["birdcall.json", "bundles.zip", "code.zip", "wheels.zip"]
    (created,) = server.datasets["alice/birdcall-code"]
    assert created["isPrivate"] is True
    assert len(created["files"]) == 4
    (pushed,) = server.kernels["alice/birdcall-kernel"]
    assert not pushed.get("enableInternet", False)
    assert pushed["datasetDataSources"] == ["alice/birdcall-code"]
    (submitted,) = server.submissions
    assert (submitted["competitionName"], submitted["fileName"]) == ("birdsong-recognition", "submission.csv")
    assert (submitted["kernelOwner"], submitted["kernelSlug"]) == ("alice", "birdcall-kernel")
    assert (submitted["kernelVersion"], submitted["submissionDescription"]) == (1, "tones")

    server.fails.add("busy")
    done = push(folder, server, tmp_path, "--no-submit", "--user", "bobby")
    assert done.returncode == 1
    assert "Kaggle answered 503" in done.stderr
    assert "bobby/birdcall-code" not in server.datasets
    server.fails.add("blink")  # one answer while it waits, which must not end hours of waiting
    done = push(folder, server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "asked again" in done.stderr
    assert len(server.datasets["alice/birdcall-code"]) == 2
    assert server.submissions[0]["kernelVersion"] == 2

    # What was uploaded, as Kaggle lays it out, with the archives left as they are, in an image that lacks LiteRT.
    (kaggle / "input/birdcall-code").unlink()
    mounted = kaggle / "input/datasets/alice/birdcall-code"
    mounted.mkdir(parents=True)
    for name, content in server.uploads.items():
        (mounted / name).write_bytes(content)
    (kaggle / "input/competitions").mkdir()
    (kaggle / "input/birdsong-recognition").rename(kaggle / "input/competitions/birdsong-recognition")
    write(tmp_path / "sitecustomize.py", LACKING)
    script = write(tmp_path / "script.py", pushed["text"])
    done = run_kernel(script, kaggle, without_network, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "ai-edge-litert: not in this image" in done.stdout
    assert "soxr" not in done.stdout
    assert ("site_3_b", "high mid") in answers(kaggle / "working/submission.csv")


@pytest.mark.parametrize(
    ("fault", "sentences"),
    [
        ("kernel", ["the first line", "error: the last line", "failed (exit code 1)"]),
        ("dataset", ["the dataset alice/birdcall-code: Kaggle says failed"]),
        ("submission", ["a submission to birdsong-recognition failed: Notebook Timeout"]),
        ("upload", ["Upload unsuccessful: code.zip", "run the same command again"]),
    ],
)
def test_what_fails_at_kaggle_is_a_sentence_and_the_status_is_1(built, server, tmp_path, fault, sentences):
    folder = tmp_path / "built"
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("wheels"))
    server.fails.add(fault)
    done = push(folder, server, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    for sentence in sentences:
        assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert bool(server.submissions) == (fault == "submission")


def test_pushing_without_credentials_or_with_wrong_ones_or_nothing_built_says_what_to_do(built, server, tmp_path):
    for wrong in ({"KAGGLE_USERNAME": "", "KAGGLE_KEY": ""}, {"KAGGLE_KEY": "another"}):
        done = push(built, server, tmp_path, **wrong)
        assert done.returncode == 1
        assert "https://www.kaggle.com/settings/api" in done.stderr
        assert "Traceback" not in done.stderr
    done = push(tmp_path, server, tmp_path)
    assert done.returncode == 1
    assert "run python submissions/kernel/build.py" in done.stderr
    done = push(built, server, tmp_path, "--user", "Alice B")
    assert done.returncode == 1
    assert "--user Alice B: is no name of Kaggle's" in done.stderr
    done = push(built, server, tmp_path, BIRDCALL_KAGGLE_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "Kaggle cannot be reached" in done.stderr


def download(data: Path, server: KaggleServer, tmp_path: Path, *files: object, **env: str):
    command = [sys.executable, "-m", "src.competition", "download", "--data", str(data), *map(str, files)]
    environment = {**os.environ, **at_home(server, tmp_path), **env}
    server.asked.clear()
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.fixture
def files(server) -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    names = ["train.csv", "test.csv", "train_audio/aldfly/XC1.mp3", "train_audio/aldfly/XC 2.mp3"]
    server.files = {name: generator.bytes(50_000) for name in names}
    server.files["train.csv"] = generator.bytes(3 * MIB)
    return server.files


def held(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def gets(server: KaggleServer) -> list[str]:
    return [line for line in server.asked if line.startswith("GET ")]


def test_a_download_goes_on_where_it_broke_off_and_fetches_nothing_twice(server, files, tmp_path):
    data = tmp_path / "data"
    server.cut["train.csv"] = 2 * MIB + 9
    done = download(data, server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert held(data) == files
    assert f"GET train.csv bytes={2 * MIB}-" in server.asked
    assert "4 files" in done.stdout

    assert download(data, server, tmp_path).returncode == 0
    assert gets(server) == []
    (data / "test.csv").write_bytes(b"cut short")
    (data / "train_audio/aldfly/XC1.mp3").unlink()
    assert download(data, server, tmp_path, "train_audio/*/XC1.mp3").returncode == 0
    assert gets(server) == ["GET train_audio/aldfly/XC1.mp3"]
    assert download(data, server, tmp_path).returncode == 0
    assert gets(server) == ["GET test.csv"]
    assert held(data) == files


def test_a_killed_download_leaves_no_file_that_looks_whole_and_a_changed_one_is_fetched_anew(server, files, tmp_path):
    data = tmp_path / "data"
    partial = data / ".train.csv.part"
    for changed, ranges, expected in (
        (False, True, ["GET train.csv", "GET train.csv bytes=20000-"]),
        (True, True, ["GET train.csv"]),
        (False, False, ["GET train.csv"]),
    ):
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        server.ranges = True
        interrupted(partial, files["train.csv"][:20_000], server)
        assert not (data / "train.csv").exists()
        if changed:
            files["train.csv"] = bytes(40_000)
        server.ranges = ranges
        done = download(data, server, tmp_path, "train.csv")
        assert done.returncode == 0, done.stderr
        assert held(data) == {"train.csv": files["train.csv"]}
        assert gets(server) == expected


def interrupted(partial: Path, content: bytes, server: KaggleServer) -> None:
    """What a killed process leaves: the beginning, and the client's note of what it was the beginning of."""
    whole = server.files["train.csv"]
    partial.write_bytes(content)
    note = {"validator": f'"{hash(whole)}"', "size": len(whole)}
    partial.with_name(f"{partial.name}.kaggle-partial").write_text(json.dumps(note))


def test_many_files_come_as_one_archive_that_is_unpacked_and_deleted(server, files, tmp_path):
    data = tmp_path / "data"
    server.cut["birdsong-recognition.zip"] = 2 * MIB
    done = download(data, server, tmp_path, "--one-by-one", "3")
    assert done.returncode == 0, done.stderr
    assert held(data) == files
    assert gets(server) == [
        *("GET birdsong-recognition.zip", "GET birdsong-recognition.zip"),
        f"GET birdsong-recognition.zip bytes={2 * MIB}-",
    ]
    assert download(data, server, tmp_path, "--one-by-one", "0").returncode == 0
    assert gets(server) == []

    # What was killed while it unpacked, and an archive that the user has fetched, which stays.
    for name, stays in ((".birdsong-recognition.zip", False), ("birdsong-recognition.zip", True)):
        (data / "test.csv").unlink()
        (data / name).write_bytes(server.archive())
        assert download(data, server, tmp_path).returncode == 0
        assert gets(server) == []
        assert (data / name).is_file() == stays
        assert (data / "test.csv").read_bytes() == files["test.csv"]


def test_rules_that_were_not_accepted_and_missing_credentials_and_unknown_files_say_what_to_do(server, files, tmp_path):
    for arguments, env, sentence in (
        (["no.csv"], {}, "no.csv: birdsong-recognition has no such file; it has test.csv, train.csv, train_audio"),
        ([], {"KAGGLE_KEY": "another"}, "https://www.kaggle.com/settings/api"),
        ([], {"KAGGLE_USERNAME": "", "KAGGLE_KEY": ""}, "no Kaggle credentials"),
        ([], {}, "accept the competition's rules at https://www.kaggle.com/c/birdsong-recognition/rules"),
    ):
        server.fails.add("rules")
        done = download(tmp_path / "data", server, tmp_path, *arguments, **env)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/train.csv").exists()


def test_a_token_is_as_good_as_a_key_and_a_wrong_one_is_refused(server, files, tmp_path):
    nothing = {"KAGGLE_USERNAME": "", "KAGGLE_KEY": ""}
    done = download(tmp_path / "data", server, tmp_path, "test.csv", **nothing, KAGGLE_API_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/test.csv").read_bytes() == files["test.csv"]
    done = download(tmp_path / "data", server, tmp_path, "test.csv", **nothing, KAGGLE_API_TOKEN="wrong")
    assert done.returncode == 1
    assert "no Kaggle credentials, or none that Kaggle accepts" in done.stderr


def test_help_comes_without_pandas():
    command = [sys.executable, "-X", "importtime", "-m", "src.competition", "download", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "python -m src.competition download" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "pandas", "kaggle", "requests"}
