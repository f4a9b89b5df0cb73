"""The competition's files, with the host's traps, on the real ones where they are public."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import competition, outputs
from src.errors import UserError


def test_the_real_train_csv_is_read_with_its_sources_and_secondary_labels(real_data):
    recordings = competition.read_recordings(real_data / "birds")
    assert len(recordings) == 269
    assert len(competition.species(recordings)) == 21
    assert recordings.source.nunique() == 75
    assert all(Path(path).is_file() for path in recordings.path)
    # 118 of the 129 rows with secondary labels name another of the 21 species; others are outside and left out.
    assert (recordings.secondary != "").sum() == 118
    listed = {code for codes in recordings.secondary for code in codes.split()}
    assert listed <= set(competition.species(recordings))


def test_secondary_labels_are_joined_on_the_label_and_never_hold_the_primary_species():
    code_of_label = {"Setophaga adelaidae_Adelaide's Warbler": "adewar1", "Coereba flaveola_Bananaquit": "banana"}
    text = str(["Coereba flaveola_Bananaquit", "Setophaga adelaidae_Adelaide's Warbler", "Rana sp._A Frog"])
    assert competition.secondary_codes(text, code_of_label, "adewar1") == ["banana"]
    assert competition.secondary_codes("[]", code_of_label, "adewar1") == []
    assert competition.secondary_codes("", code_of_label, "adewar1") == []
    with pytest.raises(UserError, match="not a list"):
        competition.secondary_codes("__import__('os').getcwd()", code_of_label, "adewar1")


def test_backgrounds_join_the_recordings_as_nocall_grouped_by_their_source(real_data):
    recordings = competition.read_recordings(real_data / "birds", real_data / "nocall")
    nocall = recordings[recordings.ebird_code == "nocall"]
    listed = pd.read_csv(real_data / "nocall/nocall.csv")
    assert len(nocall) == len(listed) == 160
    assert nocall.source.nunique() == listed.source_id.nunique()
    assert "nocall" not in competition.species(recordings)


def test_a_recording_without_recordist_or_date_is_its_own_source(small_sample):
    table = pd.read_csv(small_sample / "train.csv", dtype=str, keep_default_na=False)
    lacking = table[(table.recordist == "") | (table.date == "")]
    recordings = competition.read_recordings(small_sample).set_index("filename")
    assert len(lacking) >= 1
    assert list(recordings.source[lacking.filename]) == list(lacking.filename)


def test_a_csv_without_a_needed_column_is_named_with_the_column(tmp_path):
    (tmp_path / "train.csv").write_text("filename,ebird_code\nXC1.mp3,amecro\n")
    with pytest.raises(
        UserError, match=r"train\.csv: lacks the columns secondary_labels, primary_label, recordist, date"
    ):
        competition.read_recordings(tmp_path)
    with pytest.raises(UserError, match="not there"):
        competition.read_recordings(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("row_id;seconds;audio_id\nr;5;a\n", "lacks the columns .* separated by semicolons"),
        ("row_id,seconds,audio_id\n", "holds no row"),
        ("", "cannot be read as CSV"),
    ],
)
def test_an_odd_test_csv_is_a_sentence(tmp_path, content, complaint):
    (tmp_path / "test.csv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        competition.read_rows(tmp_path / "test.csv")


def test_spreadsheets_byte_order_marks_and_spaces_do_no_harm_and_other_encodings_are_named(tmp_path):
    (tmp_path / "test.csv").write_bytes("\ufeffrow_id,seconds,audio_id\r\nr,5, a\r\n".encode())
    assert list(competition.read_rows(tmp_path / "test.csv").audio_id) == ["a"]
    (tmp_path / "test.csv").write_bytes("row_id,seconds,audio_id\né,5,a\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        competition.read_rows(tmp_path / "test.csv")


def competition_folder(folder: Path, rows: list[str], files: list[str]) -> Path:
    """A train.csv of these rows (filename,ebird_code,secondary_labels,recordist,date,rating) and empty files."""
    lines = ["filename,ebird_code,secondary_labels,recordist,date,rating,primary_label"]
    lines += [f"{row},{row.split(',')[1]}_label" for row in rows]
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12")
    return folder


def test_what_is_wrong_with_one_file_costs_that_file_and_is_named(tmp_path):
    rows = ["a.mp3,one,[],Ann,2020,4.5", "a.mp3,one,[],Ann,2020,4.5", "b.mp3,one,[],Ann,2020,0", "c.mp3,,[],Ann,2020,"]
    rows += ["d.mp3,two,[oops,Ann,2020,x", "e.mp3,two,\"['one_label', 'other_label']\",,2020,1"]
    files = [f"train_audio/{name}" for name in ("one/a.mp3", "two/d.mp3", "two/e.mp3", "two/f.wav", "two/._e.mp3")]
    data = competition_folder(tmp_path / "data", rows, files)
    recordings = competition.read_recordings(data)
    assert list(recordings.columns) == list(competition.COLUMNS)
    faults = [(row.filename, row.ebird_code, row.fault) for row in recordings.itertuples() if row.fault]
    assert faults == [
        ("a.mp3", "one", "named again in train.csv"),
        ("b.mp3", "one", "missing from disk"),
        ("c.mp3", "", "no label"),
        ("f.wav", "two", "on disk but not in train.csv"),
    ]
    usable = recordings[recordings.fault == ""].set_index("filename")
    assert list(usable.index) == ["a.mp3", "d.mp3", "e.mp3"]
    assert usable.remark["d.mp3"].startswith("secondary_labels is not a list of labels")
    assert usable.secondary.to_dict() == {"a.mp3": "", "d.mp3": "", "e.mp3": "one"}
    assert usable.source["e.mp3"] == "e.mp3"  # no recordist
    assert usable.rating["a.mp3"] == 4.5
    assert usable.rating[["d.mp3"]].isna().all()
    assert (usable["size"] == 2).all()
    assert (usable.changed != "").all()
    assert (usable.events == "").all()
    assert competition.species(recordings) == ["one", "two"]


def test_a_row_whose_file_is_absent_does_not_take_the_name_from_one_that_is_there(tmp_path):
    data = competition_folder(tmp_path / "data", ["a.mp3,one,[],,,", "a.mp3,two,[],,,"], ["train_audio/two/a.mp3"])
    recordings = competition.read_recordings(data)
    assert dict(zip(recordings.ebird_code, recordings.fault)) == {"one": "missing from disk", "two": ""}


def test_spaces_around_a_code_or_a_name_do_no_harm(tmp_path):
    data = competition_folder(tmp_path / "data", ["a.mp3 , one,[],,,"], ["train_audio/one/a.mp3"])
    (row,) = competition.read_recordings(data).itertuples()
    assert (row.filename, row.ebird_code, row.fault) == ("a.mp3", "one", "")


def test_backgrounds_of_one_name_are_told_apart_by_their_folder(tmp_path):
    files = ["train_audio/one/a.mp3", "nocall/wind/x.wav", "nocall/rain/x.wav", "nocall/y.wav", "nocall/a.mp3"]
    data = competition_folder(tmp_path / "data", ["a.mp3,one,[],,,"], files)
    recordings = competition.read_recordings(data)
    assert recordings.filename.is_unique
    backgrounds = recordings[recordings.ebird_code == "nocall"]
    assert list(backgrounds.filename) == ["nocall/a.mp3", "rain/x.wav", "wind/x.wav", "y.wav"]
    assert list(backgrounds.source) == list(backgrounds.filename)
    with pytest.raises(UserError, match="holds no audio files"):
        competition.read_backgrounds(competition_folder(tmp_path / "none", [], []))
    with pytest.raises(UserError, match="no such folder"):
        competition.read_recordings(data, tmp_path / "nowhere")


def test_the_species_are_those_of_labels_and_of_timed_labels_of_recordings_without_a_fault():
    rows = [
        {"filename": "a", "ebird_code": "one", "events": '[[0.0, 1.0, "one"], [2.0, 3.0, "two"], [4.0, 5.0, "?"]]'},
        {"filename": "b", "ebird_code": "three"},
        {"filename": "c", "ebird_code": "four", "fault": "missing from disk"},
        {"filename": "d", "ebird_code": "nocall", "events": "[]"},
    ]
    assert competition.species(competition.recordings_table(rows)) == ["one", "three", "two"]
    assert competition.recordings_table([]).empty


def test_the_public_test_csv_and_its_sample_submission_have_the_same_rows(real_data):
    folder = real_data / "birdsong-recognition"
    rows = competition.read_rows(folder / "test.csv")
    truth = competition.read_truth(folder / "sample_submission.csv")
    assert list(rows.row_id) == list(truth)
    assert list(rows.end_seconds) == [5.0, 10.0, 15.0]


def test_rows_without_seconds_stand_for_the_whole_file_and_pandas_floats_are_read(tmp_path):
    (tmp_path / "test.csv").write_text(
        "site,row_id,seconds,audio_id\nsite_1,site_1_a_5,5.0,a\nsite_3,site_3_b,,b\nsite_1,site_1_a_10,10,a\n"
    )
    rows = competition.read_rows(tmp_path / "test.csv")
    np.testing.assert_array_equal(rows.end_seconds, [5.0, np.nan, 10.0])
    assert list(rows.audio_id) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("row", "complaint"), [("site_1,r,five,a", "not a number"), ("site_1,r,-5,a", "not a number above 0")]
)
def test_a_row_with_broken_seconds_is_named(tmp_path, row, complaint):
    (tmp_path / "test.csv").write_text(f"site,row_id,seconds,audio_id\n{row}\n")
    with pytest.raises(UserError, match=f"row r is {complaint}"):
        competition.read_rows(tmp_path / "test.csv")


def test_a_row_that_is_listed_twice_is_an_error(tmp_path):
    (tmp_path / "test.csv").write_text("site,row_id,seconds,audio_id\ns,r,5,a\ns,r,10,a\n")
    with pytest.raises(UserError, match="row r more than once"):
        competition.read_rows(tmp_path / "test.csv")


def test_the_host_s_example_summary_is_read_as_rows_although_its_filename_lacks_the_date(real_data):
    folder = real_data / "birdsong-recognition"
    rows = competition.read_rows(folder / "example_test_audio_summary.csv")
    assert len(rows) == 153
    found = {audio_id: competition.find_audio(folder / "example_test_audio", audio_id) for audio_id in rows.audio_id}
    assert sorted(path.name for path in found.values()) == [
        "BLKFR-10-CPL_20190611_093000.pt540.mp3",
        "ORANGE-7-CAP_20190606_093000.pt623.mp3",
    ]


def test_the_example_truth_takes_empty_cells_as_nocall_and_drops_what_is_no_class(real_data):
    folder = real_data / "birdsong-recognition"
    classes = pd.read_csv(folder / "bird_codes.csv").ebird_code
    assert len(classes) == 264
    every = competition.read_truth(folder / "example_test_audio_summary.csv")
    truth = competition.read_truth(folder / "example_test_audio_summary.csv", list(classes))
    dropped = Counter(code for codes in every.values() for code in codes) - Counter(
        c for v in truth.values() for c in v
    )
    assert set(dropped) == {"squirrel", "unk", "hawo", "mouqua", "whhwoo"}
    assert sum(codes == {"nocall"} for codes in every.values()) == 39  # the empty cells
    assert sum(codes == {"nocall"} for codes in truth.values()) > 39  # and rows of squirrels only
    assert all(codes for codes in truth.values())


def test_the_example_s_timed_events_are_in_the_rows_of_its_summary(real_data):
    folder = real_data / "birdsong-recognition"
    events = competition.read_events(folder / "example_test_audio_metadata.csv")
    assert len(events) == 255
    assert {"hawo", "squirrel", "unk"} <= set(events.ebird_code)
    assert (events.end_seconds > events.start_seconds).all()
    truth = competition.read_truth(folder / "example_test_audio_summary.csv")
    inside = [
        event.ebird_code in truth.get(f"{event.audio_id}_{int(event.start_seconds // 5 + 1) * 5}", ())
        for event in events.itertuples()
    ]
    assert np.mean(inside) > 0.9  # two readings of the same seconds by the same ears


def test_the_sample_has_the_real_columns(small_sample, real_data):
    ours = pd.read_csv(small_sample / "train.csv", nrows=0).columns
    real = pd.read_csv(real_data / "birds/train.csv", nrows=0).columns
    assert list(ours) == list(real)
    assert len(real) == 35
    labels = pd.read_csv(small_sample / "train.csv", keep_default_na=False).secondary_labels
    assert all(isinstance(ast.literal_eval(text), list) for text in labels)


def test_a_submission_is_sorted_codes_or_nocall_in_the_order_of_the_rows(tmp_path):
    outputs.write_submission(tmp_path / "s.csv", ["r2", "r1"], [{"banana", "amecro"}, set()])
    assert (tmp_path / "s.csv").read_text() == "row_id,birds\nr2,amecro banana\nr1,nocall\n"
    assert competition.read_truth(tmp_path / "s.csv") == {"r2": {"amecro", "banana"}, "r1": {"nocall"}}
