"""The grids of noise levels, 0..1.

Open-Sora's are given before the noise shift (`flow.shift_levels`), which is applied to each element; those of Wan 2.1
contain theirs, which does not depend on the size of the video.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

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


WAN_FIRST_LEVEL = 0.999
"""Before its noise shift, which leaves it near 1: what enters the network as pure noise."""

WAN_TIMESTEPS = 1000


def wan_levels(steps: int, shift: float) -> np.ndarray:
    """Levels of the Wan 2.1 family before each step and after the last: float32 [steps + 1], falling to 0.

    s_k = 0.999 · (1 − k / steps) becomes shift · s / (1 + (shift − 1) · s), computed in float64. Source: SkyReels-V2
    skyreels_v2_infer/scheduler/fm_solvers_unipc.py, `set_timesteps`.

    Args:
      steps: network calls that each latent frame receives.
      shift: 1 leaves the levels as they are; published are 8 from text and 5 from an image.
    """
    even = WAN_FIRST_LEVEL * (1.0 - np.arange(steps, dtype=np.float64) / steps)
    return np.append(shift * even / (1.0 + (shift - 1.0) * even), 0.0).astype(np.float32)


def wan_timesteps(levels: jax.Array) -> jax.Array:
    """What the network of the Wan 2.1 family is told of levels, of any shape: int32, 1000 · level rounded down.

    The solvers use the levels themselves.
    """
    return jnp.floor(WAN_TIMESTEPS * levels).astype(jnp.int32)


def window_table(levels: np.ndarray, noisy_chunks: int) -> np.ndarray:
    """A grid of falling levels [steps + 1] as the table of a sliding window: [steps_per_shift, noisy_chunks].

    The last chunk has the first levels; see `level_table`, which is this table of its grid.
    """
    return levels[:-1].reshape(noisy_chunks, -1)[::-1].T
