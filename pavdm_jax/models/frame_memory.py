"""What self-attention keeps of latent frames from one call of a network to the next: their keys and values.

A call on some latent frames of a window, with the memory of an earlier call on all of them, predicts what a call on all
would, if the others had not changed since.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from pavdm_jax.config import STDiT3Config
from pavdm_jax.models.embeddings import grid_size
from pavdm_jax.wan_config import WanConfig


@struct.dataclass
class FrameMemory:
    """Keys and values of self-attention, where it is over time, of all latent frames of a window.

    Attributes:
      keys: [depth, b, t, s, n, e], rotated to their places in the window; inside a block without the first axis.
      values: of the same shape.
    """

    keys: jax.Array
    values: jax.Array

    def replaced(self, keys: jax.Array, values: jax.Array, start: jax.Array) -> "FrameMemory":
        """Inside a block: with new keys and values [b, t', s, n, e] of the latent frames from `start` on."""
        update = jax.lax.dynamic_update_slice_in_dim
        return FrameMemory(update(self.keys, keys, start, axis=1), update(self.values, values, start, axis=1))


def empty_memory(config: STDiT3Config | WanConfig, shape: tuple[int, ...], dtype: DTypeLike) -> FrameMemory:
    """Zeros, for a window of latents of `shape` (b, t, h, w, c) and a network that computes in `dtype`."""
    b, t, h, w, _ = shape
    rows, columns = grid_size(h, w, config.patch_size)
    zeros = jnp.zeros((config.depth, b, t, rows * columns, config.num_heads, config.head_width), dtype)
    return FrameMemory(zeros, zeros)
