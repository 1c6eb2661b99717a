"""Arithmetic of the transformer, counted from its sizes: 2 floating-point operations for a multiplication and an
addition.

Matrix products only; norms, modulation, rotation and softmax are a few per cent more operations and much more memory
traffic. (What
XLA counts cannot be used: it counts the body of a scan once, whatever the number of layers.)
"""

import math

from pavdm_jax.config import ModelConfig, STDiT3Config
from pavdm_jax.geometry import latent_size
from pavdm_jax.models.embeddings import grid_size

GUIDANCE_PASSES = 2
"""Every step predicts with the prompt and with the null caption."""


def stdit3_flops(config: STDiT3Config, frames: int, tokens: int, caption_tokens: int) -> int:
    """One forward pass on one sample, the caption's keys and values given.

    Args:
      config: the architecture.
      frames: latent frames of the window.
      tokens: spatial tokens of a latent frame.
      caption_tokens: keys of the cross-attention: padding is multiplied, too.
    """
    d = config.hidden_size
    # Of a block: qkv, attention_out, cross_query, cross_out; then the feed-forward network; then queries times keys,
    # weights times values.
    linears = 2 * (3 + 1 + 1 + 1) * d * d + 2 * 2 * d * config.mlp_size
    keys_of_a_pair = tokens + frames + 2 * caption_tokens
    pair = 2 * linears + 2 * 2 * d * keys_of_a_pair
    cell = config.patch_size[0] * config.patch_size[1] * config.latent_channels
    ends = 2 * d * (cell + 2 * cell)  # patches in; velocities, and as many unused values, out
    return frames * tokens * (config.depth * pair + ends)


def caption_flops(config: STDiT3Config, caption_tokens: int) -> int:
    """One caption's keys and values for all blocks, from the text encoder's features."""
    d = config.hidden_size
    projection = 2 * d * (config.caption_channels + d)
    return caption_tokens * (projection + config.depth * 2 * 2 * d * 2 * d)


def _tokens(rows: int, columns: int, config: STDiT3Config) -> int:
    return math.prod(grid_size(rows, columns, config.patch_size))


def shift_flops(config: ModelConfig, height: int, width: int) -> int:
    """One shift of one video of `height` × `width` pixels: all its steps, with guidance, on the whole window."""
    tokens = _tokens(*latent_size(height, width, config.vae), config.stdit3)
    forward = stdit3_flops(config.stdit3, config.window.window_size, tokens, config.text.max_tokens)
    return config.window.steps_per_shift * GUIDANCE_PASSES * forward


def train_flops(config: STDiT3Config, latents: tuple[int, ...]) -> int:
    """A training step on latents of shape [b, t, h, w, c]: the backward pass needs twice the forward pass.

    What is computed again to save memory (remat) is not counted, as is usual for model FLOP utilisation (MFU).
    """
    b, t, h, w, _ = latents
    captions = config.max_caption_tokens
    forward = stdit3_flops(config, t, _tokens(h, w, config), captions) + caption_flops(config, captions)
    return 3 * b * forward


# Dense bfloat16 FLOP/s of one JAX device, by a part of `device_kind`; the first match counts. From the vendors' data
# sheets.
PEAK_FLOPS = (
    ("TPU v6 lite", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),  # a device is one of the chip's two cores
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165e12),
    ("L4", 121e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Of a device, by its `jax.Device.device_kind`; None where the table does not have it (every CPU)."""
    return next((peak for kind, peak in PEAK_FLOPS if kind.lower() in device_kind.lower()), None)
