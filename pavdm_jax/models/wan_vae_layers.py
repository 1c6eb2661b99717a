"""The layers of Wan 2.1's video autoencoder: convolutions that are causal in time, and carry the frames before them.

Arrays are `[b, t, h, w, c]`. Each causal layer sees its last input frames of the call before, from the variables of the
collection `PAST`: an empty collection stands for the beginning of a video, where zeros are in their place. So a video
may be coded in pieces, and is the same as in one. Source: Wan 2.1 wan/modules/vae.py.
"""

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from pavdm_jax.models.attention import attention
from pavdm_jax.models.convolution import Conv3D

PAST = "past"
"""The collection of variables with the input frames of causal layers that the next call needs."""


def at_beginning(layer: nn.Module) -> bool:
    """Whether a causal layer has seen no frames before this call."""
    return not layer.has_variable(PAST, "frames")


def with_past(layer: nn.Module, x: jax.Array, frames: int) -> jax.Array:
    """`x` behind the last `frames` input frames of the calls before, zeros at the beginning; keeps its last ones."""
    b, _, *cell = x.shape
    past = jnp.zeros((b, frames, *cell), x.dtype) if at_beginning(layer) else layer.get_variable(PAST, "frames")
    x = jnp.concatenate([past, x], axis=1)
    if layer.is_mutable_collection(PAST):
        layer.put_variable(PAST, "frames", x[:, x.shape[1] - frames :])
    return x


class ChannelNorm(nn.Module):
    """x / ‖x‖ · √c · scale, the norm of each position's channels, in float32."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        values = x.astype(jnp.float32)
        norm = jnp.maximum(jnp.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        return (values / norm * x.shape[-1] ** 0.5 * scale[None, None, None, None]).astype(x.dtype)


class CausalConv(nn.Module):
    """A 3 × 3 × 3 convolution that sees no later frame."""

    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        return Conv3D(self.channels, dtype=self.dtype, name="conv")(with_past(self, x, 2))


class ResBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, and a 1 × 1 × 1 convolution on the way past when the channels change."""

    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        y = CausalConv(self.channels, self.dtype, name="conv1")(nn.silu(ChannelNorm(name="norm1")(x)))
        y = CausalConv(self.channels, self.dtype, name="conv2")(nn.silu(ChannelNorm(name="norm2")(y)))
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype, name="shortcut")(x)
        return x + y


class MidBlock(nn.Module):
    """Residual block, single-head self-attention over all cells of a frame, residual block."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        x = ResBlock(c, self.dtype, name="resnet_0")(x)
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(ChannelNorm(name="attention_norm")(x))
        q, k, v = jnp.split(qkv[..., None, :], 3, axis=-1)
        k, v = (einops.rearrange(a, "b t h w n e -> b t (h w) n e") for a in (k, v))
        x = x + nn.Dense(c, dtype=self.dtype, name="attention_out")(attention(q, k, v)[..., 0, :])
        return ResBlock(c, self.dtype, name="resnet_1")(x)


class HalveTime(nn.Module):
    """A latent frame of each two, but for a video's first frame, which passes untouched.

    The kth after it is convolved from three frames, the last of which are the two that it stands for.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        first = x[:, :1] if at_beginning(self) else x[:, :0]
        seen = with_past(self, x, 1)
        seen = seen[:, 1:] if first.shape[1] else seen  # no zeros before the first frame
        conv = Conv3D(x.shape[-1], (3, 1, 1), time_stride=2, dtype=self.dtype, name="conv")
        return jnp.concatenate([first, conv(seen)], axis=1)


class DoubleTime(nn.Module):
    """Two frames of each, but for a video's first frame, which passes untouched and is not seen by those after it."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        first, rest = (x[:, :1], x[:, 1:]) if at_beginning(self) else (x[:, :0], x)
        conv = Conv3D(2 * x.shape[-1], (3, 1, 1), dtype=self.dtype, name="conv")
        doubled = conv(with_past(self, rest, 2))
        return jnp.concatenate([first, einops.rearrange(doubled, "b t h w (two c) -> b (t two) h w c", two=2)], axis=1)
