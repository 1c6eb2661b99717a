"""The sampler without a network: an oracle that knows the video makes Euler exact, so any schedule must return it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion import sampler
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.guidance import guide, guided, guided_above
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.window import plan_shifts, segments

EXACT = 2e-5
"""Float32 rounding of a division by small levels."""

CELL = (2, 3, 4)


def make_video(num_chunks, config, batch=2):
    shape = batch, num_chunks * config.chunk_size, *CELL
    return np.random.default_rng(7).standard_normal(shape, np.float32)


def make_plan(config, num_chunks, num_given=0):
    """Prompt j belongs to chunk j, which tells the oracle where in the video the window is."""
    table = shift_levels(level_table(config), 64, 64, config.window_size)
    return plan_shifts(config, table, num_chunks, num_given, prompt_starts=range(num_chunks))


def oracle(video, k):
    """The exact velocity (x0 − z) / level of `video`; NaN wherever it must not be used: clean and empty frames."""

    def velocity(latents, levels, num_valid, prompt_index):
        frames = (prompt_index[:, None] * k + jnp.arange(k)[None, :]).reshape(-1)
        levels = levels[:, :, None, None, None]
        return jnp.where(levels > 0, (video[:, frames] - latents) / levels, jnp.nan)

    return velocity


def mixing(latents, levels, num_valid, prompt_index):
    """A velocity through which every frame of the window influences every other."""
    valid = (jnp.arange(latents.shape[1]) < num_valid)[None, :, None, None, None]
    mean = jnp.mean(jnp.where(valid, latents, 0.0), axis=1, keepdims=True)
    return 0.5 * jnp.tanh(latents + mean) * (1 + levels[:, :, None, None, None])


@functools.partial(jax.jit, static_argnums=1)
def draw(keys, k, chunks):
    """The sampler's noise of some chunks, [chunks, b, k, h, w, c]."""
    return jax.lax.map(sampler.gaussian_noise(keys, (k, *CELL)), chunks)


NOISES = np.random.default_rng(8).standard_normal((16, 2, 5, *CELL), np.float32)
"""Noise that is quick to compile; chunk sizes take as many frames of it as they need."""


def table(noises):
    return lambda number: noises[number]


@jax.jit
def start(plan, known, noises):
    first, keys = jax.tree.map(lambda array: array[0], plan), jnp.zeros(known.shape[0])
    return sampler.initial_state(table(noises), keys, known, first)


@jax.jit
def run_mixing(state, plan, noises):
    return sampler.sample_segment(mixing, table(noises), state, plan)


@jax.jit
def run_oracle(state, plan, video, noises):
    return sampler.sample_segment(oracle(video, noises.shape[2]), table(noises), state, plan)


def emitted(finished):
    """[b, t, h, w, c] of the chunks that were emitted, in order."""
    chunks = [chunk for number, chunk in zip(finished.number, finished.latents, strict=True) if number >= 0]
    return jnp.concatenate(chunks, axis=1)


@pytest.mark.parametrize(
    ("k", "noisy", "context", "steps", "num_chunks", "num_given"),
    [
        (2, 3, 1, 6, 7, 1),  # the usual case
        (2, 3, 1, 6, 6, 0),  # from text alone
        (5, 2, 0, 6, 4, 1),  # no context; noisy frames ≠ steps
        (1, 4, 2, 4, 6, 3),  # two context chunks; one step a shift
        (2, 4, 1, 8, 2, 1),  # shorter than the window
        (2, 3, 1, 3, 1, 0),  # one chunk
        (2, 1, 1, 5, 3, 1),  # one noisy chunk
    ],
)
def test_the_oracle_returns_the_video(k, noisy, context, steps, num_chunks, num_given):
    config = WindowConfig(chunk_size=k, noisy_chunks=noisy, context_chunks=context, steps=steps)
    video, plan = make_video(num_chunks, config), make_plan(config, num_chunks, num_given)
    noises = NOISES[:, :, :k]
    state = start(plan, video[:, : num_given * k], noises)
    state, finished = run_oracle(state, plan, video, noises)
    np.testing.assert_array_equal(finished.number, plan.emitted)
    np.testing.assert_allclose(emitted(finished), video[:, num_given * k :], atol=EXACT)
    assert jnp.isfinite(state.latents).all()


def test_fixed_length_starts_from_a_noised_video_and_returns_it():
    config = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6)
    video, plan = make_video(9, config), jax.tree.map(lambda array: array[2:-2], make_plan(config, 9, 1))
    noises = NOISES[:, :, :2]
    state = start(plan, video[:, : 3 * 2], noises)
    assert jnp.abs(state.latents[:, :2] - video[:, :2]).max() == 0  # the context is clean
    assert jnp.abs(state.latents[:, 2:6] - video[:, 2:6]).max() > 0.1
    _, finished = run_oracle(state, plan, video, noises)
    np.testing.assert_allclose(emitted(finished), video[:, 2:14], atol=EXACT)


def test_a_finished_chunk_is_emitted_clean_and_stays_in_the_window_noised():
    config = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6, context_noise=0.25)
    video, plan = make_video(6, config), make_plan(config, 6)
    drawn = {number: np.full((2, 2, *CELL), 10.0 + number, np.float32) for number in range(-6, 6)}
    table = jnp.stack([drawn[number] for number in range(-6, 6)])

    def noise(number):
        return table[number + 6]

    state = sampler.WindowState(jnp.zeros((2, config.window_size, *CELL)), jnp.zeros(2))
    velocity = oracle(jnp.asarray(video), 2)
    for shift in range(4):
        inputs = jax.tree.map(lambda array, shift=shift: array[shift], plan)
        state, finished = sampler.shift_step(velocity, noise, state, inputs)
    # Chunk 1 has just left: it is what was asked for, and the context is it with a quarter of noise.
    assert int(finished.number) == 1
    np.testing.assert_allclose(finished.latents, video[:, 2:4], atol=EXACT)
    np.testing.assert_allclose(state.latents[:, :2], 0.75 * video[:, 2:4] + 0.25 * drawn[-2], atol=EXACT)


