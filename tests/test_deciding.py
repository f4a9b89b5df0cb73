"""What decides beside the thresholds: found where it helps, by other groups than are judged, kept, and done by predict.py."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, TONES_HZ, tone

import predict
from src import bundle, competition, fitting, judging
from src.bundle import Bundle
from src.calibration import Calibration, sigmoid
from src.fitting import Answers, Fitted, Windows
from src.predictor import MEAN, VOTES, Ensemble, Predictor, predict_file
from src.soundscape import Decision, Rule, Votes, accepted

RATE = 32000
FILES, ROWS, BETWEEN = 60, 12, 23  # windows of 5 s every 2.5 s in a minute
KINDS = list(fitting.CHOICES)


def soundscapes(truth: np.ndarray, said: np.ndarray, windows: np.ndarray | None = None) -> Answers:
    """truth, said: [files, rows, labels], the latter in logits; windows: logits [files, BETWEEN, labels]."""
    files, rows, labels = truth.shape
    of_file = np.repeat(np.arange(files), rows)
    source = np.array([f"source {file}" for file in of_file])
    heard = None
    if windows is not None:
        starts = np.tile(2.5 * np.arange(BETWEEN), files)
        probabilities = sigmoid(windows).astype(np.float32).reshape(-1, labels)
        heard = Windows(probabilities, np.repeat(np.arange(files), BETWEEN), starts, 5.0)
    truth = truth.reshape(-1, labels)
    return Answers(
        labels=tuple("abcd"[:labels]),
        probabilities=sigmoid(said).astype(np.float32).reshape(-1, labels),
        origin=np.where(truth, of_file[:, None], -1),
        maybe=np.zeros(truth.shape, bool),
        weight=np.full(len(truth), 1 / len(truth)),
        source=source,
        group=np.array([f"fold{file % 4}" for file in of_file]),
        file=of_file,
        windows=heard,
    )


def songs(generator: np.random.Generator, labels: int = 2) -> np.ndarray:
    """In most files one species sings for four rows: bool [files, rows, labels]."""
    truth = np.zeros((FILES, ROWS, labels), bool)
    for file in truth:
        if generator.random() < 0.7:
            start = generator.integers(0, 9)
            file[start : start + 4, generator.integers(labels)] = True
    return truth


def noisy_windows(noise: float = 1.2) -> Answers:
    """Rows heard through noise of each window, and so are the windows between: the mean of several is nearer to the truth."""
    generator = np.random.default_rng(0)
    truth = songs(generator)
    windows = np.zeros((FILES, BETWEEN, 2))
    windows[:, ::2] = np.where(truth, 1.0, -1.0)
    windows[:, 1::2] = (windows[:, :-2:2] + windows[:, 2::2]) / 2
    windows += generator.normal(0, noise, windows.shape)
    return soundscapes(truth, windows[:, ::2], windows)


def shy_in_the_file() -> Answers:
    """A species that is there is sure once and shy elsewhere; one that is not there is never sure."""
    generator = np.random.default_rng(1)
    truth = songs(generator)
    said = np.where(truth, -0.6, np.where(generator.random(truth.shape) < 0.1, 0.4, -4.0))
    first = truth & (truth.cumsum(axis=1) == 1)
    return soundscapes(truth, np.where(first, 4.0, said))


def one_at_a_time() -> Answers:
    """Where one sings the other is taken for it, with less confidence."""
    truth = songs(np.random.default_rng(2))
    there = truth.any(axis=2, keepdims=True)
    return soundscapes(truth, np.where(truth, 3.0, np.where(there, 1.0, -4.0)))


HELPED = {
    "overlapping windows": (noisy_windows, ("overlap",)),
    "neighbouring rows": (noisy_windows, ("neighbours",)),
    "strict for the file, loose for the row": (shy_in_the_file, ("strict", "loose")),
    "at most so many a row": (one_at_a_time, ("most",)),
}


def plainly(answers: Answers) -> tuple[judging.Judged, np.ndarray | None]:
    """As judged by a threshold of 0.5 without calibration, and the same of windows that overlap."""
    found = [{group: Fitted(Calibration(), 0.5, np.full(2, 0.5)) for group in np.unique(answers.group)}]
    return judging.judge([answers], found, by_species=False), judging.overlapping([answers], found)


def empty_share(answers: Answers) -> float:
    """Of rows without birds."""
    return float((~answers.present.any(axis=1)).mean())


# Fitted.


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_where_it_helps_and_its_gain_is_reported_and_kept(kind):
    make, fields = HELPED[kind]
    answers = make()
    judged, overlapping = plainly(answers)
    found = fitting.fit_decision(judged.probabilities, judged.thresholds, answers, [kind], overlapping)
    assert all(getattr(found, name) for name in fields)
    assert replace(found, **dict.fromkeys(fields, 0)) == Decision(), "and nothing else"
    share = empty_share(answers)
    tried, last, decision = judging.steps(answers, judged, overlapping, share, draws=50)
    assert tried[f"and {kind}"].f1.mean() > judged.f1.mean() + 0.02
    assert last.f1.mean() >= tried[f"and {kind}"].f1.mean()
    assert decision != Decision() and (decision.overlap > 0) == (make is noisy_windows)
    table = judging.table(answers, {"before": judged, **tried}, share, draws=50).set_index("thresholds")
    assert table.row_f1[f"and {kind}"] == pytest.approx(tried[f"and {kind}"].f1.mean())
    assert table.low[f"and {kind}"] <= table.row_f1[f"and {kind}"] <= table.high[f"and {kind}"]


def test_nothing_is_kept_where_the_thresholds_are_enough():
    truth = songs(np.random.default_rng(3))
    windows = np.where(np.repeat(truth, 2, axis=1)[:, :BETWEEN], 5.0, -5.0)
    answers = soundscapes(truth, np.where(truth, 5.0, -5.0), windows)
    judged, overlapping = plainly(answers)
    tried, last, decision = judging.steps(answers, judged, overlapping, nocall_share=0.5, draws=50)
    assert list(tried) == [f"and {kind}" for kind in KINDS]
    assert last is judged and decision == Decision()


def test_windows_that_are_not_there_are_not_tried():
    answers = replace(noisy_windows(), windows=None)
    judged, overlapping = plainly(answers)
    assert overlapping is None
    tried, _, decision = judging.steps(answers, judged, overlapping, nocall_share=0.5, draws=50)
    assert list(tried) == [f"and {kind}" for kind in KINDS[1:]] and decision.overlap == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_decides_in_a_group_was_found_in_the_others(kind):
    """The truth of one group is turned upside down, so that what helps elsewhere harms there: it is done there all the same."""
    make, fields = HELPED[kind]
    answers = make()
    if "overlap" not in fields:  # which would be kept before what is asked for, or would not
        answers = replace(answers, windows=None)
    poisoned = answers.file % 4 > 0  # most of all, so that the few others are outvoted if it has a say
    answers = replace(answers, group=np.where(poisoned, "fold1", "fold0"))
    origin = np.where(poisoned[:, None], np.where(answers.present, -1, answers.file[:, None]), answers.origin)
    judged, overlapping = plainly(answers)
    clean, _, _ = judging.steps(answers, judged, overlapping, nocall_share=0.5, draws=5)
    dirty, _, _ = judging.steps(replace(answers, origin=origin), judged, overlapping, nocall_share=0.5, draws=5)
    np.testing.assert_array_equal(
        clean[f"and {kind}"].probabilities[poisoned], dirty[f"and {kind}"].probabilities[poisoned]
    )
    assert dirty[f"and {kind}"].f1[poisoned].mean() < clean[f"and {kind}"].f1[poisoned].mean() - 0.1


def test_an_ensemble_s_overlapping_windows_are_the_mean_of_its_members_each_calibrated_by_its_own():
    first, second = noisy_windows(), noisy_windows(noise=0.5)
    groups = np.unique(first.group)
    found = [
        {group: Fitted(calibration, 0.5, np.full(2, 0.5)) for group in groups}
        for calibration in (Calibration(0.5, 0.2), Calibration(2.0, -0.4))
    ]
    alone = [judging.overlapping([one], [of]) for one, of in zip((first, second), found)]
    np.testing.assert_allclose(judging.overlapping([first, second], found), np.mean(alone, axis=0), atol=1e-6)
    # By hand, the second row of a file: its own window counts for a half, those before and after for a quarter each.
    calibrated = found[0]["fold0"].calibration.apply(first.windows.probabilities[:BETWEEN])
    np.testing.assert_allclose(alone[0][1], calibrated[1] / 4 + calibrated[2] / 2 + calibrated[3] / 4, atol=1e-6)
    np.testing.assert_allclose(alone[0][0], calibrated[0] * 2 / 3 + calibrated[1] / 3, atol=1e-6)
    # A member whose own windows overlap is taken as it is.
    plain = found[1]["fold0"].calibration.apply(second.probabilities)
    both = judging.overlapping([first, replace(second, windows=None)], found)
    np.testing.assert_allclose(both, (alone[0] + plain) / 2, atol=1e-6)


def test_an_ensemble_is_evaluated_with_the_windows_of_its_members():
    from src import evaluation
    from src.oof import as_arrays

    generator = np.random.default_rng(0)
    code = generator.choice(["a", "b", "nocall"], 300)
    table = pd.DataFrame({"filename": [f"{n}.wav" for n in range(300)], "source": [f"s{n % 50}" for n in range(300)]})
    table = table.assign(ebird_code=code, others="", secondary="", fold=np.arange(300) % 50 % 4)
    for label in "ab":
        table[label] = sigmoid(3 * (code == label) - 2 + generator.normal(0, 1.5, 300))
    oof, heard = as_arrays(table, ["a", "b"]), noisy_windows()
    mean = replace(heard, windows=None)  # as comparison.ensemble leaves it
    share = empty_share(heard)
    found = evaluation.evaluate(oof, share, mean, draws=50, members=[(oof, heard), (oof, heard)])
    alone = evaluation.evaluate(oof, share, heard, draws=50)
    assert found.decision.overlap == alone.decision.overlap == fitting.OVERLAP
    decisions = found.decisions.set_index("thresholds")
    pd.testing.assert_frame_equal(decisions.drop(evaluation.VOTED), alone.decisions.set_index("thresholds"), atol=1e-6)
    # Two who agree vote as each decides.
    assert decisions.row_f1[evaluation.VOTED] == pytest.approx(decisions.row_f1[evaluation.BY_SPECIES])


def test_votes_are_judged_as_the_predict_core_counts_them():
    members = [noisy_windows(noise) for noise in (1.2, 0.5, 0.8)]
    found = [fitting.cross_fitted(one, one) for one in members]
    judged = judging.votes(members, found)
    here = members[0].group == "fold1"
    fitted = [of_groups["fold1"] for of_groups in found]
    said = np.stack([of.calibration.apply(one.probabilities[here]) for of, one in zip(fitted, members)])
    counted = Votes(tuple(Rule(of.thresholds) for of in fitted)).counted(said)
    np.testing.assert_array_equal(judged.probabilities[here], counted)
    assert judged.f1[here].mean() != judging.judge(members, found, by_species=True).f1[here].mean()


# Kept and done.


@pytest.fixture(scope="module")
def glade(tmp_path_factory) -> Path:
    """A competition's test set of tones: two at once, one softer; one that fades; short ones, of which one is the last row."""
    folder = tmp_path_factory.mktemp("glade")
    (folder / "test_audio").mkdir()
    two = tone(5, RATE, "mid") + tone(5, RATE, "high", amplitude=0.01)
    fading = [tone(5, RATE, "low", amplitude=amplitude) for amplitude in (0.3, 0.003, 0.0003)]
    short = [tone(3.8, RATE), tone(2.4, RATE, "mid"), tone(1.3, RATE), tone(2, RATE, "high")]
    calls = np.concatenate([two, tone(2.5, RATE), *fading, *short])
    soundfile.write(folder / "test_audio/a.wav", calls, RATE, "FLOAT")  # 32 s
    ends = ["5", "10", "15", "20", "25", "30", "35", ""]
    (folder / "test.csv").write_text("row_id,seconds,audio_id\n" + "".join(f"r{end},{end},a\n" for end in ends))
    return folder


