"""Classifier-free guidance, as a pure function over predictions."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pavdm_jax.diffusion.flow import Velocity


def guide(conditional: jax.Array, unconditional: jax.Array, scale: ArrayLike) -> jax.Array:
    """unconditional + scale · (conditional − unconditional): a scale of 1 is no guidance, 0 ignores the prompt.

    This is Open-Sora's form (`opensora/schedulers/rf/__init__.py`); some papers call scale − 1 the guidance scale.
    """
    return unconditional + scale * (conditional - unconditional)


def guided(velocity: Velocity, scale: ArrayLike) -> Velocity:
    """Turn a velocity over a doubled batch into a guided one over the batch.

    Args:
      velocity: is called with every sample twice, [2b, ...]: it must answer with the prompts in the first half and with
        the null caption in the second.
      scale: see `guide`.
    """

    def guided_velocity(
        latents: jax.Array, levels: jax.Array, num_valid: jax.Array, prompt_index: jax.Array
    ) -> jax.Array:
        twice = velocity(_doubled(latents), _doubled(levels), num_valid, prompt_index)
        conditional, unconditional = jnp.split(twice, 2)
        return guide(conditional, unconditional, scale)

    return guided_velocity


def _doubled(array: jax.Array) -> jax.Array:
    return jnp.concatenate([array, array])
