"""The compiled programs of generation: pure functions of parameters and arrays, whose shapes no length changes.

Inside `distributed.mesh.use_mesh` they are split over devices. What they return is replicated on all of them, except
the caption, which is split along the batch.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike

from pavdm_jax.diffusion.flow import Velocity
from pavdm_jax.diffusion.guidance import guided, guided_above, guided_reusing
from pavdm_jax.diffusion.partitions import partitioned
from pavdm_jax.diffusion.replacement import extend_by_replacement
from pavdm_jax.diffusion.reuse import ReusingVelocity
from pavdm_jax.diffusion.sampler import (
    FinishedChunk,
    WindowState,
    gaussian_noise,
    initial_state,
    noise_of_held,
    sample_segment,
)
from pavdm_jax.diffusion.solvers import EULER, Solver
from pavdm_jax.diffusion.window import ShiftInputs
from pavdm_jax.distributed.partitioning import replicate, shard_batch
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.attention import Backend
from pavdm_jax.models.caption import Caption, concatenate, halves, take
from pavdm_jax.models.networks import networks
from pavdm_jax.models.wan_vae import WanVAE, decode_next
from pavdm_jax.wan_config import WanVAEConfig


@functools.partial(jax.jit, static_argnames=("config", "guided", "dtype"))
def guidance_caption(
    params: dict,
    features: jax.Array,
    lengths: jax.Array,
    negative: jax.Array | None = None,
    negative_lengths: jax.Array | None = None,
    *,
    config: AnyModelConfig,
    guided: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> Caption:
    """The caption keys and values of both halves of classifier-free guidance, from the text encoder's features.

    Args:
      params: of the transformer.
      features: [b, p, l, d] of the p prompts of each sample.
      lengths: int [b, p], tokens of each prompt.
      negative: [b, l, d] of the negative prompts; None: the null caption (see `Networks.null_caption`).
      negative_lengths: int [b], tokens of the negative prompts, or None.
      config: the architecture.
      guided: False leaves out the second half.
      dtype: of the keys and values, in which the network will use them; they are computed in float32.

    Returns:
      A caption of batch 2 b: first the prompts, then what guidance leads away from. Without guidance, of batch b.
    """
    network = networks(config)
    prompts = network.caption(params, features, lengths)
    if not guided:
        return _shard(prompts, dtype)
    if negative is None or negative_lengths is None:
        unconditional = network.null_caption(params, lengths)
    else:
        every = (*lengths.shape, *negative.shape[1:])
        negative = jnp.broadcast_to(negative[:, None], every)
        negative_lengths = jnp.broadcast_to(negative_lengths[:, None], lengths.shape)
        unconditional = network.caption(params, negative, negative_lengths)
    return _shard(concatenate([prompts, unconditional]), dtype)


def _shard(caption: Caption, dtype: DTypeLike) -> Caption:
    # [..., b, p, l, n, e]: in front of the batch one family has the depth, the other the two blocks of a pair, too.
    keys, values = (shard_batch(x.astype(dtype), x.ndim - 5) for x in (caption.keys, caption.values))
    return Caption(keys, values, shard_batch(caption.length, 0))


@functools.partial(jax.jit, static_argnames="chunk")
def first_window(
    keys: jax.Array,
    known: jax.Array,
    first_shift: ShiftInputs,
    held: jax.Array | None = None,
    solver: Solver = EULER,
    *,
    chunk: tuple[int, ...],
) -> WindowState:
    """The window before the first shift (see `initial_state`); `chunk` is the shape (k, h, w, c) of one chunk."""
    return replicate(initial_state(gaussian_noise(keys, chunk), keys, known, first_shift, held, solver))


@struct.dataclass
class Conditions:
    """All inputs of the network that stay the same during a video: everything except latents and levels.

    Attributes:
      params: of the transformer.
      caption: from `guidance_caption`.
      fps: float32 scalar, frames per second.
      height, width: float32 scalars, pixels; the size that the network is told (see `Request.told_size`).
      guidance_scale: float32 scalar, see `guided`; None for no guidance, which costs one pass a step instead of two.
      config: the architecture; static.
      dtype: in which matrix products are computed; static.
      backend: of attention, for the devices that the program runs on (see `choose_backend`); static.
      guided_frames: see `family_levels.guided_frames`; static.
      repeated_frames: see `family_levels.repeated_frames`; static.
    """

    params: dict
    caption: Caption
    fps: ArrayLike
    height: ArrayLike
    width: ArrayLike
    guidance_scale: ArrayLike | None
    config: AnyModelConfig = struct.field(pytree_node=False)
    dtype: DTypeLike = struct.field(pytree_node=False)
    backend: Backend = struct.field(pytree_node=False)
    guided_frames: int | None = struct.field(pytree_node=False, default=None)
    repeated_frames: int | None = struct.field(pytree_node=False, default=None)

    def velocity(self) -> Velocity:
        """The network's velocity, with classifier-free guidance if there is a scale, of latents and levels."""
        if self.guidance_scale is None:
            return self._velocity(self.caption)
        if self.guided_frames is None:
            return guided(self._velocity(self.caption), self.guidance_scale)
        conditional, unconditional = map(self._velocity, halves(self.caption))
        level = self.config.window.guidance_above
        return guided_above(conditional, unconditional, self.guidance_scale, level, self.guided_frames)

    def _velocity(self, caption: Caption) -> Velocity:
        network = networks(self.config, self.dtype, backend=self.backend)

        def velocity(*inputs: jax.Array) -> jax.Array:
            return network.predict(self.params, *self._inputs(caption, *inputs))[0]

        return velocity

    def reusing_velocity(self, frames: int) -> ReusingVelocity:
        """The same, where only the last `frames` of the window are predicted in every step."""
        network = networks(self.config, self.dtype, backend=self.backend)

        def predict(*inputs: Any) -> tuple[jax.Array, Any]:
            *window, memory, start = inputs
            network_inputs: tuple[Any, ...] = (*self._inputs(self.caption, *window), memory, start)
            return network.predict(self.params, *network_inputs)

        velocity = ReusingVelocity(predict, network.empty_memory, frames)
        return velocity if self.guidance_scale is None else guided_reusing(velocity, self.guidance_scale)

    def _inputs(
        self,
        caption: Caption,
        latents: jax.Array,
        levels: jax.Array,
        num_valid: jax.Array,
        prompt_index: jax.Array,
    ) -> tuple:
        """What the network takes, after its parameters."""
        b = latents.shape[0]
        taken = caption if caption.length.shape[1] == 1 else take(caption, prompt_index)
        fps, height, width = (jnp.full((b,), value) for value in (self.fps, self.height, self.width))
        return latents, levels, taken, fps, height, width, jnp.full((b,), num_valid)