def decided_by(of: Bundle, folder: Path, **decision: float) -> Bundle:
    """A copy of a bundle with this decision in it, as an earlier version left it where fields are missing."""
    shutil.copytree(of.folder, folder)
    contents = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(
        json.dumps({**contents, "threshold_source": "a test", "thresholds": [0.5, 0.5, 0.5], "decision": decision})
    )
    return bundle.load(folder)


def detections(one: Bundle, recording: Path, output: Path, *options: object) -> set[tuple]:
    """(start_s, end_s, species) of what predict.py detects."""
    assert predict.main(["--model", str(one.folder), str(recording), "-o", str(output), *map(str, options)]) == 0
    table = pd.read_csv(output)
    return set(zip(table.start_s, table.end_s, table.species))


def rows_of(one: Bundle, glade: Path, output: Path, *options: object) -> dict[str, str]:
    """What predict.py answers the rows of the test.csv."""
    command = ["--model", str(one.folder), "--test-csv", str(glade / "test.csv"), "-o", str(output)]
    assert predict.main([*command, *map(str, options)]) == 0
    table = pd.read_csv(output)
    return dict(zip(table.row_id, table.birds))


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--neighbours", "neighbours", 0.5),
        ("--strict", "strict", 4.0),
        ("--loose", "loose", 3.0),
        ("--at-most", "most", 1),
    ],
)
def test_each_option_decides_as_the_same_number_in_the_bundle_does_and_overrules_it(
    tone_bundle, glade, tmp_path, option, field, value
):
    recording = glade / "test_audio/a.wav"
    plain, fitted = decided_by(tone_bundle, tmp_path / "p"), decided_by(tone_bundle, tmp_path / "f", **{field: value})
    found = predict_file(Predictor([tone_bundle]), recording)
    counted = accepted(found.probabilities, 0.5, Decision(**{field: value}))
    expected = {
        (start, min(start + 5, 32), list(TONES_HZ)[column])
        for start, row in zip(found.start_seconds, counted)
        for column in np.flatnonzero(row)
    }
    asked = detections(plain, recording, tmp_path / "asked.csv", option, value)
    assert asked == detections(fitted, recording, tmp_path / "fitted.csv") == expected
    overruled = detections(fitted, recording, tmp_path / "overruled.csv", option, 0)
    assert overruled == detections(plain, recording, tmp_path / "plain.csv") != asked
    for combine in (MEAN, VOTES):
        counted = Ensemble([fitted] * 3, combine=combine).rule().counted
        said = found.probabilities if combine == MEAN else np.stack([found.probabilities] * 3)
        np.testing.assert_array_equal(counted(said), accepted(found.probabilities, 0.5, Decision(**{field: value})))


