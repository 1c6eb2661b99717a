"""Losses for batches of several frame sizes, as aspect buckets make them."""

import dataclasses
from collections.abc import Callable

from pavdm_jax.config import ModelConfig
from pavdm_jax.training.loss import Loss


def at_size_of_batch(make: Callable[[ModelConfig], Loss], model: ModelConfig) -> Loss:
    """The loss that `make` gives for the model at the frame size of each batch's latents; each size is compiled once."""
    cell = model.vae.spatial.downsample

    def loss(params, batch, key):
        rows, columns = batch["latents"].shape[2:4]
        return make(dataclasses.replace(model, height=rows * cell, width=columns * cell))(params, batch, key)

    return loss
