"""Floating-point operations (FLOPs) of the transformer, counted from its sizes.

A multiplication and an addition are 2 operations. Only matrix products are counted; norms, modulation, rotation and
softmax are a few per cent more operations, and much more memory traffic. XLA's own count cannot be used, because it
counts the body of a scan once, whatever the number of layers.
"""

import math
import re

from pavdm_jax.config import STDiT3Config
from pavdm_jax.families import AnyModelConfig, AnyTransformerConfig
from pavdm_jax.geometry import latent_size
from pavdm_jax.models.embeddings import grid_size

GUIDANCE_PASSES = 2
"""Each step of classifier-free guidance predicts twice: with the prompt, and with the null caption."""


def forward_flops(config: AnyTransformerConfig, frames: int, tokens: int, caption_tokens: int) -> int:
    """FLOPs of a forward pass on one sample, with the caption's keys and values given.

    Args:
      config: the architecture.
      frames: latent frames of the window.
      tokens: spatial tokens of a latent frame.
      caption_tokens: keys of the cross-attention, padding included.
    """
    d = config.hidden_size
    # Of a block: qkv, attention_out, cross_query, cross_out; then the feed-forward network.
    linears = 2 * (3 + 1 + 1 + 1) * d * d + 2 * 2 * d * config.mlp_size
    cell = config.patch_size[0] * config.patch_size[1] * config.latent_channels
    if isinstance(config, STDiT3Config):
        # Queries times keys, and weights times values: spatial, temporal, and twice cross-attention, in two blocks.
        layer = 2 * linears + 2 * 2 * d * (tokens + frames + 2 * caption_tokens)
        ends = 2 * d * (cell + 2 * cell)  # patches in; velocities, and as many unused values, out
    else:
        layer = linears + 2 * 2 * d * (frames * tokens + caption_tokens)
        ends = 2 * d * 2 * cell
    return frames * tokens * (config.depth * layer + ends)


def caption_flops(config: AnyTransformerConfig, caption_tokens: int) -> int:
    """FLOPs of one caption's keys and values for all blocks, from the text encoder's features."""
    d, blocks = config.hidden_size, 2 if isinstance(config, STDiT3Config) else 1
    projection = 2 * d * (config.caption_channels + d)
    return caption_tokens * (projection + config.depth * blocks * 2 * d * 2 * d)


def _tokens(rows: int, columns: int, config: AnyTransformerConfig) -> int:
    return math.prod(grid_size(rows, columns, config.patch_size))


def shift_flops(config: AnyModelConfig, height: int, width: int) -> int:
    """FLOPs of one shift of one video of `height` × `width` pixels: r steps on the whole window, guided or not."""
    tokens = _tokens(*latent_size(height, width, config.vae), config.transformer)
    forward = forward_flops(config.transformer, config.window.window_size, tokens, config.text.max_tokens)
    passes = 1 if config.guidance_scale == 1 else GUIDANCE_PASSES
    return config.window.steps_per_shift * passes * forward


def train_flops(config: AnyTransformerConfig, latents: tuple[int, ...]) -> int:
    """FLOPs of a training step on latents of shape [b, t, h, w, c]; the backward pass is twice the forward pass.

    What is computed again to save memory (remat) is not counted, as is usual for model FLOP utilisation (MFU).
    """
    b, t, h, w, _ = latents
    captions = config.max_caption_tokens
    forward = forward_flops(config, t, _tokens(h, w, config), captions) + caption_flops(config, captions)
    return 3 * b * forward


# Dense bfloat16 FLOP/s of one JAX device, by a part of `device_kind`, from data sheets; the first match counts.
PEAK_FLOPS = (
    ("TPU v6 lite", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),  # a device is one of the chip's two cores
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("RTX 4090", 165e12),
    ("L4", 121e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Peak FLOP/s of a device in bfloat16, by its `jax.Device.device_kind`; None if it is unknown, as for all CPUs."""
    found = (peak for kind, peak in PEAK_FLOPS if re.search(rf"{kind}(?!\d)", device_kind, re.IGNORECASE))
    return next(found, None)  # an A1000 is no A100
