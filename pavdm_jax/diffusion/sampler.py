"""The progressive sampler: one function, `shift_step`, which `sample_segment` scans over a plan of shifts.

Source: arXiv 2410.08151, section 3, and desaixie/pa_vdm, opensora/schedulers/rf/__init__.py.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import struct

from pavdm_jax.diffusion.flow import Velocity, interpolate
from pavdm_jax.diffusion.reuse import ReusingVelocity, by_steps
from pavdm_jax.diffusion.solvers import EULER, Solver
from pavdm_jax.diffusion.window import ShiftInputs

Noise = Callable[[jax.Array], jax.Array]
"""noise(number int32 []) -> [b, k, h, w, c] of standard normal values: chunk `number` as it enters the window."""


@struct.dataclass
class WindowState:
    """What one shift hands to the next.

    Saved together with the number of the next shift, it is enough to resume a video, or to branch off from it.

    Attributes:
      latents: [b, t, h, w, c] float32, the window; empty slots hold zeros.
      key: [b] typed PRNG keys, one for each sample. They never change: the noise of chunk j depends on the sample's key
        and on j only.
      memory: what the solver remembers of each latent frame, see `Solver`; nothing for Euler's method.
    """

    latents: jax.Array
    key: jax.Array
    memory: Any = ()


@struct.dataclass
class FinishedChunk:
    """The chunk that a shift emits.

    Attributes:
      number: int32 [], the chunk's number; −1 when the shift emits nothing.
      latents: float32 [b, k, h, w, c], clean; zeros when the shift emits nothing.
    """

    number: jax.Array
    latents: jax.Array


def sample_keys(seeds: Sequence[int]) -> jax.Array:
    """The keys [b] of b samples from their seeds; the same seed gives the same video in any batch."""
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def gaussian_noise(keys: jax.Array, shape: tuple[int, ...]) -> Noise:
    """The sampler's noise, of `shape` (k, h, w, c) for each sample, by `fold_in(key of the sample, number)`.

    Batch size, number of devices, segment length and resuming therefore do not change a video. Deviation: upstream
    draws the noise of all chunks from one generator in the order of the calls.
    """

    def noise(number: jax.Array) -> jax.Array:
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)

    return noise


def noise_of_held(keys: jax.Array, shape: tuple[int, ...]) -> Noise:
    """Of `shape` (t, h, w, c), what held frames are noised with (see `shift_step`): other values than any chunk's."""
    return gaussian_noise(jax.vmap(lambda key: jax.random.fold_in(key, 2**31))(keys), shape)


