"""The audio of prepared windows: the very samples their images were made of, and the same copies at another sample rate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from src import augment, layouts, preparation, shards, waveforms
from src.datasets import plain_batches
from src.errors import UserError
from src.recipe import changed, preset
from src.spectrogram import log_mel, to_bytes
from src.workers import Workers

SMALL = dict(
    sample_rate=22050, window_seconds=2.0, hop_seconds=1.5, n_fft=1024, n_mels=32, fmax_hz=10000.0, channels="split"
)
ENTRIES = ("shift", "noise", "background")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> dict:
    """Four recordings of two species, one in stereo at 44.1 kHz, prepared with copies, two of each."""
    folder, random = tmp_path_factory.mktemp("waveforms"), np.random.default_rng(0)
    for number, (code, rate, channels) in enumerate(
        (("aaa", 22050, 1), ("aaa", 44100, 2), ("bbb", 32000, 1), ("bbb", 22050, 1))
    ):
        time_s = np.arange(round((5.3 + number) * rate)) / rate
        chirp = np.sin(2 * np.pi * (900 + 700 * number + 300 * np.sin(5 * time_s)) * time_s) * (np.sin(3 * time_s) > 0)
        samples = 0.2 * chirp[:, None] + random.normal(0, 0.01, (len(time_s), channels))
        path = folder / "data" / code / f"r{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise/rain.wav", random.normal(0, 0.05, 22050 * 9), 22050)
    recipe = preset("default", **SMALL, augment=ENTRIES, copies=2, background="rain")
    clips, _ = augment.find_clips(folder / "noise", recipe)
    recipe = changed(recipe, background=clips.digest)
    source = layouts.DataSource(data=str(folder / "data"))
    recordings = layouts.read(source)
    prepared = preparation.prepare(
        recordings, recipe, folder / "windows", source.to_dict(), clips=clips, workers=Workers(1)
    )
    return {"prepared": prepared, "recordings": recordings, "clips": clips, "folder": folder}


def gather(work: dict, sample_rate: int) -> np.ndarray:
    """All windows' audio in the index's order."""
    prepared = work["prepared"]
    samples = round(prepared.recipe.window_seconds * sample_rate)
    found = np.full((len(prepared.index), samples), np.nan, np.float32)
    for numbers, heard in waveforms.windows_of(prepared, work["recordings"], sample_rate, work["clips"]):
        assert heard.dtype == np.float32
        assert len(heard) == len(numbers) <= waveforms.CHUNK
        found[numbers] = heard
    assert not np.isnan(found).any()
    return found


def test_at_the_prepared_rate_each_window_and_copy_gives_the_stored_image_to_the_byte(work):
    prepared = work["prepared"]
    assert set(prepared.index["transform"]) == {"", *ENTRIES}
    assert set(prepared.index.channel) == {0, 1}
    stored = np.concatenate(
        list(plain_batches(prepared, np.ones(len(prepared.index), bool), 64, 1).as_numpy_iterator())
    )
    heard = gather(work, prepared.recipe.sample_rate)
    images = np.stack([log_mel(waveform, prepared.recipe) for waveform in heard])
    as_stored = np.stack([to_bytes(image, prepared.recipe) for image in images])
    step = prepared.recipe.range_db / 255
    np.testing.assert_allclose(as_stored * step + prepared.recipe.floor_db, stored, atol=step / 10)


def test_at_another_rate_copies_are_the_same_copies(work):
    index, rate = work["prepared"].index, 16000
    heard = gather(work, rate)
    parents = heard[index.parent]
    drawn = index.parameters.map(json.loads)
    for number in np.flatnonzero(index["transform"] == "shift"):
        places = round(drawn[number]["shift"]["shift_amount"] * rate)
        same = np.isclose(np.roll(parents[number], places), heard[number], atol=1e-6)
        assert same.mean() > 0.99  # all but the fades where the ends meet
    for number in np.flatnonzero(index["transform"] == "background"):
        added = heard[number] - parents[number]
        recipe = waveforms.at_rate(work["prepared"].recipe, rate)
        clip = augment._clip(str(Path(work["clips"].folder) / "rain.wav"), recipe)
        start = round(drawn[number]["background"]["start_seconds"] * rate)
        likeness = [
            np.corrcoef(added, np.take(clip, np.arange(start + lag, start + lag + len(added)), mode="wrap"))[0, 1]
            for lag in range(-9, 10)  # start_seconds is kept to the millisecond
        ]
        assert max(likeness) > 0.99
        snr_db = 20 * np.log10(augment.rms(parents[number]) / augment.rms(added))
        assert abs(snr_db - drawn[number]["background"]["snr_db"]) < 0.1
    copies = heard[
        (index["transform"] == "noise") & (index.parent == index.parent[index["transform"] == "noise"].iloc[0])
    ]
    assert len(copies) == 2
    assert not np.array_equal(*copies)


def test_what_is_missing_is_named(work, tmp_path):
    prepared, recordings = work["prepared"], work["recordings"]
    gone = recordings.assign(path=recordings.path.str.replace("r2.wav", "gone.wav"))
    with pytest.raises(UserError, match=r"gone\.wav: its windows are prepared, but its audio cannot be read"):
        list(waveforms.windows_of(prepared, gone, 16000, work["clips"]))
    with pytest.raises(UserError, match=r"r2\.wav: is among the windows of .* but no longer in the data"):
        list(waveforms.windows_of(prepared, recordings[~recordings.path.str.endswith("r2.wav")], 16000, work["clips"]))
    with pytest.raises(UserError, match="give the --background folder"):
        list(waveforms.windows_of(prepared, recordings, 16000))
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(22050), 22050)
    cut = recordings.assign(path=[str(short)] * len(recordings))
    with pytest.raises(UserError, match="shorter than when it was prepared"):
        list(waveforms.windows_of(prepared, cut, 16000, work["clips"]))


def test_long_recordings_come_in_parts(work, monkeypatch):
    monkeypatch.setattr(waveforms, "CHUNK", 5)
    part = replace(
        work["prepared"], index=work["prepared"].index[work["prepared"].index.filename.str.endswith("r0.wav")]
    )
    sizes = [len(numbers) for numbers, _ in waveforms.windows_of(part, work["recordings"], 16000, work["clips"])]
    assert max(sizes) == 5
    assert sum(sizes) == len(part.index)
    assert isinstance(part.index, pd.DataFrame)
    assert isinstance(part, shards.Prepared)
