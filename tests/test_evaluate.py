"""evaluate.py: one run or many, what goes into the bundles, the comparison, and what it says of odd input."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import run
from tone_run import CODES, make_tone_run

import evaluate
from src import bundle, comparison, evaluation, fitting, oof
from src.calibration import logit, sigmoid
from src.errors import UserError
from src.evaluated_run import EvaluatedRun, Settings
from src.files import locked
from src.predictor import Predictor

SOME = ("--minutes", "2", "--bootstrap", "50")
NASTY = 'x<script>alert("1")</script>&$_|y'


@pytest.fixture(scope="module")
def made(tmp_path_factory, tone_bundle) -> Path:
    """A run that nobody has evaluated. Copy it before you change it."""
    return make_tone_run(tmp_path_factory.mktemp("made"), tone_bundle)


@pytest.fixture
def fresh(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs" / "fresh"))


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory) -> tuple[Path, str, str]:
    """A folder `runs` of two runs and of what is none, after `evaluate.py runs/*`; what it printed, and its warnings."""
    folder = tmp_path_factory.mktemp("compared")
    for name in ("tones", NASTY.replace("/", "_")):
        shutil.copytree(made, folder / "runs" / name)
    (folder / "runs/notes.txt").write_text("a file")
    (folder / "runs/empty").mkdir()
    done = run("evaluate.py", *sorted((folder / "runs").iterdir()), "-o", folder / "out", *SOME)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, done.stderr


def evaluated(path: Path, capsys, *options: str) -> tuple[dict, str]:
    """evaluation.json and what was printed, without a process of its own."""
    assert evaluate.main([str(path), *SOME, *options]) == 0
    return json.loads((path / "evaluation.json").read_text()), capsys.readouterr().out


# One run.


def test_a_run_is_scored_with_intervals_and_its_tables_and_figures_are_written(compared):
    folder, printed, _ = compared
    tones = folder / "runs/tones"
    found = json.loads((tones / "evaluation.json").read_text())
    for name in ("row_f1", "macro_f1", "class_mean_average_precision", "class_mean_auroc", "soundscape_row_f1"):
        low, high = found["intervals"][name]
        assert 0 <= low <= high <= 1 and low - 1e-9 <= found[name] <= high + 1e-9, name
    for name in ("window_accuracy", "recording_accuracy", "calibration_error", "calibration_error_calibrated"):
        assert name in found["intervals"] and name in printed
    assert (
        found["row_f1_all_nocall"] == found["soundscape_all_nocall"]
        or abs(found["soundscape_all_nocall"] - 0.544) < 0.02
    )
    assert found["class_mean_auroc"] > 0.9, "the model does hear tones"
    assert found["remarks"][-1].startswith("the bundles' answers to")
    assert pd.read_csv(tones / "per_species.csv").ebird_code.tolist() == list(CODES)
    assert {"true", "answered", "windows"} <= set(pd.read_csv(tones / "confusions.csv").columns)
    assert (tones / "evaluation.png").stat().st_size > 10_000
    errors = pd.read_csv(tones / "errors.csv")
    assert (tones / "errors.png").is_file() == (len(errors) > 0)


def test_what_was_chosen_is_in_the_bundles_and_the_decisions_say_before_and_after(compared):
    tones = compared[0] / "runs/tones"
    found = json.loads((tones / "evaluation.json").read_text())
    decisions = pd.DataFrame(found["decisions"]).set_index("thresholds").row_f1
    assert list(decisions.index) == [
        evaluation.DEFAULT,
        evaluation.ON_CLIPS,
        evaluation.CALIBRATED,
        evaluation.BY_SPECIES,
        evaluation.BETTER,
        *(f"and {kind}" for kind in fitting.CHOICES),
    ]
    better = decisions[evaluation.BY_SPECIES] >= decisions[evaluation.CALIBRATED]
    assert found["chosen"] == (evaluation.BY_SPECIES if better else evaluation.CALIBRATED)
    for kept in bundle.find([tones]):
        assert kept.threshold == found["threshold"]
        assert dict(zip(kept.labels, kept.thresholds)) == found["thresholds"]
        assert kept.calibration.to_dict() == found["calibration"]
        assert kept.decision.to_dict() == found["decision"]
        each = "one for each species" if better else "one for all species"
        assert kept.threshold_source == f"soundscapes of held-out calls of fold0, fold1; {each}"
    one = bundle.find([tones / "fold0"])
    windows = np.random.default_rng(0).normal(0, 0.01, (2, one[0].recipe.window_samples)).astype(np.float32)
    raw = Predictor(one, calibrated=False).probabilities(windows)
    expected = one[0].calibration.apply(raw)
    np.testing.assert_allclose(Predictor(one).probabilities(windows), expected, atol=1e-6)
    assert np.abs(expected - raw).max() > 0.01


def test_a_second_evaluation_mixes_nothing_anew_and_finds_the_same(fresh, capsys):
    fold, kept = fresh / "fold0", fresh / "fold0/soundscapes.parquet"
    first, _ = evaluated(fold, capsys)
    written = kept.stat().st_mtime_ns
    second, _ = evaluated(fold, capsys)
    assert first == second
    assert kept.stat().st_mtime_ns == written
    evaluated(fold, capsys, "--seed", "1", "--minutes", "1")
    assert kept.stat().st_mtime_ns != written


def test_soundscapes_can_be_left_out_and_one_fold_is_judged_by_parts_of_its_sources(fresh, capsys):
    found, printed = evaluated(fresh / "fold0", capsys, "--no-soundscapes")
    assert "soundscape_row_f1" not in found
    assert found["threshold_source"].startswith("out-of-fold windows of fold0; one for ")
    assert "one fold only; what is fitted was judged on other sources of the same fold" in printed
    assert bundle.load(fresh / "fold1/bundle").threshold_source == "default"


def test_soundscapes_are_kept_to_be_listened_to(fresh, capsys, tmp_path):
    evaluated(fresh / "fold0", capsys, "--minutes", "1", "--keep-soundscapes", str(tmp_path / "wav"))
    assert {path.name for path in (tmp_path / "wav/fold0").iterdir()} == {"minute0.wav", "minute0.csv"}


# What the field does with it.


def test_each_bundle_of_an_ensemble_is_calibrated_by_its_own_numbers_before_the_mean(made, fresh):
    for fold, calibration in ((0, {"slope": 0.5, "intercept": 0.3, "offsets": [1, 0, -1]}), (1, None)):
        path = fresh / f"fold{fold}/bundle/bundle.json"
        contents = json.loads(path.read_text())
        path.write_text(json.dumps({**contents, **({"calibration": calibration} if calibration else {})}))
    core = Predictor(bundle.find([fresh]))
    windows = np.random.default_rng(0).normal(0, 0.01, (2, core.recipe.window_samples)).astype(np.float32)
    raw = Predictor(bundle.find([made / "fold0"])).probabilities(windows)
    expected = (sigmoid(0.5 * logit(raw) + 0.3 + np.array([1, 0, -1])) + raw) / 2
    np.testing.assert_allclose(core.probabilities(windows), expected, atol=1e-6)


def test_predict_takes_each_species_own_threshold_unless_one_is_given(fresh, tmp_path):
    path = fresh / "fold0/bundle/bundle.json"
    contents = json.loads(path.read_text())
    path.write_text(json.dumps({**contents, "threshold_source": "a test", "thresholds": [0.0, 1.0, 1.0]}))
    recording = Path(json.loads((fresh / "fold0/run.json").read_text())["source"]["data"]) / "mid/0.wav"
    outputs = {}
    for name, options in (("own", []), ("given", ["--threshold", "0.5"])):
        done = run("predict.py", "--model", fresh / "fold0", recording, "-o", tmp_path / f"{name}.csv", *options)
        assert done.returncode == 0, done.stderr
        outputs[name] = set(pd.read_csv(tmp_path / f"{name}.csv").species)
    assert outputs["own"] == {"low"}, "the others would need a probability of 1"
    assert "mid" in outputs["given"]
    core = Predictor(bundle.find([fresh]))
    np.testing.assert_allclose(core.thresholds, [0.25, 0.75, 0.75])  # the mean with the other fold's default


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"thresholds": [0.5, 0.5]}, "has 2 thresholds for 3 species"),
        ({"thresholds": [0.5, 0.5, 1.5]}, r"the threshold of high must lie in \[0, 1\], not 1.5"),
        ({"thresholds": [0.5, 0.5, float("nan")]}, r"the threshold of high must lie in \[0, 1\]"),
        ({"calibration": {"slope": 1, "intercept": 0, "offsets": [1]}}, "1 offsets for 3 species"),
        ({"calibration": {"slope": 0, "intercept": 0, "offsets": []}}, "slope must be above 0"),
        ({"calibration": {"slope": 1, "intercept": float("inf"), "offsets": []}}, "not a number"),
        ({"calibration": {"slope": 1}}, "not a bundle's description"),
    ],
)
def test_thresholds_and_calibration_that_make_no_sense_are_named(fresh, changes, complaint):
    path = fresh / "fold0/bundle/bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=complaint):
        bundle.load(path.parent)


# Many runs.


class Page(HTMLParser):
    """What a page asks for, its tags, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.tags, self.text = [], set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


