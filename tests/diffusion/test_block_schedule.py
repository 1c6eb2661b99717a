"""SkyReels-V2's schedules against the reference's tables (golden skyreels/timestep_matrices), and as plans."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.block_schedule import before_first, check_lag, plan_blocks
from pavdm_jax.diffusion.sampler import initial_state, sample_segment
from pavdm_jax.diffusion.solvers import EULER, UniPC
from pavdm_jax.diffusion.wan_levels import wan_levels, window_table
from pavdm_jax.diffusion.window import num_shifts, plan_shifts
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.wan import wan_timesteps

SETTINGS, GOLDEN = golden_data.load("skyreels/timestep_matrices")
CASES = {case["name"]: case for case in SETTINGS["cases"]}
TABLES = GOLDEN["tables"]
CELL = (2, 3, 4)


def schedule(case):
    """The window of a case, and the chunks given before it and the frames held in it."""
    given = case["num_pre_ready"]
    if case["ar_step"] == 0:
        return WindowConfig(case["num_latents"], 1, 0, case["steps"], lag=1), 0, given
    size = case["causal_block_size"]
    window = WindowConfig(size, case["base_latents"] // size, 0, case["steps"], lag=case["ar_step"])
    return window, given // size, 0


def plan_of(case):
    window, given, held = schedule(case)
    levels = wan_levels(case["steps"], case["shift"])
    return plan_blocks(window, levels, case["num_latents"] // window.chunk_size, given, held=held)


def first_window(noise, video, case, solver):
    """Before the first shift, with the given frames of `video`."""
    window, given, held = schedule(case)
    first = before_first(jax.tree.map(lambda array: array[0], plan_of(case)), given)
    known = video[:, : given * window.chunk_size]
    return initial_state(noise, jnp.zeros(1), known, first, video[:, :held] if held else None, solver)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_of_shifts_is_the_reference_s_tables_row_by_row(name):
    case, plan = CASES[name], plan_of(CASES[name])
    size = schedule(case)[0].chunk_size
    steps, slots = plan.levels.shape[1] - 1, plan.levels.shape[2]
    rows = 0
    for i in range(len(plan.num_valid)):
        first = plan.chunks[i, 0] * size
        np.testing.assert_array_equal(plan.chunks[i], plan.chunks[i, 0] + np.arange(slots))
        assert plan.first_step[i] == i * steps
        for r in range(min(steps, case["rows"] - i * steps)):
            row = i * steps + r
            window = slice(*TABLES[f"{name}/valid_interval"][row])
            assert (first, first + plan.num_valid[i]) == (window.start, window.stop)
            now, later = (np.repeat(plan.levels[i, k], size) for k in (r, r + 1))
            held = np.arange(len(now)) < plan.held[i]
            np.testing.assert_array_equal(held, np.arange(window.start, window.stop) < case["num_pre_ready"])
            told = np.where(held, 0, wan_timesteps(now))
            np.testing.assert_array_equal(told, TABLES[f"{name}/step_matrix"][row, window])
            np.testing.assert_array_equal((now != later) & ~held, TABLES[f"{name}/update_mask"][row, window] > 0)
            rows += 1
    assert rows == case["rows"]
    behind = plan.levels[-1, case["rows"] - (len(plan.num_valid) - 1) * steps :]
    assert (behind == 0).all()


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("name", CASES)
def test_an_exact_velocity_makes_every_frame_what_it_should_be(name, solver):
    """Of the oracle of a known video: noise, updates, windows and emission fit together."""
    case, plan = CASES[name], plan_of(CASES[name])
    frames, given = case["num_latents"], case["num_pre_ready"]
    window, whole, _ = schedule(case)
    chunk = window.chunk_size
    rng = np.random.default_rng(0)
    video, noises = (jnp.asarray(rng.normal(size=(1, frames, *CELL)), jnp.float32) for _ in range(2))
    solver = UniPC.of(wan_levels(case["steps"], case["shift"])) if solver == "unipc" else EULER

    def noise(number):
        return jax.lax.dynamic_slice_in_dim(noises, number * chunk, chunk, axis=1)

    state = first_window(noise, video, case, solver)
    seen = int(plan.num_valid[0])
    start = int(plan.chunks[0, 0]) * chunk
    expected = jnp.where(jnp.arange(frames)[None, :, None, None, None] < given, video, noises)
    np.testing.assert_array_equal(state.latents, expected[:, start : start + seen])

    @jax.jit
    def run(state, plan):
        def step(state, inputs):
            def velocity(latents, levels, num_valid, prompt_index):
                clean = jax.lax.dynamic_slice_in_dim(video, inputs.chunks[0] * chunk, latents.shape[1], axis=1)
                levels = levels[:, :, None, None, None]
                return jnp.where(levels > 0, (clean - latents) / levels, jnp.nan)

            one = jax.tree.map(lambda array: array[None], inputs)
            state, finished = sample_segment(velocity, noise, state, one, solver)
            return state, finished

        return jax.lax.scan(step, state, plan)

    _, finished = run(state, plan)
    kept = np.asarray(finished.number).ravel() >= 0
    made = np.concatenate(list(np.asarray(finished.latents)[:, 0][kept]), axis=1)
    whole = np.concatenate([video[:, : whole * chunk], made], axis=1)
    np.testing.assert_allclose(whole, video, atol=2e-4)


def test_once_the_window_has_filled_the_plan_is_the_progressive_one():
    """A window of a context block and three noisy ones; `rolling_context_k3` of the reference."""
    case = CASES["rolling_context_k3"]
    blocks, levels = plan_of(case), wan_levels(case["steps"], case["shift"])
    window = WindowConfig(chunk_size=2, noisy_chunks=3, context_chunks=1, steps=12)
    chunks = plan_shifts(window, window_table(levels, 3), case["num_latents"] // 2)
    assert len(blocks.num_valid) == len(chunks.num_valid)
    full = slice(3, -2)  # the context has come, and the last block has not yet begun
    assert chunks.num_valid[full].tolist() == [8] * 9
    for name in ("levels", "num_valid", "chunks", "emitted", "entering", "prompt_index", "first_step", "roll"):
        ours, theirs = getattr(blocks, name), getattr(chunks, name)
        # Its first block has waited in the window; behind its last one the progressive window goes on rolling.
        same = {"entering": slice(4, -2), "roll": slice(3, -3)}.get(name, full)
        np.testing.assert_array_equal(ours[same], theirs[same])
    np.testing.assert_array_equal(blocks.emitted, chunks.emitted)


def test_a_given_frame_is_shown_noised_anew_at_every_step_and_stays_clean():
    config = WindowConfig(2, 3, 0, 4, context_noise=0.25, lag=2)
    plan = plan_blocks(config, wan_levels(4, 8.0), 3, 1)
    given, drawn = jnp.ones((1, 2, *CELL)), jnp.zeros((1, 2, *CELL))
    seen = []

    def velocity(latents, levels, num_valid, prompt_index):
        jax.debug.callback(
            lambda x, level: seen.append((x[0, :2, 0, 0, 0], level[0, :2])), latents, levels, ordered=True
        )
        return jnp.zeros_like(latents)

    first = before_first(jax.tree.map(lambda array: array[0], plan), 1)
    state = initial_state(lambda number: drawn, jnp.zeros(1), given, first)
    held_noise = lambda number: jnp.full((1, 6, *CELL), 10.0 * number)  # noqa: E731
    run = jax.jit(lambda state: sample_segment(velocity, lambda number: drawn, state, plan, EULER, held_noise))
    state, _ = run(state)
    jax.effects_barrier()
    np.testing.assert_array_equal(state.latents[:, :2], given)
    assert len(seen) == 6
    for number, (latents, levels) in enumerate(seen):
        np.testing.assert_array_equal(latents, np.full(2, 0.75 + 2.5 * number, np.float32))
        np.testing.assert_array_equal(levels, np.full(2, 0.25, np.float32))


def test_the_memory_of_a_solver_moves_with_the_window():
    case = CASES["rolling_context_k3"]
    plan, solver = plan_of(case), UniPC.of(wan_levels(case["steps"], case["shift"]))
    noise = lambda number: jnp.full((1, 2, *CELL), 1.0 + number)  # noqa: E731
    state = first_window(noise, jnp.zeros((1, 0, *CELL)), case, solver)
    head = jax.tree.map(lambda array: array[:5], plan)
    state, _ = jax.jit(lambda s: sample_segment(lambda x, *_: jnp.ones_like(x), noise, s, head, solver))(state)
    # Shift 4 has ended with a roll: the newest slot has no memory, those before it have one.
    memory = np.abs(np.asarray(state.memory.prediction)).sum((0, 2, 3, 4)).reshape(4, 2).sum(1)
    assert memory[-1] == 0
    assert (memory[:-1] > 0).all()


@pytest.mark.parametrize("name", ["rolling_k6_c5", "rolling_prefix"])
def test_a_plan_can_be_made_in_pieces_and_a_longer_video_begins_as_a_shorter_one(name):
    """Up to the shift in which the shorter one has no chunk left to bring in."""
    case, (window, given, held) = CASES[name], schedule(CASES[name])
    levels, chunks = wan_levels(case["steps"], case["shift"]), case["num_latents"] // window.chunk_size
    total = num_shifts(window, chunks, given)
    pieces = [plan_blocks(window, levels, chunks, given, held=held, start=at, stop=at + 3) for at in range(0, total, 3)]
    jax.tree.map(
        lambda whole, *parts: np.testing.assert_array_equal(whole, np.concatenate(parts)), plan_of(case), *pieces
    )
    endless = plan_blocks(window, levels, 2**30, given, held=held, stop=max(1, chunks - window.slots - given))
    for ours, theirs in zip(jax.tree.leaves(endless), jax.tree.leaves(plan_of(case)), strict=True):
        np.testing.assert_array_equal(ours, theirs[: len(ours)])


def test_in_a_video_shorter_than_the_window_the_slots_behind_it_are_empty():
    plan = plan_blocks(WindowConfig(5, 4, 1, 32, lag=8), wan_levels(32, 8.0), 2)
    assert plan.chunks.tolist() == [[0, 1, -1, -1, -1]] * 5
    assert plan.num_valid.tolist() == [10] * 5
    assert not plan.levels[:, :, 2:].any()


def test_a_lag_with_which_chunks_leave_unfinished_is_refused():
    window = WindowConfig(5, 4, 1, 30, lag=5)
    check_lag(window, 5)
    with pytest.raises(ConfigError, match=r"lag of 5 of 30 steps.* use a lag of 6 or more.* at most 25 latent frames"):
        plan_blocks(window, wan_levels(30, 8.0), 6)
    check_lag(dataclasses.replace(window, lag=6), 6)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="lag must be at least 1 step"):
        WindowConfig(lag=0)
    with pytest.raises(ConfigError, match=r"the levels have shape \(31,\); 12 steps need \(13,\)"):
        plan_blocks(WindowConfig(steps=12, lag=3), wan_levels(30, 8.0), 5)