def test_only_the_species_of_the_list_are_answered_in_detections_and_rows(tone_bundle, glade, tmp_path):
    (tmp_path / "here.txt").write_text("high\nlow\n")
    one = decided_by(tone_bundle, tmp_path / "p")
    recording, options = glade / "test_audio/a.wav", ("--species", tmp_path / "here.txt")
    everything = detections(one, recording, tmp_path / "all.csv")
    some = detections(one, recording, tmp_path / "some.csv", *options)
    assert some == {line for line in everything if line[2] != "mid"} != everything
    rows = rows_of(one, glade, tmp_path / "s.csv", *options)
    assert rows["r5"] == "high" and rows["r"] == "high low"


def test_rows_take_the_windows_that_overlap_where_the_bundle_says_so_and_not_where_the_command_line_says_otherwise(
    tone_bundle, glade, tmp_path
):
    plain, fitted = decided_by(tone_bundle, tmp_path / "p"), decided_by(tone_bundle, tmp_path / "f", overlap=0.5)
    given = rows_of(plain, glade, tmp_path / "given.csv", "--overlap", 2.5)
    assert rows_of(fitted, glade, tmp_path / "fitted.csv") == given
    without = rows_of(plain, glade, tmp_path / "plain.csv")
    assert without == rows_of(fitted, glade, tmp_path / "overruled.csv", "--overlap", 0) != given
    assert without["r"] == given["r"], "a whole file takes each species' greatest probability of any window"