def test_the_comparison_page_is_self_contained_and_names_are_only_names(compared):
    page = Page()
    page.feed((compared[0] / "out/comparison.html").read_text())
    assert page.asked and all(value.startswith(("data:image/png;base64,", "#")) for value in page.asked)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in page.text and "@import" not in page.text
    assert "<script>" in page.text, "as text, in the name of a run"
    assert page.tags >= {"table", "img", "h2"}


def test_the_comparison_has_a_row_a_run_and_one_for_their_ensemble(compared):
    folder, printed, _ = compared
    table = pd.read_csv(folder / "out/comparison.csv")
    assert len(table) == 3
    assert table.model.iloc[2].startswith("ensemble of the 2")
    # Two copies of one model: their mean is themselves, at twice the cost.
    for column in ("soundscape_row_f1", "row_f1", "class_mean_auroc"):
        np.testing.assert_allclose(table[column], table[column].iloc[0], atol=1e-6)
    assert table.parameters.tolist() == [1234, 1234, 2468]
    assert table.training_cpu_s.tolist() == [10, 10, 20]
    assert (table.cpu_ms_a_window > 0).all() and (table.model_mb > 0).all()
    assert {"row_f1_low", "row_f1_high", "all_nocall", "soundscape_all_nocall"} <= set(table.columns)
    lines = (folder / "out/comparison.md").read_text().splitlines()
    assert lines[0].startswith("| model | folds | row F1, soundscapes |")
    assert len({line.replace(r"\|", "").count("|") for line in lines[:5]}) == 1, "a | in a name ends no cell"
    assert lines[0] in printed


