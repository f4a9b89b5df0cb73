"""Every kind of data folder becomes the same table. The readers open no audio, so that empty files stand for recordings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Callable

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import annotations, competition, layouts
from src.annotations import AnnotationError, as_label, beside, parse, read_labels
from src.errors import UserError
from src.layouts import DataSource

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies"


def tree(folder: Path, *files: str, **contents: str) -> Path:
    """Empty files, and those of `contents`, whose keys have "__" for a dot and "_in_" for a slash."""
    named = {key.replace("_in_", "/").replace("__", "."): text for key, text in contents.items()}
    for name, text in {**dict.fromkeys(files, ""), **named}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path | str, **options: object) -> pd.DataFrame:
    """The table by filename, after what is true of every one."""
    recordings = layouts.read(DataSource(str(folder), **options))
    assert list(recordings.columns) == list(competition.COLUMNS)
    assert recordings.filename[recordings.fault == ""].is_unique
    assert list(recordings.filename) == sorted(recordings.filename)
    return recordings.set_index("filename")


def events(recordings: pd.DataFrame, name: str) -> list:
    return json.loads(recordings.events[name])


# Species' folders


def test_a_folder_with_a_sub_folder_a_species_is_read_and_every_file_is_its_own_source(tmp_path):
    files = ["Turdus merula/a.wav", "Turdus merula/2023/b.MP3", "amecro/a.wav", "amecro/notes.pdf", "._x.wav"]
    data = tree(tmp_path, *files, "Noise/wind.ogg", "nocall/x.wav", "loose.wav")
    recordings = read(data)
    assert layouts.layout_of(DataSource(str(data))) == "folders"
    assert recordings.ebird_code.to_dict() == {
        "Noise/wind.ogg": "nocall",
        "Turdus merula/2023/b.MP3": "Turdus_merula",
        "Turdus merula/a.wav": "Turdus_merula",
        "amecro/a.wav": "amecro",
        "loose.wav": "",
        "nocall/x.wav": "nocall",
    }
    assert recordings.fault[recordings.fault != ""].to_dict() == {"loose.wav": "no label: lies in no species' folder"}
    assert list(recordings.source) == list(recordings.index)
    assert all(Path(path).is_file() for path in recordings.path)
    assert competition.species(recordings) == ["Turdus_merula", "amecro"]
    assert (recordings.events == "").all()


def test_the_real_recordings_read_by_their_folders_have_the_labels_of_train_csv(real_data):
    by_folder = read(real_data / "birds/train_audio")
    by_csv = read(real_data / "birds")
    assert list(by_folder.index) == sorted(f"{row.ebird_code}/{name}" for name, row in by_csv.iterrows())
    assert [name.split("/")[0] for name in by_folder.index] == list(by_folder.ebird_code)
    assert layouts.layout_of(DataSource(str(real_data / "birds"))) == "competition"
    assert (by_csv["size"] > 1000).all()
    assert by_csv.rating.between(1, 5).all()


def test_labels_that_differ_in_case_only_are_one_spelt_as_most_often(tmp_path):
    recordings = read(tree(tmp_path, "Amecro/a.wav", "amecro/b.wav", "amecro/c.wav"))
    assert set(recordings.ebird_code) == {"amecro"}


def test_the_source_is_the_first_group_of_a_pattern_in_the_path(tmp_path):
    data = tree(tmp_path, "one/ann_1.wav", "one/ann_2.wav", "two/ann_3.wav", "two/bob.wav")
    recordings = read(data, source_regex=r"/([a-z]+)_\d")
    assert list(recordings.source) == ["ann", "ann", "ann", "two/bob.wav"]
    assert recordings.remark["two/bob.wav"] == "its path does not match --source-regex"
    assert list(read(data, source_regex=r"ann|bob").source) == ["ann", "ann", "ann", "bob"]
    with pytest.raises(UserError, match=r"matches none of 4 paths, the first of them one/ann_1\.wav"):
        read(data, source_regex="zzz")
    with pytest.raises(UserError, match="is no regular expression"):
        read(data, source_regex="(")


@pytest.mark.parametrize(
    ("table", "column", "sources"),
    [
        ("filename,source\na.wav,s1\ntwo/b.wav,s1\n", "", ["s1", "s1", "two/c.wav"]),
        ("filename,recordist,date\na.wav,Ann,2020\nb.wav,Ann,2020\nc.wav,Ann,\n", "", ["Ann 2020"] * 2 + ["two/c.wav"]),
        ("filename,source,site\na.wav,s1,x\nb.wav,s1,y\nc.wav,s2,y\n", "site", ["x", "y", "y"]),
        ("filename,length\na.wav,3\n", "", ["one/a.wav", "two/b.wav", "two/c.wav"]),
    ],
)
def test_a_metadata_csv_says_the_source(tmp_path, table, column, sources):
    data = tree(tmp_path, "one/a.wav", "two/b.wav", "two/c.wav", metadata__csv=table)
    recordings = read(data, source_column=column)
    assert list(recordings.source) == sources
    told_apart = "source" in table and not column
    assert bool(recordings.remark["two/c.wav"]) == (told_apart or "recordist" in table)


def test_a_metadata_csv_without_a_needed_column_is_named_with_the_column(tmp_path):
    data = tree(tmp_path, "one/a.wav", metadata__csv="file,source\na.wav,s\n")
    with pytest.raises(UserError, match=r"metadata\.csv: lacks the column filename"):
        read(data)
    (data / "metadata.csv").write_text("filename,source\na.wav,s\n")
    with pytest.raises(UserError, match=r"metadata\.csv: lacks the column site"):
        read(data, source_column="site")
    with pytest.raises(UserError, match="give one of them"):
        read(data, source_column="source", source_regex="a")


def test_backgrounds_keep_the_source_of_nocall_csv_whatever_the_pattern(tmp_path, real_data):
    data = tree(tmp_path, "one/rain_1.wav", "one/ann_2.wav")
    recordings = read(data, nocall=str(real_data / "nocall"), source_regex=r"([a-z]+)_")
    backgrounds = recordings[recordings.ebird_code == "nocall"]
    assert len(backgrounds) == 160
    assert backgrounds.source.str.startswith("freesound_").all()
    assert list(recordings.source[["one/ann_2.wav", "one/rain_1.wav"]]) == ["ann", "rain"]


def test_ignored_labels_are_no_species_in_any_layout(tmp_path):
    recordings = read(tree(tmp_path, "one/a.wav", "Unknown bird/b.wav"), ignored_labels=("unknown bird",))
    assert recordings.fault.to_dict() == {"Unknown bird/b.wav": "its label is among the ignored ones", "one/a.wav": ""}
    assert competition.species(recordings) == ["one"]


# The competition's layout


def test_a_column_of_train_csv_can_be_the_source(real_data):
    recordings = read(real_data / "birds", source_column="location")
    table = pd.read_csv(real_data / "birds/train.csv", dtype=str).set_index("filename")
    assert (recordings.source == table.location[recordings.index]).all()


def test_a_table_of_labels_is_not_silently_passed_over(real_data):
    with pytest.raises(UserError, match="has labels of its own"):
        read(real_data / "birds", labels="labels.csv")


# xeno-canto

BLACKBIRD = {"id": "1", "gen": "Turdus", "sp": "merula", "rec": "Ann", "date": "2020-05-01", "q": "A"}
WREN = {"id": 22, "gen": "Troglodytes", "sp": "troglodytes", "rec": "Ann", "date": "2020-05-01", "q": "no score"}
ROBIN = {"id": "3", "gen": "Erithacus", "sp": "rubecula", "rec": "", "date": "", "q": "E", "file-name": "robin.wav"}


@pytest.mark.parametrize(
    "shape",
    [
        lambda entries: {"numRecordings": "3", "recordings": entries},
        lambda entries: [{"recordings": entries[:1]}, {"recordings": entries[1:]}],
        lambda entries: entries,
    ],
    ids=["an answer", "answers", "recordings"],
)
def test_xeno_canto_s_answers_are_read_however_they_were_saved(tmp_path, shape):
    entries = [{**BLACKBIRD, "also": ["Erithacus rubecula", "Corvus corone", "Turdus merula", ""]}, WREN, ROBIN]
    data = tree(tmp_path, "t/XC1.mp3", "XC22 - Wren - Troglodytes.mp3", "t/u/robin.wav", "XC223.mp3", "nocall/x.wav")
    (data / "metadata.json").write_text(json.dumps(shape(entries)))
    recordings = read(data)
    assert layouts.layout_of(DataSource(str(data))) == "xeno-canto"
    by_file = read(data / "metadata.json")
    assert by_file.drop(columns="fault").equals(recordings.drop(columns="fault"))
    assert recordings.ebird_code.to_dict() == {
        "XC1.mp3": "Turdus_merula",
        "XC22 - Wren - Troglodytes.mp3": "Troglodytes_troglodytes",
        "XC223.mp3": "",
        "robin.wav": "Erithacus_rubecula",
        "x.wav": "nocall",
    }
    assert recordings.fault[recordings.fault != ""].to_dict() == {"XC223.mp3": "on disk but not in metadata.json"}
    assert recordings.secondary["XC1.mp3"] == "Erithacus_rubecula"
    assert list(recordings.source) == ["Ann 2020-05-01", "Ann 2020-05-01", "XC223.mp3", "robin.wav", "x.wav"]
    assert recordings.rating["XC1.mp3"] == 5
    assert recordings.rating["robin.wav"] == 1
    assert recordings.rating[["XC22 - Wren - Troglodytes.mp3"]].isna().all()


def test_xeno_canto_s_metadata_as_csv_with_ebird_codes(tmp_path):
    table = "id,gen,sp,rec,date,also,ebird_code\n1,Turdus,merula,Ann,2020,\"['Erithacus rubecula']\",eurbla\n"
    table += "2,Erithacus,rubecula,Bob,2021,Turdus merula; Corvus corone,eurrob1\n"
    recordings = read(tree(tmp_path, "XC1.mp3", "2.mp3", birds__csv=table) / "birds.csv")
    assert recordings.ebird_code.to_dict() == {"2.mp3": "eurrob1", "XC1.mp3": "eurbla"}
    assert recordings.secondary.to_dict() == {"2.mp3": "eurbla", "XC1.mp3": "eurrob1"}
    assert list(read(tmp_path, source_column="rec").source) == ["Bob", "Ann"]


def test_what_is_wrong_with_an_entry_of_xeno_canto_s_costs_that_entry(tmp_path):
    soundscape = {"id": "5", "gen": "Sonus", "sp": "naturalis"}
    entries = [BLACKBIRD, BLACKBIRD, WREN, soundscape, {"rmk": "?"}, "nonsense", {**ROBIN, "also": None, "q": None}]
    data = tree(tmp_path, "XC1.mp3", "XC5.mp3", "robin.wav", metadata__json=json.dumps({"recordings": entries}))
    faults = sorted((name, fault) for name, fault in read(data).fault.items())
    assert faults == [
        ("XC1.mp3", ""),
        ("XC1.mp3", "named again in metadata.json"),
        ("XC22", "missing from disk"),
        ("XC5.mp3", "no label: Sonus naturalis is no species"),
        ("entry 5", "no label: nothing is no species"),
        ("entry 6", "no label: nothing is no species"),
        ("robin.wav", ""),
    ]


def test_two_recordings_of_one_name_in_two_folders_are_both_kept(tmp_path):
    entries = [{**BLACKBIRD, "file-name": "XC1.mp3"}, {**WREN, "id": "", "file-name": "b.mp3"}]
    data = tree(tmp_path, "a/XC1.mp3", "b/XC1.mp3", "b.mp3", m__json=json.dumps(entries))
    recordings = layouts.read(DataSource(str(data)))
    assert sorted(zip(recordings.filename, recordings.fault)) == [
        ("XC1.mp3", ""),
        ("b.mp3", ""),
        ("b/XC1.mp3", "on disk but not in m.json"),
    ]


def test_metadata_that_is_broken_or_doubtful_is_a_sentence(tmp_path):
    data = tree(tmp_path, "XC1.mp3", metadata__json='{"recordings": [')
    with pytest.raises(UserError, match=r"metadata\.json: cannot be read as JSON"):
        read(data)
    (data / "metadata.json").write_text('{"notes": 1}')
    with pytest.raises(UserError, match="lacks recordings with id, gen and sp"):
        read(data / "metadata.json")
    with pytest.raises(UserError, match="holds no recordings with labels; --data takes"):
        read(data)
    with pytest.raises(UserError, match="not there"):
        read(data / "nowhere.json")
    tree(data, a__json=json.dumps([BLACKBIRD]), b__json=json.dumps([WREN]))
    with pytest.raises(UserError, match=r"several files of xeno-canto's, a\.json, b\.json"):
        read(data)
    tree(data, t__csv="id,gen\n1,Turdus\n")
    with pytest.raises(UserError, match=r"t\.csv: lacks the column sp"):
        read(data / "t.csv")


# Timed labels


def test_raven_tables_and_audacity_labels_beside_recordings_are_timed_labels(tmp_path):
    lines = [f"{RAVEN}", "1\tWaveform 1\t1\t7.5\t9\t0\t9\tamecro", "1\tSpectrogram 1\t1\t7.5\t9\t0\t9\tamecro"]
    lines += ["2\tSpectrogram 1\t1\t0.5\t2.5\t0\t9\tTurdus merula, banana", "3\tSpectrogram 1\t1\t3\t4\t0\t9\t"]
    data = tree(tmp_path, "c.flac", "c.txt", "d.wav", "s/a.wav", "b.wav")
    tree(data, b__txt="0,5\t1,5\tsquirrel\n\\\t100,0\t9000,0\n3.0\t3.0\tamecro\n")
    (data / "s/a.Table.1.selections.txt").write_text("\n".join(lines))
    recordings = read(data, ignored_labels=("Squirrel",))
    assert layouts.layout_of(DataSource(str(data))) == "timed labels"
    assert events(recordings, "s/a.wav") == [
        [0.5, 2.5, "Turdus_merula"],
        [0.5, 2.5, "banana"],
        [3.0, 4.0, "?"],
        [7.5, 9.0, "amecro"],
    ]
    assert events(recordings, "b.wav") == [[0.5, 1.5, "?"], [3.0, 3.0, "amecro"]]
    assert events(recordings, "c.flac") == []
    labels = {"b.wav": "amecro", "c.flac": "nocall", "d.wav": "", "s/a.wav": "Turdus_merula"}
    assert recordings.ebird_code.to_dict() == labels
    assert recordings.fault["d.wav"] == "no labels beside it"
    assert competition.species(recordings) == ["Turdus_merula", "amecro", "banana"]
    assert list(recordings.source) == list(recordings.index)


def test_the_host_s_example_is_read_by_its_table_of_timed_labels(real_data):
    folder = real_data / "birdsong-recognition"
    for data in (folder, folder / "example_test_audio"):
        recordings = read(data, labels=str(folder / "example_test_audio_metadata.csv"))
        assert len(recordings) == 2
        assert (recordings.fault == "").all()
        assert sum(len(json.loads(text)) for text in recordings.events) == 255
    assert list(recordings.index) == [
        "BLKFR-10-CPL_20190611_093000.pt540.mp3",
        "ORANGE-7-CAP_20190606_093000.pt623.mp3",
    ]
    table = competition.read_events(folder / "example_test_audio_metadata.csv")
    assert competition.species(recordings) == sorted(set(table.ebird_code))
    ignored = ("squirrel", "unk", "hawo", "mouqua", "whhwoo")
    known = read(data, labels=str(folder / "example_test_audio_metadata.csv"), ignored_labels=ignored)
    assert set(competition.species(known)) == set(table.ebird_code) - set(ignored)
    codes = [code for text in known.events for _, _, code in json.loads(text)]
    assert codes.count("?") == table.ebird_code.isin(ignored).sum()


def test_one_table_labels_all_recordings_and_says_which_are_not_there(tmp_path):
    table = "filename,start_seconds,end_seconds,label\n"
    table += (
        "s/a.wav,0,1,amecro\nb.wav,,,\nx.wav,0,1,amecro\nc.wav,3,2,amecro\n,0,1,amecro\nD:\\field\\d.wav,0,1,banana\n"
    )
    data = tree(tmp_path / "data", "s/a.wav", "a.wav", "b.wav", "c.wav", "d.wav", "e.wav")
    labels = tree(tmp_path, labels__csv=table) / "labels.csv"
    recordings = read(data, labels=str(labels))
    assert recordings.fault.to_dict() == {
        "a.wav": "not in labels.csv",
        "b.wav": "",
        "c.wav": "labels.csv: line 5 ends before it starts",
        "d.wav": "",
        "e.wav": "not in labels.csv",
        "labels.csv": "a line of it names no recording",
        "s/a.wav": "",
        "x.wav": "missing from disk",
    }
    assert events(recordings, "b.wav") == []
    assert recordings.ebird_code["d.wav"] == "banana"


def test_a_name_that_several_recordings_have_labels_none_of_them(tmp_path):
    table = "filename,start_seconds,end_seconds,label\na.wav,0,1,amecro\nb.wav,0,1,amecro\n"
    data = tree(tmp_path, "s/a.wav", "t/a.wav", "b.wav", "t/b.wav", labels__csv=table)
    recordings = read(data, labels=str(data / "labels.csv"))
    assert set(recordings.fault[["s/a.wav", "t/a.wav"]]) == {
        "labels.csv: 2 files are called a.wav; name it with its folder"
    }
    assert list(recordings.fault[["b.wav", "t/b.wav"]]) == ["", "not in labels.csv"]


def test_a_raven_table_of_several_files_has_the_times_of_each(tmp_path):
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tAnnotation"
    lines = [
        header,
        "1\t1.0\t2.0\ta.wav\t1.0\tamecro",
        "2\t61.5\t62.5\tb.wav\t1.5\tbanana",
        "3\t65\t64\tb.wav\t5\tbanana",
    ]
    data = tree(tmp_path, "a.wav", "b.wav", all__txt="\n".join(lines))
    recordings = read(data, labels=str(data / "all.txt"))
    assert events(recordings, "a.wav") == [[1.0, 2.0, "amecro"]]
    assert recordings.fault["b.wav"] == "all.txt: line 4 ends before it starts"
    (data / "all.txt").write_text("\n".join(lines[:3]))
    assert events(read(data, labels=str(data / "all.txt")), "b.wav") == [[1.5, 2.5, "banana"]]


def test_detections_that_were_looked_through_are_labels(tmp_path):
    table = "file,start_s,end_s,species,probability\nfield/a.wav,0.0,5.0,amecro,0.9\n"
    data = tree(tmp_path, "a.wav", detections__csv=table)
    assert events(read(data, labels=str(data / "detections.csv")), "a.wav") == [[0.0, 5.0, "amecro"]]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("l.csv", "filename,start_seconds,label\na.wav,0,x\n", "lacks the column end_seconds"),
        ("l.csv", "filename;start_seconds;end_seconds;label\n", "separated by semicolons"),
        ("l.txt", "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t0\t1\tx\n", "lacks the column Begin File"),
        (
            "l.txt",
            "Selection\tBegin Time (s)\tSpecies\tBegin File\n1\t0\tx\ta.wav\n",
            r"lacks the column End Time \(s\)",
        ),
        ("l.txt", "Begin Time (s)\tEnd Time (s)\tBegin File\n0\t1\ta.wav\n", "has no column of labels"),
    ],
)
def test_a_table_of_labels_without_a_needed_column_is_named_with_the_column(tmp_path, name, text, complaint):
    data = tree(tmp_path, "a.wav")
    (data / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: .*{complaint}"):
        read(data, labels=str(data / name))
    with pytest.raises(UserError, match="not there"):
        read(data, labels=str(data / f"no{name}"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0\t1\tx\n2\t1\tx\n", "a.txt: line 2 ends before it starts"),
        ("0\t1\tx\n\nnone\t1\tx\n", "a.txt: line 3: 'none' is not a time in seconds"),
        ("-1\t1\tx\n", "a.txt: line 1 starts before the recording"),
        ("nan\t1\tx\n", "a.txt: line 1: 'nan' is not a time in seconds"),
        ("a note on the weather\n", "a.txt: line 1 is not start, end and label, separated by tabs"),
        (f"{RAVEN}\n1\tSpectrogram 1\t1\t\t1\n", "a.txt: line 2: '' is not a time in seconds"),
        ("Begin Time (s)\tSpecies\n", "a.txt: lacks the column End Time (s)"),
        ("Begin Time (s)\tEnd Time (s)\n0\t1\n", "a.txt: has no column of labels (Species, Annotation, Label, ...)"),
    ],
)
def test_a_broken_annotation_file_costs_its_recording_and_is_named_with_the_line(tmp_path, text, fault):
    recordings = read(tree(tmp_path, "a.wav", "b.wav", a__txt=text, b__txt="0\t1\tamecro\n"))
    assert recordings.fault.to_dict() == {"a.wav": fault.replace("Label, ...", "Label, Species Code, ..."), "b.wav": ""}


def test_an_annotation_file_in_another_encoding_costs_its_recording(tmp_path):
    data = tree(tmp_path, "a.wav", "b.wav", b__txt="0\t1\tamecro\n")
    (data / "a.txt").write_bytes("0\t1\té\n".encode("latin-1"))
    assert read(data).fault["a.wav"] == "a.txt: is not UTF-8"


def test_species_folders_with_labels_beside_a_few_keep_their_label_for_the_others(tmp_path):
    files = ["amecro/b.wav", "banana/c.wav", "noise/d.wav", "e.wav"]
    recordings = read(tree(tmp_path, *files, "amecro/a.wav", amecro_in_a__txt="0\t1\tAmecro\n2\t4\tbanana\n"))
    assert recordings.ebird_code.to_dict() == {
        "amecro/a.wav": "banana",
        "amecro/b.wav": "amecro",
        "banana/c.wav": "banana",
        "e.wav": "",
        "noise/d.wav": "nocall",
    }
    assert [text != "" for text in recordings.events] == [True, False, False, False, False]
    assert recordings.fault["e.wav"] == "no labels beside it"


def test_folders_of_places_are_not_taken_for_species(tmp_path):
    recordings = read(tree(tmp_path, "site1/a.wav", "site1/b.wav", site1_in_a__txt="0\t1\tamecro\n"))
    assert recordings.fault["site1/b.wav"] == "no labels beside it"
    assert competition.species(recordings) == ["amecro"]


def test_annotation_files_are_known_by_the_names_that_programs_give_them():
    files = ["a.wav", "a.b.wav", "a.flac", "s/a.wav", "a.txt", "a.b.txt", "a.Table.1.selections.txt", "a.notes.txt"]
    files += ["a.b.BirdNET.selection.table.txt", "s/a.selections.txt", "s/b.txt", "s/.a.txt", "a.Table01.TXT"]
    of_a = ["a.txt", "a.Table.1.selections.txt", "a.Table01.TXT"]
    assert beside(files) == {
        "a.wav": of_a,
        "a.flac": of_a,
        "a.b.wav": ["a.b.txt", "a.b.BirdNET.selection.table.txt"],
        "s/a.wav": ["s/a.selections.txt"],
    }


def test_codes_are_preferred_to_names_and_a_column_that_is_empty_to_none():
    text = "Begin Time (s)\tEnd Time (s)\tCommon Name\tSpecies Code\n0\t1\tCommon Blackbird\teurbla\n"
    assert parse(text) == [(0.0, 1.0, "eurbla")]
    assert parse(text.replace("eurbla", "")) == [(0.0, 1.0, "Common_Blackbird")]
    assert parse(text.replace("eurbla", "nocall")) == []
    assert parse("\ufeff" + text.upper()) == [(0.0, 1.0, "EURBLA")]


def test_a_table_of_several_recordings_beside_one_is_refused():
    text = "Begin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n0\t1\ta.wav\tx\n0\t1\tb.wav\tx\n"
    with pytest.raises(AnnotationError, match="several recordings; give it with --labels"):
        parse(text)


def test_a_label_in_one_of_raven_s_views_counts_for_both():
    lines = [RAVEN, "1\tWaveform 1\t1\t0\t1\t0\t9\t", "1\tSpectrogram 1\t1\t0\t1\t0\t9\tamecro"]
    assert parse("\n".join(lines)) == [(0.0, 1.0, "amecro")]


seconds = st.integers(0, 10_000_000).map(lambda ms: ms / 1000)
codes = st.text(st.characters(codec="utf-8", exclude_characters=',+;"'), min_size=1).map(as_label).filter(bool)
some_events = st.lists(st.tuples(seconds, seconds, codes).map(lambda e: (min(e[:2]), max(e[:2]), e[2])))


@given(some_events, st.booleans())
def test_events_written_as_audacity_labels_or_as_a_raven_table_come_back(written, as_raven):
    if as_raven:
        lines = [f"{n}\tSpectrogram 1\t1\t{start}\t{end}\t0\t9\t{code}" for n, (start, end, code) in enumerate(written)]
        text = "\n".join([RAVEN, *lines])
    else:
        text = "".join(f"{start:.6f}\t{end:.6f}\t{code}\n" for start, end, code in written)
    assert parse(text) == sorted({event for event in written if event[2] != "nocall"})


@given(st.text())
def test_any_text_is_events_or_one_fault(text):
    try:
        found = parse(text)
    except AnnotationError as error:
        assert "line" in str(error) or "column" in str(error)
    else:
        assert found == sorted(set(found))


@given(st.text())
def test_a_label_holds_no_spaces_and_stays_what_it_is(text):
    label = as_label(text)
    assert len(label.split()) == bool(label)
    assert as_label(label) == label


# Whatever the layout


def test_a_data_source_survives_json():
    source = DataSource("s3://birds", ignored_labels=("unk", "squirrel"), source_column="site")
    assert DataSource.from_dict(json.loads(json.dumps(source.to_dict()))) == source
    assert DataSource.from_dict({"data": "input"}) == DataSource("input")


def test_a_folder_that_is_none_of_these_is_a_sentence(tmp_path):
    for folder in (tmp_path / "nowhere", tree(tmp_path / "flat", "a.wav"), tree(tmp_path / "text", "s/readme.txt")):
        with pytest.raises(UserError, match=r"--data takes a folder with train\.csv"):
            read(folder)
    with pytest.raises(
        UserError, match=r"the one folder in it, train_audio, names no species; is --data .*train_audio meant"
    ):
        read(tree(tmp_path / "above", "train_audio/amecro/a.wav", "train_audio/banana/b.wav"))
    with pytest.raises(UserError, match=r"none of its 1 recordings can be used; the first, a\.wav: a\.txt: line 1"):
        read(tree(tmp_path / "faulty", "a.wav", a__txt="x\n"))


def test_backgrounds_of_a_folder_inside_the_data_are_not_recordings_of_a_species(tmp_path):
    data = tree(tmp_path, "one/a.wav", "quiet/b.wav", "quiet/b.txt")
    recordings = read(data, nocall=str(data / "quiet"))
    assert recordings.ebird_code.to_dict() == {"one/a.wav": "one", "quiet/b.wav": "nocall"}


@pytest.mark.parametrize("layout", ["folders", "competition", "timed labels", "xeno-canto"])
def test_a_folder_on_a_server_is_read_by_one_listing_and_without_a_question_a_file(tmp_path, monkeypatch, layout):
    import fsspec

    tables = {
        "folders": {},
        "competition": {
            "train.csv": "filename,ebird_code,secondary_labels,primary_label,recordist,date\n"
            + "".join(f"{n}.wav,one,[],l,Ann,{n}\n" for n in range(30))
        },
        "timed labels": {f"train_audio/one/{n}.txt": f"0\t{n}\tone\n" for n in range(30)},
        "xeno-canto": {"metadata.json": json.dumps([{**BLACKBIRD, "id": n} for n in range(30)])},
    }[layout]
    files = {**{f"train_audio/one/{n}.wav": "12" for n in range(30)}, "nocall/wind.wav": "1", **tables}
    server = fsspec.filesystem("memory")
    for name, text in files.items():
        server.pipe_file(f"/server/{name}", text.encode())
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    asked = Counter()

    def counted(name: str, real: Callable) -> Callable:
        return lambda *args, **kwargs: (asked.update([name]), real(*args, **kwargs))[1]

    for name in ("find", "cat_file"):
        monkeypatch.setattr(server, name, counted(name, getattr(server, name)))
    remote = layouts.read(DataSource("memory://server"))
    # The listings are of the data and of the backgrounds.
    assert asked == {"find": 2, **({"cat_file": len(tables)} if tables else {})}
    assert layouts.layout_of(DataSource("memory://server")) == layout
    local = layouts.read(DataSource(str(tmp_path)))
    assert list(remote.path) == [f"memory://server/{Path(path).relative_to(tmp_path)}" for path in local.path]
    same = ["filename", "ebird_code", "secondary", "events", "fault", "source", "size"]
    pd.testing.assert_frame_equal(remote[same], local[same])
    server.rm("/server", recursive=True)


def test_every_name_that_the_table_of_labels_may_use_finds_its_file():
    audio = ["2023/site1/a.wav", "2023/site2/a.wav", "b.pt540.mp3", "b.pt540.wav"]
    found, absent = annotations.find_recordings(
        {name: [] for name in ["site1/a.wav", "/mnt/2023/site2/a", "b", "site3/a.wav", "c"]}, audio, "t.csv"
    )
    assert set(found) == {"2023/site1/a.wav", "2023/site2/a.wav", "b.pt540.mp3"}
    assert absent == ["site3/a.wav", "c"]


def test_the_host_s_times_that_are_no_numbers_are_named(tmp_path):
    header = "file_id,ebird_code,certainty,time_start,time_end\n"
    table = tree(tmp_path, m__csv=f"{header}a,amecro,c,1,2\nb,amecro,c,2,1\n") / "m.csv"
    found = read_labels(table)
    assert found["a"] == [(1.0, 2.0, "amecro")]
    assert str(found["b"]) == "event 2 ends before it starts"
    table.write_text(f"{header}a,amecro,c,x,2\n")
    with pytest.raises(UserError, match="times must be seconds"):
        read_labels(table)
