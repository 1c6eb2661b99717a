"""Training losses of the diffusion transformer, with its text encoder: the levels come from `diffusion.objectives`.

Each is a function `loss(params, batch, key) -> (loss, metrics)` of the whole model's parameters and a batch with `latents`
`[b, t, h, w, c]`, `ids` `[b, l]`, `length` `[b]`, `fps` `[b]` and, where the text encoder has run before, its `features` `[b, l, d]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pavdm_jax.config import ModelConfig
from pavdm_jax.diffusion.objectives import (
    TrainLevels,
    flow_loss,
    sample_noisy,
    sample_progressive,
    sample_uniform,
)
from pavdm_jax.models.stdit3 import STDiT3
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.train_config import ProgressiveDiffusion, UniformDiffusion
from pavdm_jax.training.reconstruction import Loss


def uniform_loss(model: ModelConfig, objective: UniformDiffusion) -> Loss:
    """One level a clip, with mask strategies."""

    def levels(key: jax.Array, b: int, t: int) -> TrainLevels:
        return sample_uniform(
            key,
            b,
            t,
            model.height,
            model.width,
            logit_normal=objective.logit_normal,
            mask_strategies=objective.mask_strategies,
            base_size=model.noise_base_size,
        )

    return _denoising_loss(model, objective.caption_dropout, levels)


def progressive_loss(model: ModelConfig, objective: ProgressiveDiffusion) -> Loss:
    """Levels rising along the window."""

    def levels(key: jax.Array, b: int, t: int) -> TrainLevels:
        return sample_progressive(
            key,
            model.window,
            b,
            model.height,
            model.width,
            level_shift=objective.level_shift,
            variable_fraction=objective.variable_fraction,
            base_size=model.noise_base_size,
        )

    return _denoising_loss(model, objective.caption_dropout, levels)


def _denoising_loss(
    model: ModelConfig, caption_dropout: float, sample_levels: Callable[[jax.Array, int, int], TrainLevels]
) -> Loss:
    network, text_encoder = STDiT3(model.stdit3), T5Encoder(model.t5)

    def loss(params, batch, key):
        level_key, noise_key, drop_key = jax.random.split(key, 3)
        b, t = batch["latents"].shape[:2]
        variables = {"params": params["stdit3"]}
        lengths = batch["length"][:, None]

        if "features" in batch:
            features = batch["features"]
        else:
            features = text_encoder.apply({"params": params["t5"]}, batch["ids"], batch["length"])
        dropped = jax.random.bernoulli(drop_key, caption_dropout, (b,))[:, None, None]
        features = jnp.where(dropped, params["stdit3"]["null_caption"][None], features)
        caption = network.apply(variables, features[:, None], lengths, method="encode_caption")

        drawn = sample_levels(level_key, b, t)
        noisy, noise = sample_noisy(noise_key, batch["latents"], drawn.levels)
        height, width = (jnp.full((b,), value, jnp.float32) for value in (model.height, model.width))
        output = network.apply(variables, noisy, drawn.levels, caption, batch["fps"], height, width, drawn.num_valid)
        velocity = output[..., : model.stdit3.latent_channels]
        per_sample = flow_loss(velocity, batch["latents"], noise, drawn.loss_mask)
        # A clip that the masks keep clean throughout has nothing to learn from and does not count.
        counts = (drawn.loss_mask.sum(1) > 0).astype(jnp.float32)
        return jnp.sum(per_sample) / jnp.maximum(jnp.sum(counts), 1.0), {}

    return loss