def test_an_ensemble_is_judged_by_what_the_predict_core_would_answer():
    """Two models that differ: each calibrated by its own numbers, then the mean, against the mean of their thresholds."""
    from dataclasses import replace

    from src import metrics
    from src.oof import as_arrays

    generator = np.random.default_rng(0)
    code = generator.choice(["a", "b", "nocall"], 600)
    table = pd.DataFrame(
        {"filename": [f"{n // 3}.wav" for n in range(600)], "source": [f"s{n % 50}" for n in range(600)]}
    )
    table = table.assign(ebird_code=code, others="", secondary="", fold=np.arange(600) % 50 % 3)
    for label in "ab":
        table[label] = sigmoid(3 * (code == label) - 2 + generator.normal(0, 1.5, 600))
    timid = as_arrays(table, ["a", "b"])
    bold = replace(timid, probabilities=sigmoid(4 * logit(timid.probabilities) + 2).astype(np.float32))
    mean = replace(timid, probabilities=(timid.probabilities + bold.probabilities) / 2)
    found = evaluation.evaluate(mean, 0.5, draws=5, members=[(timid, None), (bold, None)])

    f1, clips = np.zeros(600), [fitting.of_clips(one, 0.5) for one in (timid, bold)]
    for fold in range(3):
        here = (table.fold == fold).to_numpy()
        fitted = [fitting.fit(one.of(~here)) for one in clips]
        said = [each.calibration.apply(one.probabilities[here]) for each, one in zip(fitted, clips)]
        threshold = np.mean([each.threshold for each in fitted])
        f1[here] = metrics.clip_row_f1(np.mean(said, axis=0), timid.present[here], timid.secondary[here], threshold)
    decided = dict(zip(found.decisions.thresholds, found.decisions.row_f1))
    assert decided[evaluation.CALIBRATED] == pytest.approx(np.average(f1, weights=clips[0].weight), abs=1e-6)
    alone = evaluation.evaluate(mean, 0.5, draws=5)
    assert dict(zip(alone.decisions.thresholds, alone.decisions.row_f1))[evaluation.CALIBRATED] != pytest.approx(
        decided[evaluation.CALIBRATED], abs=1e-6
    ), "fitting the mean anew is another thing"


