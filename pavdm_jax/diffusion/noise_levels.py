"""The grids of noise levels, 0..1.

They are given before the noise shift (`flow.shift_levels`), which is applied to each element. Those of the Wan 2.1
family are in `wan_levels.py`.
"""

import functools

import jax
import jax.numpy as jnp

from pavdm_jax.config import WindowConfig


@functools.partial(jax.jit, static_argnums=0)
def level_table(config: WindowConfig) -> jax.Array:
    """Progressive levels of the noisy part of a full window (arXiv 2410.08151, section 3.2).

    Chunk k of K gets `steps_per_shift` consecutive values of the grid j / steps, j = 1..steps. Row 0 is 1/K, 2/K, … 1,
    and each further row is one grid step lower; one grid step below the last row, chunk k is at the level that chunk
    k − 1 has in row 0. Deviation: any sizes work, where the released code (desaixie/pa_vdm,
    opensora/schedulers/rf/rectified_flow.py) needs as many sampling steps as noisy latent frames.

    Returns:
      [steps_per_shift, noisy_chunks] float32: a row for each step of a shift, rising along the window.
    """
    grid = jnp.arange(1, config.steps + 1, dtype=jnp.float32) / config.steps
    return grid.reshape(config.noisy_chunks, config.steps_per_shift)[:, ::-1].T


@functools.partial(jax.jit, static_argnums=0)
def uniform_levels(steps: int) -> jax.Array:
    """Levels of plain sampling before each step and after the last: float32 [steps + 1], evenly from 1 down to 0."""
    return 1.0 - jnp.arange(steps + 1, dtype=jnp.float32) / steps
