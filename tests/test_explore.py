"""explore.py: what is measured of known signals, what is suspicious, and the page that opens without a network."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import run

import explore
from src import data_figures, exploration, exploration_page, folds, layouts, measuring, page

RATE = 32000


def sine(amplitude: float, seconds: float = 4.0, hz: float = 1000.0, rate: int = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def noise(rms_dbfs: float, seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 10 ** (rms_dbfs / 20), round(seconds * rate))


def measured(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> dict:
    """What is measured of these samples, written to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return measuring.measure_file(str(path))


def explored(folder: Path, **options: object) -> pd.DataFrame:
    return measuring.measure(
        layouts.read(layouts.DataSource(str(folder))), folder / "recordings.csv", jobs=1, **options
    )


def test_levels_of_a_sine_are_those_of_the_book(tmp_path):
    found = measured(tmp_path / "a.wav", sine(0.5))
    assert found["peak_dbfs"] == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert found["loudness_dbfs"] == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.01)
    assert found["floor_dbfs"] == pytest.approx(-9.03, abs=0.15)
    assert found["range_db"] == pytest.approx(0, abs=0.11)
    assert found["clipped_share"] == found["silent_share"] == 0
    assert (found["seconds"], found["sample_rate"], found["channels"]) == (4.0, RATE, 1)
    assert found["bandwidth_hz"] == pytest.approx(1000, abs=RATE / 2 / measuring.BANDS)


def test_noise_floor_is_between_the_calls_and_direct_current_is_no_sound(tmp_path):
    samples = noise(-60, 10)
    samples[: 3 * RATE] += sine(0.3, 3)
    found = measured(tmp_path / "a.wav", samples + 0.1)
    assert found["floor_dbfs"] == pytest.approx(-60, abs=0.5)
    assert found["range_db"] == pytest.approx(60 + 20 * math.log10(0.3) - 3.01, abs=0.5)
    assert found["dc_offset"] == pytest.approx(0.1, abs=1e-3)


def test_a_clipped_share_is_that_of_the_samples(tmp_path):
    loud = np.clip(sine(1.0 / math.sin(math.radians(60)), hz=20), -1, 1)  # beyond full scale for 60 of each 180 degrees
    assert measured(tmp_path / "a.wav", loud)["clipped_share"] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("top_hz", [4000, 8000, 11025])
def test_bandwidth_of_a_file_written_at_a_higher_rate_than_its_sound(tmp_path, top_hz):
    spectrum = np.fft.rfft(noise(-30, 5, rate=44100))
    spectrum[np.fft.rfftfreq(5 * 44100, 1 / 44100) > top_hz] = 0
    found = measured(tmp_path / "a.wav", np.fft.irfft(spectrum), 44100, "PCM_16")
    assert found["bandwidth_hz"] == pytest.approx(top_hz, abs=2 * 22050 / measuring.BANDS)


def test_stereo_that_is_mono_is_told_from_stereo_and_from_a_dead_channel(tmp_path):
    left = noise(-20, 2)
    same = measured(tmp_path / "same.wav", np.stack([left, left], axis=1))
    real = measured(tmp_path / "real.wav", np.stack([left, noise(-20, 2, seed=1)], axis=1))
    dead = measured(tmp_path / "dead.wav", np.stack([left, 0 * left], axis=1))
    assert same["difference_db"] < exploration.SAME_CHANNELS_DB < real["difference_db"]
    assert real["difference_db"] == pytest.approx(3.0, abs=0.2)
    assert abs(real["balance_db"]) < 0.2
    assert dead["balance_db"] > 100
    assert dead["loudness_dbfs"] == pytest.approx(-23.0, abs=0.1), "the mean power of both channels"


@pytest.mark.parametrize("samples", [1, 100, 3000, 10 * RATE + 1])
def test_any_length_is_measured(tmp_path, samples):
    found = measured(tmp_path / "a.wav", sine(0.5, 11)[:samples])
    assert found["seconds"] == pytest.approx(samples / RATE)
    assert np.isfinite([found[name] for name in measuring.LEVELS if name not in ("difference_db", "balance_db")]).all()