def test_recordings_are_answered_in_the_same_windows_each_the_mean_of_those_that_overlap_it(
    tone_bundle, glade, tmp_path
):
    recording = glade / "test_audio/a.wav"
    fitted = decided_by(tone_bundle, tmp_path / "f", overlap=0.5)
    matrices = [(fitted, []), (fitted, ["--overlap", 0]), (fitted, ["--overlap", 2.5])]
    averaged, plain, dense = (
        (detections(one, recording, tmp_path / f"{n}.csv", *options, "--parquet", tmp_path / f"{n}"),
         pd.read_parquet(tmp_path / f"{n}"))[1]
        for n, (one, options) in enumerate(matrices)
    )  # fmt: skip
    assert list(averaged.start_s) == list(plain.start_s) == [0, 5, 10, 15, 20, 25, 30]
    assert list(averaged.end_s) == list(plain.end_s) and averaged.end_s.max() == 32
    low = dict(zip(dense.start_s, dense.low))
    assert averaged.low[1] == pytest.approx(low[2.5] / 4 + low[5.0] / 2 + low[7.5] / 4, abs=1e-6)
    assert abs(averaged.low[1] - plain.low[1]) > 0.1


@pytest.mark.parametrize("seconds", [3.0, 5.0, 5.00001, 7.4, 7.6, 10.0, 12.6])
def test_however_long_a_recording_is_its_windows_are_those_without_overlap(tone_bundle, tmp_path, seconds):
    fitted = decided_by(tone_bundle, tmp_path / "f", overlap=0.5)
    rate = 44100
    soundfile.write(tmp_path / "a.wav", np.resize(tone(1, rate, "low"), math.ceil(seconds * rate)), rate)
    everything = ("--threshold", 0)
    averaged = detections(fitted, tmp_path / "a.wav", tmp_path / "1.csv", *everything)
    assert averaged == detections(fitted, tmp_path / "a.wav", tmp_path / "2.csv", *everything, "--overlap", 0)


