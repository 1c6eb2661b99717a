"""The grids of noise levels, 0..1, before the noise shift (`flow.shift_levels`), which is applied to each element."""

import functools

import jax
import jax.numpy as jnp

from pavdm_jax.config import WindowConfig


@functools.partial(jax.jit, static_argnums=0)
def level_table(config: WindowConfig) -> jax.Array:
    """Progressive levels of the noisy part of a full window (paper, section 3.2).

    The grid j / steps, j = 1..steps, is dealt to the chunks in runs of `steps_per_shift`. Row 0 is 1/K, 2/K, … 1; each
    further row is one grid step lower, and one grid step below the last row, chunk k is where chunk k − 1 was in row 0.
    Unlike the reference, whose table is right only when the noisy latent frames are as many as the steps, any sizes
    work.

    Returns:
      [steps_per_shift, noisy_chunks] float32: a row for each step of a shift, rising along the window.
    """
    grid = jnp.arange(1, config.steps + 1, dtype=jnp.float32) / config.steps
    return grid.reshape(config.noisy_chunks, config.steps_per_shift)[:, ::-1].T


@functools.partial(jax.jit, static_argnums=0)
def uniform_levels(steps: int) -> jax.Array:
    """Levels of plain sampling, before each step and after the last: [steps + 1] float32, from 1 down to 0."""
    return 1.0 - jnp.arange(steps + 1, dtype=jnp.float32) / steps