def test_runs_of_two_sample_rates_hear_the_same_soundscapes_and_their_ensemble_is_judged_on_them(
    made, tone_bundle, tone_bundle_16k, tmp_path, capsys
):
    for name, of in (("wide", tone_bundle), ("narrow", tone_bundle_16k)):
        shutil.copytree(made, tmp_path / name)
        for fold in (0, 1):
            folder = tmp_path / name / f"fold{fold}"
            shutil.rmtree(folder / "bundle")
            shutil.copytree(of.folder, folder / "bundle")
            described = json.loads((folder / "run.json").read_text())
            # Of the windows that both were trained on, as train.py has it.
            (folder / "run.json").write_text(json.dumps({**described, "recipe": tone_bundle.recipe.to_dict()}))
    runs = [str(tmp_path / name) for name in ("wide", "narrow")]
    options = ["-o", str(tmp_path / "out"), "--minutes", "1", "--bootstrap", "20"]
    assert evaluate.main([*runs, *options, "--keep-soundscapes", str(tmp_path / "wav")]) == 0
    assert soundfile.info(tmp_path / "wav/fold0/minute0.wav").samplerate == 32000, "as the other run's, not 16 kHz"
    table = pd.read_csv(tmp_path / "out/comparison.csv")
    assert np.isfinite(table.soundscape_row_f1).all() and table.soundscape_all_nocall.nunique() == 1
    assert "by votes (predict.py --combine votes) its row F1 on soundscapes is" in capsys.readouterr().out


def test_folds_of_different_recipes_or_windows_are_no_run(fresh):
    for change, name in (
        ({"recipe": {"epochs": 3}}, "epochs is 3"),
        ({"windows": {"sha256": "other"}}, "prepared windows"),
    ):
        path = fresh / "fold1/run.json"
        kept = path.read_text()
        described = json.loads(kept)
        first = json.loads((fresh / "fold0/run.json").read_text())
        for one, where in ((first, fresh / "fold0/run.json"), (described, path)):
            one.setdefault("recipe", {"epochs": 2})
            one.setdefault("windows", {"sha256": "same"})
            where.write_text(json.dumps(one))
        path.write_text(
            json.dumps({**described, **{key: {**described[key], **value} for key, value in change.items()}})
        )
        done = run("evaluate.py", fresh, "--no-soundscapes")
        assert done.returncode == 1
        assert name in done.stderr and "are no one run" in done.stderr
        path.write_text(kept)


def test_what_is_no_run_is_named_and_passed_over_and_an_error_when_alone(compared, tmp_path):
    folder, _, warned = compared
    assert "passed over: " in warned and "notes.txt: no run" in warned and "empty: no finished fold there" in warned
    alone = run("evaluate.py", folder / "runs/empty")
    assert alone.returncode == 1
    assert alone.stderr.startswith("error: ") and "no finished fold there" in alone.stderr
    nothing = run("evaluate.py", folder / "runs/empty", tmp_path / "nowhere")
    assert nothing.returncode == 1 and "none of them is a run that can be evaluated" in nothing.stderr


def as_run(name: str, arrays: oof.OutOfFold) -> EvaluatedRun:
    return EvaluatedRun(Path(name), [Path("fold0")], [], arrays, [], None, "", None)


def test_an_ensemble_is_the_mean_of_windows_that_all_validated_or_the_reason_why_there_is_none(made):
    folders = [made / "fold0", made / "fold1"]
    both, first = oof.read(folders, CODES), oof.read(folders[:1], CODES)
    other = oof.OutOfFold(**{**vars(first), "probabilities": np.full_like(first.probabilities, 0.5)})
    (mean, soundscapes), _ = comparison.ensemble([as_run("both", both), as_run("other", other)])
    assert len(mean.primary) == len(first.primary) and soundscapes is None
    key = pd.MultiIndex.from_frame(first.windows[comparison.KEY])
    place = key.get_indexer(pd.MultiIndex.from_frame(mean.windows[comparison.KEY]))
    np.testing.assert_allclose(mean.probabilities, (first.probabilities[place] + 0.5) / 2, atol=1e-6)

    second = oof.read(folders[1:], CODES)
    with pytest.raises(UserError, match="no window that all runs validated"):
        comparison.ensemble([as_run("a", first), as_run("b", second)])
    anew = oof.OutOfFold(**{**vars(first), "windows": first.windows.assign(fold=3)})
    with pytest.raises(UserError, match="are of different folds"):
        comparison.ensemble([as_run("a", first), as_run("b", anew)])
    renamed = oof.OutOfFold(**{**vars(first), "labels": ("x", "y", "z")})
    with pytest.raises(UserError, match="answer for different species"):
        comparison.ensemble([as_run("a", first), as_run("b", renamed)])


