"""Normalisations with float32 statistics, whatever the dtype of the activations."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

NORM_EPSILON = 1e-6
"""Of the norms of the transformers."""


class GroupNorm(nn.Module):
    """Normalises each group of channels over all axes but the batch; statistics and affine map in float32."""

    num_groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x):
        # The two-pass variance: the one-pass form loses digits that upstream keeps.
        norm = nn.GroupNorm(self.num_groups, epsilon=self.epsilon, use_fast_variance=False, name="affine")
        return norm(x.astype(jnp.float32)).astype(x.dtype)


def modulated_norm(x: jax.Array, shift: jax.Array, scale: jax.Array, dtype: DTypeLike) -> jax.Array:
    """LayerNorm(x)·(1 + scale) + shift over the last axis, computed in float32, returned in `dtype`."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + NORM_EPSILON)
    return (x * (1.0 + scale) + shift).astype(dtype)
