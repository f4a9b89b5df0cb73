"""A bundle is checked when it is loaded, and says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from src import bundle
from src.errors import UserError
from src.predictor import Predictor


@pytest.fixture
def copy(tone_bundle, tmp_path) -> Path:
    """A copy of the tone bundle, as fold 0 of a run, to be spoilt."""
    folder = tmp_path / "run" / "fold0" / "bundle"
    shutil.copytree(tone_bundle.folder, folder)
    return folder


def edit(folder: Path, **changes) -> None:
    contents = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**contents, **changes}))


def test_a_bundle_gives_back_what_was_written(copy, tone_bundle):
    loaded = bundle.load(copy)
    assert loaded.labels == ("low", "mid", "high")
    assert loaded.recipe == tone_bundle.recipe
    assert (loaded.threshold, loaded.threshold_source) == (0.5, "default")


def test_a_fitted_threshold_and_its_scores_are_kept(copy):
    bundle.update(bundle.load(copy), 0.37, "out-of-fold windows of fold0", {"row_f1": 0.9})
    loaded = bundle.load(copy)
    assert (loaded.threshold, loaded.scores) == (0.37, {"row_f1": 0.9})
    assert Predictor([loaded]).threshold == 0.37


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": 9}, "schema 9, and this software reads 1"),
        ({"labels": []}, "labels must be there, each once"),
        ({"labels": ["a", "a", "b"]}, "labels must be there, each once"),
        ({"threshold": 7}, r"threshold must lie in \[0, 1\]"),
        ({"threshold": "high"}, "not a bundle's description"),
        ({"recipe": {"sample_rate": 32000, "surprise": 1}}, "unknown fields surprise"),
        ({"recipe": {"sample_rate": -5}}, "sample_rate must be above 0"),
        ({"sha256": {}}, "not a bundle's description"),
    ],
)
def test_a_broken_description_is_named(copy, changes, complaint):
    edit(copy, **changes)
    with pytest.raises(UserError, match=complaint):
        bundle.load(copy)


def test_a_damaged_or_missing_model_is_named(copy):
    with open(copy / "model.tflite", "r+b") as file:
        file.seek(1000)
        file.write(b"\xff\xff\xff")
    with pytest.raises(UserError, match=r"model\.tflite: its SHA-256 is not the one"):
        bundle.load(copy)
    (copy / "model.tflite").unlink()
    with pytest.raises(UserError, match=r"model\.tflite: missing"):
        bundle.load(copy)


def test_text_instead_of_json_and_no_bundle_at_all_are_named(copy, tmp_path):
    (copy / "bundle.json").write_text("hello")
    with pytest.raises(UserError, match=r"bundle\.json: not a bundle's description"):
        bundle.load(copy)
    with pytest.raises(UserError, match="no such folder; give a bundle, a fold"):
        bundle.find([tmp_path / "nowhere"])


def test_a_bundle_a_fold_a_run_or_several_are_found(copy):
    run = copy.parent.parent
    shutil.copytree(run / "fold0", run / "fold1")
    assert [found.folder for found in bundle.find([copy])] == [copy]
    assert [found.folder for found in bundle.find([run / "fold1"])] == [run / "fold1/bundle"]
    assert [found.folder for found in bundle.find([run])] == [run / "fold0/bundle", run / "fold1/bundle"]
    assert len(bundle.find([run, copy])) == 2, "who is named twice has one voice"


def test_bundles_for_other_species_are_no_ensemble(copy):
    other = copy.parent.parent / "fold1" / "bundle"
    shutil.copytree(copy, other)
    edit(other, labels=["low", "high", "mid"])
    with pytest.raises(UserError, match="different species"):
        bundle.find([copy.parent.parent])


def test_bundles_that_hear_other_audio_are_no_ensemble(copy):
    other = copy.parent.parent / "fold1" / "bundle"
    shutil.copytree(copy, other)
    edit(other, recipe={**json.loads((copy / "bundle.json").read_text())["recipe"], "highpass_hz": 1400.0})
    with pytest.raises(UserError, match=r"hear different audio \(highpass_hz\)"):
        Predictor(bundle.find([copy.parent.parent]))


def test_an_ensemble_answers_the_mean_and_takes_the_mean_threshold(copy):
    other = copy.parent.parent / "fold1" / "bundle"
    shutil.copytree(copy, other)
    edit(other, threshold=0.7)
    one, both = Predictor(bundle.find([copy])), Predictor(bundle.find([copy.parent.parent]))
    noise = np.random.default_rng(0).normal(0, 0.01, (2, one.recipe.window_samples)).astype(np.float32)
    np.testing.assert_allclose(both.probabilities(noise), one.probabilities(noise), atol=1e-6)
    assert both.threshold == pytest.approx(0.6)


def test_windows_of_another_length_are_refused(tone_bundle):
    with pytest.raises(ValueError, match=r"windows must be \[n, 160000\]"):
        Predictor([tone_bundle]).probabilities(np.zeros((1, 100), np.float32))


def test_a_bundle_of_an_earlier_version_is_read_and_kept_as_it_is(tone_bundle, tmp_path):
    """Without variants, decision or a card: what evaluate.py finds can be kept in it."""
    folder = Path(shutil.copytree(tone_bundle.folder, tmp_path / "bundle"))
    contents = json.loads((folder / "bundle.json").read_text())
    for name in ("variants", "about", "decision"):
        contents.pop(name, None)
    (folder / "bundle.json").write_text(json.dumps(contents))
    (folder / "README.md").unlink()
    bundle.update(bundle.load(folder), 0.3, "a test", {"row_f1": 0.7})
    assert bundle.load(folder).threshold == 0.3
    assert "| float32 | model.tflite |" in (folder / "README.md").read_text()
