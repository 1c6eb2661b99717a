"""The interface of training losses: functions of parameters, a batch and a key, with sums for the log."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

Average = tuple[jax.Array, jax.Array]
"""A sum and its weight, float32 []; the mean over many steps is the sum of sums divided by that of weights."""


@struct.dataclass
class LossReport:
    """The results of a loss beside its value.

    Attributes:
      per_sample: float32 [b], the loss of each sample of the batch.
      metrics: name → sum and weight.
    """

    per_sample: jax.Array
    metrics: dict[str, Average]


Loss = Callable[[dict, dict, jax.Array], tuple[jax.Array, LossReport]]
"""loss(params, batch, key) -> (value, report), of the whole model's parameters."""


def scalar_metric(value: jax.Array) -> Average:
    """A metric with one value for each step."""
    return jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)


def by_kind(loss: Loss) -> Loss:
    """The loss, which also reports its value of batches of images, of one frame, and of videos apart."""

    def reported(params: dict, batch: dict, key: jax.Array) -> tuple[jax.Array, LossReport]:
        value, report = loss(params, batch, key)
        frames = batch["latents" if "latents" in batch else "frames"].shape[1]
        this, other = ("loss_images", "loss_videos") if frames == 1 else ("loss_videos", "loss_images")
        kinds = {this: scalar_metric(value), other: (jnp.zeros(()), jnp.zeros(()))}
        return value, LossReport(report.per_sample, report.metrics | kinds)

    return reported


def mean_of_counted(per_sample: jax.Array, loss_mask: jax.Array) -> jax.Array:
    """The mean of the losses [b] of the samples that have a frame that counts, `loss_mask` [b, t]; 0 without one."""
    counts = jnp.sum((loss_mask.sum(1) > 0).astype(jnp.float32))
    return jnp.sum(per_sample) / jnp.maximum(counts, 1.0)


def sample_means(values: jax.Array) -> jax.Array:
    """The mean of each sample: [b, ...] → [b]."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)