def initial_state(
    noise: Noise,
    keys: jax.Array,
    known: jax.Array,
    first_shift: ShiftInputs,
    held: jax.Array | None = None,
    solver: Solver = EULER,
) -> WindowState:
    """The window before the first shift: each known chunk, noised to the level that the plan has for it there.

    Args:
      noise: as for `shift_step`.
      keys: [b], one for each sample.
      known: [b, known chunks · k, h, w, c], the video's first chunks; 0 frames to start from text alone. Context
        chunks, at level 0, are taken as they are; a plan of fixed length starts with a full window, and noises the
        others.
      first_shift: the first entry of the plan.
      held: [b, `first_shift.held`, h, w, c], the given latent frames of chunk 0, or None.
      solver: as for `shift_step`.
    """
    first_shift = jax.tree.map(jnp.asarray, first_shift)
    b, frames, *cell = known.shape
    k = jax.eval_shape(noise, jnp.int32(0)).shape[1]
    slots = first_shift.chunks.shape[0]
    chunks = jnp.maximum(first_shift.chunks, 0)
    # A chunk of zeros behind the known ones stands for all chunks that are not known.
    padded = jnp.concatenate([known.astype(jnp.float32), jnp.zeros((b, k, *cell), jnp.float32)], axis=1)
    padded = einops.rearrange(padded, "b (j k) h w c -> j b k h w c", k=k)
    slot_is_known = (first_shift.chunks >= 0) & (first_shift.chunks < frames // k)
    clean = padded[jnp.where(slot_is_known, chunks, frames // k)]
    clean, drawn = (
        einops.rearrange(array, "j b k h w c -> b (j k) h w c") for array in (clean, jax.lax.map(noise, chunks))
    )
    levels = _frame_levels(jnp.asarray(first_shift.levels)[0], b, slots * k)
    latents = interpolate(clean, drawn, levels)
    if held is not None:
        latents = jnp.concatenate([held.astype(jnp.float32), latents[:, held.shape[1] :]], axis=1)
    return WindowState(latents=latents, key=keys, memory=solver.initial_memory(clean, drawn, levels))


def shift_step(
    velocity: Velocity | ReusingVelocity,
    noise: Noise,
    state: WindowState,
    inputs: ShiftInputs,
    solver: Solver = EULER,
    held_noise: Noise | None = None,
) -> tuple[WindowState, FinishedChunk]:
    """One shift: a noise chunk enters, the window is denoised by r steps, the clean chunk is emitted, the window moves.

    The context is never updated, and an inert shift does not call the network. Deviation: levels are float32, where
    upstream rounds its timesteps to bfloat16.

    Args:
      velocity: see `flow.Velocity`; its values behind `num_valid` are ignored. Or one that remembers within a shift.
      noise: see `Noise`.
      state: the window before the shift.
      inputs: one entry of a plan. Its `levels` may be [r + 1, b, slots], and its `num_valid` [b], where the samples'
        windows differ, in a shift in which no chunk enters or leaves.
      solver: what moves the latents along their velocity.
      held_noise: held_noise(number int32 []) -> [b, t, h, w, c], what held frames are noised with, for the network
        alone, before the video's step of that number; None where the plan's `held_level` is 0.

    Returns:
      The window after the shift, and the finished chunk.
    """
    inputs = jax.tree.map(jnp.asarray, inputs)
    table, num_valid, prompt_index, emitted = map(
        jnp.asarray, (inputs.levels, inputs.num_valid, inputs.prompt_index, inputs.emitted)
    )
    b, t, *cell = state.latents.shape
    k = t // inputs.chunks.shape[0]
    first = inputs.chunks[0]

    is_held = jnp.arange(t) < inputs.held

    predict, nothing_kept = by_steps(velocity, state.latents)

    def step(r: jax.Array, solved: tuple[jax.Array, Any, Any]) -> tuple[jax.Array, Any, Any]:
        latents, memory, kept = solved
        now, later = (jnp.where(is_held, inputs.held_level, _frame_levels(table[row], b, t)) for row in (r, r + 1))
        seen = latents
        if held_noise is not None:
            noised = interpolate(latents, held_noise(jnp.asarray(inputs.first_step) + r), now)
            seen = jnp.where(is_held[:, None, None, None], noised, latents)
        prediction, kept = predict(r, kept, seen, now, num_valid, prompt_index)
        return *solver.step(latents, prediction, now, later, memory), kept

    entered = jax.lax.dynamic_update_slice_in_dim(
        state.latents, noise(jnp.maximum(inputs.entering, 0)), (inputs.entering - first) * k, axis=1
    )
    enters = (inputs.entering >= 0) & ~is_held[:, None, None, None]
    latents = jnp.where(enters, entered, state.latents)
    changes = jnp.any(table[1:] != table[:-1], axis=tuple(range(1, table.ndim)))
    steps = jnp.max(jnp.where(changes, jnp.arange(1, len(table)), 0))  # none in an inert shift
    latents, memory, _ = jax.lax.fori_loop(0, steps, step, (latents, state.memory, nothing_kept))

    finished = jax.lax.dynamic_slice_in_dim(latents, (emitted - first) * k, k, axis=1)
    finished = jnp.where(emitted >= 0, finished, jnp.zeros_like(finished))
    # The noise of the context has negative numbers, which no chunk has.
    noised = interpolate(finished, noise(-1 - emitted), jnp.full((b, k), inputs.context_noise))
    context = jax.lax.dynamic_update_slice_in_dim(latents, noised, (emitted - first) * k, axis=1)
    noises = (emitted >= 0) & (inputs.context_noise > 0) & ~is_held[:, None, None, None]  # an image stays clean
    latents = jnp.where(noises, context, latents)

    def move(frames: jax.Array) -> jax.Array:
        moved = jnp.concatenate([frames[:, k:], jnp.zeros((b, k, *cell), frames.dtype)], axis=1)
        return jnp.where(inputs.roll > 0, moved, frames)

    latents, memory = jax.tree.map(move, (latents, memory))
    return dataclasses.replace(state, latents=latents, memory=memory), FinishedChunk(number=emitted, latents=finished)


def sample_segment(
    velocity: Velocity | ReusingVelocity,
    noise: Noise,
    state: WindowState,
    plan: ShiftInputs,
    solver: Solver = EULER,
    held_noise: Noise | None = None,
) -> tuple[WindowState, FinishedChunk]:
    """Scan `shift_step` over a plan: the state after it, and the finished chunks stacked along a new first axis."""

    def step(state: WindowState, inputs: ShiftInputs) -> tuple[WindowState, FinishedChunk]:
        return shift_step(velocity, noise, state, inputs, solver, held_noise)

    return jax.lax.scan(step, state, plan)


def _frame_levels(slot_levels: jax.Array, batch: int, frames: int) -> jax.Array:
    """[slots] or [b, slots] → [b, t]."""
    levels = jnp.repeat(slot_levels, frames // slot_levels.shape[-1], axis=-1)
    return jnp.broadcast_to(jnp.atleast_2d(levels), (batch, frames))
