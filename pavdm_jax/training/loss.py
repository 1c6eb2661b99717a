"""What every training loss is: a function of parameters, a batch and a key, with the sums that the log needs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

Average = tuple[jax.Array, jax.Array]
"""A sum and its weight. Sums of both over many steps give the mean over all of them."""


@struct.dataclass
class LossReport:
    """What a loss says beside its value.

    Attributes:
      per_sample: [b], the loss of each sample of the batch.
      metrics: name → sum and weight.
    """

    per_sample: jax.Array
    metrics: dict[str, Average]


Loss = Callable[[dict, dict, jax.Array], tuple[jax.Array, LossReport]]
"""loss(params, batch, key) -> (value, report), of the whole model's parameters."""


def scalar_metric(value: jax.Array) -> Average:
    """A number that counts once a step."""
    return jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)


def sample_means(values: jax.Array) -> jax.Array:
    """[b, ...] → [b]."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)
