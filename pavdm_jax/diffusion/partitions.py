"""Windows longer than what the network sees at once: overlapping partitions with lookahead.

The partitions overlap by half. In each one but the first, the cleaner half is context, and only the noisier half is
updated. Source: FIFO-Diffusion (arXiv 2405.11473, section 4) and its code, FIFO-Diffusion_public,
scripts/evaluation/funcs.py.

The window "fifo" has three partitions with lookahead; its context is what the lookahead of the first partition sees.
Deviations from the source (FIFO-Diffusion_public, scripts/evaluation/funcs.py): the window grows from the prompt alone
instead of starting from copies of a sampled clip; finished frames are at level 0 instead of the lowest level of the
table; the window shrinks at the end; steps are those of the model's family instead of DDIM's.
"""

import jax
import jax.numpy as jnp

from pavdm_jax.diffusion.flow import Velocity


def partitioned(velocity: Velocity, size: int) -> Velocity:
    """A velocity for longer windows, by calls on `size` latent frames one after another.

    Args:
      velocity: of `size` latent frames.
      size: latent frames of a partition, even; half of it is a whole number of chunks.

    Returns:
      A velocity of windows whose latent frames are a multiple of `size / 2`, at least `size`.
    """
    half = size // 2

    def whole(latents: jax.Array, levels: jax.Array, num_valid: jax.Array, prompt_index: jax.Array) -> jax.Array:
        t, slots = latents.shape[1], prompt_index.shape[0]

        def one(start: jax.Array) -> jax.Array:
            part, part_levels = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in (latents, levels))
            prompts = jax.lax.dynamic_slice_in_dim(prompt_index, start * slots // t, size * slots // t)
            return velocity(part, part_levels, jnp.clip(num_valid - start, 0, size), prompts)

        parts = jax.lax.map(one, jnp.arange(0, t - half, half))  # [partitions, b, size, h, w, c]
        later = jnp.moveaxis(parts[:, :, half:], 0, 1)
        return jnp.concatenate([parts[0, :, :half], later.reshape(latents.shape[0], -1, *later.shape[3:])], axis=1)

    return whole
