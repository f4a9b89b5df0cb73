"""Calibration, thresholds and intervals: what is fitted obeys its law, and never on the rows it is judged on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from src import evaluation, fitting, metrics
from src.bootstrap import Bootstrap, interval
from src.calibration import Calibration, logit, sigmoid
from src.fitting import Answers


def answers_of(truth: np.ndarray, said: np.ndarray, sources: int = 40, groups: int = 4) -> Answers:
    """Rows of a synthetic model; sources and groups take turns."""
    rows = len(truth)
    source = np.arange(rows) % sources
    return Answers(
        labels=tuple(f"s{number}" for number in range(truth.shape[1])),
        probabilities=said.astype(np.float32),
        origin=np.where(truth, source[:, None], -1),
        maybe=np.zeros(truth.shape, bool),
        weight=np.full(rows, 1 / rows),
        source=np.array([f"source {number}" for number in source]),
        group=np.array([f"fold{number % groups}" for number in source]),
    )


def calibrated_model(rows: int = 6000, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(truth, probabilities) of a model that is right as often as it says."""
    generator = np.random.default_rng(seed)
    said = sigmoid(generator.normal(-1.5, 1.5, (rows, labels)))
    return generator.random((rows, labels)) < said, said


def error_of(answers: Answers, probabilities: np.ndarray) -> float:
    parts = metrics.calibration_parts(probabilities, answers.present, answers.maybe)
    return float(metrics.calibration_error(parts.sum(axis=0)))


# Calibration.


def test_a_model_that_is_right_as_often_as_it_says_is_left_as_it_is():
    answers = answers_of(*calibrated_model())
    assert error_of(answers, answers.probabilities) < 0.03
    found = fitting.fit_calibration(answers)
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.intercept == pytest.approx(0, abs=0.08)
    assert np.abs(found.offsets).max() < 0.15
    np.testing.assert_allclose(found.apply(answers.probabilities), answers.probabilities, atol=0.04)


def test_an_overconfident_model_is_mended_on_folds_that_its_calibration_never_saw():
    truth, said = calibrated_model()
    answers = answers_of(truth, sigmoid(2.5 * logit(said) + 0.8))
    before = error_of(answers, answers.probabilities)
    after = np.empty_like(answers.probabilities)
    for group, fitted in fitting.cross_fitted(answers, answers).items():
        here = answers.group == group
        after[here] = fitted.calibration.apply(answers.probabilities[here])
        assert fitted.calibration.slope == pytest.approx(1 / 2.5, abs=0.03)
    assert before > 0.1
    assert error_of(answers, after) < 0.03


def test_the_offset_of_a_species_mends_that_species_only_as_far_as_its_sources_are_many():
    truth, said = calibrated_model(rows=8000)
    said[:, 2] = sigmoid(logit(said[:, 2]) + 1.5)  # one species says too much
    many = fitting.fit_calibration(answers_of(truth, said, sources=200))
    few = fitting.fit_calibration(answers_of(truth, said, sources=4, groups=2))
    apart = [found.offsets[2] - np.mean([found.offsets[n] for n in (0, 1, 3)]) for found in (many, few)]
    assert -1.4 < apart[0] < -1.0  # not quite the 1.5 that it says too much: the rest is in what is common to all
    assert apart[1] == pytest.approx(apart[0] * (4 / 14) / (200 / 210), rel=0.15)


def test_calibration_changes_no_ranking_even_of_a_model_that_is_wrong_by_design():
    truth, said = calibrated_model(rows=500)
    found = fitting.fit_calibration(answers_of(truth, 1 - said))
    assert found.slope == fitting.LEAST_SLOPE
    grid = np.linspace(0.01, 0.99, 50)[:, None].repeat(4, axis=1)
    assert (np.diff(found.apply(grid), axis=0) >= 0).all()


@pytest.mark.parametrize("truth", [np.zeros((20, 2), bool), np.ones((20, 2), bool)])
def test_where_every_row_is_alike_nothing_is_calibrated(truth):
    found = fitting.fit(answers_of(truth, np.full(truth.shape, 0.3)))
    assert found.calibration.is_identity
    assert np.isfinite(found.thresholds).all()


