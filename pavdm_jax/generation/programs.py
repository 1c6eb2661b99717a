"""The compiled programs of generation: every one a pure function of parameters and arrays, of a shape that no length changes.

Inside `sharding.use_mesh` they are split over devices; what they return is whole on each of them, but for the caption.
"""

import functools

import jax
import jax.numpy as jnp

from pavdm_jax.config import ModelConfig
from pavdm_jax.diffusion.flow import Velocity
from pavdm_jax.diffusion.guidance import guided
from pavdm_jax.diffusion.replacement import extend_by_replacement
from pavdm_jax.diffusion.sampler import WindowState, gaussian_noise, initial_state, sample_segment
from pavdm_jax.diffusion.window import ShiftInputs
from pavdm_jax.distributed.partitioning import replicate, shard_batch
from pavdm_jax.models.stdit3 import Caption, STDiT3, concatenate, take
from pavdm_jax.models.vae import VideoVAE


@functools.partial(jax.jit, static_argnames="config")
def guidance_caption(params: dict, features: jax.Array, lengths: jax.Array, *, config: ModelConfig) -> Caption:
    """T5 features [b, p, l, d] to the caption keys and values of guidance: the prompts, then the null caption, along the batch.

    `params` are the STDiT3's.
    """
    network, variables = STDiT3(config.stdit3), {"params": params}
    prompts = network.apply(variables, features, lengths, method="encode_caption")
    null = network.apply(variables, lengths, method="encode_null_caption")
    caption = concatenate([prompts, null])
    return Caption(shard_batch(caption.keys, 2), shard_batch(caption.values, 2), shard_batch(caption.length, 0))


@functools.partial(jax.jit, static_argnames="chunk")
def first_window(keys: jax.Array, known: jax.Array, first_shift: ShiftInputs, *, chunk: tuple[int, ...]) -> WindowState:
    """The window before the first shift; `chunk` is the shape [k, h, w, c] of a chunk (see `initial_state`)."""
    return replicate(initial_state(gaussian_noise(keys, chunk), keys, known, first_shift))


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="state")
def run_segment(
    params: dict,
    caption: Caption,
    state: WindowState,
    plan: ShiftInputs,
    video: dict[str, jax.Array],
    *,
    config: ModelConfig,
    dtype: jnp.dtype,
):
    """Some shifts of the window: the new state, and the finished chunks (see `sample_segment`).

    Args:
      params: of the STDiT3.
      caption: from `guidance_caption`.
      video: scalars "fps", "height", "width" and "guidance_scale".
    """
    chunk = (config.window.chunk_size, *state.latents.shape[2:])
    noise = gaussian_noise(state.key, chunk)
    return replicate(sample_segment(_guided_velocity(params, caption, video, config, dtype), noise, state, plan))


@functools.partial(jax.jit, static_argnames=("config", "dtype", "num_frames", "noisy_context"))
def run_clip(
    params: dict,
    caption: Caption,
    keys: jax.Array,
    context: jax.Array,
    clip_number: jax.Array,
    levels: jax.Array,
    video: dict[str, jax.Array],
    *,
    config: ModelConfig,
    dtype: jnp.dtype,
    num_frames: int,
    noisy_context: bool,
) -> jax.Array:
    """One clip of a baseline: latents [b, num_frames, h, w, c], `context` at their head (see `extend_by_replacement`)."""
    noise = gaussian_noise(keys, (num_frames, *context.shape[2:]))
    velocity = _guided_velocity(params, caption, video, config, dtype)
    return replicate(extend_by_replacement(velocity, noise, context, num_frames, levels, clip_number, noisy_context))


def _guided_velocity(
    params: dict, caption: Caption, video: dict[str, jax.Array], config: ModelConfig, dtype: jnp.dtype
) -> Velocity:
    network = STDiT3(config.stdit3, dtype)

    def velocity(latents, levels, num_valid, prompt_index):
        b = latents.shape[0]
        per_frame = caption if caption.length.shape[1] == 1 else take(caption, prompt_index)
        fps, height, width = (jnp.full((b,), video[name]) for name in ("fps", "height", "width"))
        valid = jnp.full((b,), num_valid)
        output = network.apply({"params": params}, latents, levels, per_frame, fps, height, width, valid)
        return output[..., : config.stdit3.latent_channels]

    return guided(velocity, video["guidance_scale"])


@functools.partial(jax.jit, static_argnames=("config", "num_frames"))
def decode_chunk(params: dict, latents: jax.Array, *, config: ModelConfig, num_frames: int) -> jax.Array:
    """Latents of a chunk to uint8 frames [b, f, h, w, 3]."""
    frames = VideoVAE(config.vae).apply({"params": params}, latents, num_frames, method="decode")
    return replicate(jnp.round((jnp.clip(frames, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8))


@functools.partial(jax.jit, static_argnames="config")
def encode_frames(params: dict, frames: jax.Array, *, config: ModelConfig) -> jax.Array:
    """uint8 frames [b, f, h, w, 3] to latents, by posterior means."""
    pixels = frames.astype(jnp.float32) / 127.5 - 1.0
    return replicate(VideoVAE(config.vae).apply({"params": params}, pixels, method="encode"))