CONFIG = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6)
PLAN = make_plan(CONFIG, 6, 1)
KNOWN = make_video(1, CONFIG)
NOISES_2 = NOISES[:, :, :2]


def run_in_segments(length, samples=slice(None)):
    known, noises = KNOWN[samples], NOISES_2[:, samples]
    state, parts = start(PLAN, known, noises), []
    for piece in segments(PLAN, length):
        state, finished = run_mixing(state, piece, noises)
        parts.append(finished)
    return state, emitted(jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts))


def test_segments_of_any_length_and_a_loop_give_the_same_video():
    state, whole = run_in_segments(len(PLAN.num_valid))
    padded_state, padded = run_in_segments(5)
    np.testing.assert_array_equal(padded, whole)
    np.testing.assert_array_equal(padded_state.latents, state.latents)

    state = start(PLAN, KNOWN, NOISES_2)
    step = jax.jit(lambda state, inputs: sampler.shift_step(mixing, table(jnp.asarray(NOISES_2)), state, inputs))
    chunks = []
    for i in range(len(PLAN.num_valid)):
        state, finished = step(state, jax.tree.map(lambda array, i=i: array[i], PLAN))
        assert int(finished.number) == PLAN.emitted[i]
        if finished.number >= 0:
            chunks.append(finished.latents)
        else:
            assert (finished.latents == 0).all()
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), whole, atol=1e-6)


def test_a_sample_of_a_batch_is_the_sample_alone():
    _, both = run_in_segments(5)
    _, alone = run_in_segments(5, samples=slice(1))
    np.testing.assert_allclose(alone[0], both[0], atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_a_longer_video_starts_as_the_shorter_one_does():
    """The window at the start of a shift does not know how long the video will be."""
    states = []
    for plan in (make_plan(CONFIG, 9, 1), PLAN):
        plan = jax.tree.map(lambda array: array[:5], plan)
        states.append(run_mixing(start(plan, KNOWN, NOISES_2), plan, NOISES_2)[0])
    np.testing.assert_array_equal(states[0].latents, states[1].latents)


def test_an_inert_shift_changes_nothing_and_calls_no_network():
    calls = []

    def counted(latents, *_):
        jax.debug.callback(lambda: calls.append(None))
        return jnp.ones_like(latents)

    pieces, state = list(segments(PLAN, 5)), start(PLAN, KNOWN, NOISES_2)
    run = jax.jit(lambda state, plan: sampler.sample_segment(counted, table(jnp.asarray(NOISES_2)), state, plan))
    after, finished = run(state, jax.tree.map(lambda array: array[-1:], pieces[-1]))
    np.testing.assert_array_equal(after.latents, state.latents)
    assert (finished.latents == 0).all() and (finished.number == -1).all()
    jax.effects_barrier()
    assert not calls
    run(state, jax.tree.map(lambda array: array[:1], pieces[0]))
    jax.effects_barrier()
    assert len(calls) == CONFIG.steps_per_shift


def test_noise_belongs_to_sample_and_chunk():
    seeds, number = [5, 0, 2**31 + 5], jnp.arange(2)
    keys = sampler.sample_keys(seeds)
    noise = np.asarray(draw(keys, 20, number))
    np.testing.assert_array_equal(draw(sampler.sample_keys(seeds[:1]), 20, number[::-1])[::-1, 0], noise[:, 0])
    draws = noise.reshape(6, -1)
    assert np.abs(np.corrcoef(draws) - np.eye(6)).max() < 0.2
    assert abs(draws.mean()) < 0.05 and abs(draws.std() - 1) < 0.05


def test_guidance_doubles_the_batch_and_extrapolates():
    def velocity(latents, levels, num_valid, prompt_index):
        assert (latents.shape[0], levels.shape[0]) == (4, 4)
        conditional = (jnp.arange(4) < 2)[:, None, None, None, None]
        return jnp.where(conditional, 3.0, 1.0) * latents

    latents, levels = jnp.ones((2, 3, 1, 1, 4)), jnp.ones((2, 3))
    answer = guided(velocity, 7.0)(latents, levels, jnp.int32(3), jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(answer, 1 + 7 * (3 - 1) * latents)
    np.testing.assert_allclose(guide(latents, 5 * latents, 0.0), 5 * latents)


def test_below_a_level_frames_follow_the_prompt_alone_and_are_not_predicted_twice():
    calls = []

    def velocity(factor):
        def answer(latents, levels, num_valid, prompt_index):
            calls.append((latents.shape[1], int(num_valid), prompt_index.tolist()))
            return factor * latents * (levels >= 0)[..., None, None, None]

        return answer

    latents = jnp.arange(1.0, 9.0).reshape(1, 8, 1, 1, 1)
    levels = jnp.array([[0, 0, 0.3, 0.3, 0.6, 0.6, 0, 0]])  # of three chunks; the last slot is empty
    partly = guided_above(velocity(3.0), velocity(1.0), 7.0, 0.3, 4)
    answer = partly(latents, levels, jnp.int32(6), jnp.array([0, 0, 1, 2]))
    np.testing.assert_allclose(answer.ravel()[:6], [3, 6, 9, 12, 5 * 15, 6 * 15])
    assert calls == [(8, 6, [0, 0, 1, 2]), (4, 4, [0, 1])]
