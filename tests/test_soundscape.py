"""What decides beside a threshold: neighbours, a strict threshold for the file and a loose one for the row, at most so many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src import fitting
from src.calibration import sigmoid
from src.errors import UserError
from src.fitting import Answers
from src.soundscape import Decision, Prediction, Rule, Votes, accepted, decide, mean_decision, read_species

ROWS = st.integers(1, 12)
LOGITS = st.integers(-60, 60).map(lambda tenths: tenths / 10)  # none so near a threshold that rounding decides


def rows_of(*logits: list[float]) -> np.ndarray:
    return sigmoid(np.array(logits, float))


@given(data=st.data(), rows=ROWS)
@settings(max_examples=60)
def test_the_default_is_the_threshold_and_nothing_else(data, rows):
    said = sigmoid(
        np.array(data.draw(st.lists(st.lists(LOGITS, min_size=3, max_size=3), min_size=rows, max_size=rows)))
    )
    limits = sigmoid(np.array(data.draw(st.lists(LOGITS, min_size=3, max_size=3))))
    np.testing.assert_array_equal(accepted(said, limits), said >= limits)


@given(data=st.data(), rows=ROWS, strict=st.floats(0, 3), loose=st.floats(0, 3))
@settings(max_examples=60)
def test_a_stricter_file_never_adds_and_a_looser_row_never_takes_away(data, rows, strict, loose):
    said = sigmoid(
        np.array(data.draw(st.lists(st.lists(LOGITS, min_size=2, max_size=2), min_size=rows, max_size=rows)))
    )
    plain = accepted(said, 0.5, Decision(loose=1e-9))
    assert (accepted(said, 0.5, Decision(strict=strict, loose=1e-9)) <= plain).all()
    assert (accepted(said, 0.5, Decision(loose=loose)) >= plain).all()


def test_a_species_that_is_sure_somewhere_is_believed_elsewhere_and_one_that_never_is_is_not():
    said = rows_of([3.0, 0.5], [-0.5, 0.5], [-3.0, -3.0])
    counted = accepted(said, 0.5, Decision(strict=2.0, loose=1.0))
    assert counted.tolist() == [[True, False], [True, False], [False, False]]


def test_a_row_of_the_whole_file_asks_for_the_strict_threshold():
    ends = np.array([np.nan])
    assert not accepted(rows_of([1.0]), 0.5, Decision(strict=2.0, loose=2.0), ends).any()
    assert accepted(rows_of([2.5]), 0.5, Decision(strict=2.0, loose=2.0), ends).all()


def test_neighbours_are_those_in_time_whatever_the_order_of_the_rows_and_none_across_a_gap():
    said = rows_of([-4.0], [6.0], [-1.0])
    ends, one = np.array([15.0, 10.0, 5.0]), Decision(neighbours=0.5)
    # In time: -1, 6, -4. The last: 0.5 * -4 + 0.5 * (6 + -4) / 2 = -1.5; the first: -0.5 + 0.25 * 5 = 0.75.
    assert accepted(said, 0.5, one, ends).tolist() == [[False], [True], [True]]
    assert accepted(said, 0.5, one, np.array([30.0, 10.0, 5.0])).tolist() == accepted(said, 0.5, one, ends).tolist()
    assert accepted(said, 0.5, one, np.array([15.0, 10.0, 0.0])).tolist() == [[False], [True], [False]]


def test_no_more_species_than_asked_for_the_likeliest_by_what_they_exceed_their_thresholds():
    said, limits = rows_of([3.0, 2.0, 1.0, -1.0]), rows_of([2.9, 0.0, 0.5, 0.0])[0]
    assert accepted(said, limits, Decision(most=2)).tolist() == [[False, True, True, False]]
    assert decide(said, list("abcd"), Rule(limits, Decision(most=1))) == [{"b"}]
    assert decide(said, list("abcd"), Rule(limits, allowed=np.array([True, False, True, False]))) == [{"a", "c"}]


def test_a_row_beyond_the_audio_is_empty_and_nobody_s_neighbour():
    said = rows_of([1.0], [1.0])
    said[1] = np.nan
    assert accepted(said, 0.5, Decision(neighbours=0.9, loose=6.0)).tolist() == [[True], [False]]


def test_bundles_that_vote_are_each_asked_by_a_rule_of_their_own_and_more_than_half_must_agree():
    said = np.stack([rows_of([1.0, 1.0, -1.0]), rows_of([1.0, 1.0, -1.0]), rows_of([-1.0, 1.0, -1.0])])
    sure, plain = Rule(float(sigmoid(np.array(2.0)))), Rule(0.5)
    assert Votes((plain, plain, plain)).counted(said).tolist() == [[True, True, False]]
    assert Votes((plain, sure, plain)).counted(said).tolist() == [[False, True, False]]
    assert Votes((plain, sure)).counted(said[:2]).tolist() == [[False] * 3], "half of them is not more than half"
    loose = Rule(0.5, Decision(loose=2.0))  # believes what is sure somewhere, the third species nowhere
    assert Votes((loose, loose, plain)).counted(said).tolist() == [[True, True, False]]
    assert decide(said, list("abc"), Votes((plain, sure, plain))) == [{"b"}]


def test_of_what_the_voters_agree_on_no_more_than_asked_for_counts_the_likeliest_on_average():
    said = np.stack([rows_of([3.0, 2.0, 1.0]), rows_of([0.1, 2.0, 1.0]), rows_of([0.2, 0.1, 1.0])])
    assert Votes((Rule(0.5),) * 3, most=1).counted(said).tolist() == [[False, True, False]]
    assert Votes((Rule(0.5),) * 3, most=2).counted(said).tolist() == [[True, True, False]]
    beyond = np.full((3, 1, 3), np.nan)
    assert not Votes((Rule(0.0),) * 3, most=2).counted(beyond).any()


def test_answers_are_put_on_other_windows_by_the_seconds_they_share():
    said = np.array([[0.0], [0.3], [0.9]], np.float32)
    moved = Prediction(np.array([0.0, 2.5, 5.0]), said, 5.0, 10.0, "").on(np.array([0.0, 5.0]), 5.0)
    np.testing.assert_allclose(moved.probabilities[:, 0], [0.1, (0.3 * 2.5 + 0.9 * 5) / 7.5], atol=1e-6)
    assert moved.window_seconds == 5.0 and moved.start_seconds.tolist() == [0.0, 5.0]
    several = Prediction(np.array([0.0, 2.5, 5.0]), np.stack([said, 1 - said]), 5.0, 10.0, "")
    np.testing.assert_allclose(several.mean, 0.5)
    on_rows = several.on(np.array([0.0, 5.0]), 5.0).probabilities
    np.testing.assert_allclose(on_rows[0], moved.probabilities)
    np.testing.assert_allclose(on_rows.sum(axis=0), 1, atol=1e-6)


def test_numbers_that_make_no_sense_are_refused_and_an_ensemble_takes_the_mean():
    for wrong in ({"neighbours": 1.0}, {"strict": -1.0}, {"most": -1}, {"overlap": 1.0}):
        with pytest.raises(UserError, match="neighbours lie in"):
            Decision(**wrong)
    with pytest.raises(ValueError, match="has no volume"):
        Decision.from_dict({"volume": 3})
    both = mean_decision([Decision(0.2, 1.0, 0.5, 3), Decision(0.0, 0.0, 0.5, 0, overlap=0.5)])
    assert both == Decision(0.1, 0.5, 0.5, 0, overlap=0.5), "all are asked for the same windows"
    assert Decision.from_dict(both.to_dict()) == both
    assert Decision.from_dict({"neighbours": 0.1, "strict": 0, "loose": 0, "most": 3}) == Decision(0.1, most=3)


def test_what_helps_is_found_and_what_does_not_is_left_out():
    """Songs that last three rows, heard through noise: neighbours help; without noise the thresholds are enough."""
    generator = np.random.default_rng(0)
    truth = np.zeros((80, 12, 2), bool)
    for file in truth:
        if generator.random() < 0.7:
            start = generator.integers(0, 9)
            file[start : start + 4, generator.integers(2)] = True
    truth = truth.reshape(-1, 2)
    rows = len(truth)
    answers = Answers(
        labels=("a", "b"),
        probabilities=np.zeros((rows, 2), np.float32),
        origin=np.where(truth, 0, -1),
        maybe=np.zeros((rows, 2), bool),
        weight=np.full(rows, 1 / rows),
        source=np.array(["s"] * rows),
        group=np.array(["g"] * rows),
        file=np.repeat(np.arange(80), 12),
    )
    noisy = sigmoid(np.where(truth, 1.0, -1.0) + generator.normal(0, 1.2, truth.shape))
    half = np.full(noisy.shape, 0.5)
    found = fitting.fit_decision(noisy, half, answers, ["neighbouring rows"])
    before = fitting.decided_f1(noisy, half, answers, Decision()).mean()
    assert found.neighbours > 0 and found.most == found.strict == 0
    assert fitting.decided_f1(noisy, half, answers, found).mean() > before + 0.05
    sure = sigmoid(np.where(truth, 5.0, -5.0))
    assert fitting.fit_decision(sure, half, answers) == Decision()


def test_a_list_of_species_names_what_may_be_answered_and_says_what_nobody_knows(tmp_path, capsys):
    (tmp_path / "here.txt").write_text("low, Low tone\n# a remark\nnobody\n\nhigh # in winter\n", encoding="utf-8-sig")
    assert read_species(tmp_path / "here.txt", ["low", "mid", "high"]) == ["low", "high"]
    assert "does not know nobody" in capsys.readouterr().err
    (tmp_path / "none.txt").write_text("nobody\n")
    for path in (tmp_path / "none.txt", tmp_path / "absent.txt"):
        with pytest.raises(UserError, match=r"names no species that the model knows|cannot be read"):
            read_species(path, ["low"])
