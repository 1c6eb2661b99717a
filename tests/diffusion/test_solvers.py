"""The levels of the Wan 2.1 family and its two solvers against the reference (golden skyreels/scheduler)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import relative_error

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import interpolate
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.solvers import EULER, UniPC
from pavdm_jax.diffusion.wan_levels import wan_levels, window_table
from pavdm_jax.models.wan import wan_timesteps

_, GOLDEN = golden_data.load("skyreels/scheduler")
TABLES = sorted(name.removesuffix("/sigmas") for name in GOLDEN["tables"] if name.endswith("/sigmas"))
PATHS = [(30, 8.0), (50, 5.0), (6, 8.0)]

PATH_TOLERANCE = 5e-6
"""Up to 50 steps in float32, whose weights are near cancellation where levels are near 1."""


def settings_of(name):
    """steps30_shift8.0 → 30, 8.0."""
    steps, shift = name.removeprefix("steps").split("_shift")
    return int(steps), float(shift)


@pytest.mark.parametrize("name", TABLES)
def test_levels_and_timesteps_are_the_reference_s(name):
    levels = wan_levels(*settings_of(name))
    np.testing.assert_allclose(levels, GOLDEN["tables"][f"{name}/sigmas"], rtol=0, atol=6e-8)
    np.testing.assert_array_equal(wan_timesteps(levels[:-1]), GOLDEN["tables"][f"{name}/timesteps"])
    assert levels[-1] == 0


def test_timesteps_of_float32_levels_are_those_of_exact_ones():
    levels, exact = [], []
    for steps, shift in itertools.product(range(1, 101), (3.0, 5.0, 8.0)):
        even = 0.999 * (1 - np.arange(steps) / steps)
        exact.append(np.floor(1000 * shift * even / (1 + (shift - 1) * even)))
        levels.append(wan_levels(steps, shift)[:-1])
    np.testing.assert_array_equal(wan_timesteps(np.concatenate(levels)), np.concatenate(exact))


def test_timesteps_of_noised_given_frames_are_whole():
    thousandths = np.arange(101)  # upstream recommends at most 50
    np.testing.assert_array_equal(wan_timesteps(np.float32(thousandths / 1000)), thousandths)


def path(name):
    inputs, outputs = GOLDEN["inputs"], GOLDEN["outputs"]
    frames = np.moveaxis(inputs[f"{name}/model_outputs"], 2, -1)  # [steps, frame, h, w, c], as a latent frame each
    start = np.moveaxis(inputs[f"{name}/sample"], 1, -1)
    ends = {solver: np.moveaxis(outputs[f"{name}/{solver}"], 2, -1) for solver in ("unipc", "euler")}
    return start[None], -frames[:, None], {solver: end[:, None] for solver, end in ends.items()}


@functools.partial(jax.jit, static_argnums=0)
def solve(is_unipc, solver, start, velocities, levels):
    """All frames through all steps at once; the samples after each: [steps, b, t, h, w, c]."""
    solver = solver if is_unipc else EULER

    def step(carry, inputs):
        velocity, now, later = inputs
        latents, memory = solver.step(carry[0], velocity, now, later, carry[1])
        return (latents, memory), latents

    return jax.lax.scan(
        step, (start, solver.initial_memory(start, start, levels[0])), (velocities, levels[:-1], levels[1:])
    )[1]


def levels_of_frames(levels, frames):
    """[steps + 1] → [steps + 1, 1, frames]."""
    return np.broadcast_to(levels[:, None, None], (len(levels), 1, frames))


@pytest.mark.parametrize(("steps", "shift"), PATHS)
@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_every_step_is_the_reference_s(solver, steps, shift):
    start, velocities, ends = path(f"steps{steps}_shift{shift}")
    levels = wan_levels(steps, shift)
    samples = solve(solver == "unipc", UniPC.of(levels), start, velocities, levels_of_frames(levels, 1))
    assert relative_error(samples, ends[solver]) < PATH_TOLERANCE


def test_every_frame_is_at_a_step_of_its_own():
    """Frame f begins 3 f calls after the first, waits until then, and stays as it is when it is done."""
    start, velocities, ends = path("steps6_shift8.0")
    levels, frames, lag = wan_levels(6, 8.0), 4, 3
    rows = np.arange(6 + lag * (frames - 1))
    steps = np.clip(np.arange(len(rows) + 1)[:, None] - lag * np.arange(frames), 0, 6)
    given = np.stack([velocities[np.minimum(steps[:-1, f], 5), :, 0] for f in range(frames)], axis=2)
    for f in range(frames):  # no velocity is looked at where a frame waits or is done
        given[(steps[:-1] == steps[1:])[:, f], :, f] = np.nan
    everywhere = np.repeat(start, frames, axis=2 - 1)
    samples = solve(True, UniPC.of(levels), everywhere, given, levels[steps][:, None])
    for f in range(frames):
        own = np.asarray(samples)[:, :, f]
        np.testing.assert_array_equal(own[: f * lag], np.broadcast_to(start[:, 0], own[: f * lag].shape))
        assert relative_error(own[f * lag : f * lag + 6], ends["unipc"][:, :, 0]) < PATH_TOLERANCE
        np.testing.assert_array_equal(own[f * lag + 5 :], np.broadcast_to(own[-1], own[f * lag + 5 :].shape))


def test_an_overwritten_start_is_the_result_of_the_first_step():
    start, velocities, ends = path("steps6_shift8.0")
    levels = wan_levels(6, 8.0)
    solver = UniPC.of(levels, overwritten_start=True)
    samples = solve(True, solver, start, velocities, levels_of_frames(levels, 1))
    assert relative_error(samples[0], ends["unipc"][0]) < PATH_TOLERANCE
    moved = np.abs(samples[1] - ends["unipc"][1])
    # The corrected latents of step 1 set out from samples[0] instead of the start; step 1 goes on from them.
    np.testing.assert_allclose(moved, levels[2] / levels[0] * np.abs(ends["unipc"][0] - start), atol=1e-5)


def test_both_solvers_find_the_clean_latents_of_an_exact_velocity():
    clean, noise = jax.random.normal(jax.random.key(0), (2, 1, 2, 2, 3, 4))
    levels = wan_levels(5, 8.0)
    start = (1 - levels[0]) * clean + levels[0] * noise
    velocities = jnp.broadcast_to(clean - noise, (5, *clean.shape))
    for is_unipc in (True, False):
        samples = solve(is_unipc, UniPC.of(levels), start, velocities, levels_of_frames(levels, 2))
        np.testing.assert_allclose(samples[-1], clean, atol=1e-5)


def test_of_equal_cost_unipc_is_nearer_to_the_solution_than_euler():
    """Clean latents and noise are normal with deviations 0.5 and 1: x stays in proportion to its deviation."""

    def variance(level):
        return 0.25 * (1 - level) ** 2 + level**2

    levels, errors = wan_levels(12, 3.0), {}
    start = np.float32([[[[[-2.0, -1.0, 0.5, 2.0]]]]])
    for name, solver in (("unipc", UniPC.of(levels)), ("euler", EULER)):
        x, step = jnp.asarray(start), jax.jit(solver.step)
        memory = solver.initial_memory(x, x, np.full((1, 1), levels[0]))
        for now, later in itertools.pairwise(levels[:-1]):  # the last step is of order 1
            velocity = x * (0.25 * (1 - now) - now) / variance(now)
            x, memory = step(x, velocity, np.full((1, 1), now), np.full((1, 1), later), memory)
        exact = start * np.sqrt(variance(levels[-2]) / variance(levels[0]))
        errors[name] = np.abs(x - exact).max()
    assert errors["unipc"] < 0.2 * errors["euler"]


def test_the_table_of_a_window_is_its_grid_in_pieces():
    levels = wan_levels(12, 8.0)
    table = window_table(levels, 3)
    np.testing.assert_array_equal(table[:, 2], levels[:4])
    np.testing.assert_array_equal(table[:, 0], levels[8:12])
    config = WindowConfig(noisy_chunks=3, steps=12)
    uniform = np.asarray(1 - jnp.arange(13, dtype=jnp.float32) / 12)
    np.testing.assert_allclose(window_table(uniform, 3), level_table(config), atol=1e-7)


@pytest.mark.parametrize("number", [0, 2, 3, 5])
def test_latents_that_were_noised_go_on_as_if_they_had_come_down_the_line(number):
    """From any level: what is remembered of the steps before is the straight line from noise to clean."""
    clean, noise = (np.random.default_rng(seed).normal(size=(1, 1, 2, 2, 3)).astype(np.float32) for seed in (0, 1))
    levels = wan_levels(8, 3.0)
    solver = UniPC.of(levels)
    now, later = (np.full((1, 1), levels[n]) for n in (number, number + 1))
    memory = solver.initial_memory(jnp.asarray(clean), jnp.asarray(noise), now)
    moved, _ = solver.step(interpolate(clean, noise, now), jnp.asarray(clean - noise), now, later, memory)
    np.testing.assert_allclose(moved, interpolate(clean, noise, later), atol=1e-5)
