"""Reuse within a shift: which latent frames each step predicts, and what it does with the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.guidance import guided_reusing
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.reuse import ReusingVelocity
from pavdm_jax.diffusion.sampler import gaussian_noise, initial_state, sample_keys, sample_segment, shift_step
from pavdm_jax.diffusion.window import plan_shifts

CONFIG = WindowConfig(chunk_size=2, noisy_chunks=3, context_chunks=1, steps=9)
CELL = (1, 1, 1)


def own_velocity(latents, levels, *_):
    """Depends on a frame's own latents and level alone."""
    return jnp.sin(latents) + levels[..., None, None, None]


def counting(frames):
    """Such a velocity whose memory is how often each latent frame was predicted, [b, t]."""

    def predict(latents, levels, num_valid, prompt_index, memory, start):
        count = jax.lax.dynamic_slice_in_dim(memory, start, latents.shape[1], axis=1) + 1
        return own_velocity(latents, levels), jax.lax.dynamic_update_slice_in_dim(memory, count, start, axis=1)

    return ReusingVelocity(predict, lambda shape: jnp.zeros(shape[:2], jnp.int32), frames)


def plan_of(num_chunks):
    table = shift_levels(level_table(CONFIG), 64, 64, CONFIG.window_size)
    return plan_shifts(CONFIG, table, num_chunks, 0, prompt_starts=range(num_chunks))


@pytest.mark.parametrize(("num_valid", "first"), [(8, 4), (6, 2), (4, 0), (2, 0)])
def test_later_steps_predict_the_end_of_what_counts(num_valid, first):
    velocity, latents = counting(frames=4), jnp.linspace(-1, 1, 8).reshape(1, 8, *CELL)
    levels, prompts, kept = jnp.linspace(0, 1, 8)[None], jnp.arange(4), velocity.begin(latents)
    whole, kept = velocity.step(jnp.int32(0), kept, latents, levels, jnp.int32(num_valid), prompts)
    np.testing.assert_allclose(whole, own_velocity(latents, levels))
    later, kept = velocity.step(jnp.int32(1), kept, latents + 1, levels, jnp.int32(num_valid), prompts)
    is_new = (np.arange(8) >= first) & (np.arange(8) < first + 4)
    np.testing.assert_array_equal(kept[1], 1 + is_new[None])
    expected = np.where(is_new[None, :, None, None, None], own_velocity(latents + 1, levels), whole)
    np.testing.assert_allclose(later, expected, rtol=1e-6)


def test_guidance_is_of_both_halves_with_a_memory_of_both():
    velocity, latents = guided_reusing(counting(4), 3.0), jnp.linspace(-1, 1, 16).reshape(2, 8, *CELL)
    inputs = (latents, jnp.zeros((2, 8)), jnp.int32(8), jnp.arange(4))
    guided, (_, counts) = velocity.step(jnp.int32(0), velocity.begin(latents), *inputs)
    assert counts.shape == (4, 8)
    np.testing.assert_allclose(guided, own_velocity(*inputs), rtol=1e-6)  # of two equal halves


def test_a_velocity_that_repeats_everything_is_the_plain_sampler():
    plan, noise = plan_of(3), gaussian_noise(sample_keys([1]), (2, *CELL))
    first = jax.tree.map(lambda array: array[0], plan)
    state = initial_state(noise, sample_keys([1]), jnp.zeros((1, 0, *CELL)), first)
    (_, plain), (_, same), (_, reused) = (
        sample_segment(velocity, noise, state, plan) for velocity in (own_velocity, counting(8), counting(4))
    )
    np.testing.assert_array_equal(same.latents, plain.latents)
    assert 1e-3 < np.abs(reused.latents - plain.latents).max() < 0.5


def test_the_memory_ends_with_the_shift():
    """In a shift each step moves the frames of the first chunk along the velocity with which the shift began."""
    plan, noise = plan_of(6), gaussian_noise(sample_keys([1]), (2, *CELL))
    shift = jax.tree.map(lambda array: array[3], plan)  # of a full window
    assert int(shift.num_valid) == 8
    state = initial_state(noise, sample_keys([1]), jnp.zeros((1, 0, *CELL)), shift)
    after, _ = shift_step(counting(4), noise, state, shift)
    levels = np.repeat(shift.levels, 2, axis=-1)[:, None, :, None, None, None]
    entered = state.latents.at[:, 6:].set(noise(jnp.asarray(shift.entering)))
    straight = entered + (levels[0] - levels[-1]) * own_velocity(entered, levels[0, ..., 0, 0, 0])
    np.testing.assert_allclose(after.latents[:, :2], straight[:, 2:4], rtol=1e-5)  # the window has moved by a chunk
    assert np.abs(after.latents[:, 2:6] - straight[:, 4:8]).min() > 1e-4
