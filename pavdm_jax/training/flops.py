"""Arithmetic of the transformer and of the devices, for the model FLOP utilisation (MFU) that the progress bar shows.

MFU counts what the mathematics needs, a multiply and an add as two: recomputation (remat) is not counted.
"""

import math

import jax

from pavdm_jax.config import STDiT3Config

# Dense bfloat16 FLOP/s of one JAX device, by a part of `device_kind`; the first match counts. From the vendors' data sheets.
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
    ("L4", 121e12),
)


def peak_flops(device: jax.Device) -> float | None:
    """Of a device; None where the table does not have it (every CPU)."""
    return next((peak for kind, peak in PEAK_FLOPS if kind.lower() in device.device_kind.lower()), None)


def forward_flops(config: STDiT3Config, frames: int, height: int, width: int) -> float:
    """Of one STDiT3 call for one sample.

    Args:
      config: the architecture.
      frames, height, width: of the latents.
    """
    d, l = config.hidden_size, config.max_caption_tokens  # noqa: E741, the letters of the axis legend
    spatial = math.ceil(height / config.patch_size[0]) * math.ceil(width / config.patch_size[1])
    tokens = frames * spatial
    # qkv, attention_out, cross_query, cross_out (6 d²), and the two of the feed-forward network, for every token of both blocks.
    linears = 2 * tokens * (2 * 6 * d**2 + 2 * 2 * d * config.mlp_size)
    attention = 4 * d * tokens * (spatial + frames + 2 * l)
    caption = 2 * (2 * l * d * 2 * d)
    cell = math.prod(config.patch_size) * config.latent_channels
    ends = 2 * tokens * d * (cell + 2 * cell) + 2 * l * d * (config.caption_channels + d) + 2 * frames * d * 6 * d
    return float(config.depth * (linears + attention + caption) + ends)


def train_flops(config: STDiT3Config, latents: tuple[int, ...]) -> float:
    """Of a training step on latents of shape [b, t, h, w, c]: the backward pass needs twice the forward pass."""
    b, t, h, w, _ = latents
    return 3.0 * b * forward_flops(config, t, h, w)
