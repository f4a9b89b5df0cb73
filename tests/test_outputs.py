"""What predict.py writes of a recording: tables that other programs open, all probabilities, clips and pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import TONES_HZ, tone
from hypothesis import given
from hypothesis import strategies as st

import predict
from src import annotations, matrix
from src.predictor import Predictor, predict_file
from src.recording_files import output_path

RATE = 44100
NAME = "SMU01234_20230514_043000.wav"


@pytest.fixture(scope="module")
def made(tone_bundle, tmp_path_factory) -> Path:
    """A stereo recording of 23 s in windows every 2.5 s, and all that can be written of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "site").mkdir()
    calls = [tone(5, RATE, *names) for names in (["low"], [], ["mid", "high"], ["low"])] + [tone(3, RATE, "high")]
    left = np.concatenate(calls)
    soundfile.write(folder / "site" / NAME, np.stack([left, 0.8 * left], axis=1), RATE, "PCM_16")
    folders = [
        option for name in ("raven", "audacity", "parquet", "clips", "plot") for option in (f"--{name}", folder / name)
    ]
    options = [folder / "site", "-o", folder / "d.csv", "--overlap", "2.5", "--utc-offset", "-4", *folders]
    assert predict.main(["--model", str(tone_bundle.folder), *map(str, options)]) == 0
    return folder


@pytest.fixture(scope="module")
def detections(made) -> pd.DataFrame:
    return pd.read_csv(made / "d.csv")


def test_detections_name_windows_in_order_with_their_time_of_day(made, detections):
    assert list(detections.columns) == ["file", "start_s", "end_s", "species", "probability", "start_utc"]
    assert (detections.file == str(made / "site" / NAME)).all()
    assert detections.start_s.is_monotonic_increasing
    assert detections.end_s.max() == 23.0, "a last window ends with the audio"
    assert set(detections.species) == {"low", "mid", "high"}
    # 04:30 by a clock four hours behind UTC.
    began = pd.Timestamp("2023-05-14 08:30:00", tz="UTC")
    times = pd.to_datetime(detections.start_utc)
    np.testing.assert_allclose((times - began).dt.total_seconds(), detections.start_s)


def test_a_raven_table_opens_in_pandas_as_opensoundscape_opens_it(made, detections):
    table = pd.read_csv(made / "raven/site" / f"{NAME}.selections.txt", sep="\t")
    assert list(table.Selection) == list(range(1, len(detections) + 1))
    assert set(table.View) == {"Spectrogram 1"}
    assert set(table.Channel) == {1}
    np.testing.assert_allclose(table["Begin Time (s)"], detections.start_s)
    np.testing.assert_allclose(table["End Time (s)"], detections.end_s)
    assert (table["Low Freq (Hz)"] < table["High Freq (Hz)"]).all()
    assert (table["High Freq (Hz)"] <= RATE / 2).all()
    assert list(table.Species) == list(detections.species)
    assert list(table.Probability) == list(detections.probability)
    assert set(table["Begin File"]) == {NAME}


def test_raven_s_and_audacity_s_files_are_read_back_as_labels_to_learn_from(made, detections):
    expected = sorted(zip(detections.start_s, detections.end_s, detections.species))
    for name in (f"raven/site/{NAME}.selections.txt", f"audacity/site/{NAME}.labels.txt"):
        assert [tuple(event) for event in annotations.parse((made / name).read_text())] == expected


def test_parquet_holds_every_window_s_probability_of_every_species(made, detections, tone_bundle):
    whole = pd.read_parquet(made / "parquet")
    assert list(whole.columns) == ["file", "start_s", "end_s", "start_utc", *TONES_HZ]
    expected = predict_file(Predictor([tone_bundle]), made / "site" / NAME, hop_seconds=2.5)
    np.testing.assert_array_equal(whole[list(TONES_HZ)], expected.probabilities)
    np.testing.assert_allclose(whole.start_s, expected.start_seconds)
    assert str(whole.start_utc[1]) == "2023-05-14 08:30:02.500000+00:00"
    assert (whole[list(TONES_HZ)].to_numpy() >= 0.5).sum() == len(detections)


def test_a_clip_is_the_recording_s_own_sound_of_that_window_under_its_species(made, detections):
    recording = soundfile.read(made / "site" / NAME, dtype="int16")[0]
    for row in detections.itertuples():
        path = made / "clips" / row.species / "site" / f"{NAME}_{row.start_s:09.3f}s_{row.probability:.4f}.wav"
        clip, rate = soundfile.read(path, dtype="int16")
        assert rate == RATE
        expected = recording[round(row.start_s * RATE) : round(row.end_s * RATE)]
        np.testing.assert_allclose(clip, expected, atol=1)
    assert len(list((made / "clips").rglob("*.wav"))) == len(detections)


def test_a_picture_shows_spectrogram_and_detections_a_page_each_ten_minutes(made, tone_bundle, tmp_path):
    picture = matplotlib.image.imread(made / "plot/site" / f"{NAME}.png")
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1) as file:
        for second in range(630):
            file.write(tone(1, 8000, *(["low"] if second > 600 else [])))
    options = [tmp_path / "long.wav", "-o", tmp_path / "d.csv", "--plot", tmp_path / "plot"]
    predict.main(["--model", str(tone_bundle.folder), *map(str, options)])
    names = sorted(path.name for path in (tmp_path / "plot").iterdir())
    assert names == ["long.wav.2.png", "long.wav.png"]
    second, first = (matplotlib.image.imread(tmp_path / "plot" / name) for name in names)
    assert len(np.unique(second.reshape(-1, 4), axis=0)) > 2 * len(np.unique(first.reshape(-1, 4), axis=0)), "silence"


def test_without_an_offset_a_local_time_leaves_utc_empty_and_with_one_nothing_is_asked_again(
    made, tone_bundle, tmp_path
):
    shutil.copy2(made / "site" / NAME, tmp_path / NAME)
    options = ["--model", str(tone_bundle.folder), str(tmp_path / NAME), "-o", str(tmp_path / "d.csv")]
    predict.main(options)
    assert pd.read_csv(tmp_path / "d.csv").start_utc.isna().all()
    (part,) = tmp_path.rglob("[!.]*.jsonl")
    before = part.stat().st_mtime_ns
    predict.main([*options, "--utc-offset", "10"])
    assert pd.read_csv(tmp_path / "d.csv").start_utc[0] == "2023-05-13T18:30:00.000Z"
    assert part.stat().st_mtime_ns == before


def test_a_matrix_of_another_model_or_none_is_told(tmp_path):
    with matrix.written(tmp_path / "a.parquet", "a.wav", ["x"], "one", None) as add:
        for start in range(2100):  # more than two groups of rows
            add(5.0 * start, 5.0 * start + 5, np.array([start / 2100], np.float32))
    assert matrix.made_by(tmp_path / "a.parquet") == "one"
    read = pd.read_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(read.x, np.arange(2100) / 2100, atol=1e-6)
    assert read.start_utc.isna().all()
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    assert matrix.made_by(tmp_path / "b.parquet") == matrix.made_by(tmp_path / "c.parquet") == ""


PARTS = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=90)


@given(
    st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=2, max_size=2, unique=True),
    st.sampled_from([".png", ".2.png"]),
)
def test_two_recordings_never_share_the_name_of_what_is_made_of_them(parts, suffix):
    paths = [output_path(Path("out"), f"site/{part}", suffix) for part in parts]
    assert paths[0] != paths[1]
    assert all(len(path.name.encode()) <= 230 and not path.name.startswith("_") for path in paths)
    assert all(path.parent == Path("out/site") for path in paths)