def test_what_is_wrong_with_files_is_found_and_named(tmp_path):
    """A folder a species, with one of each fault in it."""
    good = noise(-30, 3)
    for number in range(4):
        measured(tmp_path / f"robin/good{number}.wav", noise(-30, 3, seed=number + 1))
    measured(tmp_path / "robin/silent.wav", 0 * good)
    measured(tmp_path / "robin/short.wav", good[: RATE // 2])
    measured(tmp_path / "robin/quiet.wav", good * 1e-3)
    measured(tmp_path / "robin/clipped.wav", np.clip(good * 100, -1, 1))
    measured(tmp_path / "robin/dc.wav", good + 0.05)
    measured(tmp_path / "robin/low.wav", noise(-30, 3, rate=8000), 8000)
    measured(tmp_path / "robin/nan.wav", np.where(np.arange(len(good)) == 5, np.nan, good))
    measured(tmp_path / "robin/padded.wav", np.concatenate([noise(-30, 1, seed=9), np.zeros(2 * RATE)]))
    measured(tmp_path / "robin/long.wav", noise(-30, 601, rate=16000), 16000, "PCM_16")
    measured(tmp_path / "wren/twin.wav", noise(-30, 3, seed=1))
    measured(tmp_path / "robin/flac.flac", noise(-30, 3, seed=20), subtype="PCM_16")
    (tmp_path / "robin/flac.flac").rename(tmp_path / "robin/renamed.wav")
    (tmp_path / "robin/broken.mp3").write_bytes(b"not audio at all" * 100)
    whole = (tmp_path / "robin/good3.wav").read_bytes()
    (tmp_path / "robin/cut.wav").write_bytes(whole[: len(whole) // 2])

    described = explored(tmp_path)
    table = exploration.suspicious(described)
    found = {(Path(file).stem, what) for file, what in zip(table.file, table.what)}
    twins = {("good0", "same audio under different labels"), ("twin", "same audio under different labels")}
    assert found == twins | {
        ("broken", "cannot be opened"),
        ("cut", "truncated"),
        ("nan", "holds NaN"),
        ("silent", "silent"),
        ("renamed", "extension and content disagree"),
        ("short", "shorter than a second"),
        ("long", "longer than 10 minutes"),
        ("low", "sample rate below 16 kHz"),
        ("clipped", "clipped"),
        ("quiet", "much quieter than the rest"),
        ("padded", "mostly digital silence"),
        ("dc", "DC offset"),
    }
    assert table.value[table.what == "extension and content disagree"].item() == ".wav is FLAC"
    assert exploration.duplicates(described) == [["robin/good0.wav", "wren/twin.wav"]]
    assert list(described.filename[measuring.failed(described)]) == ["robin/broken.mp3"]


def test_what_is_measured_is_not_measured_again_unless_it_changed(tmp_path, monkeypatch):
    for number in range(3):
        measured(tmp_path / f"robin/{number}.wav", noise(-30, 1, seed=number))
    opened = []
    original = measuring.measure_file
    monkeypatch.setattr(measuring, "measure_file", lambda path, quick: opened.append(path) or original(path, quick))
    headers = explored(tmp_path, quick=True)
    assert headers.loudness_dbfs.isna().all() and (headers.seconds == 1).all()
    first = explored(tmp_path)
    assert len(opened) == 6
    pd.testing.assert_frame_equal(first, explored(tmp_path))
    pd.testing.assert_frame_equal(first, explored(tmp_path, quick=True))
    assert len(opened) == 6
    soundfile.write(tmp_path / "robin/1.wav", noise(-40, 1), RATE, subtype="FLOAT")
    assert explored(tmp_path).loudness_dbfs[1] == pytest.approx(-40, abs=0.1)
    assert len(opened) == 7


def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    for number in range(4):
        measured(tmp_path / f"robin/{number}.wav", noise(-30, 1, seed=number))
    original, opened = measuring.measure_file, []

    def stopped(path: str, quick: bool) -> dict:
        opened.append(path)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return original(path, quick)

    monkeypatch.setattr(measuring, "measure_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        explored(tmp_path)
    assert explored(tmp_path).loudness_dbfs.notna().all()
    assert len(opened) == 5, "two of four were kept"


def test_two_hundred_and_sixty_four_species_are_legible(tmp_path):
    """A row of 0.15 inches or more each, in bars, heatmap and matrix."""
    codes = [f"code{number:03}" for number in range(264)]
    table = pd.DataFrame({"ebird_code": codes, "recordings": range(9, 273), "sources": range(5, 269)})
    counts = pd.DataFrame({fold: range(264) for fold in range(5)}, index=codes)
    pairs = pd.DataFrame(np.eye(264, dtype=int), index=codes, columns=codes)
    heights = {}
    for draw, argument in (
        (data_figures.species, table),
        (data_figures.balance, counts),
        (data_figures.co_occurrence, pairs),
    ):
        heights[draw] = matplotlib.image.imread(draw(tmp_path, argument).path).shape[0] / data_figures.DPI
    assert heights[data_figures.species] >= heights[data_figures.balance] * 0.9 >= 264 * 0.15
    assert heights[data_figures.co_occurrence] >= data_figures.MOST_PAIRED * 0.2


class Page(HTMLParser):
    """What a page asks for, by attribute, and what it says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images, self.links, self.ids, self.tags, self.text = [], [], set(), set(), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.tags.add(tag)
        self.links += [values[name] for name in ("href", "action", "srcset", "poster", "data") if name in values]
        self.images += [(values["src"], values.get("alt"))] if "src" in values else []
        self.ids |= {values.get("id")}

    def handle_data(self, data: str) -> None:
        self.text += data


def check_opens_without_a_network(path: Path) -> Page:
    seen = Page(path)
    assert not seen.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert "url(" not in seen.text and "@import" not in seen.text
    assert seen.links and all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    for source, alt in seen.images:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64" and len(alt) > 10
        assert matplotlib.image.imread(io.BytesIO(base64.b64decode(content))).shape[1] > 300
    return seen


def test_the_sample_from_end_to_end(small_sample, tmp_path, monkeypatch):
    """It holds a file that cannot be decoded, which is named, and costs only itself."""
    output = tmp_path / "out"
    done = run("explore.py", "--data", small_sample, "-o", output, "--jobs", 1)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "cannot be decoded" in line]
    broken = Path(line.split(":")[0])
    assert broken.is_file() and broken.suffix == ".mp3" and "Traceback" not in done.stderr
    assert "1 cannot be opened" in done.stdout and "index.html" in done.stdout and "Hz:" in done.stdout
    seen = check_opens_without_a_network(output / "index.html")
    assert len(seen.images) >= 10 and broken.name in seen.text
    for title in ("Suspicious files", "Waveforms", "Mel spectrograms", "Loudness and noise floor", "Secondary labels"):
        assert title in seen.text
    assert (pd.read_csv(output / "species.csv").recordings >= 2).all()

    monkeypatch.setattr(measuring, "measure_file", lambda path, quick: pytest.fail(f"{path} is measured again"))
    good = layouts.read(layouts.DataSource(str(small_sample)))
    good = good[~good.path.str.endswith(broken.name)].reset_index(drop=True)
    assert measuring.measure(good, output / "recordings.csv", jobs=1).loudness_dbfs.notna().all()


def test_real_recordings_in_folders_and_a_name_that_is_no_markup(real_data, tmp_path, capsys):
    data = tmp_path / "data"
    for code in ("adewar1", "banana"):
        (data / code).mkdir(parents=True)
        for recording in sorted((real_data / "birds/train_audio" / code).glob("*.mp3"))[:2]:
            shutil.copy(recording, data / code)
    (data / "banana/<b>bold&.mp3").write_bytes(b"nothing" * 1000)
    assert explore.main(["--data", str(data), "-o", str(tmp_path / "out"), "--jobs", "1"]) == 1
    assert "<b>bold&.mp3: cannot be decoded" in capsys.readouterr().err
    seen = check_opens_without_a_network(tmp_path / "out/index.html")
    assert "<b>bold&.mp3" in seen.text and "b" not in seen.tags
    assert "banana/<b>bold&.mp3" in set(pd.read_csv(tmp_path / "out/suspicious.csv").file)


def test_timed_labels_are_drawn_on_the_real_soundscape(real_data, tmp_path):
    """A minute of one of them is enough."""
    folder = real_data / "birdsong-recognition"
    (soundscape,) = (folder / "example_test_audio").glob("ORANGE*.mp3")
    samples, rate = soundfile.read(soundscape, frames=70 * 22050)
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/ORANGE-7-CAP_20190606_093000.flac", samples, rate)
    labels = folder / "example_test_audio_metadata.csv"
    recordings = layouts.read(layouts.DataSource(str(tmp_path / "data"), labels=str(labels)))
    described = measuring.measure(recordings, tmp_path / "recordings.csv", jobs=1)
    events = json.loads(described.events[described.seconds > 0].item())
    tables = exploration.tables(described)
    species = tables["species"].set_index("ebird_code")
    assert species.calls.sum() == len(events) > 100
    parts = exploration_page.sections(tmp_path, described, tables, "no folds", seed=0, jobs=1)
    assert page.write(tmp_path / "index.html", "Soundscape", parts) == []
    check_opens_without_a_network(tmp_path / "index.html")
    (drawn,) = [part.pictures for part in parts if part.title.startswith("Soundscapes")]
    early = {code for start, _, code in events if start < 60}
    assert len(drawn) == 1 and all(code in drawn[0].alt for code in early)


def test_folds_are_shown_only_of_these_recordings(tmp_path):
    for code in ("robin", "wren"):
        for number in range(4):
            measured(tmp_path / f"{code}/{number}.wav", noise(-30, 1, seed=number))
    described = explored(tmp_path, quick=True)
    written = tmp_path / "folds.csv"
    folds.write_folds(written, folds.make_folds(described, 2))
    counts = exploration.fold_counts(described, written)
    assert counts.to_numpy().sum() == 8 and list(counts.index) == ["robin", "wren"]
    with pytest.raises(exploration.UserError, match="other recordings"):
        exploration.fold_counts(described.assign(ebird_code="jay"), written)
    assert "folds" in exploration.fold_counts(described), "folds/folds.csv need not be about these"


def test_a_page_that_would_grow_too_large_names_what_it_leaves_out(tmp_path, monkeypatch):
    table = pd.DataFrame({"ebird_code": ["a", "b"], "recordings": [1, 2], "sources": [1, 1]})
    pictures = [data_figures.species(tmp_path, table)]
    large = tmp_path / "large.png"
    large.write_bytes(pictures[0].path.read_bytes() + bytes(100_000))
    pictures.insert(0, data_figures.Picture(large, "the large one"))
    monkeypatch.setattr(page, "EMBEDDED_BYTES", 100_000)
    monkeypatch.setattr(page, "LARGE_BYTES", 50_000)
    assert page.write(tmp_path / "index.html", "Title", [page.Section("One", "Text", pictures)]) == [large]
    seen = check_opens_without_a_network(tmp_path / "index.html")
    assert len(seen.images) == 1 and "large.png" in seen.text
