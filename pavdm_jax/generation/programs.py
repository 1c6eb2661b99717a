"""The compiled programs of generation: every one a pure function of parameters and arrays, of a shape that no length changes.

Inside `sharding.use_mesh` they are split over devices; what they return is whole on each of them, but for the caption.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike

from pavdm_jax.config import ModelConfig
from pavdm_jax.diffusion.flow import Velocity
from pavdm_jax.diffusion.guidance import guided
from pavdm_jax.diffusion.partitions import partitioned
from pavdm_jax.diffusion.replacement import extend_by_replacement
from pavdm_jax.diffusion.sampler import FinishedChunk, WindowState, gaussian_noise, initial_state, sample_segment
from pavdm_jax.diffusion.window import ShiftInputs
from pavdm_jax.distributed.partitioning import replicate, shard_batch
from pavdm_jax.models.attention import Backend
from pavdm_jax.models.stdit3 import Caption, STDiT3, concatenate, take
from pavdm_jax.models.vae import VideoVAE


@functools.partial(jax.jit, static_argnames="config")
def guidance_caption(
    params: dict,
    features: jax.Array,
    lengths: jax.Array,
    negative: jax.Array | None = None,
    negative_lengths: jax.Array | None = None,
    *,
    config: ModelConfig,
) -> Caption:
    """T5 features to the caption keys and values of guidance: the prompts, then what is guided away from, along the batch.

    Args:
      params: of the STDiT3.
      features: [b, p, l, d] of the prompts, and lengths: int [b, p].
      negative: [b, l, d] of negative prompts, and negative_lengths: int [b]; None: the null caption.
      config: the architecture.
    """
    network, variables = STDiT3(config.stdit3), {"params": params}
    prompts = network.apply(variables, features, lengths, method="encode_caption")
    if negative is None or negative_lengths is None:
        unconditional = network.apply(variables, lengths, method="encode_null_caption")
    else:
        every = (*lengths.shape, *negative.shape[1:])
        negative = jnp.broadcast_to(negative[:, None], every)
        negative_lengths = jnp.broadcast_to(negative_lengths[:, None], lengths.shape)
        unconditional = network.apply(variables, negative, negative_lengths, method="encode_caption")
    caption = concatenate([prompts, unconditional])
    return Caption(shard_batch(caption.keys, 2), shard_batch(caption.values, 2), shard_batch(caption.length, 0))


@functools.partial(jax.jit, static_argnames="chunk")
def first_window(
    keys: jax.Array,
    known: jax.Array,
    first_shift: ShiftInputs,
    held: jax.Array | None = None,
    *,
    chunk: tuple[int, ...],
) -> WindowState:
    """The window before the first shift; `chunk` is the shape [k, h, w, c] of a chunk (see `initial_state`)."""
    return replicate(initial_state(gaussian_noise(keys, chunk), keys, known, first_shift, held))


@struct.dataclass
class Conditions:
    """What the network is told in every call of a video, beside latents and levels.

    Attributes:
      params: of the STDiT3.
      caption: from `guidance_caption`.
      fps, height, width, guidance_scale: float32 scalars; height and width are what the network is told, in pixels.
      config, dtype: the architecture, and what matrix products are computed in; they are static.
      backend: of attention, for the devices that the program runs on (see `choose_backend`); static.
    """

    params: dict
    caption: Caption
    fps: ArrayLike
    height: ArrayLike
    width: ArrayLike
    guidance_scale: ArrayLike
    config: ModelConfig = struct.field(pytree_node=False)
    dtype: DTypeLike = struct.field(pytree_node=False)
    backend: Backend = struct.field(pytree_node=False)

    def velocity(self) -> Velocity:
        """The guided velocity of the network."""
        network = STDiT3(self.config.stdit3, self.dtype, backend=self.backend)

        def velocity(latents: jax.Array, levels: jax.Array, num_valid: jax.Array, prompt_index: jax.Array) -> jax.Array:
            b = latents.shape[0]
            caption = self.caption if self.caption.length.shape[1] == 1 else take(self.caption, prompt_index)
            fps, height, width = (jnp.full((b,), value) for value in (self.fps, self.height, self.width))
            valid = jnp.full((b,), num_valid)
            output = network.apply({"params": self.params}, latents, levels, caption, fps, height, width, valid)
            return output[..., : self.config.stdit3.latent_channels]

        return guided(velocity, self.guidance_scale)


@functools.partial(jax.jit, donate_argnames="state")
def run_segment(conditions: Conditions, state: WindowState, plan: ShiftInputs) -> tuple[WindowState, FinishedChunk]:
    """Some shifts of the window: the new state, and the finished chunks (see `sample_segment`)."""
    chunk = (conditions.config.window.chunk_size, *state.latents.shape[2:])
    velocity, partition = conditions.velocity(), conditions.config.window.partition
    velocity = velocity if partition is None else partitioned(velocity, partition)
    return replicate(sample_segment(velocity, gaussian_noise(state.key, chunk), state, plan))


@functools.partial(jax.jit, static_argnames=("num_frames", "noisy_context"))
def run_clip(
    conditions: Conditions,
    keys: jax.Array,
    context: jax.Array,
    clip_number: ArrayLike,
    levels: jax.Array,
    edit_ratio: ArrayLike,
    *,
    num_frames: int,
    noisy_context: bool,
) -> jax.Array:
    """One clip of a baseline: latents [b, num_frames, h, w, c], `context` at their head (see `extend_by_replacement`)."""
    noise, velocity = gaussian_noise(keys, (num_frames, *context.shape[2:])), conditions.velocity()
    return replicate(
        extend_by_replacement(velocity, noise, context, num_frames, levels, clip_number, noisy_context, edit_ratio)
    )


@functools.partial(jax.jit, static_argnames=("config", "num_frames"))
def decode_frames(params: dict, latents: jax.Array, *, config: ModelConfig, num_frames: int) -> jax.Array:
    """Latents to uint8 frames [b, f, h, w, 3]."""
    frames = VideoVAE(config.vae).apply({"params": params}, latents, num_frames, method="decode")
    return replicate(jnp.round((jnp.clip(frames, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8))


@functools.partial(jax.jit, static_argnames="config")
def encode_frames(params: dict, frames: jax.Array, *, config: ModelConfig) -> jax.Array:
    """uint8 frames [b, f, h, w, 3] to latents, by posterior means."""
    pixels = frames.astype(jnp.float32) / 127.5 - 1.0
    return replicate(VideoVAE(config.vae).apply({"params": params}, pixels, method="encode"))
