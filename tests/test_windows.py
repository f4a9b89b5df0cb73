"""One recording: which of its windows are kept and under which labels, and what bad input costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from src import windows
from src.augment import Clips, find_clips
from src.competition import recordings_table
from src.errors import UserError
from src.recipe import preset

RATE = 32000
PLAIN = preset("default", windows_per_recording=0, quiet_share=0.0)


def entry(path: Path, **more: object) -> dict:
    row = {"filename": path.name, "path": str(path), "ebird_code": "brovir", "source": "s", **more}
    return recordings_table([row]).to_dict("records")[0]


def prepare(path: Path, recipe=PLAIN, clips: Clips | None = None, **more: object) -> tuple[dict, list[dict], list]:
    images = []
    outcome, rows = windows.prepare_recording(entry(path, **more), recipe, clips or Clips(), images.append)
    assert len(rows) == len(images) == outcome["windows"]
    return outcome, rows, images


def song(seconds: float, level: float = 0.2) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE)) / RATE
    return level * np.sin(2 * np.pi * (3000 + 800 * np.sin(2 * np.pi * 4 * time_s)) * time_s) * (time_s % 0.5 < 0.25)


def recording(path: Path, sung: dict[float, float], seconds: float = 40.0, rate: int = RATE) -> Path:
    """Hiss with two seconds of song at the given times, at the given levels."""
    waveform = np.random.default_rng(0).normal(0, 0.002, round(seconds * RATE))
    for start, level in sung.items():
        first = round(start * RATE)
        waveform[first : first + 2 * RATE] += song(2.0, level)
    soundfile.write(path, waveform, rate)
    return path


def test_the_windows_that_call_are_kept_and_the_quietest_as_nocall(tmp_path):
    path = recording(tmp_path / "r.wav", {6.0: 0.2, 21.0: 0.2, 31.0: 0.05})
    recipe = preset("default", windows_per_recording=2, quiet_share=0.25)
    _, rows, _ = prepare(path, recipe, secondary="cincro")
    kept = {row["start_seconds"]: (row["ebird_code"], row["secondary"]) for row in rows}
    assert {start for start, label in kept.items() if label == ("brovir", "cincro")} == {5.0, 20.0}
    quiet = {start: label for start, label in kept.items() if start not in (5.0, 20.0)}
    assert len(quiet) == 2
    assert 30.0 not in quiet
    assert set(quiet.values()) == {("nocall", "brovir cincro")}, "the bird may be there, too soft to stand out"
    assert all(row["call_score"] > 5 for row in rows if row["ebird_code"] == "brovir")


def test_all_windows_of_a_recording_without_birds_are_kept(tmp_path):
    recipe = preset("default", windows_per_recording=2, quiet_share=0.25)
    _, rows, _ = prepare(recording(tmp_path / "r.wav", {}), recipe, ebird_code="nocall")
    assert len(rows) == 8
    assert {row["ebird_code"] for row in rows} == {"nocall"}


def test_timed_labels_label_windows_by_their_times(tmp_path):
    path = recording(tmp_path / "r.wav", {}, 30.0)
    events = [
        [1.0, 2.0, "a"],
        [1.5, 4.5, "b"],
        [9.9, 12.0, "a"],
        [16.0, 17.0, "?"],
        [21.0, 22.0, "?"],
        [23.0, 24.0, "c"],
    ]
    _, rows, _ = prepare(path, preset("default", windows_per_recording=1), events=json.dumps(events))
    labels = {row["start_seconds"]: (row["ebird_code"], row["others"]) for row in rows}
    assert labels == {
        0.0: ("b", "a"),  # b lasts longer
        # 5.0 holds a tenth of a second of a, too little to hear it by: neither a nor nocall
        10.0: ("a", ""),
        # 15.0 holds only what is no class: neither bird nor nocall
        20.0: ("c", ""),
        25.0: ("nocall", ""),
    }


def test_a_recording_that_was_listened_to_and_has_no_label_is_nocall(tmp_path):
    _, rows, _ = prepare(recording(tmp_path / "r.wav", {}, 10.0), events="[]", ebird_code="nocall")
    assert [row["ebird_code"] for row in rows] == ["nocall", "nocall"]


@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 30), st.sampled_from("abc?")), max_size=6), st.integers(0, 11))
def test_a_window_has_a_label_just_if_an_event_of_it_reaches_far_enough_into_the_window(drawn, number):
    events = [[start, start + length, code] for start, length, code in drawn]
    cut = windows._Cut(5.0 * number, 5.0, (1.0,))
    label = windows._timed_label(cut, events)
    heard, touched = set(), False
    for start, end, code in events:
        inside = min(end, cut.start_seconds + 5) - max(start, cut.start_seconds)
        point = start == end and cut.start_seconds <= start < cut.start_seconds + 5
        if point or (inside > 0 and inside >= min(0.2, (end - start) / 2)):
            heard.add(code)
        touched |= point or inside > 0
    if heard - {"?"}:
        assert {label.ebird_code, *label.others.split()} == heard - {"?"}
    elif touched:
        assert label is None
    else:
        assert label.ebird_code == "nocall"


@pytest.fixture(scope="module")
def noises(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("noises")
    generator = np.random.default_rng(1)
    for number in range(3):
        soundfile.write(folder / f"n{number}.wav", generator.normal(0, 0.05 * (number + 1), 3 * RATE), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "broken.mp3").write_bytes(b"not audio at all" * 100)
    return folder


def test_backgrounds_that_cannot_be_used_are_named_and_the_others_used(noises, tmp_path):
    clips, faults = find_clips(noises, PLAIN)
    assert clips.names == ("n0.wav", "n1.wav", "n2.wav")
    assert set(faults) == {"broken.mp3", "silent.wav"}
    assert faults["silent.wav"] == "silent throughout"
    with pytest.raises(UserError, match="holds no recording"):
        find_clips(tmp_path, PLAIN)


def test_a_background_is_mixed_in_at_the_ratio_that_is_written_beside_it(noises, tmp_path):
    from src.augment import augment, rms

    clips, _ = find_clips(noises, PLAIN)
    recipe = preset("default", augment=("background",), background=clips.digest, snr_db=(0.0, 15.0))
    waveform = song(5.0).astype(np.float32)
    seen = []
    for copy in range(20):
        mixed, parameters = augment(waveform, "background", recipe, f"copy {copy}", clips)
        drawn = parameters["background"]
        assert 20 * np.log10(rms(waveform) / rms(mixed - waveform)) == pytest.approx(drawn["snr_db"], abs=0.01)
        seen.append((drawn["clip"], drawn["snr_db"]))
    assert {name for name, _ in seen} == set(clips.names)
    assert 0 <= min(snr for _, snr in seen) < 4
    assert 11 < max(snr for _, snr in seen) <= 15
    _, rows, _ = prepare(recording(tmp_path / "r.wav", {1.0: 0.2}, 5.0), recipe, clips)
    assert [row["transform"] for row in rows] == ["", "background"]
    assert rows[1]["background"] in clips.names
    assert json.loads(rows[1]["parameters"])["background"]["clip"] == rows[1]["background"]


def test_copies_are_made_of_kept_windows_only_and_combinations_apply_all_their_transforms(tmp_path):
    path = recording(tmp_path / "r.wav", {6.0: 0.2, 21.0: 0.2})
    recipe = preset("default", windows_per_recording=2, quiet_share=0.0, augment=("shift+noise", "pitch"), copies=2)
    _, rows, images = prepare(path, recipe)
    assert len(rows) == 2 * (1 + 2 * 2)
    for parent in {row["parent"] for row in rows}:
        family = [row for row in rows if row["parent"] == parent]
        assert [row["transform"] for row in family] == ["", "shift+noise", "shift+noise", "pitch", "pitch"]
        assert set(json.loads(family[1]["parameters"])) == {"shift", "noise"}
    assert len({image.tobytes() for image in images}) == len(images)


# What is wrong with a file, and what is said of it.


def written(path: Path, waveform: np.ndarray, rate: int, **options: str) -> Path:
    soundfile.write(path, waveform, rate, **options)
    return path


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (192000, 1), (44100, 8)])
def test_any_rate_and_number_of_channels_is_used(tmp_path, rate, channels):
    noise = np.random.default_rng(0).normal(0, 0.1, (rate * 6, channels))
    outcome, rows, _ = prepare(written(tmp_path / "r.wav", noise, rate))
    assert (outcome["status"], outcome["reason"]) == ("ok", "")
    assert outcome["seconds"] == pytest.approx(6)
    assert [row["start_seconds"] for row in rows] == [0.0, 5.0]


def test_eight_channels_split_are_eight_clips(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (44100 * 5, 8))
    _, rows, images = prepare(written(tmp_path / "r.wav", noise, 44100), preset("default", channels="split"))
    assert [row["channel"] for row in rows] == list(range(8))
    assert len({image.tobytes() for image in images}) == 8


def test_a_file_with_the_wrong_extension_is_read_by_its_content(tmp_path, real_data):
    mp3 = sorted((real_data / "birds/train_audio").glob("*/*.mp3"))[0]
    shutil.copy(mp3, tmp_path / "r.wav")
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 5)
    written(tmp_path / "true.wav", noise, RATE).rename(tmp_path / "r.mp3")
    for name in ("r.wav", "r.mp3"):
        assert prepare(tmp_path / name)[0]["status"] == "ok", name


def test_samples_that_are_not_numbers_are_silence_and_said(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 5)
    noise[1000:2000] = np.nan
    outcome, rows, images = prepare(written(tmp_path / "r.wav", noise, RATE, subtype="FLOAT"))
    assert outcome["status"] == "ok"
    assert outcome["reason"] == "holds samples that are not numbers, taken as silence"
    assert len(rows) == 1
    assert images[0].max() > 0


def test_a_truncated_file_is_used_as_far_as_it_goes_and_flagged(tmp_path, real_data):
    soundfile.write(tmp_path / "whole.flac", np.random.default_rng(0).normal(0, 0.1, RATE * 30), RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[: -(10**6)])
    outcome, rows, _ = prepare(tmp_path / "cut.flac")
    assert outcome["status"] == "ok"
    assert outcome["reason"].startswith(("truncated", "broken after"))
    assert 0 < len(rows) < 6


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp3", b"", "is an empty file"),
        ("text.mp3", b"This is a letter, not a song.\n" * 200, "cannot be decoded"),
        ("random.ogg", bytes(range(256)) * 50, "cannot be decoded"),
        ("header.wav", b"RIFF\x24\x00\x00\x00WAVE", "cannot be decoded"),
        ("phone.m4a", b"\0\0\0 ftypM4A ", "convert it to FLAC"),
        ("folder.mp3", None, "is a folder"),
    ],
)
def test_what_cannot_be_decoded_fails_and_says_why(tmp_path, name, content, reason):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    outcome, rows, _ = prepare(path)
    assert outcome["status"] == "failed"
    assert reason in outcome["reason"]
    assert rows == []


def test_a_file_without_a_single_frame_fails(tmp_path):
    outcome, _, _ = prepare(written(tmp_path / "r.wav", np.zeros(0), RATE))
    assert (outcome["status"], outcome["reason"]) == ("failed", "holds no audio")


def test_a_silent_file_is_skipped(tmp_path):
    outcome, rows, _ = prepare(
        written(tmp_path / "r.wav", np.zeros(RATE * 7), RATE), preset("default", augment=("noise",))
    )
    assert (outcome["status"], outcome["reason"], rows) == ("skipped", "silent throughout", [])


def _without_rights(path: str, answers: multiprocessing.Queue) -> None:
    os.seteuid(65534)  # root may read everything
    answers.put(prepare(Path(path))[0])


def test_a_file_that_may_not_be_read_fails(tmp_path):
    path = recording(tmp_path / "r.wav", {}, 5.0)
    path.chmod(0)
    if os.geteuid():
        outcome, _, _ = prepare(path)
    else:
        for parent in (tmp_path, *tmp_path.parents):  # pytest's folders are for their owner only
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o055)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=_without_rights, args=(str(path), answers))
        process.start()
        outcome = answers.get(timeout=60)
        process.join()
    assert outcome["status"] == "failed"
    assert "ermission denied" in outcome["reason"] or "System error" in outcome["reason"]


def _peak_mib(path: str, answers: multiprocessing.Queue) -> None:
    recipe = preset("default", windows_per_recording=5, quiet_share=0.0, augment=("noise", "pitch"))
    outcome, rows, _ = prepare(Path(path), recipe)
    # Not getrusage, whose peak is inherited from the process that started this one.
    peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    answers.put((outcome, len(rows), peak_kib / 1024))


def test_six_hours_are_prepared_within_600_mib(tmp_path):
    path = tmp_path / "night.flac"
    hour = np.random.default_rng(0).normal(0, 0.01, 3600 * 8000).astype(np.float32)
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        file.write(song(60.0)[::4])  # what calls is in the first minute: that is as far as copies need decoding
        for _ in range(6):
            file.write(hour)
    context = multiprocessing.get_context("spawn")  # a worker of its own: the peak of this process says nothing
    answers = context.Queue()
    process = context.Process(target=_peak_mib, args=(str(path), answers))
    process.start()
    outcome, n_rows, peak_mib = answers.get(timeout=300)
    process.join()
    assert outcome["status"] == "ok"
    assert outcome["seconds"] == 6 * 3600 + 60
    assert n_rows == 5 * 3
    print(f"peak {peak_mib:.0f} MiB")
    assert peak_mib < 600