def test_the_kernel_asks_for_the_windows_that_the_bundles_want(tone_bundle, glade, tmp_path):
    described = importlib.util.spec_from_file_location("kernel", ROOT / "submissions/kernel/kernel.py")
    kernel = importlib.util.module_from_spec(described)
    described.loader.exec_module(kernel)
    fitted = decided_by(tone_bundle, tmp_path / "f", overlap=0.5)
    rows = competition.read_rows(glade / "test.csv")
    answers = kernel.ask(Ensemble([fitted]), rows, glade / "test_audio", math.inf)
    expected = rows_of(fitted, glade, tmp_path / "s.csv")
    assert {row: " ".join(sorted(birds)) or "nocall" for row, birds in answers.birds.items()} == expected
    plain = kernel.ask(Ensemble([decided_by(tone_bundle, tmp_path / "p")]), rows, glade / "test_audio", math.inf)
    assert plain.birds != answers.birds


def test_of_an_ensemble_one_that_gains_from_overlap_has_all_of_them_asked_so(tone_bundle, tone_bundle_16k, tmp_path):
    fitted = decided_by(tone_bundle, tmp_path / "f", overlap=0.5, neighbours=0.2)
    assert Ensemble([tone_bundle]).hop_seconds is None
    both = Ensemble([tone_bundle_16k, fitted])
    assert (both.hop_seconds, both.decision) == (2.5, Decision(neighbours=0.1, overlap=0.5))
