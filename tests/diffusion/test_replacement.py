"""Plain sampling and the replacement baselines, with an oracle in place of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavdm_jax.diffusion import replacement
from pavdm_jax.diffusion.flow import interpolate, shift_levels
from pavdm_jax.diffusion.noise_levels import uniform_levels

EXACT = 2e-5
STEPS, SHAPE = 6, (2, 8, 2, 3, 4)
LEVELS = shift_levels(uniform_levels(STEPS), 64, 64, 8)
TARGET, GIVEN, *NOISES = np.random.default_rng(1).standard_normal((2 + 2 * (STEPS + 1), *SHAPE), np.float32)


def noise_of(number):
    return jnp.stack(NOISES)[number]


def oracle(latents, levels, num_valid, prompt_index):
    """NaN in clean frames: nothing may use it there."""
    assert int(num_valid) == SHAPE[1]
    levels = levels[:, :, None, None, None]
    return jnp.where(levels > 0, (TARGET - latents) / levels, jnp.nan)


def recorder(calls):
    """A velocity of zero that keeps what it was called with; for use outside jit."""

    def velocity(latents, levels, num_valid, prompt_index):
        jax.debug.callback(lambda *seen: calls.append(seen), latents, levels, ordered=True)
        return jnp.zeros_like(latents)

    return velocity


def sample(velocity, plan):
    out = replacement.sample_clip(velocity, noise_of, GIVEN, plan)
    jax.effects_barrier()
    return out


def test_a_mask_of_ones_is_plain_sampling():
    plan = replacement.without_noise(LEVELS, jnp.ones(SHAPE[:2]))
    np.testing.assert_array_equal(plan.levels, np.broadcast_to(LEVELS[:, None, None], plan.levels.shape))
    np.testing.assert_allclose(sample(oracle, plan), TARGET, atol=EXACT)


def test_without_noise_keeps_given_frames_clean_and_untouched():
    mask = jnp.broadcast_to((jnp.arange(8) >= 3)[None, :], (2, 8)).astype(jnp.float32)
    plan = replacement.without_noise(LEVELS, mask)
    assert (plan.levels[:, :, :3] == 0).all()
    out = sample(oracle, plan)
    np.testing.assert_array_equal(out[:, :3], GIVEN[:, :3])
    np.testing.assert_allclose(out[:, 3:], TARGET[:, 3:], atol=EXACT)


def test_a_fractional_mask_joins_when_the_level_has_come_down_to_it():
    mask = jnp.full((2, 8), 1.0).at[:, 0].set(float(LEVELS[2]) - 1e-3)
    plan = replacement.without_noise(LEVELS, mask)
    np.testing.assert_array_equal(plan.levels[:, 0, 0], jnp.where(jnp.arange(STEPS + 1) < 3, 0, LEVELS))
    np.testing.assert_array_equal(np.nonzero(plan.renoise[:, 0, 0])[0], [3])
    calls = []
    sample(recorder(calls), plan)
    np.testing.assert_array_equal(calls[2][0][:, 0], GIVEN[:, 0])
    joined = interpolate(GIVEN, noise_of(3), plan.levels[3])
    np.testing.assert_allclose(calls[3][0][:, 0], joined[:, 0], atol=1e-6)
    np.testing.assert_allclose(calls[4][0][:, 0], joined[:, 0], atol=1e-6)  # noised once only


def test_with_noise_puts_the_given_frames_back_at_the_common_level_before_every_step():
    given = jnp.broadcast_to((jnp.arange(8) < 3)[None, :], (2, 8))
    plan, calls = replacement.with_noise(LEVELS, given), []
    out = sample(recorder(calls), plan)
    assert len(calls) == STEPS
    for i, (latents, levels) in enumerate(calls):
        assert (levels == LEVELS[i]).all()
        np.testing.assert_allclose(latents[:, :3], interpolate(GIVEN, noise_of(i), plan.levels[i])[:, :3], atol=1e-6)
        np.testing.assert_allclose(latents[:, 3:], noise_of(0)[:, 3:], atol=1e-6)
    np.testing.assert_array_equal(out[:, :3], GIVEN[:, :3])
    np.testing.assert_allclose(sample(oracle, plan)[:, 3:], TARGET[:, 3:], atol=EXACT)


@pytest.mark.parametrize("noisy_context", [False, True])
def test_a_video_is_extended_clip_by_clip_with_new_noise_for_each(noisy_context):
    drawn = []

    def recorded(number):
        jax.debug.callback(lambda n: drawn.append(int(n)), number, ordered=True)
        return noise_of(number)

    video = jnp.zeros((2, 0, *SHAPE[2:]))
    for clip in range(2):
        out = replacement.extend_by_replacement(oracle, recorded, video[:, -3:], 8, LEVELS, clip, noisy_context)
        np.testing.assert_allclose(out[:, :3], TARGET[:, :3] if clip == 0 else video[:, -3:], atol=EXACT)
        np.testing.assert_allclose(out[:, 3:], TARGET[:, 3:], atol=EXACT)
        video = out
    jax.effects_barrier()
    assert sorted(drawn) == list(range(2 * (STEPS + 1)))
