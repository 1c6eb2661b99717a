"""What a student of `DistilledShift` learns: the mean velocity of the teacher between two rows of the level table."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import Velocity
from pavdm_jax.diffusion.objectives import DistilledShift
from pavdm_jax.diffusion.sampler import WindowState, shift_step
from pavdm_jax.diffusion.train_levels import TrainLevels, draw_windows, window_levels
from pavdm_jax.diffusion.window import ShiftInputs


def steps_of_teacher(objective: DistilledShift, window: WindowConfig) -> int:
    """Steps of the teacher for each step of the student, whose window it is."""
    return objective.steps // window.steps


class DrawnSteps(NamedTuple):
    """Levels around a step of the student, for each sample of a batch.

    Attributes:
      before: a step of the student earlier. A chunk that enters with the drawn step is not seen yet (`num_valid`).
      rows: n + 1 entries, n = `steps_of_teacher`: where the step begins, and after each step of the teacher.
    """

    before: TrainLevels
    rows: list[TrainLevels]


def sample_steps(
    key: jax.Array,
    objective: DistilledShift,
    window: WindowConfig,
    batch: int,
    height: jax.Array | float,
    width: jax.Array | float,
    base_size: float,
) -> DrawnSteps:
    """The levels of random windows around a random step of the student; they are those of the sampler.

    Args:
      key: one PRNG key.
      objective: its settings.
      window: of the student. Clips have t = `window.window_size` latent frames, of which a smaller one takes the first.
      batch: b.
      height, width: pixels, scalars or [b].
      base_size: pixels, of the noise shift, see `flow.shift_levels`.
    """
    window_key, row_key = jax.random.split(key)
    calls, of_shift = steps_of_teacher(objective, window), objective.steps // window.noisy_chunks
    drawn = draw_windows(window_key, objective, window, batch)
    first = calls * jax.random.randint(row_key, (batch,), 0, window.steps_per_shift)

    def grid(steps: int) -> jax.Array:
        """The teacher's steps that each slot is above level 0, so many steps after the drawn step's begin."""
        return (drawn.columns + 1) * of_shift - (first + steps)[:, None]

    def levels(above: jax.Array, is_noisy: jax.Array, chunks: jax.Array) -> TrainLevels:
        values = jnp.clip(above, 0, objective.steps) / objective.steps
        return window_levels(values, is_noisy, chunks, window, height, width, base_size)

    above = grid(-calls)
    enters = drawn.is_noisy & (above > objective.steps)
    # Noisy before: also the context, if the step before has finished it.
    was_noisy = drawn.is_noisy | ((drawn.columns == -1) & (above > 0))
    before = levels(above, was_noisy, jnp.maximum(drawn.chunks - jnp.sum(enters, axis=1), 1))
    return DrawnSteps(before, [levels(grid(n), drawn.is_noisy, drawn.chunks) for n in range(calls + 1)])


def mean_velocity(
    velocity: Velocity, latents: jax.Array, levels: jax.Array, num_valid: jax.Array, slots: int
) -> jax.Array:
    """The velocity with which one Euler step goes as far as several steps along `velocity`.

    Args:
      velocity: of the teacher; it is called with `num_valid` [b].
      latents: [b, t, h, w, c], the windows before the first step.
      levels: [n + 1, b, t] before the first step, and after each.
      num_valid: int32 [b], latent frames of each window.
      slots: chunks that a window has room for.

    Returns:
      [b, t, h, w, c] float32; 0 in frames whose level does not change.
    """
    b, t, *cell = latents.shape
    zero, none = jnp.int32(0), jnp.int32(-1)
    stays = ShiftInputs(
        levels=levels[:, :, :: t // slots],
        num_valid=num_valid,
        chunks=jnp.full((slots,), none),
        entering=none,
        emitted=none,
        roll=zero,
        prompt_index=jnp.zeros((slots,), jnp.int32),
        held=zero,
        held_level=jnp.float32(0),
        first_step=zero,
        context_noise=jnp.float32(0),
    )

    def no_noise(number: jax.Array) -> jax.Array:
        return jnp.zeros((b, t // slots, *cell), jnp.float32)

    state = WindowState(latents, key=jax.random.split(jax.random.key(0), b))  # keys that are not used
    state, _ = shift_step(velocity, no_noise, state, stays)
    drop = (levels[0] - levels[-1])[:, :, None, None, None]
    return jnp.where(drop > 0, (state.latents - latents) / jnp.where(drop > 0, drop, 1.0), 0.0)