# Odd input.


def changed_oof(folder: Path, change) -> None:
    path = folder / "oof.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def refusal(path: Path, *options: str) -> str:
    with pytest.raises(UserError) as caught:
        evaluate.main([str(path), *SOME, *options])
    return str(caught.value)


def test_a_run_of_another_version_and_folds_drawn_anew_are_refused(fresh):
    changed_oof(fresh / "fold1", lambda table: table.assign(source=pd.read_parquet(fresh / "fold0/oof.parquet").source))
    assert "the source" in refusal(fresh) and "drawn anew" in refusal(fresh)
    changed_oof(fresh / "fold0", lambda table: table.drop(columns="others"))
    assert "another version" in refusal(fresh)
    (fresh / "fold0/oof.parquet").write_bytes(b"nonsense")
    assert "cannot be read" in refusal(fresh)


def test_a_missing_bundle_and_predictions_without_birds_are_refused(fresh):
    changed_oof(fresh / "fold0", lambda table: table[table.ebird_code == "nocall"])
    assert refusal(fresh / "fold0").endswith("there is nothing to judge; look at the folds file")
    shutil.rmtree(fresh / "fold1/bundle")
    assert "no bundle there" in refusal(fresh)


def test_a_fold_that_is_being_trained_is_said_to_be(fresh):
    shutil.rmtree(fresh / "fold1/bundle")
    with locked(fresh / "fold1/.lock"):
        assert "fold1: is being trained now" in refusal(fresh)
    assert "stopped at its end" in refusal(fresh)


def test_a_wrong_data_folder_that_was_asked_for_is_refused(fresh, tmp_path):
    assert f"--data {tmp_path}/nosuch: the recordings are not there" in refusal(
        fresh, "--data", str(tmp_path / "nosuch")
    )


def test_a_run_of_other_species_costs_the_others_no_ensemble(made, monkeypatch):
    first = oof.read([made / "fold0"], CODES)
    other = oof.OutOfFold(**{**vars(first), "labels": ("x", "y", "z")})
    runs = [as_run("stray", other), as_run("a", first), as_run("b", first)]
    monkeypatch.setattr(comparison, "cost", lambda one: {"training_cpu_s": 1.0})
    monkeypatch.setattr(comparison, "_row", lambda name, folds, found, paid: {"model": name, **paid})
    table, remarks = comparison.compare(runs, Settings(minutes=0, draws=2))
    assert list(table.model) == ["stray", "a", "b", "ensemble of the 2: mean of probabilities"]
    assert table.training_cpu_s.iloc[-1] == 2.0
    assert "stray answers for other species than most: not in the ensemble" in remarks


def test_recordings_that_were_moved_cost_the_soundscapes_and_spectrograms_and_are_named(fresh, capsys):
    for fold in (0, 1):
        path = fresh / f"fold{fold}/run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "source": {"data": "/nowhere/birds"}}))
    found, printed = evaluated(fresh, capsys)
    assert "/nowhere/birds" in printed and "see --data" in printed
    assert "soundscape_row_f1" not in found and not (fresh / "errors.png").exists()


def test_without_windows_of_nocall_thresholds_are_of_clips_and_it_says_so(fresh, capsys):
    for fold in (0, 1):
        changed_oof(fresh / f"fold{fold}", lambda table: table[table.ebird_code != "nocall"])
    found, printed = evaluated(fresh, capsys)
    assert "no soundscapes were mixed, for want of held-out recordings without birds" in printed
    assert "no window without birds was validated" in printed
    assert np.isfinite(found["row_f1"])


@pytest.mark.parametrize("change", ["one source", "one class"])
def test_one_source_or_one_class_only_is_judged_as_far_as_it_goes(fresh, capsys, change):
    if change == "one source":
        changed_oof(fresh / "fold0", lambda table: table.assign(source="the same"))
    else:
        changed_oof(fresh / "fold0", lambda table: table[table.ebird_code == "mid"])
    found, printed = evaluated(fresh / "fold0", capsys, "--no-soundscapes")
    assert np.isfinite(found["row_f1"])
    assert ("nothing to fit on but what is judged" in printed) == (change == "one source")
