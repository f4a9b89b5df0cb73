"""The optimizer of a stage: its schedule, the backbone's own rate, decay, and the averaged weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from src import optimizers
from src.optimizers import Plan
from src.recipe import preset

PLAN = Plan("network", epochs=4, steps=10, learning_rate=0.1, weight_decay=0.0, warmup_epochs=1.0)


def stepped(recipe, plan: Plan, steps: int, gradient: float = 1.0) -> tuple:
    """A matrix, a vector and a backbone's matrix, all of ones, after some steps along one gradient."""
    matrix, vector, slow = (keras.Variable(np.ones(shape, np.float32)) for shape in ((2, 2), (2,), (2, 2)))
    variables = [matrix, vector, slow]
    optimizer = optimizers.build(recipe, plan, variables, [slow])
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([tf.fill(variable.shape, gradient) for variable in variables], variables)
    return optimizer, variables, rates


def test_the_rate_rises_through_the_warm_up_and_falls_by_a_cosine_to_nothing():
    rates = stepped(preset("default"), PLAN, 41)[2]
    np.testing.assert_allclose(rates[:11], np.linspace(0, 0.1, 11), atol=1e-6)
    np.testing.assert_allclose(rates[25], 0.05, atol=1e-6)
    assert rates[40] == pytest.approx(0, abs=1e-6)
    assert np.all(np.diff(rates[10:]) < 0)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_backbone_moves_at_its_share_of_the_rate(optimizer):
    recipe = preset("default", optimizer=optimizer, backbone_rate=0.25)
    _, (matrix, _, slow), _ = stepped(recipe, PLAN, 12)
    np.testing.assert_allclose(1 - slow.numpy(), 0.25 * (1 - matrix.numpy()), rtol=1e-4)
    assert matrix.numpy().max() < 1


def test_only_weights_decay_and_neither_biases_nor_scales():
    plan = Plan("network", 4, 10, 0.1, weight_decay=0.5, warmup_epochs=0.0)
    _, (matrix, vector, _), _ = stepped(preset("default"), plan, 1, gradient=0.0)
    np.testing.assert_allclose(matrix.numpy(), 1 - 0.1 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(vector.numpy(), 1)


def test_the_backbone_decays_at_its_own_rate():
    plan = Plan("network", 4, 10, 0.1, weight_decay=0.5, warmup_epochs=0.0)
    _, (matrix, _, slow), _ = stepped(preset("default", backbone_rate=0.2), plan, 1, gradient=0.0)
    np.testing.assert_allclose(1 - slow.numpy(), 0.2 * (1 - matrix.numpy()), rtol=1e-4)


def test_a_long_mean_forgets_where_it_began():
    """A head has some hundred steps: a mean of 0.999 from the first step on would be made of its random start."""
    plan = Plan("head", 1, 300, 0.01, 0.0, 0.0)
    variable = keras.Variable(np.zeros(3, np.float32))
    optimizer = optimizers.build(preset("default", average=0.999), plan, [variable], [])
    for step in range(300):
        variable.assign(np.full(3, 0.0 if step < 10 else 1.0, np.float32))
        optimizer.apply([tf.zeros(3)], [variable])
    with optimizers.averaged(optimizer, [variable]):
        assert variable.numpy().min() > 0.9


def test_averaged_weights_stand_in_for_the_last_ones_and_give_their_place_back():
    optimizer, variables, _ = stepped(preset("default", average=0.9), PLAN, 30)
    last = [variable.numpy() for variable in variables]
    with optimizers.averaged(optimizer, variables):
        mean = [variable.numpy() for variable in variables]
    assert all((one > other).all() for one, other in zip(mean, last)), "the mean lags behind falling weights"
    for variable, value in zip(variables, last):
        np.testing.assert_array_equal(variable.numpy(), value)
    none, variables, _ = stepped(preset("default"), PLAN, 3)
    with optimizers.averaged(none, variables):
        np.testing.assert_array_equal(variables[0].numpy(), variables[1].numpy()[:, None] * np.ones((2, 2)))
