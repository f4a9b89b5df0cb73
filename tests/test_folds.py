"""Folds are grouped by source, and nothing derived from a source is ever on two sides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from src import competition, exploration, folds, measuring
from src.errors import UserError


@pytest.fixture(scope="module")
def birds(real_data) -> pd.DataFrame:
    return competition.read_recordings(real_data / "birds", real_data / "nocall")


@pytest.fixture(scope="module")
def bird_folds(birds) -> pd.DataFrame:
    return folds.make_folds(birds, 5, 0)


def test_each_recording_is_in_one_fold_and_each_source_too(birds, bird_folds):
    assert sorted(bird_folds.filename) == sorted(birds.filename)
    assert set(bird_folds.fold) == {0, 1, 2, 3, 4}
    assert (bird_folds.groupby("source").fold.nunique() == 1).all()


def test_folds_hold_a_fair_share_of_recordings_and_of_species(bird_folds):
    share = bird_folds.fold.value_counts(normalize=True)
    assert share.min() > 0.10
    assert share.max() < 0.30
    species_in_fold = bird_folds[bird_folds.ebird_code != "nocall"].groupby("fold").ebird_code.nunique()
    assert species_in_fold.min() >= 14  # of 21, three of which have only three sources


def test_species_with_fewer_sources_than_folds_are_named(bird_folds):
    assert folds.few_sources(bird_folds) == {"elwwar1": 3, "smbani": 3, "ventro1": 3}


def test_the_same_seed_gives_the_same_folds_and_another_seed_others(birds, bird_folds):
    again = folds.make_folds(birds, 5, 0)
    pd.testing.assert_frame_equal(again, bird_folds)
    assert not folds.make_folds(birds, 5, 1).fold.equals(bird_folds.fold)


def duplicates(recordings: pd.DataFrame, folder: Path) -> list[list[str]]:
    return exploration.duplicates(measuring.measure(recordings, folder / "measured.csv", jobs=1))


def test_the_same_audio_under_two_names_is_one_source(small_sample, tmp_path):
    recordings = competition.read_recordings(small_sample)
    (pair,) = duplicates(recordings, tmp_path)
    assert len(pair) == 2
    before = recordings.set_index("filename").source[pair]
    assert before.nunique() == 2
    table = folds.make_folds(recordings, 3, alike=[pair]).set_index("filename")
    assert table.source[pair].nunique() == 1
    # whoever shares a source with either of them is in their fold too
    related = recordings.filename[recordings.source.isin(before)]
    assert table.fold[related].nunique() == 1


def test_the_same_audio_with_other_tags_is_still_found(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "a.flac", noise, 16000)
    with soundfile.SoundFile(tmp_path / "b.flac", "w", 16000, 1) as tagged:
        tagged.comment = "the same, uploaded again"
        tagged.write(noise)
    soundfile.write(tmp_path / "c.flac", noise[::-1], 16000)
    names = ["a.flac", "b.flac", "c.flac"]
    assert (tmp_path / "a.flac").read_bytes() != (tmp_path / "b.flac").read_bytes()
    table = pd.DataFrame({"filename": names, "path": [str(tmp_path / name) for name in names]})
    assert duplicates(table, tmp_path) == [["a.flac", "b.flac"]]


def test_the_same_mp3_with_other_tags_is_still_found_though_its_header_promises_another_length(real_data, tmp_path):
    source = next(
        path for path in sorted((real_data / "birds/train_audio").glob("*/*.mp3")) if b"Xing" not in path.read_bytes()
    )
    shutil.copy(source, tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(source.read_bytes() + b"TAG" + b"another title".ljust(125))
    long_tag = b"ID3\x03\x00\x00\x00\x03\x54\x40" + bytes(60_000)  # a size of 60,000 in digits of seven bits
    (tmp_path / "c.mp3").write_bytes(long_tag + source.read_bytes())
    names = ["a.mp3", "b.mp3", "c.mp3"]
    promised = {soundfile.info(tmp_path / name).frames for name in names}
    assert len(promised) > 1
    table = pd.DataFrame({"filename": names, "path": [str(tmp_path / name) for name in names]})
    assert duplicates(table, tmp_path) == [names]


def test_fewer_recordings_of_a_species_than_folds_is_an_error_with_the_fix(tmp_path):
    names = [f"{number}.wav" for number in range(12)]
    table = pd.DataFrame(
        {"filename": names, "path": "none", "ebird_code": ["a", "b", "c"] * 4, "source": [f"s{n}" for n in range(12)]}
    )
    with pytest.raises(UserError, match="use --n-folds 4"):
        folds.make_folds(table, 5)
    assert folds.make_folds(table, 4).fold.nunique() == 4


def test_fewer_sources_than_folds_is_an_error_with_the_fix():
    table = pd.DataFrame({"filename": list("abcd"), "path": "none", "ebird_code": "x", "source": ["1", "1", "2", "2"]})
    with pytest.raises(UserError, match="2 sources cannot fill 5 folds; use --n-folds 2"):
        folds.make_folds(table, 5)


def test_folds_are_written_once_and_read_back(bird_folds, tmp_path):
    folds.write_folds(tmp_path / "folds.csv", bird_folds)
    assert pd.read_csv(tmp_path / "folds.csv").columns.tolist() == ["filename", "ebird_code", "source", "fold"]
    pd.testing.assert_frame_equal(folds.read_folds(tmp_path / "folds.csv"), bird_folds, check_dtype=False)


def test_folds_about_other_recordings_are_refused(birds, bird_folds, tmp_path):
    with pytest.raises(UserError, match=r"about other recordings: 1 differ.*--new-folds"):
        folds.match_folds(birds, bird_folds[1:], tmp_path / "folds.csv")
    changed = bird_folds.assign(ebird_code=["other", *bird_folds.ebird_code[1:]])
    with pytest.raises(UserError, match="about other recordings: 1 differ"):
        folds.match_folds(birds, changed, tmp_path / "folds.csv")
    folds.match_folds(
        birds[1:], bird_folds, tmp_path / "folds.csv"
    )  # a recording that was deleted is no other recording
    with pytest.raises(UserError, match=r"prepare\.py writes it"):
        folds.read_folds(tmp_path / "absent.csv")


def test_a_corrected_recordist_that_makes_two_folds_one_source_is_refused(birds, bird_folds, tmp_path):
    folds.match_sources(birds, bird_folds, tmp_path / "folds.csv")
    one = birds.filename[bird_folds.fold == 0].iloc[0]
    other = birds.filename[bird_folds.fold == 1].iloc[0]
    corrected = birds.assign(source=birds.source.where(~birds.filename.isin([one, other]), "Ada 2020-05-01"))
    with pytest.raises(UserError, match=r"Ada 2020-05-01 are in more than one fold.*--new-folds"):
        folds.match_sources(corrected, bird_folds, tmp_path / "folds.csv")


def test_the_same_audio_in_two_folds_of_an_older_file_is_refused(bird_folds, tmp_path):
    pair = [bird_folds.filename[bird_folds.fold == fold].iloc[0] for fold in (0, 1)]
    folds.match_alike([[pair[0], "not listed.mp3"]], bird_folds, tmp_path / "folds.csv")
    with pytest.raises(UserError, match=r"hold the same audio and are in different folds; --new-folds"):
        folds.match_alike([pair], bird_folds, tmp_path / "folds.csv")


def windows() -> pd.DataFrame:
    """Two windows of each of three files of two sources, rightly split."""
    return pd.DataFrame(
        {
            "filename": ["a", "a", "b", "b", "c", "c"],
            "source": ["s", "s", "s", "s", "t", "t"],
            "fold": [1, 1, 1, 1, 0, 0],
            "transform": ["", "noise", "", "pitch", "", ""],
            "side": ["train"] * 4 + ["validation"] * 2,
        }
    )


def test_the_leak_check_passes_a_clean_split():
    folds.check_no_leak(windows())


def test_the_leak_check_names_a_source_in_two_folds():
    leaking = windows()
    leaking.loc[leaking.filename == "b", "fold"] = 2
    with pytest.raises(UserError, match="source s are in more than one fold"):
        folds.check_no_leak(leaking)


def test_the_leak_check_names_a_source_with_a_channel_or_copy_on_the_other_side():
    leaking = windows()
    leaking.loc[1, "side"] = "validation"
    with pytest.raises(UserError, match="source s are in more than one side"):
        folds.check_no_leak(leaking)


def test_the_leak_check_refuses_augmented_copies_in_validation():
    leaking = windows()
    leaking.loc[5, "transform"] = "shift"
    with pytest.raises(UserError, match="augmented copies of c are in the validation set"):
        folds.check_no_leak(leaking)


def test_the_leak_check_names_windows_that_are_in_no_fold():
    unlisted = windows().astype({"fold": float})
    unlisted.loc[unlisted.filename == "c", ["fold", "source"]] = np.nan
    with pytest.raises(UserError, match="c are in no fold"):
        folds.check_no_leak(unlisted)


def test_an_unreadable_recording_does_not_stop_the_search_for_duplicates(tmp_path, small_sample):
    shutil.copy(next(small_sample.glob("train_audio/*/*.mp3")), tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(b"garbage")
    table = pd.DataFrame({"filename": ["a.mp3", "b.mp3"], "path": [str(tmp_path / "a.mp3"), str(tmp_path / "b.mp3")]})
    assert duplicates(table, tmp_path) == []