def test_a_calibration_that_changes_nothing_gives_back_the_very_numbers_and_nan_stays_nan():
    numbers = np.array([[0.1, np.nan, 1.0, 0.0]], np.float32)
    assert Calibration().apply(numbers) is numbers
    shifted = Calibration(intercept=1.0).apply(numbers)
    assert np.isnan(shifted[0, 1]) and np.isfinite(shifted[0, [0, 2, 3]]).all()


# Thresholds.


def test_a_species_is_drawn_to_the_common_threshold_by_the_number_of_its_sources():
    own, common, k = np.array([1.0, 1.0, 1.0]), -1.0, fitting.SHRINK_SOURCES
    drawn = fitting.shrunk(own, common, np.array([0, int(k), 1_000_000]))
    np.testing.assert_allclose(drawn, [-1, 0, 1], atol=1e-4)


def test_own_thresholds_differ_where_species_need_it_and_are_the_common_one_where_they_are_never_heard():
    generator = np.random.default_rng(1)
    truth = np.zeros((3000, 3), bool)
    truth[np.arange(1500), np.arange(1500) % 2] = True  # the third is never there
    centre = np.array([0.25, 0.7, 0.1])
    said = np.clip(np.where(truth, centre + 0.12, centre - 0.12) + generator.normal(0, 0.05, truth.shape), 0.01, 0.99)
    answers = answers_of(truth, said, sources=400)
    common = metrics.best_threshold(answers.probabilities, answers.present, answers.maybe, answers.weight)[0]
    own = fitting.fit_species_thresholds(answers, common)
    assert own[0] < own[1] - 0.2
    assert own[2] == pytest.approx(common, abs=1e-4)
    f1 = [
        metrics.clip_row_f1(said, truth, answers.maybe, np.broadcast_to(threshold, truth.shape)).mean()
        for threshold in (common, own)
    ]
    assert f1[1] > f1[0] + 0.05


def test_all_thresholds_at_once_score_what_each_scores_alone():
    generator = np.random.default_rng(2)
    said, truth = generator.random((60, 5)).round(2), generator.random((60, 5)) < 0.2
    maybe, weight = (generator.random((60, 5)) < 0.1) & ~truth, generator.random(60)
    at_once = metrics.threshold_scores(said, truth, maybe, weight)
    alone = [np.average(metrics.clip_row_f1(said, truth, maybe, t), weights=weight) for t in metrics.THRESHOLDS]
    np.testing.assert_allclose(at_once, alone, atol=1e-12)


# Never on what is judged.


@pytest.mark.parametrize("fit", [False, True])
def test_what_is_applied_to_a_fold_does_not_change_when_that_fold_s_rows_do(fit):
    answers = answers_of(*calibrated_model(rows=1200))
    judged = answers.group == "fold1"
    poisoned = replace(
        answers,
        probabilities=np.where(judged[:, None], 0.9, answers.probabilities),
        origin=np.where(judged[:, None], -1, answers.origin),
    )
    clean, dirty = (fitting.cross_fitted(one, one, uncalibrated=fit) for one in (answers, poisoned))
    assert clean["fold1"].calibration == dirty["fold1"].calibration
    assert clean["fold1"].threshold == dirty["fold1"].threshold
    np.testing.assert_array_equal(clean["fold1"].thresholds, dirty["fold1"].thresholds)
    for other in ("fold0", "fold2", "fold3"):  # the poison is strong enough to be seen where it may be
        assert (clean[other].thresholds != dirty[other].thresholds).any()


# Intervals.


def test_the_interval_of_sources_covers_the_truth_where_one_of_windows_does_not():
    generator = np.random.default_rng(3)
    covered = {"sources": 0, "windows": 0}
    for trial in range(150):
        skill = generator.normal(0.6, 0.15, 25)  # of the sources, whose windows are alike
        right = (generator.random((25, 12)) < skill[:, None]).ravel()
        source = np.repeat(np.arange(25), 12)
        for name, unit in (("sources", source), ("windows", np.arange(len(source)))):
            low, high = interval(Bootstrap(unit, draws=150, seed=trial).mean(right))
            covered[name] += low <= 0.6 <= high
    assert covered["sources"] >= 0.88 * 150
    assert covered["windows"] < covered["sources"] - 10


