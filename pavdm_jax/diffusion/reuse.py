"""Reuse within a shift: what the network made of nearly finished latent frames serves all steps of the shift.

The levels of a window are fixed by its schedule, so it is known beforehand which latent frames change least from one
step to the next. This is a static table: in the first step of a shift the network sees the whole window, in the others
only the latent frames above a level. The rest are its context by the keys and values of the first step, and move along
the velocity of the first step. Not in the paper; FlowCache (arXiv 2602.10825) reuses by chunk, too, but decides while
it samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from pavdm_jax.diffusion.flow import Velocity


@dataclass(frozen=True)
class ReusingVelocity:
    """A velocity that remembers within a shift.

    Attributes:
      predict: predict(latents, levels, num_valid, prompt_index, memory, start) -> (velocity, memory). As `Velocity`,
        for the latent frames from `start` on, int32 []: latents, levels and prompts are theirs, `num_valid` counts
        the frames of the whole window. The memory has the other frames, and gets these.
      empty: empty(shape of the window's latents) -> memory of nothing.
      frames: latent frames at the end of the window that every step predicts, whole chunks.
    """

    predict: Callable[..., tuple[jax.Array, Any]]
    empty: Callable[[tuple[int, ...]], Any]
    frames: int

    def begin(self, latents: jax.Array) -> tuple[jax.Array, Any]:
        """What is kept before the first step of a shift: nothing, in the shapes of later."""
        return jnp.zeros(latents.shape, jnp.float32), self.empty(latents.shape)

    def step(
        self,
        number: jax.Array,
        kept: tuple[jax.Array, Any],
        latents: jax.Array,
        levels: jax.Array,
        num_valid: jax.Array,
        prompt_index: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        """The velocity in step `number` of the shift, int32 [], and what is kept for the next."""
        velocity, memory = kept
        t, slots = latents.shape[1], prompt_index.shape[0]
        size = min(self.frames, t)

        def whole() -> tuple[jax.Array, Any]:
            return self.predict(latents, levels, num_valid, prompt_index, memory, jnp.int32(0))

        def part() -> tuple[jax.Array, Any]:
            start = jnp.clip(num_valid - size, 0, t - size).astype(jnp.int32)
            ends = (jax.lax.dynamic_slice_in_dim(array, start, size, axis=1) for array in (latents, levels))
            prompts = jax.lax.dynamic_slice_in_dim(prompt_index, start * slots // t, size * slots // t)
            end, changed = self.predict(*ends, num_valid, prompts, memory, start)
            return jax.lax.dynamic_update_slice_in_dim(velocity, end, start, axis=1), changed

        kept = jax.lax.cond(number == 0, whole, part)
        return kept[0], kept


def by_steps(
    velocity: Velocity | ReusingVelocity, latents: jax.Array
) -> tuple[Callable[..., tuple[jax.Array, Any]], Any]:
    """A velocity as a function of step and memory, as `ReusingVelocity.step`; and its memory before a shift."""
    if isinstance(velocity, ReusingVelocity):
        return velocity.step, velocity.begin(latents)
    return lambda number, kept, *inputs: (velocity(*inputs).astype(jnp.float32), kept), ()
