"""The two sides of a fold: who is on which, what each window teaches, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from src.errors import UserError
from src.mixing import MASKED
from src.recipe import preset
from src.splits import check_learnable, split_fold


@pytest.fixture(scope="module")
def split(prepared_sample):
    return split_fold(prepared_sample["prepared"], prepared_sample["folds"], 0, preset("default"))


def test_validation_is_the_fold_s_own_unaugmented_windows_and_training_all_of_the_others(prepared_sample, split):
    windows = split.windows
    of_fold = set(prepared_sample["folds"].filename[prepared_sample["folds"].fold == 0])
    assert set(windows.filename[split.validation]) <= of_fold
    assert (windows["transform"][split.validation] == "").all()
    assert not set(windows.filename[split.train]) & of_fold
    assert (windows["transform"][split.train] == "noise").any()
    assert (windows.ebird_code[split.background] == "nocall").all()
    assert not (split.background & ~split.train).any()


def test_targets_hold_the_primary_species_the_secondary_ones_and_nothing_for_nocall(split):
    windows = split.windows
    assert (split.targets[(windows.ebird_code == "nocall").to_numpy()] == 0).all()
    primary = windows.ebird_code.map({code: number for number, code in enumerate(split.labels)})
    birds = primary.notna().to_numpy()
    assert (split.targets[birds, primary[birds].astype(int)] == 1).all()
    with_secondary = (windows.secondary != "").to_numpy()
    assert with_secondary.any()
    assert (split.targets[with_secondary] == MASKED).any(axis=1).all()


def test_a_copy_over_a_background_that_is_validated_is_not_learned_from(prepared_sample, split):
    prepared = prepared_sample["prepared"]
    copies = (prepared.index["transform"] == "noise") & (prepared.index.ebird_code != "nocall")
    validated = split.windows.filename[split.validation & (split.windows.ebird_code == "nocall").to_numpy()].iloc[0]
    taught = split.windows.filename[split.background].iloc[0]
    for clip, kept in ((f"rain/{validated}", 0), (taught, int((copies & split.train).sum()))):
        over = prepared.index.assign(background=np.where(copies, clip, ""))
        again = split_fold(replace(prepared, index=over), prepared_sample["folds"], 0, preset("default"))
        assert int((copies & again.train).sum()) == kept


def test_others_labelled_in_the_very_window_are_taught_as_the_primary_species_is(prepared_sample, split):
    index = prepared_sample["prepared"].index.copy()
    first, second = prepared_sample["prepared"].labels[:2]
    row = int(np.flatnonzero(index.ebird_code == first)[0])
    index.loc[row, ["others", "secondary"]] = [second, ""]
    again = split_fold(
        replace(prepared_sample["prepared"], index=index), prepared_sample["folds"], 0, preset("default")
    )
    np.testing.assert_array_equal(np.flatnonzero(again.targets[row] == 1), [0, 1])


def test_a_quiet_window_teaches_no_species_and_is_a_background_only_where_there_is_no_better(prepared_sample, split):
    index = prepared_sample["prepared"].index.copy()
    row = int(np.flatnonzero(split.train & (index.ebird_code != "nocall").to_numpy() & (index["transform"] == ""))[0])
    index.loc[row, ["ebird_code", "secondary"]] = ["nocall", index.ebird_code[row]]
    again = split_fold(
        replace(prepared_sample["prepared"], index=index), prepared_sample["folds"], 0, preset("default")
    )
    assert (again.targets[row] == 0).all()
    assert not again.background[row]
    birds_only = index[(index.ebird_code != "nocall") | (index.index == row)]
    alone = split_fold(
        replace(prepared_sample["prepared"], index=birds_only), prepared_sample["folds"], 0, preset("default")
    )
    assert list(alone.windows.window[alone.background]) == [row]


def test_a_leaking_split_is_refused_before_anything_is_trained(prepared_sample):
    table = prepared_sample["folds"].copy()
    source = table.source[table.fold == 1].value_counts().index[0]
    table.loc[table.index[table.source == source][0], "fold"] = 0
    with pytest.raises(UserError, match=f"source {source} are in more than one"):
        split_fold(prepared_sample["prepared"], table, 0, preset("default"))


def test_a_fold_that_does_not_exist_is_named(prepared_sample):
    with pytest.raises(UserError, match="fold 9 does not exist; folds are 0, 1, 2"):
        split_fold(prepared_sample["prepared"], prepared_sample["folds"], 9, preset("default"))


def test_windows_that_do_not_match_the_folds_are_refused(prepared_sample):
    with pytest.raises(UserError, match="are in no fold"):
        split_fold(prepared_sample["prepared"], prepared_sample["folds"][:-3], 0, preset("default"))


def of(prepared_sample: dict, **changes):
    """The split of fold 0 by a recipe with some fields changed."""
    return split_fold(prepared_sample["prepared"], prepared_sample["folds"], 0, preset("default", **changes))


def test_secondary_species_are_taught_as_much_as_asked_for_or_left_out_of_the_loss(prepared_sample, split):
    masked = split.targets == MASKED
    assert masked.any()
    taught = of(prepared_sample, mask_secondary=False, secondary_target=0.2)
    assert (taught.targets[masked] == np.float32(0.2)).all()
    np.testing.assert_array_equal(taught.targets[~masked], split.targets[~masked])


def test_balanced_classes_weigh_the_same_in_sum_and_weights_are_one_on_average(prepared_sample, split):
    assert (of(prepared_sample, class_balance=0.0).weights == 1).all()
    balanced = of(prepared_sample, class_balance=1.0)
    learned = balanced.windows[balanced.train].assign(weight=balanced.weights[balanced.train])
    assert learned.weight.mean() == pytest.approx(1, abs=1e-5)
    sums = learned[learned.ebird_code != "nocall"].groupby("ebird_code").weight.sum()
    np.testing.assert_allclose(sums, sums.iloc[0], rtol=1e-4)


def test_a_window_that_calls_less_than_its_recording_s_best_counts_less(prepared_sample):
    weighted = of(prepared_sample, call_weight=1.0, class_balance=0.0)
    birds = weighted.windows[weighted.windows.ebird_code != "nocall"].assign(
        weight=weighted.weights[weighted.windows.ebird_code != "nocall"]
    )
    for _, rows in birds.groupby("filename"):
        score = rows.call_score.clip(lower=0)
        np.testing.assert_allclose(rows.weight / rows.weight.max(), score / score.max(), rtol=1e-4)
    nocall = weighted.weights[weighted.windows.ebird_code == "nocall"]
    assert nocall.min() == nocall.max()
    learned = weighted.weights[weighted.train & (weighted.windows.ebird_code != "nocall").to_numpy()]
    assert nocall.max() == pytest.approx(learned.mean(), rel=1e-4), "as much as one of birds does on average"


def test_early_stopping_watches_the_next_fold_which_is_then_not_learned_from(prepared_sample, split):
    watched = of(prepared_sample, patience=3)
    assert set(watched.windows.fold[watched.watch]) == {1}
    assert set(watched.windows.fold[watched.train]) == {2}
    assert (watched.windows["transform"][watched.watch] == "").all()
    np.testing.assert_array_equal(watched.validation, split.validation)
    assert not split.watch.any()
    last = split_fold(prepared_sample["prepared"], prepared_sample["folds"], 2, preset("default", patience=3))
    assert set(last.windows.fold[last.watch]) == {0}


def test_a_copy_over_a_background_that_early_stopping_watches_is_not_learned_from(prepared_sample, split):
    prepared, folds = prepared_sample["prepared"], prepared_sample["folds"]
    name = folds.filename[(folds.fold == 1) & (folds.ebird_code == "nocall")].iloc[0].rsplit("/", 1)[-1]
    copy = np.flatnonzero((prepared.index["transform"] == "noise") & (split.windows.fold == 2))[0]
    mixed = replace(prepared, index=prepared.index.assign(background=np.where(prepared.index.index == copy, name, "")))
    assert split_fold(mixed, folds, 0, preset("default")).train[copy]
    assert not split_fold(mixed, folds, 0, preset("default", patience=3)).train[copy]


def test_a_species_that_only_the_watched_fold_has_is_told_from_one_that_nobody_has(prepared_sample, split):
    index = prepared_sample["prepared"].index
    rare = index.ebird_code[split.validation & (index.ebird_code != "nocall")].iloc[0]
    gone = index[(index.ebird_code != rare) | (split.windows.fold != 2)].reset_index(drop=True)
    watched = split_fold(
        replace(prepared_sample["prepared"], index=gone), prepared_sample["folds"], 0, preset("default", patience=3)
    )
    with pytest.raises(UserError, match=f"validates .*{rare}.*, of which only the fold that --patience watches"):
        check_learnable(watched, 0)


def test_a_species_that_only_the_validated_fold_has_is_named_unless_told_to_go_on(prepared_sample, split):
    check_learnable(split, 0)
    index = prepared_sample["prepared"].index
    rare = index.ebird_code[split.validation & (index.ebird_code != "nocall")].iloc[0]
    gone = index[(index.ebird_code != rare) | split.validation].reset_index(drop=True)
    again = split_fold(replace(prepared_sample["prepared"], index=gone), prepared_sample["folds"], 0, preset("default"))
    with pytest.raises(UserError, match=f"fold 0 validates {rare}, of which no other fold has a recording"):
        check_learnable(again, 0)
    check_learnable(again, 0, keep_going=True)


def test_one_class_alone_cannot_be_told_from_anything(prepared_sample):
    index = prepared_sample["prepared"].index
    alone = index[index.ebird_code == prepared_sample["prepared"].labels[0]].reset_index(drop=True)
    only = split_fold(replace(prepared_sample["prepared"], index=alone), prepared_sample["folds"], 0, preset("default"))
    with pytest.raises(UserError, match="a model needs two species, or recordings without birds"):
        check_learnable(only, 0, keep_going=True)


def test_no_window_of_a_bird_is_named(prepared_sample):
    index = prepared_sample["prepared"].index
    none = index[index.ebird_code == "nocall"].reset_index(drop=True)
    with pytest.raises(UserError, match="fold 0 has no window of a bird to learn from"):
        split_fold(replace(prepared_sample["prepared"], index=none), prepared_sample["folds"], 0, preset("default"))
