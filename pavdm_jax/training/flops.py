"""Arithmetic of a training step and of the devices, for the model FLOP utilisation (MFU) that the progress bar shows.

MFU counts what the mathematics needs: recomputation (remat) does not count.
"""

import math

import jax

from pavdm_jax.config import STDiT3Config
from pavdm_jax.flops import stdit3_flops
from pavdm_jax.models.embeddings import grid_size

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


def train_flops(config: STDiT3Config, latents: tuple[int, ...]) -> float:
    """Of a training step on latents of shape [b, t, h, w, c]: the backward pass needs twice the forward pass."""
    b, t, h, w, _ = latents
    tokens = math.prod(grid_size(h, w, config.patch_size))
    return 3.0 * b * stdit3_flops(config, t, tokens, config.max_caption_tokens)
