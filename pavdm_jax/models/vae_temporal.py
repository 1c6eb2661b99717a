"""The temporal autoencoder of the video VAE: causal 3-D convolutions over spatial latents, as in MAGVIT-v2.

Arrays are `[b, t, h, w, c]`. The number of rows and columns stays; time shrinks by `TemporalVAEConfig.downsample`.
Upstream: Open-Sora opensora/models/vae/vae_temporal.py, `VAE_Temporal`.
"""

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from pavdm_jax.config import TemporalVAEConfig
from pavdm_jax.models.convolution import Conv3D
from pavdm_jax.models.normalisation import GroupNorm

GROUP_NORM_EPSILON = 1e-5


class _CausalConv(nn.Module):
    """A 3-D convolution that does not see later frames: time is padded with zeros in front only."""

    channels: int
    kernel: int = 3
    time_stride: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        past = self.kernel - 1 + (1 - self.time_stride)
        x = jnp.pad(x, ((0, 0), (past, 0), (0, 0), (0, 0), (0, 0)))
        size = (self.kernel,) * 3
        return Conv3D(self.channels, size, self.time_stride, self.use_bias, self.dtype, name="conv")(x)


class _ResBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, all without bias; the shortcut is a 1×1×1 conv when the channels change."""

    channels: int
    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        y = nn.silu(GroupNorm(self.num_groups, GROUP_NORM_EPSILON, name="norm1")(x))
        y = _CausalConv(self.channels, use_bias=False, dtype=self.dtype, name="conv1")(y)
        y = nn.silu(GroupNorm(self.num_groups, GROUP_NORM_EPSILON, name="norm2")(y))
        y = _CausalConv(self.channels, use_bias=False, dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.channels:
            x = _CausalConv(self.channels, kernel=1, use_bias=False, dtype=self.dtype, name="shortcut")(x)
        return x + y


class _Encoder(nn.Module):
    config: TemporalVAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = _CausalConv(config.filters, use_bias=False, dtype=self.dtype, name="conv_in")(x)
        for level, multiplier in enumerate(config.channel_multipliers):
            channels = config.filters * multiplier
            for layer in range(config.num_res_blocks):
                x = _ResBlock(channels, config.num_groups, self.dtype, name=f"level_{level}_resnet_{layer}")(x)
            if level < len(config.temporal_downsample) and config.temporal_downsample[level]:
                x = _CausalConv(channels, time_stride=2, dtype=self.dtype, name=f"level_{level}_down")(x)
        for layer in range(config.num_res_blocks):
            x = _ResBlock(x.shape[-1], config.num_groups, self.dtype, name=f"resnet_{layer}")(x)
        x = nn.silu(GroupNorm(config.num_groups, GROUP_NORM_EPSILON, name="norm_out")(x))
        return _CausalConv(2 * config.latent_channels, kernel=1, dtype=self.dtype, name="conv_out")(x)


class _Decoder(nn.Module):
    config: TemporalVAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z):
        config = self.config
        widest = config.filters * config.channel_multipliers[-1]
        x = _CausalConv(widest, dtype=self.dtype, name="conv_in")(z)
        for layer in range(config.num_res_blocks):
            x = _ResBlock(widest, config.num_groups, self.dtype, name=f"resnet_{layer}")(x)
        for level in reversed(range(len(config.channel_multipliers))):
            channels = config.filters * config.channel_multipliers[level]
            for layer in range(config.num_res_blocks):
                x = _ResBlock(channels, config.num_groups, self.dtype, name=f"level_{level}_resnet_{layer}")(x)
            if level > 0 and config.temporal_downsample[level - 1]:
                x = _CausalConv(2 * channels, dtype=self.dtype, name=f"level_{level}_up")(x)
                x = einops.rearrange(x, "b t h w (c two) -> b (t two) h w c", two=2)
        x = nn.silu(GroupNorm(config.num_groups, GROUP_NORM_EPSILON, name="norm_out")(x))
        return _CausalConv(config.latent_channels, dtype=self.dtype, name="conv_out")(x)


class TemporalVAE(nn.Module):
    """Spatial latents of one micro clip to video latents and back."""

    config: TemporalVAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        config = self.config
        self.encoder = _Encoder(config, self.dtype)
        self.decoder = _Decoder(config, self.dtype)
        self.quant_conv = nn.Dense(2 * config.latent_channels, dtype=self.dtype)
        self.post_quant_conv = nn.Dense(config.latent_channels, dtype=self.dtype)

    def encode(self, latents: jax.Array, num_latents: int) -> tuple[jax.Array, jax.Array]:
        """The posterior of spatial latents `[b, f, h, w, c]` of a micro clip, or of a shorter one.

        Time is padded in front with zeros to `num_latents * config.downsample` frames.

        Returns:
          Mean and log-variance, float32 `[b, num_latents, h, w, c]` each.
        """
        front = num_latents * self.config.downsample - latents.shape[1]
        padded = jnp.pad(latents, ((0, 0), (front, 0), (0, 0), (0, 0), (0, 0))).astype(self.dtype)
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(padded)), 2, axis=-1)
        return mean.astype(jnp.float32), log_variance.astype(jnp.float32)

    def decode(self, latents: jax.Array, num_frames: int) -> jax.Array:
        """Spatial latents, float32 `[b, num_frames, h, w, c]`, from video latents; the padding in front is dropped."""
        frames = self.decoder(self.post_quant_conv(latents.astype(self.dtype)))
        return frames[:, frames.shape[1] - num_frames :].astype(jnp.float32)
