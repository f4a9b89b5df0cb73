"""The built-in sample: a competition small enough to make in half a minute, with the traps of the real one."""

from __future__ import annotations

import ast
import csv
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src.errors import UserError
from src.sample import (
    TRAIN_COLUMNS,
    make_sample,
    ogg_checksum,
    plan_nocall,
    summary,
    train_row,
    write_nocall_source,
    write_recording,
    write_soundscape,
)
from src.sample_plan import (
    LEAST_OVERLAP_S,
    RECORDISTS,
    ROW_S,
    SITES,
    plan_recordings,
    plan_soundscapes,
    rows_of,
    truth_of,
)
from src.synthesis import SPECIES, draw_bird, sing

SMALL = {"recordings_per_species": 1, "soundscape_s": 10.0, "nocall_kinds": 2}
ROOT = Path(__file__).resolve().parent.parent


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A small sample: one good recording a species, 10 s of each soundscape, two kinds of background."""
    folder = tmp_path_factory.mktemp("input") / "sample"
    assert make_sample(folder, jobs=2, **SMALL)
    return folder


@pytest.fixture(scope="module")
def recordings():
    """The plan of the recordings at full size."""
    return plan_recordings(seed=0)


@pytest.fixture(scope="module")
def soundscapes():
    """The plan of the soundscapes at full size."""
    return plan_soundscapes(seed=0)


@pytest.fixture(scope="module")
def rows(soundscapes):
    return [row for soundscape in soundscapes for row in rows_of(soundscape)]


class TestLayout:
    def test_train_csv_has_the_35_columns_of_the_real_one_in_order(self, sample):
        with open(sample / "train.csv", encoding="utf-8") as file:
            header = file.readline().rstrip("\n").split(",")
        assert header == TRAIN_COLUMNS and len(header) == len(set(header)) == 35
        assert header[:4] == ["rating", "playback_used", "ebird_code", "channels"] and header[-1] == "license"

    def test_every_file_of_the_tables_is_there_and_no_other(self, sample):
        train = {f"train_audio/{row['ebird_code']}/{row['filename']}" for row in table(sample / "train.csv")}
        clips = {f"nocall/{row['filename']}" for row in table(sample / "nocall/nocall.csv")}
        audio = {f"test_audio/{row['audio_id']}.mp3" for row in table(sample / "test.csv")}
        tables = "train.csv test.csv sample_submission.csv truth.csv truth_events.csv sample.json nocall/nocall.csv"
        assert set(contents(sample)) == train | clips | audio | set(tables.split())

    def test_values_are_formatted_as_in_the_real_table(self, sample):
        for row in table(sample / "train.csv"):
            assert row["channels"] in ("1 (mono)", "2 (stereo)")
            assert row["sampling_rate"].endswith(" (Hz)") and int(row["sampling_rate"].split()[0])
            assert row["duration"] == str(int(row["duration"]))
            assert row["primary_label"] == f"{row['sci_name']}_{row['species']}"
            assert row["author"] == row["recordist"]
            assert row["filename"] == f"XC{row['xc_id']}.mp3"
            assert all(label.count("_") == 1 for label in ast.literal_eval(row["secondary_labels"]))

    def test_sampling_rate_channels_and_duration_tell_the_truth(self, sample):
        decoded = 0
        for row in table(sample / "train.csv"):
            try:
                info = soundfile.info(sample / "train_audio" / row["ebird_code"] / row["filename"])
            except soundfile.LibsndfileError:
                continue
            assert info.samplerate == int(row["sampling_rate"].split()[0])
            assert info.channels == int(row["channels"].split()[0])
            assert int(info.duration) == int(row["duration"])
            decoded += 1
        assert decoded == len(table(sample / "train.csv")) - 1

    def test_nocall_clips_have_kinds_folds_and_sources(self, sample):
        clips = table(sample / "nocall/nocall.csv")
        assert list(clips[0]) == ["filename", "kind", "fold", "source_id", "duration", "license"]
        folds = defaultdict(set)
        for clip in clips:
            folds[clip["source_id"]].add(clip["fold"])
            info = soundfile.info(sample / "nocall" / clip["filename"])
            assert 5.0 <= info.duration <= 10.0 and info.duration == pytest.approx(float(clip["duration"]), abs=0.01)
        assert len(folds) == 6 and all(len(of_source) == 1 for of_source in folds.values())

    def test_forty_clips_of_eight_kinds_come_from_24_sources_in_five_folds(self):
        sources = plan_nocall()
        assert sum(len(source.takes) for source in sources) == 40 and len({source.kind for source in sources}) == 8
        assert len({source.number for source in sources}) == 24
        for fold in range(1, 6):
            assert sum(source.fold == fold for source in sources) >= 4


class TestRecordings:
    def test_twelve_species_with_at_least_twelve_good_recordings_each(self, recordings):
        good = defaultdict(int)
        for recording in recordings:
            good[recording.code] += not recording.fault and recording.duration_s >= 6.0
        assert set(good) == set(SPECIES) and len(good) == 12 and min(good.values()) >= 12
        assert sorted(len(code) for code in SPECIES) == [6] * 11 + [7]

    def test_every_species_has_five_sources_from_five_recordists(self, recordings):
        sources, people = defaultdict(set), defaultdict(set)
        for recording in recordings:
            sources[recording.code].add((recording.recordist, recording.date))
            people[recording.code].add(recording.recordist)
        assert min(map(len, sources.values())) >= 5 and min(map(len, people.values())) >= 5

    def test_recordists_are_eight_and_come_on_three_days(self, recordings):
        days = defaultdict(set)
        for recording in recordings:
            days[recording.recordist].add(recording.date)
        assert set(days) == set(RECORDISTS) and all(len(dates) == 3 for dates in days.values())
        assert {rate for rate, _ in RECORDISTS.values()} == {22050, 32000, 44100, 48000}

    def test_one_row_lacks_its_recordist_and_one_its_date(self, recordings):
        rows = [train_row(0, recording) for recording in recordings]
        assert sum(row["recordist"] == "" for row in rows) == 1 and sum(row["date"] == "" for row in rows) == 1

    def test_about_one_recording_in_seven_has_a_second_species_that_is_named(self, recordings):
        with_second = [recording for recording in recordings if recording.second]
        assert 0.10 <= len(with_second) / len(recordings) <= 0.20
        for recording in with_second:
            assert SPECIES[recording.second].primary_label in train_row(0, recording)["secondary_labels"]

    def test_some_secondary_labels_name_species_outside_the_twelve(self, recordings):
        known = {species.primary_label for species in SPECIES.values()}
        named = {n for r in recordings for n in ast.literal_eval(train_row(0, r)["secondary_labels"])}
        assert named - known and named & known

    @pytest.mark.parametrize("code", SPECIES)
    def test_a_phrase_lasts_from_0p6_to_2p5_seconds_and_stays_below_full_band(self, code):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            phrase = sing(SPECIES[code], draw_bird(rng), rng, sample_rate=22050)
            assert 0.6 <= len(phrase) / 22050 <= 2.5
            assert np.all(np.isfinite(phrase)) and np.mean(phrase[phrase != 0] ** 2) == pytest.approx(1.0)

    @pytest.mark.parametrize("code", SPECIES)
    def test_a_species_band_holds_most_of_its_song(self, code):
        rng = np.random.default_rng(3)
        phrase = sing(SPECIES[code], draw_bird(rng), rng, sample_rate=32000)
        power, freqs_hz = np.abs(np.fft.rfft(phrase)) ** 2, np.fft.rfftfreq(len(phrase), 1 / 32000)
        in_band = (freqs_hz >= SPECIES[code].fmin_hz) & (freqs_hz <= SPECIES[code].fmax_hz)
        assert power[in_band].sum() > 0.8 * power.sum()


class TestBadFiles:
    def path(self, sample: Path, **facts) -> Path:
        (found,) = [
            sample / recording.path
            for recording in plan_recordings(0, SMALL["recordings_per_species"])
            if all(getattr(recording, name) == value for name, value in facts.items())
        ]
        return found

    def test_one_cannot_be_decoded(self, sample):
        with pytest.raises(soundfile.LibsndfileError):
            soundfile.read(self.path(sample, fault="garbage"))

    def test_one_promises_more_frames_than_can_be_read(self, sample):
        path = self.path(sample, fault="truncated")
        audio, sample_rate = soundfile.read(path)
        assert soundfile.info(path).frames == 12 * sample_rate
        assert 3 * sample_rate < len(audio) < 7 * sample_rate

    def test_one_is_0p3_seconds_long_and_its_duration_reads_0(self, sample):
        path = self.path(sample, duration_s=0.3)
        assert soundfile.info(path).duration == pytest.approx(0.3, abs=0.001)
        (row,) = [row for row in table(sample / "train.csv") if row["filename"] == path.name]
        assert row["duration"] == "0"

    def test_one_is_sampled_at_8_khz(self, sample):
        rates = [row["sampling_rate"] for row in table(sample / "train.csv")]
        assert rates.count("8000 (Hz)") == 1

    def test_two_are_one_recording_under_two_names(self, sample):
        groups = defaultdict(list)
        for row in table(sample / "train.csv"):
            groups[(sample / "train_audio" / row["ebird_code"] / row["filename"]).read_bytes()].append(row)
        (twins,) = [group for group in groups.values() if len(group) > 1]
        first, second = twins
        assert first["ebird_code"] == second["ebird_code"] and first["filename"] != second["filename"]
        assert first["recordist"] != second["recordist"] and first["date"] != second["date"]

    def test_stereo_channels_are_alike_but_not_the_same(self, sample):
        stereo = [row for row in table(sample / "train.csv") if row["channels"] == "2 (stereo)"]
        assert stereo
        audio, _ = soundfile.read(sample / "train_audio" / stereo[0]["ebird_code"] / stereo[0]["filename"])
        assert np.abs(np.corrcoef(audio.T)[0, 1]) < 0.99
        spectra = np.abs(np.fft.rfft(audio, axis=0))
        loud = np.array([band.mean(axis=0) for band in np.array_split(spectra, 50)])
        assert np.corrcoef(np.log(loud.T))[0, 1] > 0.9


class TestTruth:
    def test_there_are_two_soundscapes_a_site_and_a_row_every_five_seconds(self, soundscapes, rows):
        assert [soundscape.site for soundscape in soundscapes] == [site for site in SITES for _ in range(2)]
        assert len(rows) == 4 * 24 + 2 and len({row["row_id"] for row in rows}) == len(rows)
        for row in rows:
            if row["site"] == "site_3":
                assert row["row_id"] == f"site_3_{row['audio_id']}" and row["seconds"] == ""
            else:
                assert row["row_id"] == f"{row['site']}_{row['audio_id']}_{row['seconds']}"
                assert int(row["seconds"]) in range(5, 121, 5)

    def test_the_tables_hold_every_row_once_and_in_one_order(self, sample):
        ids = [
            [row["row_id"] for row in table(sample / f"{name}.csv")] for name in ("test", "truth", "sample_submission")
        ]
        assert ids[0] == ids[1] == ids[2] and len(set(ids[0])) == len(ids[0])
        assert {row["birds"] for row in table(sample / "sample_submission.csv")} == {"nocall"}
        assert list(table(sample / "test.csv")[0]) == ["site", "row_id", "seconds", "audio_id"]

    def test_soundscapes_last_as_long_as_their_rows_say(self, sample):
        for path in (sample / "test_audio").glob("*.mp3"):
            assert soundfile.info(path).duration == pytest.approx(10.0, abs=0.001)

    @pytest.mark.parametrize("seed", range(4))
    def test_all_nocall_scores_between_0p40_and_0p60(self, seed):
        birds = [row["birds"] for soundscape in plan_soundscapes(seed) for row in rows_of(soundscape)]
        # Against a row of nocall, nocall has an F1 of 1; against any other row, of 0: the score is the share.
        assert 0.40 <= birds.count("nocall") / len(birds) <= 0.60

    def test_a_good_share_of_the_rows_with_birds_holds_several_species(self, rows):
        with_birds = [row["birds"].split() for row in rows if row["birds"] != "nocall"]
        assert sum(len(codes) > 1 for codes in with_birds) / len(with_birds) >= 0.35
        assert all(codes == sorted(set(codes)) for codes in with_birds)

    def test_every_species_is_heard_in_a_timed_row(self, rows):
        assert {c for r in rows if r["site"] != "site_3" for c in r["birds"].split()} - {"nocall"} == set(SPECIES)

    def test_no_phrase_touches_a_row_by_less_than_half_a_second_or_half_of_itself(self, soundscapes):
        for soundscape in soundscapes:
            for _, start_s, end_s in soundscape.events:
                for row in range(int(soundscape.duration_s / ROW_S)):
                    overlap_s = min(end_s, ROW_S * (row + 1)) - max(start_s, ROW_S * row)
                    assert overlap_s <= 0 or overlap_s >= min(LEAST_OVERLAP_S, (end_s - start_s) / 2)

    def test_a_row_holds_a_species_exactly_when_a_phrase_of_it_touches_the_row(self, soundscapes):
        for soundscape in soundscapes:
            for end_s in range(5, 121, 5):
                touching = {c for c, begun_s, ended_s in soundscape.events if begun_s < end_s and ended_s > end_s - 5}
                assert truth_of(soundscape, end_s - 5, end_s) == (" ".join(sorted(touching)) or "nocall")

    def test_phrases_of_one_species_do_not_overlap(self, soundscapes):
        for soundscape in soundscapes:
            by_species = defaultdict(list)
            for code, start_s, end_s in soundscape.events:
                by_species[code].append((start_s, end_s))
            for spans in by_species.values():
                assert all(first[1] < second[0] for first, second in zip(spans, spans[1:], strict=False))

    def test_events_say_where_the_sound_is(self, sample):
        events = table(sample / "truth_events.csv")
        assert list(events[0]) == ["filename", "start_seconds", "end_seconds", "label"]
        louder = 0
        for event in events:
            audio, rate = soundfile.read(sample / "test_audio" / event["filename"])
            species = SPECIES[event["label"]]
            level = [
                np.mean(np.abs(np.fft.rfft(part))[band_of(species, len(part), rate)] ** 2) / len(part)
                for part in (
                    audio[int(float(event["start_seconds"]) * rate) : int(float(event["end_seconds"]) * rate)],
                    audio,
                )
            ]
            louder += level[0] > 1.2 * level[1]
        assert louder >= 0.8 * len(events)

    def test_no_recordist_or_place_of_training_is_in_a_soundscape(self, recordings, soundscapes):
        of_training = {recording.place for recording in recordings}
        assert not of_training & {soundscape.place for soundscape in soundscapes}
        assert not any(s.place.name.startswith(name) for s in soundscapes for name in RECORDISTS)

    def test_no_recording_and_no_clip_is_a_soundscape(self, sample):
        files = contents(sample)
        of_test = {data for name, data in files.items() if name.startswith("test_audio/")}
        assert len(of_test) == 6
        assert not of_test & {data for name, data in files.items() if not name.startswith("test_audio/")}


def band_of(species, n: int, sample_rate: int) -> np.ndarray:
    freqs_hz = np.fft.rfftfreq(n, 1 / sample_rate)
    return (freqs_hz >= species.fmin_hz) & (freqs_hz <= species.fmax_hz)


class TestMaking:
    def test_a_file_has_the_same_bytes_whoever_writes_it_and_in_whatever_order(self, sample, tmp_path):
        # The fixture was made by two processes; here a few of its files are made by one, last first.
        for recording in plan_recordings(0, SMALL["recordings_per_species"])[::-4]:
            write_recording(0, recording, tmp_path)
        write_soundscape(0, plan_soundscapes(0, SMALL["soundscape_s"])[3], tmp_path)
        write_nocall_source(0, plan_nocall(0)[4], tmp_path)
        again = contents(tmp_path)
        assert len(again) >= 6 and {name.split("/")[0] for name in again} == {"train_audio", "test_audio", "nocall"}
        made = contents(sample)
        assert again == {name: made[name] for name in again}

    def test_the_tables_are_the_same_in_every_run(self, sample, tmp_path, monkeypatch):
        monkeypatch.setattr("src.sample.Parallel", lambda n_jobs: list)  # the tables alone
        make_sample(tmp_path / "again", jobs=1, **SMALL)
        tables, made = contents(tmp_path / "again"), contents(sample)
        del tables["sample.json"]
        assert tables == {name: made[name] for name in tables} and len(tables) == 6

    def test_another_seed_makes_another_sample(self):
        first, second = plan_soundscapes(0, soundscape_s=10.0), plan_soundscapes(1, soundscape_s=10.0)
        assert {s.audio_id for s in first}.isdisjoint(s.audio_id for s in second)
        assert plan_nocall(0) != plan_nocall(1)

    def test_making_it_again_does_nothing(self, sample):
        before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
        assert not make_sample(sample, **SMALL)
        assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before

    def test_a_sample_that_lacks_a_file_is_made_anew_and_nothing_is_left_beside_it(self, tmp_path, monkeypatch):
        folder = tmp_path / "sample"
        monkeypatch.setattr("src.sample.Parallel", lambda n_jobs: list)  # the tables alone
        assert make_sample(folder, **SMALL)
        (folder / "truth.csv").unlink()
        assert make_sample(folder, **SMALL) and (folder / "truth.csv").is_file()
        assert [path.name for path in tmp_path.iterdir()] == ["sample"]

    def test_a_failure_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr("src.sample.Parallel", lambda n_jobs: list)
        monkeypatch.setattr("src.sample.write_tables", fail)
        with pytest.raises(OSError, match="disk full"):
            make_sample(tmp_path / "sample", **SMALL)
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_holds_something_else_is_not_touched(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(UserError, match="holds something that is no sample"):
            make_sample(tmp_path, **SMALL)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_the_mark_tells_version_and_seed(self, sample):
        mark = json.loads((sample / "sample.json").read_text())
        assert mark["seed"] == 0 and mark["version"] >= 1

    def test_the_summary_counts(self, sample):
        text = summary(sample)
        assert (
            "17 recordings of 12 species" in text and "10 clips without birds" in text and "6 soundscapes, 60 s" in text
        )

    def test_help_gives_an_example(self):
        done = subprocess.run([sys.executable, "-m", "src.sample", "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "python -m src.sample -o input/sample" in done.stdout

    def test_the_checksum_of_an_ogg_page_is_that_of_the_format(self):
        # The check value of CRC-32 with polynomial 04C11DB7, no reflection, and nothing before or after.
        assert ogg_checksum(b"123456789") == 0x89A1897F