@functools.partial(jax.jit, donate_argnames="state")
def run_segment(
    conditions: Conditions, state: WindowState, plan: ShiftInputs, solver: Solver = EULER
) -> tuple[WindowState, FinishedChunk]:
    """Some shifts of the window: the new state, and the finished chunks (see `sample_segment`).

    The memory of `state` is given to the new state: it must not be used again.
    """
    window, (_, t, *cell) = conditions.config.window, state.latents.shape
    if conditions.repeated_frames is not None:
        velocity = conditions.reusing_velocity(conditions.repeated_frames)
    elif window.partition is not None:
        velocity = partitioned(conditions.velocity(), window.partition)
    else:
        velocity = conditions.velocity()
    noise = gaussian_noise(state.key, (window.chunk_size, *cell))
    of_held = None if window.lag is None else noise_of_held(state.key, (t, *cell))
    return replicate(sample_segment(velocity, noise, state, plan, solver, of_held))


@functools.partial(jax.jit, static_argnames=("num_frames", "noisy_context"))
def run_clip(
    conditions: Conditions,
    keys: jax.Array,
    context: jax.Array,
    clip_number: jax.Array,
    levels: jax.Array,
    edit_ratio: jax.Array,
    *,
    num_frames: int,
    noisy_context: bool,
) -> jax.Array:
    """A clip of a baseline: latents [b, num_frames, h, w, c], `context` at their head (see `extend_by_replacement`)."""
    noise, velocity = gaussian_noise(keys, (num_frames, *context.shape[2:])), conditions.velocity()
    return replicate(
        extend_by_replacement(velocity, noise, context, num_frames, levels, clip_number, noisy_context, edit_ratio)
    )


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def decode_frames(
    params: dict, latents: jax.Array, *, config: AnyModelConfig, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Decode latents [b, t, h, w, c] that are coded by themselves into frames, uint8 [b, f, h, w, 3].

    Of Open-Sora they are a micro clip. `params` are the VAE's, `dtype` is that in which it computes.
    """
    return replicate(_to_uint8(networks(config, dtype).decode(params, latents)))


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="past")
def decode_next_frames(
    params: dict, latents: jax.Array, past: Any = None, *, config: WanVAEConfig, dtype: DTypeLike = jnp.float32
) -> tuple[jax.Array, Any]:
    """The frames, uint8 [b, f, h, w, 3], of a video's next latents, by a causal VAE; and what the next call needs.

    See `wan_vae.decode_next`; the memory of `past`, which is in `dtype`, is given to the new one.
    """
    frames, past = decode_next(WanVAE(config, jnp.dtype(dtype)), params, latents, past)
    return replicate(_to_uint8(frames)), past


@functools.partial(jax.jit, static_argnames="config")
def encode_frames(params: dict, frames: jax.Array, *, config: AnyModelConfig) -> jax.Array:
    """Encode uint8 frames [b, f, h, w, 3] into latents [b, t, h, w, c]; `params` are the VAE's.

    Deviation: the latents are the means of the encoder's posterior, where Open-Sora draws a sample of it
    (`opensora/models/vae/vae.py`), so that equal clips have equal latents.
    """
    pixels = frames.astype(jnp.float32) / 127.5 - 1.0
    return replicate(networks(config).encode(params, pixels))


def _to_uint8(frames: jax.Array) -> jax.Array:
    return jnp.round((jnp.clip(frames, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
