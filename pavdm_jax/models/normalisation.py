"""Group normalisation with float32 statistics, whatever the dtype of the activations."""

import jax.numpy as jnp
from flax import linen as nn


class GroupNorm(nn.Module):
    """Normalises each group of channels over all axes but the batch; statistics and affine map in float32."""

    num_groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x):
        # The two-pass variance: the one-pass form loses digits that upstream keeps.
        norm = nn.GroupNorm(self.num_groups, epsilon=self.epsilon, use_fast_variance=False, name="affine")
        return norm(x.astype(jnp.float32)).astype(x.dtype)
