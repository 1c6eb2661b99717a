"""Arithmetic of the transformer, counted from its sizes: 2 floating-point operations for a multiplication and an addition.

Matrix products only; norms, modulation, rotation and softmax are a few per cent more operations and much more memory traffic. (What
XLA counts cannot be used: it counts the body of a scan once, whatever the number of layers.)
"""

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
    # Of a block: qkv, attention_out, cross_query, cross_out; then the feed-forward network; then queries times keys, weights times values.
    linears = 2 * (3 + 1 + 1 + 1) * d * d + 2 * 2 * d * config.mlp_size
    keys_of_a_pair = tokens + frames + 2 * caption_tokens
    pair = 2 * linears + 2 * 2 * d * keys_of_a_pair
    cell = config.patch_size[0] * config.patch_size[1] * config.latent_channels
    ends = 2 * d * (cell + 2 * cell)  # patches in; velocities, and as many unused values, out
    return frames * tokens * (config.depth * pair + ends)


def shift_flops(config: ModelConfig, height: int, width: int) -> int:
    """One shift of one video of `height` × `width` pixels: all its steps, with guidance, on the whole window."""
    tokens = 1
    for cells in grid_size(*latent_size(height, width, config.vae), config.stdit3.patch_size):
        tokens *= cells
    forward = stdit3_flops(config.stdit3, config.window.window_size, tokens, config.text.max_tokens)
    return config.window.steps_per_shift * GUIDANCE_PASSES * forward
