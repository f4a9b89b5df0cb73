"""Prepared windows: what is made of each recording, the same bytes whoever makes them, never half."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run

from src import competition, preparation, shards
from src.audio import AudioError, AudioFile, file_windows
from src.errors import UserError
from src.recipe import preset
from src.spectrogram import log_mel, to_bytes
from src.workers import Workers


def is_odd(path: str) -> bool:
    """Whether a recording cannot be decoded, is cut short or is shorter than a second."""
    try:
        with AudioFile(Path(path)) as audio:
            list(audio.blocks())
            return bool(audio.fault) or audio.seconds_read < 1
    except AudioError:
        return True


def some_recordings(folder: Path, number: int = 40) -> pd.DataFrame:
    """Recordings of the small sample, the odd ones among them."""
    recordings = competition.read_recordings(folder)
    odd = recordings.path.map(is_odd)
    return pd.concat([recordings[odd], recordings[~odd]]).head(number).sort_values("filename", ignore_index=True)


@pytest.fixture(scope="module")
def recipe():
    return preset("default", augment=("shift", "pitch", "stretch", "noise"))


@pytest.fixture(scope="module")
def prepared(small_sample, recipe, tmp_path_factory) -> shards.Prepared:
    return preparation.prepare(some_recordings(small_sample), recipe, tmp_path_factory.mktemp("one") / "p")


def test_the_bytes_do_not_depend_on_the_number_of_jobs(small_sample, recipe, prepared, tmp_path):
    two = preparation.prepare(some_recordings(small_sample), recipe, tmp_path / "p", workers=Workers(2))
    names = sorted(str(path.relative_to(two.folder)) for path in two.folder.rglob("*") if path.is_file())
    assert len([name for name in names if name.endswith(".bin")]) == 2
    _, differing, errors = filecmp.cmpfiles(prepared.folder, two.folder, names, shallow=False)
    assert (differing, errors) == ([], [])


def test_every_window_has_each_copy_once_with_its_parent_and_drawn_parameters(prepared, recipe):
    index = prepared.index
    originals = index[index["transform"] == ""]
    assert len(index) == len(originals) * (1 + len(recipe.augment))
    assert (originals.window == originals.parent).all()
    for _, family in index.groupby("parent"):
        assert sorted(family["transform"]) == ["", "noise", "pitch", "shift", "stretch"]
        assert family[["filename", "channel", "start_seconds"]].drop_duplicates().shape[0] == 1
    pitch = index[index["transform"] == "pitch"].parameters.map(json.loads)
    assert all(abs(drawn["pitch"]["num_semitones"]) <= 2 for drawn in pitch)


def test_a_stored_window_is_the_log_mel_of_its_audio(prepared, small_sample, recipe):
    row = prepared.index[(prepared.index["transform"] == "") & (prepared.index.start_seconds == 5)].iloc[0]
    path = competition.read_recordings(small_sample).set_index("filename").path[row.filename]
    with AudioFile(Path(path)) as audio:
        windows = {window.start_seconds: window.samples[0] for window in file_windows(audio, recipe)}
    size = int(np.prod(recipe.image_shape))
    stored = np.fromfile(prepared.shard_path(row.shard), np.uint8, size, offset=row.row * size)
    expected = to_bytes(log_mel(windows[5.0], recipe), recipe)
    np.testing.assert_array_equal(stored.reshape(recipe.image_shape), expected)


def test_the_status_names_every_recording_and_why_one_failed(prepared, small_sample):
    status = prepared.status.set_index("filename")
    assert sorted(status.index) == sorted(some_recordings(small_sample).filename)
    failed = status[status.status == "failed"]
    assert len(failed) == 1
    assert failed.reason.iloc[0].startswith("cannot be decoded")
    truncated = status[status.reason.str.startswith("truncated")]
    assert len(truncated) == 1
    assert truncated.status.iloc[0] == "ok"
    assert truncated.windows.iloc[0] > 0


def test_the_same_audio_under_two_names_is_found_whatever_its_tags(real_data, tmp_path):
    first, other = sorted((real_data / "birds/train_audio").glob("*/*.mp3"))[:2]
    shutil.copy(first, tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(first.read_bytes() + b"TAG" + b"another title".ljust(125))
    shutil.copy(other, tmp_path / "c.mp3")
    table = competition.recordings_table(
        {"filename": name, "path": str(tmp_path / name), "ebird_code": "x"} for name in ("a.mp3", "b.mp3", "c.mp3")
    )
    made = preparation.prepare(table, preset("default", windows_per_recording=1), tmp_path / "p")
    assert made.alike() == [["a.mp3", "b.mp3"]]


def test_a_recording_shorter_than_a_window_is_one_padded_window(prepared):
    short = prepared.status[prepared.status.seconds.between(0.01, 1)]
    assert len(short) == 1  # the sample's recording of 0.3 s
    rows = prepared.index[prepared.index.filename == short.filename.iloc[0]]
    assert (rows[rows["transform"] == ""].audio_seconds - 0.3).abs().max() < 0.1


def test_silence_and_what_is_missing_cost_one_recording_each(tmp_path, recipe):
    import soundfile

    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "silent.wav", np.zeros(64000), 32000)
    soundfile.write(tmp_path / "noise.wav", generator.normal(0, 0.1, 64000), 32000)
    names = ["absent.wav", "noise.wav", "silent.wav"]
    table = competition.recordings_table(
        {"filename": n, "path": str(tmp_path / n), "ebird_code": code} for n, code in zip(names, "abc")
    )
    made = preparation.prepare(table, preset("default"), tmp_path / "p")
    assert list(zip(made.status.filename, made.status.status)) == [
        ("absent.wav", "failed"),
        ("noise.wav", "ok"),
        ("silent.wav", "skipped"),
    ]
    assert list(made.status.reason) == ["No such file or directory", "", "silent throughout"]
    with pytest.raises(UserError, match="no recording could be used"):
        preparation.prepare(table[:1], preset("default"), tmp_path / "q")


def test_what_is_finished_is_not_redone_and_what_changed_is(small_sample, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_sample, data)
    table = some_recordings(data, 60)
    folder = tmp_path / "p"
    first = preparation.prepare(table, preset("default"), folder)
    times = {path.name: path.stat().st_mtime_ns for path in (folder / "shards").glob("shard-*")}
    assert len(times) == 4 * 2  # four shards of two files

    # Killed while it was writing: a shard without its last file, and a temporary one left behind.
    (folder / "shards/shard-00001.jsonl").unlink()
    (folder / "shards/.shard-00001.part.bin").write_bytes(b"half")
    of_shard_2 = first.index.filename[first.index.shard == 2].iloc[0]
    changed = Path(table.path[table.filename == of_shard_2].iloc[0])
    changed.write_bytes(changed.read_bytes() + b"\0" * 10)

    second = preparation.prepare(some_recordings(data, 60), preset("default"), folder)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "shards").glob("shard-*")}
    assert sorted(after) == sorted(times)
    kept = {name for name in times if times[name] == after[name]}
    assert kept == {name for name in times if "00000" in name or "00003" in name}
    pd.testing.assert_frame_equal(first.index, second.index)


def test_a_recording_that_is_added_changes_its_own_shard_only(small_sample, tmp_path):
    table = some_recordings(small_sample, 60)
    folder = tmp_path / "p"
    preparation.prepare(table[:-1], preset("default"), folder)
    times = {path.name: path.stat().st_mtime_ns for path in (folder / "shards").glob("shard-*")}
    preparation.prepare(table, preset("default"), folder)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "shards").glob("shard-*")}
    assert len({name.split(".")[0] for name in times if times[name] != after[name]}) == 1


def test_a_folder_whose_preparation_was_interrupted_is_not_opened_with_the_old_labels(
    small_sample, tmp_path, monkeypatch
):
    table = some_recordings(small_sample, 60)
    folder = tmp_path / "p"
    preparation.prepare(table[:-1], preset("default"), folder)
    shards.open_prepared(folder)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "_make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(table, preset("default"), folder)
    with pytest.raises(UserError, match=r"no whole set of prepared windows there; run prepare.py"):
        shards.open_prepared(folder)


def test_a_shard_of_another_size_than_the_index_says_is_refused(small_sample, tmp_path):
    made = preparation.prepare(some_recordings(small_sample), preset("default"), tmp_path / "p")
    with open(made.shard_path(0), "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="not of the index's size"):
        shards.open_prepared(tmp_path / "p")


def test_two_data_folders_of_one_name_do_not_overwrite_each_other(small_sample, tmp_path):
    table = some_recordings(small_sample, 5)
    preparation.prepare(table, preset("default"), tmp_path / "p", source={"data": "a/birds"})
    with pytest.raises(UserError, match="a/birds, not from b/birds"):
        preparation.prepare(table, preset("default"), tmp_path / "p", source={"data": "b/birds"})


def test_labels_that_changed_since_are_noticed(small_sample, tmp_path):
    table = some_recordings(small_sample)
    made = preparation.prepare(table, preset("default"), tmp_path / "p")
    shards.check_labels(made, table)
    shards.check_labels(made, table[3:])  # backgrounds may lie elsewhere
    relabelled = table.assign(ebird_code=["other", *table.ebird_code[1:]])
    with pytest.raises(UserError, match=r"labels of 1 recordings.*run prepare\.py again"):
        shards.check_labels(made, relabelled)


def test_ctrl_c_ends_with_a_sentence_and_the_same_command_goes_on(small_sample, tmp_path):
    arguments = ["--data", str(small_sample), "--folds", str(tmp_path / "f.csv"), "--n-folds", "3", "--keep-going"]
    arguments += ["--augment", "pitch", "stretch", "--jobs", "1"]
    command = [sys.executable, str(ROOT / "prepare.py"), *arguments]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("shards/shard-*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shards/shard-*.jsonl")}
    assert done
    assert not list(tmp_path.rglob("prepared.json"))
    again = run("prepare.py", *arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())


def test_the_study_s_recipe_splits_stereo_and_cuts_ten_seconds_every_five(small_sample, tmp_path):
    table = some_recordings(small_sample)
    made = preparation.prepare(table, preset("study2020", augment=()), tmp_path / "p", workers=Workers(2))
    stereo = made.index[made.index.channel == 1].filename.unique()
    assert len(stereo) > 0
    for filename in stereo:
        rows = made.index[made.index.filename == filename]
        assert (
            rows[rows.channel == 0].start_seconds.to_numpy() == rows[rows.channel == 1].start_seconds.to_numpy()
        ).all()
    assert set(np.diff(sorted(made.index.start_seconds.unique()))) == {5.0}
    size = sum(path.stat().st_size for path in made.folder.glob("shards/*.bin"))
    assert size == len(made.index) * 224 * 625


def test_another_recipe_goes_to_another_folder():
    assert preset("default").prepared_id != preset("default", augment=("noise",)).prepared_id
    assert preset("default").prepared_id != preset("default", highpass_hz=200.0).prepared_id
    assert preset("default").prepared_id == preset("default", epochs=3, seed=5, mixup_probability=0.1).prepared_id


def test_the_script_prepares_names_what_failed_and_exits_with_1_unless_told_to_go_on(small_sample, tmp_path):
    arguments = ["--data", small_sample, "--folds", tmp_path / "folds.csv", "--n-folds", 3, "--jobs", 2]
    done = run("prepare.py", *arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "cannot be decoded" in done.stdout
    assert "1 recordings failed, the rest is ready; --keep-going accepts that" in done.stderr
    folder = tmp_path / "input/prepared/small" / preset("default").prepared_id
    assert (folder / "index.parquet").is_file()
    written = (tmp_path / "folds.csv").read_bytes()

    again = run("prepare.py", *arguments, "--keep-going", cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "folds.csv").read_bytes() == written
    other = run("prepare.py", *arguments, "--n-folds", 2, cwd=tmp_path)
    assert other.returncode == 1
    assert "has 3 folds; --new-folds draws 2 anew" in other.stderr
    anew = run("prepare.py", *arguments, "--keep-going", "--new-folds", "--seed", 3, cwd=tmp_path)
    assert anew.returncode == 0
    assert (tmp_path / "folds.csv").read_bytes() != written


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--recipe", "none"], "no recipe is called 'none'; there are default, study2020"),
        (["--stretch-fraction", "1.0"], "stretch_fraction must lie in [0, 1)"),
        (["--augment", "echo"], "augmentation 'echo' is not made of shift, pitch, stretch, noise, background"),
        (["--data", "nowhere"], "nowhere"),
        (["--highpass-hz", "20000"], "highpass_hz must lie in [0, 16000)"),
    ],
)
def test_a_user_s_mistake_is_a_sentence_and_no_traceback(small_sample, tmp_path, arguments, sentence):
    done = run("prepare.py", "--data", small_sample, "--folds", tmp_path / "f.csv", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
