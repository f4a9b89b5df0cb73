"""The competition's score and the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import metrics

CODES = st.sets(st.sampled_from(["amecro", "amerob", "bird666", "banana"]), max_size=3)


def test_the_published_example_scores_0_8333():
    truth = [{"amecro"}, {"amecro", "amerob"}, {"nocall"}]
    answers = [{"amecro"}, {"amecro", "bird666"}, {"nocall"}]
    assert metrics.row_f1(truth, answers) == pytest.approx(0.8333, abs=1e-4)


def test_nocall_is_an_ordinary_label_and_an_empty_answer_means_it():
    assert metrics.row_f1([{"nocall"}, set()], [set(), {"nocall"}]) == 1.0
    assert metrics.row_f1([{"amecro"}], [{"nocall"}]) == 0.0
    assert metrics.row_f1([{"amecro"}], [{"amecro", "nocall"}]) == pytest.approx(2 / 3)


@given(st.lists(st.tuples(CODES, CODES), min_size=1, max_size=20))
def test_the_score_is_between_0_and_1_symmetric_and_1_for_the_truth(rows):
    truth, answers = [row[0] for row in rows], [row[1] for row in rows]
    score = metrics.row_f1(truth, answers)
    assert 0 <= score <= 1
    assert score == pytest.approx(metrics.row_f1(answers, truth))
    assert metrics.row_f1(truth, truth) == 1
    each = [metrics.row_f1([true], [answer]) for true, answer in rows]
    assert score == pytest.approx(np.mean(each))  # averaged over rows, not over labels


@given(st.lists(st.tuples(CODES, CODES), min_size=1, max_size=20))
def test_the_score_is_scikit_learn_s_samples_average_once_nocall_is_a_column(rows):
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    truth, answers = [row[0] or {"nocall"} for row in rows], [row[1] or {"nocall"} for row in rows]
    # scikit-learn wants two columns at least
    binarizer = MultiLabelBinarizer(classes=["amecro", "amerob", "bird666", "banana", "nocall"])
    expected = f1_score(
        binarizer.fit_transform(truth), binarizer.transform(answers), average="samples", zero_division=0
    )
    assert metrics.row_f1(truth, answers) == pytest.approx(expected)


def test_rows_that_do_not_match_are_an_error():
    with pytest.raises(ValueError, match="2 rows of truth and 1 answers"):
        metrics.row_f1([set(), set()], [set()])


@given(st.data())
def test_the_row_f1_of_clips_is_the_competition_s_score(data):
    rows = data.draw(st.integers(1, 12))
    labels = ["a", "b", "c"]
    probabilities = np.array(
        data.draw(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=rows, max_size=rows))
    )
    primary = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=rows, max_size=rows)))
    scores = metrics.clip_row_f1(probabilities, primary[:, None] == np.arange(3), np.zeros((rows, 3), bool), 0.5)
    truth = [{labels[number]} if number >= 0 else set() for number in primary]
    answers = [{labels[column] for column in np.flatnonzero(row >= 0.5)} for row in probabilities]
    assert scores.mean() == pytest.approx(metrics.row_f1(truth, answers))


def test_a_secondary_species_is_neither_wanted_nor_held_against_an_answer():
    probabilities, secondary = np.array([[0.9, 0.9], [0.9, 0.1]]), np.array([[False, True], [False, True]])
    np.testing.assert_array_equal(
        metrics.clip_row_f1(probabilities, np.array([[True, False]] * 2), secondary, 0.5), [1, 1]
    )


def test_the_threshold_separates_what_can_be_separated():
    probabilities = np.array([[0.7, 0.1], [0.2, 0.8], [0.3, 0.25], [0.1, 0.2]])
    present, none = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], bool), np.zeros((4, 2), bool)
    threshold, score = metrics.fit_threshold(probabilities, present, none, nocall_share=0.5)
    assert score == 1
    assert 0.3 < threshold <= 0.7


def test_more_empty_rows_ask_for_a_stricter_threshold():
    generator = np.random.default_rng(0)
    primary = np.repeat([0, -1], 400)
    probabilities = np.clip(np.where(primary == 0, 0.6, 0.4) + generator.normal(0, 0.15, 800), 0, 1)[:, None]
    none, present = np.zeros((800, 1), bool), (primary == 0)[:, None]
    strict = metrics.fit_threshold(probabilities, present, none, nocall_share=0.9)[0]
    loose = metrics.fit_threshold(probabilities, present, none, nocall_share=0.1)[0]
    assert strict > loose + 0.1


def test_weights_give_empty_windows_the_share_they_have_in_soundscapes():
    weights = metrics.soundscape_weights(np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool), 0.544)
    assert weights[3] == pytest.approx(0.544)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(metrics.soundscape_weights(np.array([[1], [1]], bool), 0.544), 0.5)


def test_recordings_are_judged_by_their_mean_probabilities():
    names, means = metrics.mean_by(np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]]), np.array(["b", "a", "b"]))
    assert list(names) == ["a", "b"]
    np.testing.assert_allclose(means, [[1.0, 0.0], [0.35, 0.65]])


def test_class_mean_average_precision_leaves_out_species_without_a_positive():
    probabilities = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.2, 0.3, 0.5]])
    present = np.array([[True, False, False], [False, True, False], [False, False, False]])
    assert metrics.class_mean_average_precision(probabilities, present, np.ones((3, 3), bool)) == 1.0
