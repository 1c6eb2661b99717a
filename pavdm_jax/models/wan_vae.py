"""The causal video autoencoder of Wan 2.1: a whole video at once, or piece by piece in constant memory.

Arrays are `[b, t, h, w, c]`. The first frame of a video is its first latent frame, each further latent frame is four
frames (`WanVAEConfig.time_downsample`): n latent frames ↔ 4n - 3 frames, and nothing depends on later frames. Source:
Wan 2.1 wan/modules/vae.py; it codes piece by piece only, in 1 and then 4 frames, with the same result.
"""

import functools
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from pavdm_jax.models.convolution import UpsampleConv
from pavdm_jax.models.logical import constrain
from pavdm_jax.models.wan_vae_layers import PAST, CausalConv, ChannelNorm, DoubleTime, HalveTime, MidBlock, ResBlock
from pavdm_jax.wan_config import WanVAEConfig


def _spread(x: jax.Array) -> jax.Array:
    return constrain(x, "batch", None, "rows")


class _Encoder(nn.Module):
    config: WanVAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = CausalConv(config.base_channels, self.dtype, name="conv_in")(_spread(x))
        for level, multiplier in enumerate(config.channel_multipliers):
            channels = config.base_channels * multiplier
            for layer in range(config.num_res_blocks):
                x = ResBlock(channels, self.dtype, name=f"level_{level}_resnet_{layer}")(x)
            if level < len(config.temporal_downsample):
                # The reference pads on the right and at the bottom only.
                padding = ((0, 1), (0, 1))
                x = nn.Conv(channels, (3, 3), 2, padding, dtype=self.dtype, name=f"level_{level}_down")(x)
                if config.temporal_downsample[level]:
                    x = HalveTime(self.dtype, name=f"level_{level}_time")(x)
                x = _spread(x)
        x = MidBlock(self.dtype, name="mid")(x)
        x = nn.silu(ChannelNorm(name="norm_out")(x))
        return CausalConv(2 * config.latent_channels, self.dtype, name="conv_out")(x)


class _Decoder(nn.Module):
    config: WanVAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z):
        config = self.config
        widest = config.base_channels * config.channel_multipliers[-1]
        x = CausalConv(widest, self.dtype, name="conv_in")(_spread(z))
        x = MidBlock(self.dtype, name="mid")(x)
        for level in reversed(range(len(config.channel_multipliers))):
            channels = config.base_channels * config.channel_multipliers[level]
            for layer in range(config.num_res_blocks + 1):
                x = ResBlock(channels, self.dtype, name=f"level_{level}_resnet_{layer}")(x)
            if level > 0:
                if config.temporal_downsample[level - 1]:
                    x = DoubleTime(self.dtype, name=f"level_{level}_time")(x)
                x = _spread(UpsampleConv(channels // 2, self.dtype, name=f"level_{level}_up")(x))
        x = nn.silu(ChannelNorm(name="norm_out")(x))
        return CausalConv(3, self.dtype, name="conv_out")(x)


class WanVAE(nn.Module):
    """Pixel frames `[b, f, h, w, 3]` in -1..1 ↔ normalised latents `[b, t, h, w, c]`.

    Memory of `encode` and `decode` grows with the length of the video; `encode_video` and `decode_next` bound it.
    """

    config: WanVAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        config = self.config
        self.encoder = _Encoder(config, self.dtype)
        self.decoder = _Decoder(config, self.dtype)
        self.quant_conv = nn.Dense(2 * config.latent_channels, dtype=self.dtype)
        self.post_quant_conv = nn.Dense(config.latent_channels, dtype=self.dtype)

    def posterior(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of latents that are not normalised, float32; the reference uses the mean only."""
        coded = self.quant_conv(self.encoder(frames.astype(self.dtype))).astype(jnp.float32)
        mean, log_variance = jnp.split(coded, 2, axis=-1)
        return mean, log_variance

    def encode(self, frames: jax.Array) -> jax.Array:
        """Normalised latents, the means of the posterior, of 4n - 3 frames; further frames, up to three, are dropped.

        Args:
          frames: `[b, f, h, w, 3]` in -1..1; h and w should be multiples of `config.downsample`. Behind frames that
            were coded before (see `encode_video`), the next 4n.
        """
        mean, deviation = self._statistics()
        return (self.posterior(frames)[0] - mean) / deviation

    def decode(self, latents: jax.Array) -> jax.Array:
        """The 4n - 3 frames of n normalised latents, float32 in about -1..1 (not clipped)."""
        mean, deviation = self._statistics()
        latents = (latents * deviation + mean).astype(self.dtype)
        return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)

    def reconstruct(self, frames: jax.Array) -> jax.Array:
        """Encode, then decode; used to initialise every parameter."""
        return self.decode(self.encode(frames))

    def _statistics(self) -> tuple[jax.Array, jax.Array]:
        """Mean and deviation of latents, `[1, 1, 1, 1, c]`."""
        mean, deviation = (jnp.asarray(v, jnp.float32) for v in (self.config.latent_mean, self.config.latent_deviation))
        return mean[None, None, None, None], deviation[None, None, None, None]


def decode_next(vae: WanVAE, params: Any, latents: jax.Array, past: Any = None) -> tuple[jax.Array, Any]:
    """The frames of a video's next latents, one latent frame after the other, so that memory does not grow with them.

    Args:
      vae: the network.
      params: its parameters.
      latents: `[b, t, h, w, c]`, normalised.
      past: what the call before returned, or None at the beginning of a video. Past latents of a number of
        `config.decoder_reach` or more decide it: to go on from any place, decode so many before it, and drop their
        frames.

    Returns:
      The frames `[b, f, h, w, 3]`, float32 in about -1..1 (not clipped): 4 for each latent frame, 1 for the first one
      of a video; and what the next call needs, arrays whose shapes never change.
    """
    return _code_in_turn(vae, params, "decode", latents, 1, past)


def encode_video(vae: WanVAE, params: Any, frames: jax.Array) -> jax.Array:
    """The latents of `WanVAE.encode`, four frames after the other, so that memory does not grow with the video."""
    stride = vae.config.time_downsample
    whole = frames.shape[1] - (frames.shape[1] - 1) % stride
    return _code_in_turn(vae, params, "encode", frames[:, :whole], stride, None)[0]


def _code_in_turn(vae: WanVAE, params: Any, method: str, x: jax.Array, group: int, past: Any) -> tuple[jax.Array, Any]:
    """Call a method on `group` frames after the other, and at the beginning on the first frame alone."""
    code = functools.partial(vae.apply, method=method, mutable=[PAST])

    def step(past, frames):
        coded, changed = code({"params": params, PAST: past}, frames)
        return changed[PAST], coded

    begun = []
    if past is None:
        first, changed = code({"params": params}, x[:, :1])
        begun, past, x = [first], changed[PAST], x[:, 1:]
    past, coded = jax.lax.scan(step, past, einops.rearrange(x, "b (n t) h w c -> n b t h w c", t=group))
    return jnp.concatenate([*begun, einops.rearrange(coded, "n b t h w c -> b (n t) h w c")], axis=1), past
