"""Classifier-free guidance, as a pure function over predictions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pavdm_jax.diffusion.flow import Velocity
from pavdm_jax.diffusion.reuse import ReusingVelocity


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


def guided_reusing(velocity: ReusingVelocity, scale: ArrayLike) -> ReusingVelocity:
    """`guided` for a velocity that remembers; the memory is of the doubled batch."""

    def predict(latents: jax.Array, levels: jax.Array, *inputs: Any) -> tuple[jax.Array, Any]:
        twice, memory = velocity.predict(_doubled(latents), _doubled(levels), *inputs)
        conditional, unconditional = jnp.split(twice, 2)
        return guide(conditional, unconditional, scale), memory

    def empty(shape: tuple[int, ...]) -> Any:
        return velocity.empty((2 * shape[0], *shape[1:]))

    return dataclasses.replace(velocity, predict=predict, empty=empty)


def guided_above(
    conditional: Velocity, unconditional: Velocity, scale: ArrayLike, level: float, frames: int
) -> Velocity:
    """A velocity in which latent frames at or below `level` follow the prompt alone, without guidance.

    In a progressive window those are the first ones, so the second prediction is of the other end alone: it is made in
    less time, and does not see what lies before.

    Args:
      conditional, unconditional: of the prompts, and of the null caption.
      scale: see `guide`.
      level: 0..1.
      frames: the most latent frames of the window that can lie above `level`, whole chunks.
    """

    def velocity(latents: jax.Array, levels: jax.Array, num_valid: jax.Array, prompt_index: jax.Array) -> jax.Array:
        t, slots = latents.shape[1], prompt_index.shape[0]
        size = min(frames, t)
        start = jnp.clip(num_valid - size, 0, t - size)

        def end(array: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(array, start, size, axis=1)

        whole = conditional(latents, levels, num_valid, prompt_index)
        prompts = jax.lax.dynamic_slice_in_dim(prompt_index, start * slots // t, size * slots // t)
        plain = unconditional(end(latents), end(levels), jnp.minimum(num_valid, size), prompts)
        is_guided = (end(levels) > level)[:, :, None, None, None]
        changed = jnp.where(is_guided, guide(end(whole), plain, scale), end(whole))
        return jax.lax.dynamic_update_slice_in_dim(whole, changed, start, axis=1)

    return velocity


def _doubled(array: jax.Array) -> jax.Array:
    return jnp.concatenate([array, array])
