"""predict.py on many files: awkward ones cost themselves only, what became of each is said, and a run that dies goes on."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, lacking, run, tone

import predict
from src import batch, recording_files
from src.batch import Question
from src.parts import Part, Parts
from src.recording_files import Recording
from src.status import FAILED, OK, Outcome
from src.workers import Workers

RATE = 32000
ODD_NAME = "a b\n\N{BIRD}\t$x_1$.wav"


def answer(tone_bundle, *arguments: object) -> int:
    """predict.py in this process, which is quicker than to start it: its exit status."""
    return predict.main(["--model", str(tone_bundle.folder), *map(str, arguments)])


def table(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run has written, but for its parts."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".parts" not in str(path.relative_to(folder)))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def awkward(folder: Path) -> None:
    """Everything that has been met in folders of recordings, and some more."""
    low, generator = tone(6, RATE, "low"), np.random.default_rng(0)
    (folder / "empty.wav").touch()
    (folder / "garbage.flac").write_bytes(generator.bytes(5000))
    (folder / "text.mp3").write_text("not a song\n" * 100)
    soundfile.write(folder / "header.wav", low[:0], RATE)
    for name in ("cut.wav", "cut.flac", "cut.mp3"):
        soundfile.write(folder / name, tone(20, RATE, "low", "mid"), RATE)
    soundfile.write(folder / "cut24.wav", tone(20, RATE, "low", "mid"), RATE, "PCM_24", format="WAVEX")
    for name in ("cut.rf64", "cut.w64", "cut.aiff", "cut.au", "cut.ogg"):
        soundfile.write(folder / name, tone(20, RATE, "low", "mid"), RATE)
    soundfile.write(folder / "cut.opus", tone(20, 48000, "low", "mid"), 48000, "OPUS", format="OGG")
    for path in folder.glob("cut*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    soundfile.write(folder / "99991231_235955.wav", low, RATE)
    soundfile.write(folder / "sample.wav", low[:1], RATE)
    soundfile.write(folder / "short.wav", low[: int(0.3 * RATE)], RATE)
    soundfile.write(folder / "silence.wav", 0 * low, RATE)
    soundfile.write(folder / "square.wav", np.sign(tone(6, RATE, "low")), RATE)
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(low)) % 1000, low, np.nan), RATE, "FLOAT")
    soundfile.write(folder / "8k.wav", tone(6, 8000, "low"), 8000)
    soundfile.write(folder / "192k.wav", tone(6, 192000, "low"), 192000)
    soundfile.write(folder / "8channels.wav", np.stack([low] * 8, axis=1), RATE)
    soundfile.write(folder / "24bit.wav", low, RATE, "PCM_24")
    soundfile.write(folder / "float.wav", low, RATE, "FLOAT")
    soundfile.write(folder / "call.opus", tone(6, 48000, "low"), 48000, "OPUS", format="OGG")
    soundfile.write(folder / "flac_in.wav", low, RATE, format="FLAC")
    (folder / "call.m4a").write_bytes(
        bytes.fromhex("0000001c667479704d344120000000004d3441206d70343269736f6d") + bytes(99)
    )
    soundfile.write(folder / ODD_NAME, low, RATE)
    soundfile.write(os.fsencode(folder) + b"/no_utf8_\xff.wav", low, RATE, format="WAV")
    soundfile.write(folder / ("n" * 245 + ".wav"), low, RATE)
    soundfile.write(folder / "same.wav", low, RATE)
    soundfile.write(folder / "same.flac", tone(6, RATE, "high"), RATE)
    (folder / "deeper.wav").mkdir()
    soundfile.write(folder / "deeper.wav/same.wav", tone(6, RATE, "mid"), RATE)
    soundfile.write(folder / "_hidden.wav", low, RATE)
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "again").symlink_to(".")
    (folder / "notes.txt").write_text("rain")
    (folder / "._same.wav").write_bytes(b"\0\5\x16\7")
    os.mkfifo(folder / "pipe.wav")


@pytest.fixture(scope="module")
def judged(tone_bundle, tmp_path_factory) -> dict:
    """All awkward inputs answered by one command: its exit status, its tables, what it wrote."""
    folder, made = tmp_path_factory.mktemp("forest"), tmp_path_factory.mktemp("made")
    awkward(folder)
    (made / "notes").mkdir()
    (made / "notes/notes.txt").write_text("no audio")
    done = run(
        "predict.py", "--model", tone_bundle.folder, folder, folder / "gone.wav", made / "notes", "-o", made / "d.csv",
        *("--raven", made / "raven", "--audacity", made / "audacity", "--parquet", made / "parquet"),
        *("--clips", made / "clips", "--plot", made / "plots"),
    )  # fmt: skip
    status = {row["file"].removeprefix(f"{folder}/"): row for row in table(made / "status.csv")}
    found = Counter((row["file"].removeprefix(f"{folder}/"), row["species"]) for row in table(made / "d.csv"))
    return {"done": done, "folder": folder, "made": made, "status": status, "found": found}


LOW = {"low": 2}  # windows


@pytest.mark.parametrize(
    ("name", "status", "seconds", "reason", "found"),
    [
        ("empty.wav", "failed", 0, "is an empty file", {}),
        ("garbage.flac", "failed", 0, "cannot be decoded", {}),
        ("text.mp3", "failed", 0, "cannot be decoded: not audio", {}),
        ("header.wav", "failed", 0, "holds no audio", {}),
        ("cut.wav", "truncated", 10, "truncated: 10.0 s of 20.0 s could be read", {"low": 2, "mid": 2}),
        ("cut.flac", "truncated", 10, "", {"low": 2, "mid": 2}),
        ("cut.mp3", "truncated", 10, "of 20.0 s could be read", {"low": 2, "mid": 2}),
        ("cut24.wav", "truncated", 10, "truncated: 10.0 s of 20.0 s could be read", {"low": 2, "mid": 2}),
        ("cut.rf64", "truncated", 10, "truncated: 10.0 s of 20.0 s could be read", {"low": 2, "mid": 2}),
        ("cut.w64", "truncated", 10, "truncated: its end is missing", {"low": 2, "mid": 2}),
        ("cut.aiff", "truncated", 10, "truncated: its end is missing", {"low": 2, "mid": 2}),
        ("cut.au", "truncated", 10, "truncated: its end is missing", {"low": 2, "mid": 2}),
        ("cut.ogg", "truncated", None, "truncated: its end is missing", None),
        ("cut.opus", "truncated", None, "truncated: its end is missing", None),
        ("99991231_235955.wav", "ok", 6, "", LOW),
        ("sample.wav", "ok", 0, "", {}),
        ("short.wav", "ok", 0.3, "", {}),
        ("silence.wav", "ok", 6, "", {}),
        ("square.wav", "ok", 6, "", {"low": 2, "mid": 2, "high": 2}),  # a square wave has harmonics
        ("nan.wav", "truncated", 6, "holds samples that are not numbers, taken as silence", None),
        ("8k.wav", "ok", 6, "", LOW),
        ("192k.wav", "ok", 6, "", LOW),
        ("8channels.wav", "ok", 6, "", LOW),
        ("24bit.wav", "ok", 6, "", LOW),
        ("float.wav", "ok", 6, "", LOW),
        ("call.opus", "ok", 6, "", LOW),
        ("flac_in.wav", "ok", 6, "", LOW),
        ("call.m4a", "failed", 0, "a format that libsndfile does not read; convert it to FLAC", {}),
        (ODD_NAME, "ok", 6, "", LOW),
        ("no_utf8_\\xff.wav", "ok", 6, "", LOW),
        ("n" * 245 + ".wav", "ok", 6, "", LOW),
        ("same.wav", "ok", 6, "", LOW),
        ("same.flac", "ok", 6, "", {"high": 2}),
        ("deeper.wav/same.wav", "ok", 6, "", {"mid": 2}),
        ("_hidden.wav", "ok", 6, "", LOW),
        ("loop.wav", "failed", 0, "symbolic links", {}),
        ("dangling.wav", "failed", 0, "No such file or directory", {}),
        ("gone.wav", "failed", 0, "No such file or directory", {}),
        ("pipe.wav", "failed", 0, "is an empty file", {}),
    ],
)
def test_an_awkward_file_is_told_by_name_and_costs_only_itself(judged, name, status, seconds, reason, found):
    row = judged["status"][name]
    assert row["status"] == status
    if seconds is not None:
        assert float(row["seconds"]) == pytest.approx(seconds, abs=0.6)
    assert (reason in row["reason"]) if reason else (row["reason"] == "") == (status == "ok")
    assert all(letter not in row["reason"] for letter in "\n\t")
    if found is not None:
        windows = {species: number for (file, species), number in judged["found"].items() if file == name}
        # A last window of one second in six is a fifth full: whether it is heard is the model's affair.
        assert set(windows) == set(found)
        assert all(1 <= windows[species] <= number for species, number in found.items())


def test_the_end_says_how_many_failed_and_names_them_and_what_is_passed_over(judged):
    done, status = judged["done"], judged["status"]
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    counts = Counter(row["status"] for row in status.values())
    assert (
        f"{len(status)} recordings: {counts['ok']} ok, {counts['truncated']} truncated, {counts['failed']} failed"
        in (done.stderr)
    )
    assert "2 files are no audio by their names and are passed over (.txt, .wav)" in done.stderr
    assert f"{judged['folder']}/again: was walked already under another name; passed over" in done.stderr
    assert status[str(judged["made"] / "notes")]["reason"].startswith("holds no audio files (")
    assert len(status) == len(set(status)) == 40


def test_tables_clips_and_pictures_of_files_alike_in_name_never_meet(judged):
    made = judged["made"]
    for folder, suffix in (
        ("raven", ".selections.txt"),
        ("audacity", ".labels.txt"),
        ("parquet", ".parquet"),
        ("plots", ".png"),
    ):
        names = [path for path in (made / folder).rglob("*") if path.is_file()]
        assert len(names) == 30, folder  # all but those that failed
        for name in ("same.wav", "same.flac", "deeper.wav/same.wav"):
            assert (made / folder / judged["folder"].name / f"{name}{suffix}").is_file()
    assert len([path for path in (made / "clips").rglob("*.wav") if path.is_file()]) == sum(judged["found"].values())
    whole = pd.read_parquet(made / "parquet")
    assert whole.file.nunique() == 30, "readers pass over files that begin with an underscore"
    assert np.isfinite(whole[["low", "mid", "high"]].to_numpy()).all()


def test_every_format_that_libsndfile_reads_is_found_in_a_folder(tone_bundle, tmp_path):
    folder = tmp_path / "forest"
    folder.mkdir()
    written = 0
    for kind in set(soundfile.available_formats()) - {"RAW"}:  # which has no header: nobody could tell its rate
        for subtype in soundfile.available_subtypes(kind):
            try:
                soundfile.write(folder / f"{kind}.{kind.lower()}", tone(1, 8000, "low"), 8000, subtype, format=kind)
            except soundfile.LibsndfileError:
                continue
            written += 1
            break
    (folder / "analysis.mat").write_bytes(b"MATLAB 5.0 MAT-file, but no sound" + bytes(200))
    answer(tone_bundle, folder, "-o", tmp_path / "d.csv")
    assert written >= 20
    assert [row["status"] for row in table(tmp_path / "status.csv")] == ["ok"] * written


def test_what_may_not_be_read_is_said_and_costs_only_itself(tone_bundle, tmp_path):
    as_others = []
    if os.geteuid() == 0:  # root may read everything, unless it gives that up
        as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None:
            lacking("no setpriv (util-linux), and root may read everything")
    folder = tmp_path / "forest"
    (folder / "shut").mkdir(parents=True)
    for name in ("shut/a.wav", "b.wav", "c.wav"):
        soundfile.write(folder / name, tone(1, 8000, "low"), 8000)
    (folder / "b.wav").chmod(0)
    (folder / "shut").chmod(0)
    command = [*as_others, sys.executable, "predict.py", "--model", str(tone_bundle.folder), str(folder)]
    done = subprocess.run([*command, "-o", str(tmp_path / "d.csv")], capture_output=True, text=True, cwd=ROOT)
    (folder / "shut").chmod(0o700)
    assert done.returncode == 1
    status = {Path(row["file"]).name: row for row in table(tmp_path / "status.csv")}
    assert {name: row["status"] for name, row in status.items()} == {"b.wav": "failed", "c.wav": "ok", "shut": "failed"}
    assert "Permission denied" in status["b.wav"]["reason"]
    assert status["shut"]["reason"] == "cannot be listed: Permission denied"


@pytest.fixture(scope="module")
def woods(tmp_path_factory) -> Path:
    """Eight recordings of half a minute, and one that is cut short."""
    folder = tmp_path_factory.mktemp("data") / "woods"
    (folder / "site").mkdir(parents=True)
    for number in range(8):
        calls = [tone(3, RATE, ("low", "mid", "high")[(number + place) % 3]) for place in range(10)]
        soundfile.write(folder / f"site/2023051{number}_043000.wav", np.concatenate(calls), RATE)
    soundfile.write(folder / "cut.wav", tone(20, RATE, "low"), RATE)
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:900_000])
    return folder


def wanted(made: Path, *more: object) -> list:
    """The command for all outputs, to be given in the folder that woods/ lies in: no path is in what it writes."""
    folders = [option for name in ("raven", "audacity", "parquet", "clips") for option in (f"--{name}", made / name)]
    return ["woods", "-o", made / "d.csv", *folders, *more]


@pytest.fixture(scope="module")
def undisturbed(tone_bundle, woods, tmp_path_factory) -> dict[str, bytes]:
    """What one process writes, all at once."""
    made = tmp_path_factory.mktemp("undisturbed")
    with contextlib.chdir(woods.parent):
        assert answer(tone_bundle, *wanted(made)) == 1, "one recording is cut short"
    assert len(contents(made)) > 9 * 3 + 2
    return contents(made)


def spoiled(folder: Path, names: list[str]) -> None:
    """Files made unusable behind our back, with the size and the time they had: read again, they would fail."""
    for name in names:
        stat = (folder / name).stat()
        (folder / name).write_bytes(bytes(stat.st_size))
        os.utime(folder / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_the_same_command_goes_on_and_ends_as_if_nothing_had_been(
    tone_bundle, woods, undisturbed, tmp_path, how
):
    made, copy = tmp_path / "made", tmp_path / "woods"
    shutil.copytree(woods, copy, copy_function=shutil.copy2)
    command = [sys.executable, str(ROOT / "predict.py"), "--model", str(tone_bundle.folder)]
    command += map(str, wanted(made, "--jobs", 2))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(list(made.rglob("[!.]*.jsonl"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert not (made / "d.csv").exists()
    assert not (made / "status.csv").exists()
    if how == signal.SIGINT:
        assert "run the same command again to go on" in errors
        assert "Traceback" not in errors
    parts = Parts(made / "d.csv.parts", "")
    ended = [one for one in recording_files.find([copy]) if parts.path(one).exists()]
    assert 3 <= len(ended) < 9
    spoiled(copy, [os.path.relpath(one.path, copy) for one in ended])
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 1, again.stderr
    assert contents(made) == undisturbed


def test_two_processes_write_the_same_bytes_as_one(tone_bundle, woods, undisturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(woods.parent)
    assert answer(tone_bundle, *wanted(tmp_path, "--jobs", 2)) == 1
    assert contents(tmp_path) == undisturbed


def test_a_changed_recording_threshold_or_model_is_answered_anew_and_nothing_else(tone_bundle, woods, tmp_path):
    copy = tmp_path / "woods"
    shutil.copytree(woods, copy, copy_function=shutil.copy2)
    names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*.wav"))
    options = [copy, "-o", tmp_path / "d.csv", "--clips", tmp_path / "clips"]
    answer(tone_bundle, *options)
    before, clips = table(tmp_path / "d.csv"), len(list((tmp_path / "clips").rglob("*.wav")))
    assert clips == len(before)
    spoiled(copy, names[:-1])
    soundfile.write(copy / names[-1], tone(5, RATE, "mid"), RATE)
    answer(tone_bundle, *options)
    after = table(tmp_path / "d.csv")
    unchanged = [row for row in before if not row["file"].endswith(names[-1])]
    assert [row for row in after if not row["file"].endswith(names[-1])] == unchanged
    assert [row["species"] for row in after if row["file"].endswith(names[-1])] == ["mid"]
    assert len(list((tmp_path / "clips").rglob("*.wav"))) == len(after), "clips of what the file was are gone"
    # A lower threshold wants every file again, and all but one are no longer readable.
    assert answer(tone_bundle, *options, "--threshold", 0.2) == 1
    assert Counter(row["status"] for row in table(tmp_path / "status.csv")) == {"failed": 8, "ok": 1}
    assert {
        Path(path).name[: len("20230517_043000.wav")] for path in contents(tmp_path) if path.startswith("clips")
    } == {Path(names[-1]).name}
    other = shutil.copytree(tone_bundle.folder, tmp_path / "other")
    text = (other / "bundle.json").read_text().replace('"threshold": 0.5', '"threshold": 0.25')
    (other / "bundle.json").write_text(text)
    assert Question.of([tone_bundle], 1).digest == Question.of([tone_bundle], 2).digest
    from src import bundle

    digests = {
        Question.of([one], 1, threshold, hop).digest
        for one in (tone_bundle, bundle.load(other)) for threshold in (None, 0.3) for hop in (5.0, 2.5)
    }  # fmt: skip
    assert len(digests) == 8
    more = [{"combine": "votes"}, {"given": {"neighbours": 0.2}}, {"allowed": ["low"]}, {"precision": "float16"}, {}]
    assert len({Question.of([tone_bundle], **one).digest for one in more}) == 5


def test_what_was_deleted_of_a_finished_run_is_made_again_without_asking_the_model(
    tone_bundle, woods, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.chdir(woods.parent)
    answer(tone_bundle, *wanted(tmp_path))
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    for path in [*tmp_path.rglob("*.selections.txt"), *list((tmp_path / "clips").rglob("*.wav"))[::2]]:
        path.unlink()
    answer(tone_bundle, *wanted(tmp_path))
    assert contents(tmp_path) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")} == parts


def test_a_finished_recording_that_can_no_longer_be_read_costs_only_itself(tone_bundle, woods, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(woods, tmp_path / "woods", copy_function=shutil.copy2)
    answer(tone_bundle, "woods", "-o", "d.csv")
    first = table(tmp_path / "d.csv")[0]["file"]
    spoiled(tmp_path, [first])
    assert answer(tone_bundle, "woods", "-o", "d.csv", "--clips", "clips") == 1
    status = {row["file"]: row["status"] for row in table(tmp_path / "status.csv")}
    assert status[first] == "failed"
    assert list(status.values()).count("ok") >= 6
    assert {row["file"] for row in table(tmp_path / "d.csv")} == {name for name in status if status[name] != "failed"}


def test_what_is_made_of_two_folders_with_recordings_of_one_name_lies_apart(tone_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for day, name in (("monday", "low"), ("tuesday", "high")):
        (tmp_path / day).mkdir()
        soundfile.write(tmp_path / day / "20230514_043000.wav", tone(6, RATE, name), RATE)
        answer(tone_bundle, day, "-o", f"{day}.csv", "--clips", "clips", "--raven", "raven")
    clips = sorted(path.relative_to(tmp_path / "clips").parts[:2] for path in (tmp_path / "clips").rglob("*.wav"))
    assert set(clips) == {("low", "monday"), ("high", "tuesday")}
    assert len(list((tmp_path / "raven").rglob("*.txt"))) == 2


@pytest.mark.parametrize("output", ["--clips", "--parquet"])
def test_a_full_disk_ends_the_run_with_a_sentence_and_is_no_recording_s_fault(tone_bundle, woods, tmp_path, output):
    full = tmp_path / "full"
    full.mkdir()
    lines = (
        f"mount -t tmpfs -o size={'300k' if output == '--clips' else '16k'} tmpfs {full} && python=$1 && shift && "
        '"$python" predict.py "$@"'
    )
    apart = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        lacking("this machine does not let a process mount a small disk (unshare -m, unshare -rm)")
    arguments = ["--model", tone_bundle.folder, woods, "-o", tmp_path / "d.csv", output, full, "--threshold", "0"]
    command = [*apart, "bash", "-c", lines, "bash", sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "No space left on device; what was finished is kept: make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "d.csv").exists()


@dataclass(frozen=True)
class Deadly:
    """A task that dies as a process does when memory runs out or a decoder breaks, over some of the recordings."""

    always: str
    once: str
    marks: str

    def analyse(self, recording: Recording, part: Part) -> Outcome:
        time.sleep(0.05)
        name, mark = Path(recording.path).name, Path(self.marks, Path(recording.path).name)
        if name == self.always or (name == self.once and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        part.write([os.getpid()])
        return Outcome(recording.shown, OK, 1.0)

    def lacks(self, recording: Recording, parts: Parts) -> bool:
        return False

    def complete(self, recording: Recording, parts: Parts) -> bool:
        return True


def test_a_worker_that_is_killed_costs_at_most_what_it_had_at_hand(tmp_path, capsys):
    (tmp_path / "forest").mkdir()
    for number in range(12):
        (tmp_path / f"forest/{number}.wav").write_bytes(bytes(1))
    recordings = recording_files.find([tmp_path / "forest"])
    parts = Parts(tmp_path / "parts", "digest")
    batch.analyse(Deadly("3.wav", "7.wav", str(tmp_path)), recordings, parts, Workers(2))
    outcomes = {Path(one.path).name: batch.outcome_of(one, parts) for one in recordings}
    assert [name for name, outcome in outcomes.items() if outcome.status == FAILED] == ["3.wav"]
    assert "was killed, twice" in outcomes["3.wav"].reason
    assert "a worker was killed" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.begun"))


@dataclass(frozen=True)
class Loading:
    """A task that tells how often this process has loaded the model."""

    question: Question

    def analyse(self, recording: Recording, part: Part) -> Outcome:
        self.question.core()
        part.write([os.getpid(), batch._core.cache_info().misses])
        return Outcome(recording.shown, OK, 1.0)

    lacks, complete = Deadly.lacks, Deadly.complete


def test_a_process_loads_the_model_once_whatever_it_reads(tone_bundle, woods, tmp_path):
    parts = Parts(tmp_path, "digest")
    recordings = recording_files.find([woods])
    batch.analyse(Loading(Question.of([tone_bundle], 1)), recordings, parts, Workers(2))
    told = [line for one in recordings for line in parts.lines(one)]
    assert len(told) == 9
    assert {misses for _, misses in told} == {1}
    assert os.getpid() not in {process for process, _ in told}


def test_a_dask_cluster_writes_the_same_bytes(tone_bundle, woods, undisturbed, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.chdir(woods.parent)
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        more = ["--backend", "dask", "--scheduler", cluster.scheduler_address]
        assert answer(tone_bundle, *wanted(tmp_path, *more)) == 1
    assert contents(tmp_path) == undisturbed


def test_rows_are_answered_by_two_processes_and_a_killed_run_goes_on(tone_bundle, woods, tmp_path):
    audio = shutil.copytree(woods, tmp_path / "audio", copy_function=shutil.copy2)
    rows = [(f"2023051{number}_043000", end) for number in range(8) for end in (30, 5, 10)]
    (tmp_path / "test.csv").write_text(
        "row_id,audio_id,seconds\n" + "".join(f"r_{name}_{end},{name},{end}\n" for name, end in rows) + "r_cut,cut,\n"
    )
    options = ["--test-csv", tmp_path / "test.csv", "--test-audio", audio / "site", "-o", tmp_path / "s.csv"]
    (audio / "cut.wav").rename(audio / "site/cut.wav")
    assert answer(tone_bundle, *options, "--jobs", 2) == 1
    first = (tmp_path / "s.csv").read_bytes()
    answered = {row["row_id"]: row["birds"] for row in table(tmp_path / "s.csv")}
    assert list(answered) == [f"r_{name}_{end}" for name, end in rows] + ["r_cut"], "unsorted rows keep their order"
    assert answered["r_20230510_043000_5"] == "low mid"  # 3 s and 2 s
    assert answered["r_cut"] == "low", "a row without an end is the whole file"
    status = {Path(row["file"]).name: row for row in table(tmp_path / "status.csv")}
    assert Counter(row["status"] for row in status.values()) == {"ok": 8, "truncated": 1}
    spoiled(audio, [f"site/{name}" for name in status])
    assert answer(tone_bundle, *options) == 1
    assert (tmp_path / "s.csv").read_bytes() == first


def test_a_row_that_is_named_twice_is_a_sentence(tone_bundle, tmp_path):
    (tmp_path / "test.csv").write_text("row_id,audio_id,seconds\na_5,a,5\nb_5,b,5\na_5,a,5\n")
    done = run(
        "predict.py", "--model", tone_bundle.folder, "--test-csv", tmp_path / "test.csv", "-o", tmp_path / "s.csv"
    )
    assert done.returncode == 1
    assert "names the row a_5 more than once" in done.stderr
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["woods", "-o", "status.csv"], "status.csv: is the status table's name; give another with --status FILE"),
        (["woods", "--clips", "woods"], "--clips woods: lies in woods"),
        (["woods", "--clips", "woods/clips"], "--clips woods/clips: lies in woods"),
        (["woods", "--raven", "woods/cut.wav"], "woods/cut.wav: cannot be written"),
        (["woods", "--jobs", "0"], "--jobs must be 1 or more, or -1"),
        (["woods", "--utc-offset", "-400"], "--utc-offset is in hours"),
        (["woods", "--scheduler", "tcp://127.0.0.1:9"], "--scheduler is for --backend dask or ray"),
        (["--test-csv", "test.csv", "--raven", "tables"], "--raven is for recordings, not for --test-csv"),
        (["--test-csv", "test.csv", "-o", "test.csv"], "test.csv: is the table of rows to answer"),
    ],
)
def test_a_user_s_mistake_is_a_sentence_before_any_work(
    tone_bundle, woods, tmp_path, monkeypatch, arguments, sentence, capsys
):
    from src.errors import UserError

    (tmp_path / "woods").symlink_to(woods)
    monkeypatch.chdir(tmp_path)
    try:
        answer(tone_bundle, *arguments)
        told = ""
    except UserError as error:
        told = str(error)
    except SystemExit:
        told = capsys.readouterr().err
    assert sentence in told
    assert not list(tmp_path.rglob("*.jsonl"))


def test_memory_does_not_grow_with_the_number_of_files_or_their_detections(tone_bundle, tmp_path):
    """The greatest memory of the whole process, on 5 files and on 200, every window of which is a detection of all."""
    peaks = []
    for number in (5, 200):
        folder = tmp_path / str(number)
        folder.mkdir()
        soundfile.write(folder / "0.wav", tone(1, 8000, "low"), 8000)
        for copy in range(1, number):
            shutil.copyfile(folder / "0.wav", folder / f"{copy}.wav")
        lines = (
            "import resource, subprocess, sys\n"
            f"subprocess.run([sys.executable, 'predict.py', '--model', {str(tone_bundle.folder)!r}, {str(folder)!r}, "
            f"'-o', {str(tmp_path / 'd.csv')!r}, '--threshold', '0', '--overlap', '4.9'], check=True, capture_output=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        )
        done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 8  # MiB
