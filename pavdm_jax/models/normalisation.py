"""Normalisations with float32 statistics, whatever the dtype of the activations."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

NORM_EPSILON = 1e-6
"""Of the norms of the transformers."""


class GroupNorm(nn.Module):
    """Normalises each group of channels over all axes but the batch; statistics and affine map in float32.

    Means are taken of each channel, and then of the channels of each group: arrays keep their layout, which on a CPU is
    faster than an axis for the groups.
    """

    num_groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x):
        dtype, x, channels = x.dtype, x.astype(jnp.float32), x.shape[-1]
        along = (*(1,) * (x.ndim - 1), channels)
        scale, bias = (parameter.reshape(along) for parameter in _Affine(channels, name="affine")())
        # The two-pass variance: the one-pass form loses digits that upstream keeps.
        x = x - self._mean_of_groups(x)
        deviation = jax.lax.rsqrt(self._mean_of_groups(jnp.square(x)) + self.epsilon)
        return (x * (deviation * scale) + bias).astype(dtype)

    def _mean_of_groups(self, x: jax.Array) -> jax.Array:
        """[b, ..., c] to the mean of each channel's group, [b, 1..., c]."""
        b, channels = x.shape[0], x.shape[-1]
        of_channels = x.mean(axis=tuple(range(1, x.ndim - 1)))
        of_groups = of_channels.reshape(b, self.num_groups, -1).mean(axis=-1)
        return jnp.repeat(of_groups, channels // self.num_groups, axis=1).reshape(b, *(1,) * (x.ndim - 2), channels)


class _Affine(nn.Module):
    """The scale and bias of a norm."""

    channels: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        shape = (self.channels,)
        scale, bias = self.param("scale", nn.initializers.ones, shape), self.param("bias", nn.initializers.zeros, shape)
        return jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)


def modulated_norm(x: jax.Array, shift: jax.Array, scale: jax.Array, dtype: DTypeLike) -> jax.Array:
    """LayerNorm(x)·(1 + scale) + shift over the last axis, computed in float32, returned in `dtype`."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + NORM_EPSILON)
    return (x * (1.0 + scale) + shift).astype(dtype)
