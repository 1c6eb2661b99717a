"""The per-frame autoencoder of the video VAE: diffusers' `AutoencoderKL` in its SDXL layout.

Images are `[b, h, w, c]`. Each level but the last halves rows and columns; a latent cell has
`SpatialVAEConfig.downsample` pixels along each side. Upstream: Open-Sora opensora/models/vae/vae.py,
`VideoAutoencoderKL`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from pavdm_jax.config import SpatialVAEConfig
from pavdm_jax.models.attention import attention
from pavdm_jax.models.convolution import UpsampleConv
from pavdm_jax.models.logical import constrain
from pavdm_jax.models.normalisation import GroupNorm

GROUP_NORM_EPSILON = 1e-6


class _ResBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv; the shortcut is a 1×1 convolution when the channels change."""

    channels: int
    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        y = nn.silu(GroupNorm(self.num_groups, GROUP_NORM_EPSILON, name="norm1")(x))
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv1")(y)
        y = nn.silu(GroupNorm(self.num_groups, GROUP_NORM_EPSILON, name="norm2")(y))
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + y


class _MidBlock(nn.Module):
    """Residual block, single-head self-attention over all cells, residual block."""

    channels: int
    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        x = _ResBlock(self.channels, self.num_groups, self.dtype, name="resnet_0")(x)
        b, h, w, c = x.shape
        y = GroupNorm(self.num_groups, GROUP_NORM_EPSILON, name="attention_norm")(x).reshape(b, h * w, c)
        q, k, v = (nn.Dense(c, dtype=self.dtype, name=name)(y)[:, :, None, :] for name in ("query", "key", "value"))
        y = nn.Dense(c, dtype=self.dtype, name="attention_out")(attention(q, k, v)[:, :, 0, :])
        x = x + y.reshape(b, h, w, c)
        return _ResBlock(self.channels, self.num_groups, self.dtype, name="resnet_1")(x)


class _Encoder(nn.Module):
    config: SpatialVAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = nn.Conv(config.block_channels[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        for level, channels in enumerate(config.block_channels):
            for layer in range(config.layers_per_block):
                x = _ResBlock(channels, config.num_groups, self.dtype, name=f"level_{level}_resnet_{layer}")(x)
            if level < len(config.block_channels) - 1:
                # Upstream pads on the right and at the bottom only.
                down = nn.Conv(
                    channels, (3, 3), 2, padding=((0, 1), (0, 1)), dtype=self.dtype, name=f"level_{level}_down"
                )
                x = down(x)
        x = _MidBlock(config.block_channels[-1], config.num_groups, self.dtype, name="mid")(x)
        x = nn.silu(GroupNorm(config.num_groups, GROUP_NORM_EPSILON, name="norm_out")(x))
        return nn.Conv(2 * config.latent_channels, (3, 3), dtype=self.dtype, name="conv_out")(x)


class _Decoder(nn.Module):
    config: SpatialVAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z):
        config = self.config
        x = nn.Conv(config.block_channels[-1], (3, 3), dtype=self.dtype, name="conv_in")(z)
        x = _MidBlock(config.block_channels[-1], config.num_groups, self.dtype, name="mid")(x)
        for level, channels in enumerate(reversed(config.block_channels)):
            for layer in range(config.layers_per_block + 1):
                x = _ResBlock(channels, config.num_groups, self.dtype, name=f"level_{level}_resnet_{layer}")(x)
            if level < len(config.block_channels) - 1:
                x = UpsampleConv(channels, self.dtype, name=f"level_{level}_up")(x)
        x = nn.silu(GroupNorm(config.num_groups, GROUP_NORM_EPSILON, name="norm_out")(x))
        return nn.Conv(3, (3, 3), dtype=self.dtype, name="conv_out")(x)


class SpatialVAE(nn.Module):
    """Images to latents and back, each image on its own.

    The latents of `encode` and `decode` are multiplied by `config.scaling_factor`, as in Open-Sora.
    """

    config: SpatialVAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        config = self.config
        self.encoder = _Encoder(config, self.dtype)
        self.decoder = _Decoder(config, self.dtype)
        self.quant_conv = nn.Dense(2 * config.latent_channels, dtype=self.dtype)
        self.post_quant_conv = nn.Dense(config.latent_channels, dtype=self.dtype)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The posterior of images `[b, h, w, 3]` in -1..1.

        Returns:
          The mean, scaled, and the log-variance of the unscaled latent, float32 `[b, h, w, c]` each.
        """
        images = constrain(images.astype(self.dtype), "images")
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return mean.astype(jnp.float32) * self.config.scaling_factor, log_variance.astype(jnp.float32)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Images, float32 `[b, h, w, 3]` in about -1..1 (not clipped), from scaled latents `[b, h, w, c]`."""
        latents = constrain((latents / self.config.scaling_factor).astype(self.dtype), "images")
        return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)
