"""Rectified flow: straight lines from clean latents to noise, and the noise shift for size and length.

Levels are in 0..1 (0 clean, 1 pure noise), one for each latent frame; everything is float32. The velocity points from
noise to clean: latents move *along* it. Source: Open-Sora opensora/schedulers/rf/rectified_flow.py, whose timesteps are
1000 times the level.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pavdm_jax.config import NOISE_BASE_SIZE

Velocity = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""velocity(latents, levels, num_valid, prompt_index) -> float [b, t, h, w, c], the network as the samplers call it.

latents [b, t, h, w, c]; levels [b, t] in 0..1; num_valid int32 [], the latent frames that count, a prefix of t;
prompt_index int32 [slots], the prompt that each chunk of the window follows.
"""


def interpolate(clean: jax.Array, noise: jax.Array, levels: jax.Array) -> jax.Array:
    """Noise latents to given levels: (1 − level) · clean + level · noise.

    Args:
      clean, noise: [b, t, h, w, c].
      levels: [b, t] in 0..1.

    Returns:
      [b, t, h, w, c].
    """
    levels = _per_frame(levels)
    return (1.0 - levels) * clean + levels * noise


def velocity_target(clean: jax.Array, noise: jax.Array) -> jax.Array:
    """The velocity that the network learns to predict, clean − noise, for latents and noise of any one shape."""
    return clean - noise


def euler_step(latents: jax.Array, velocity: jax.Array, levels: jax.Array, next_levels: jax.Array) -> jax.Array:
    """Move latents [b, t, h, w, c] along their velocity from `levels` [b, t] down to `next_levels` [b, t].

    Frames whose level does not change (the clean context, and the empty end of a window) are returned bit for bit,
    whatever their velocity is, even NaN.
    """
    drop = _per_frame(levels - next_levels)
    return jnp.where(drop == 0.0, latents, latents + drop * velocity)


def shift_levels(
    levels: jax.Array,
    height: jax.Array | float,
    width: jax.Array | float,
    latent_frames: jax.Array | float,
    base_size: float = NOISE_BASE_SIZE,
) -> jax.Array:
    """The noise shift: larger and longer clips need higher levels to hide as much of their content.

    τ' = r·τ / (1 + (r − 1)·τ) with r = sqrt(height · width / base_size²) · sqrt(latent_frames); 0 and 1 are unchanged.
    Upstream it is `timestep_transform`.

    Args:
      levels: any shape, in 0..1.
      height, width: of the video in pixels; scalars, or arrays that broadcast with `levels` at equal rank.
      latent_frames: of the whole window or clip that the network sees at once. Deviation: upstream takes pixel frames,
        and derives the latent frames by the rule of one VAE.
      base_size: pixels; the levels of one latent frame of base_size² pixels are unchanged.

    Returns:
      The shape of `levels`, in 0..1.
    """
    area = jnp.asarray(height, jnp.float32) * jnp.asarray(width, jnp.float32)
    ratio = jnp.sqrt(area) / base_size * jnp.sqrt(jnp.asarray(latent_frames, jnp.float32))
    return ratio * levels / (1.0 + (ratio - 1.0) * levels)


def _per_frame(levels: jax.Array) -> jax.Array:
    return levels[:, :, None, None, None]