def test_each_draw_s_ranking_scores_are_scikit_learn_s_with_the_sources_as_weights():
    generator = np.random.default_rng(4)
    said, counted = generator.random((300, 3)).round(2), generator.random((300, 3)) > 0.1  # rounded: with ties
    truth = generator.random((300, 3)) < said * 0.5
    boot = Bootstrap(generator.integers(0, 12, 300), draws=5)
    precision, area = boot.ranking(said, truth, counted)
    for draw in range(5):
        weight = boot.counts[draw][boot.index]
        for scores, function in ((precision, average_precision_score), (area, roc_auc_score)):
            one = [
                function(truth[rows, n], said[rows, n], sample_weight=weight[rows]) for n, rows in enumerate(counted.T)
            ]
            assert scores[draw] == pytest.approx(np.mean(one), abs=1e-9)


def test_a_species_that_is_absent_from_a_draw_makes_no_total_nan():
    truth = np.zeros((40, 3), bool)
    truth[:2, 0] = truth[2:30, 1] = True  # one species of a single source, and one of none
    said = np.random.default_rng(5).random((40, 3))
    boot = Bootstrap(np.arange(40) // 2, draws=100)
    assert (boot.counts[:, 0] == 0).any(), "the only source of a species is missing from some draw"
    for scores in boot.ranking(said, truth, np.ones((40, 3), bool)):
        assert np.isfinite(scores).all()
    kinds = metrics.decisions(said, truth, np.zeros((40, 3), bool), 0.5)
    assert np.isfinite(metrics.macro_f1(*(boot.sums(kind) for kind in kinds))).all()
    assert interval(np.full(10, np.nan)) != interval(np.zeros(10))  # NaN, and no warning


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    source = np.arange(30)
    first, again, other = (Bootstrap(source, 20, seed).counts for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# What is told of errors.


def test_confused_pairs_and_worst_errors_are_those_that_were_made():
    import pandas as pd

    from src import oof

    rows = [  # file, code, a, b, c
        ("1.mp3", "a", 0.2, 0.9, 0.0),
        ("1.mp3", "a", 0.3, 0.8, 0.0),
        ("2.mp3", "b", 0.6, 0.5, 0.0),
        ("3.mp3", "a", 0.9, 0.1, 0.0),
        ("4.mp3", "nocall", 0.1, 0.1, 0.6),
        ("5.mp3", "b", 0.0, 0.1, 0.9),  # its secondary species: no error
    ]
    table = pd.DataFrame(rows, columns=["filename", "ebird_code", "a", "b", "c"])
    table = table.assign(others="", secondary=["", "", "", "", "", "c"], source=table.filename, fold=0)
    table = table.assign(channel=0, start_seconds=0.0)[
        [*table.columns[:2], "others", "secondary", "source", "fold", "channel", "start_seconds", "a", "b", "c"]
    ]
    arrays = oof.as_arrays(table, ["a", "b", "c"])
    pairs = evaluation.confusions(arrays)
    assert pairs.iloc[0].to_dict() == {"true": "a", "answered": "b", "windows": 2, "recordings": 1, "share": 0.6667}
    assert set(zip(pairs.true, pairs.answered)) == {("a", "b"), ("b", "a")}
    worst = evaluation.errors(arrays)
    assert worst.filename.tolist() == ["1.mp3", "4.mp3", "2.mp3"]
    assert worst.true.tolist() == ["a", "nocall", "b"]
    assert worst.iloc[0].probability == pytest.approx(0.9)


def test_a_species_among_hundreds_keeps_a_threshold_of_its_own():
    """Of 264 species one moves the mean over all rows by less than a thousandth: its own optimum must not drown in that."""
    generator = np.random.default_rng(1)
    labels, rows = 264, 264 * 40
    truth = np.zeros((rows, labels), bool)
    truth[np.arange(rows), np.arange(rows) % labels] = True
    truth[generator.random(rows) < 0.5] = False
    said = sigmoid(np.where(truth, 2.5, -6.0) + generator.normal(0, 0.5, (rows, labels)))
    said[:, 0] = sigmoid(np.where(truth[:, 0], -1.5, -4.5) + generator.normal(0, 0.3, rows))  # too shy, but sure
    found = fitting.fit_species_thresholds(answers_of(truth, said, sources=8000), common=0.44)
    assert (said[truth[:, 0], 0] >= found[0]).mean() > 0.9
    assert (said[~truth[:, 0], 0] >= found[0]).mean() < 0.01
