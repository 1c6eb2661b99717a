"""One step of training: gradients in parts, metrics, the moving average, faults, the learning rate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import OptimizerConfig
from pavdm_jax.training.loss import LossReport, scalar_metric
from pavdm_jax.training.parameters import join
from pavdm_jax.training.state import init_state, read_totals
from pavdm_jax.training.step import learning_rate, make_gradients, make_optimizer, make_train_step, metric_shapes

KEY = jax.random.key(0)


def squares(params, batch, key):
    """The loss of a line, a value a sample."""
    per_sample = jnp.square(params["w"] * batch["x"] - batch["y"])
    return jnp.mean(per_sample), LossReport(per_sample, {"error": scalar_metric(jnp.mean(jnp.abs(batch["y"])))})


def run(batch, steps=1, accumulate=1, ema_decay=0.9):
    optimizer = optax.sgd(0.02)
    gradients_of = make_gradients(squares, join, accumulate)
    trained = {"w": jnp.float32(0.5)}
    state = init_state(trained, optimizer, metric_shapes(squares, trained, batch))
    step = make_train_step(gradients_of, optimizer, optax.constant_schedule(0.02), ema_decay, None)
    for _ in range(steps):
        state, loss = step(state, {}, batch, KEY)
    return state, loss


BATCH = {"x": jnp.arange(1.0, 7.0), "y": jnp.array([2.0, 1.0, 0.0, -1.0, 3.0, 5.0])}


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(parts):
    whole, in_parts = run(BATCH)[0], run(BATCH, accumulate=parts)[0]
    assert whole.params["w"] != 0.5
    np.testing.assert_allclose(in_parts.params["w"], whole.params["w"], rtol=1e-6)
    metrics, fresh = read_totals(in_parts)
    np.testing.assert_allclose(metrics["loss"], read_totals(whole)[0]["loss"], rtol=1e-6)
    assert all(not total.any() and not weight.any() for total, weight in fresh.totals.values())


def test_metrics_are_means_over_the_steps_since_the_last_line():
    state, _ = run(BATCH, steps=3)
    losses = [float(run(BATCH, steps=n)[1]) for n in (1, 2, 3)]
    assert losses[0] > losses[1]
    np.testing.assert_allclose(read_totals(state)[0]["loss"], np.mean(losses), rtol=1e-6)
    assert int(state.step) == 3


def test_the_moving_average_is_float32_and_lags():
    state, _ = run(BATCH, steps=30, ema_decay=0.9)
    solution = float(jnp.sum(BATCH["x"] * BATCH["y"]) / jnp.sum(BATCH["x"] ** 2))
    assert state.ema["w"].dtype == jnp.float32
    one, _ = run(BATCH, steps=1)
    np.testing.assert_array_equal(one.ema["w"], one.params["w"])  # it does not remember the start
    assert abs(float(state.ema["w"]) - solution) < 1e-2
    first, second, third = (float(run(BATCH, steps=n)[0].params["w"]) for n in (1, 2, 3))
    of_two = second + (first - second) / 11  # while it is young it forgets faster
    np.testing.assert_allclose(run(BATCH, steps=3)[0].ema["w"], third + (of_two - third) / 6, rtol=1e-6)
    of_two = second + 0.05 * (first - second)
    expected = third + 0.05 * (of_two - third)
    np.testing.assert_allclose(run(BATCH, steps=3, ema_decay=0.05)[0].ema["w"], expected, rtol=1e-6)


def test_adamw_has_all_its_settings():
    settings = OptimizerConfig(1e-2, warmup_steps=0, decay=False, epsilon=0.1, weight_decay=0.5, clip_norm=0.5)
    params, gradients = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 4.0])}  # of norm 5
    optimizer, clipped = make_optimizer(settings, 10), np.array([0.3, 0.4])
    changes, state = optimizer.update(gradients, optimizer.init(params), params)
    decayed = 0.5 * np.array([1.0, -2.0])
    np.testing.assert_allclose(changes["w"], -1e-2 * (clipped / (clipped + 0.1) + decayed), rtol=1e-4)
    changes, _ = optimizer.update({"w": jnp.zeros(2)}, state, params)  # of which the second moment is beta2 of before
    b1, b2 = 0.9, settings.beta2
    mean, square = b1 * (1 - b1) * clipped / (1 - b1**2), b2 * (1 - b2) * clipped**2 / (1 - b2**2)
    np.testing.assert_allclose(changes["w"], -1e-2 * (mean / (np.sqrt(square) + 0.1) + decayed), rtol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_first_step_and_sample_that_are_not_finite_are_kept(accumulate):
    bad = {**BATCH, "y": BATCH["y"].at[3].set(jnp.inf).at[4].set(jnp.nan)}
    state, _ = run(bad, steps=3, accumulate=accumulate)
    assert state.fault[0] == 0 and state.fault[1] == 3 and state.fault[2] == 2
    assert run(BATCH, steps=2)[0].fault.tolist() == [-1, -1, 0]


def test_the_learning_rate_warms_up_and_decays_or_stays():
    settings = OptimizerConfig(1e-3, warmup_steps=10)
    rate = learning_rate(settings, 100)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(100)], [0, 5e-4, 1e-3, 0], atol=1e-9)
    rate = learning_rate(dataclasses.replace(settings, decay=False), 100)
    np.testing.assert_allclose([rate(5), rate(10), rate(1000)], [5e-4, 1e-3, 1e-3], rtol=1e-6)
    at_once = dataclasses.replace(settings, warmup_steps=0)
    for decay in (True, False):
        rate = learning_rate(dataclasses.replace(at_once, decay=decay), 100)
        np.testing.assert_allclose(rate(0), settings.learning_rate, rtol=1e-6)


def test_muon_makes_the_changes_of_the_blocks_matrices_orthogonal():
    settings = OptimizerConfig(1e-2, warmup_steps=0, decay=False)
    params = {"net/blocks/qkv/kernel": jax.random.normal(KEY, (3, 8, 24)), "net/final/kernel": jnp.ones((8, 4))}
    gradients = {path: jax.random.normal(jax.random.key(1), x.shape) for path, x in params.items()}
    optimizer = make_optimizer(dataclasses.replace(settings, algorithm="muon"), 10)
    changes, _ = optimizer.update(gradients, optimizer.init(params), params)
    others = optax.nadam(settings.learning_rate, b2=settings.beta2, eps=settings.epsilon)
    expected, _ = others.update(gradients, others.init(params), params)
    np.testing.assert_allclose(changes["net/final/kernel"], expected["net/final/kernel"], rtol=1e-5)
    for layer in range(3):  # each for itself; five steps of Newton and Schulz bring singular values near to each other
        values = np.linalg.svd(changes["net/blocks/qkv/kernel"][layer], compute_uv=False)
        assert values.max() < 2 * values.min()
        given = np.linalg.svd(gradients["net/blocks/qkv/kernel"][layer], compute_uv=False)
        assert given.max() > 2 * given.min()
    rms = np.sqrt(np.mean(np.square(changes["net/blocks/qkv/kernel"])))
    np.testing.assert_allclose(rms, 0.2 * settings.learning_rate, rtol=0.25)


def test_muon_without_matrices_of_blocks_is_refused():
    optimizer = make_optimizer(OptimizerConfig(algorithm="muon"), 10)
    with pytest.raises(ConfigError, match="trains none; use adamw"):
        optimizer.init({"final/kernel": jnp.ones((8, 4))})
    with pytest.raises(ConfigError, match="adamw or muon, not 'sgd'"):
        OptimizerConfig(algorithm="sgd")
