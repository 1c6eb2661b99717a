"""Training losses of the diffusion transformer and its text encoder, with levels from `diffusion.train_levels`.

Each is a `loss.Loss` of a batch with `latents` `[b, t, h, w, c]`, `ids` `[b, l]`, `length` `[b]`, `fps` `[b]` and,
if caption features were precomputed, `features` `[b, l, d]`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pavdm_jax.diffusion.family_levels import noise_base_size
from pavdm_jax.diffusion.flow import velocity_target
from pavdm_jax.diffusion.objectives import (
    DistilledGuidance,
    DistilledShift,
    MixedDiffusion,
    ProgressiveDiffusion,
    UniformDiffusion,
    flow_loss,
    frame_losses,
)
from pavdm_jax.diffusion.train_levels import TrainLevels, sample_noisy, sample_progressive, sample_uniform
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.attention import Backend
from pavdm_jax.models.networks import networks
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.training.config import Objective
from pavdm_jax.training.loss import Average, Loss, LossReport, mean_of_counted

DISTILLED = DistilledGuidance | DistilledShift

DiffusionObjective = UniformDiffusion | ProgressiveDiffusion | MixedDiffusion | DISTILLED

LEVEL_BINS = 5
"""The log has the loss for each of so many equal parts of the levels 0..1."""

Draw = Callable[[jax.Array, int, int], tuple[TrainLevels, jax.Array]]
"""(key, b, t) -> the levels of a batch, and the probability [b] of each sample that its caption is dropped."""


def clip_chunks(model: AnyModelConfig, objective: DiffusionObjective) -> int:
    """Chunks of a training clip; for a mix, of its longest objective."""
    match objective:
        case UniformDiffusion():
            return objective.clip_chunks
        case ProgressiveDiffusion() | DistilledGuidance() | DistilledShift():
            return model.window.slots
        case MixedDiffusion():
            return max(clip_chunks(model, part) for part in objective.objectives)


def clip_latents(model: AnyModelConfig, objective: Objective) -> int | None:
    """Latent frames of a training clip; None for an objective that works on pixels."""
    if not isinstance(objective, DiffusionObjective):
        return None
    return clip_chunks(model, objective) * model.window.chunk_size


def draw_levels(model: AnyModelConfig, objective: UniformDiffusion | ProgressiveDiffusion | MixedDiffusion) -> Draw:
    """A function that draws the levels of an objective; of longer clips than the objective's, the beginning is used.

    An image, a clip of one latent frame, gets a level as by `UniformDiffusion`, whatever the objective.
    """
    match objective:
        case UniformDiffusion():
            return _draw_uniform(model, objective)
        case ProgressiveDiffusion():
            return _draw_progressive(model, objective)
        case MixedDiffusion():
            return _draw_mixed(model, objective)


def _draw_uniform(model: AnyModelConfig, objective: UniformDiffusion) -> Draw:
    def draw(key: jax.Array, b: int, t: int) -> tuple[TrainLevels, jax.Array]:
        latents = min(t, objective.clip_chunks * model.window.chunk_size)
        base_size = noise_base_size(model, latents)
        levels = sample_uniform(key, objective, b, t, model.height, model.width, base_size, jnp.full((b,), latents))
        return levels, jnp.full((b,), objective.caption_dropout)

    return draw


def _draw_progressive(model: AnyModelConfig, objective: ProgressiveDiffusion) -> Draw:
    of_images = _draw_uniform(model, UniformDiffusion(masks=None, caption_dropout=objective.caption_dropout))

    def draw(key: jax.Array, b: int, t: int) -> tuple[TrainLevels, jax.Array]:
        if t == 1 < model.window.window_size:
            return of_images(key, b, t)
        base_size = noise_base_size(model, model.window.window_size)
        drawn = sample_progressive(key, objective, model.window, b, model.height, model.width, base_size)
        behind = ((0, 0), (0, t - model.window.window_size))
        levels = drawn.replace(levels=jnp.pad(drawn.levels, behind), loss_mask=jnp.pad(drawn.loss_mask, behind))
        return levels, jnp.full((b,), objective.caption_dropout)

    return draw


def _draw_mixed(model: AnyModelConfig, objective: MixedDiffusion) -> Draw:
    parts = [draw_levels(model, part) for part in objective.objectives]
    weights = jnp.asarray(objective.weights, jnp.float32) / sum(objective.weights)

    def draw(key: jax.Array, b: int, t: int) -> tuple[TrainLevels, jax.Array]:
        which_key, *keys = jax.random.split(key, 1 + len(parts))
        which = jax.random.choice(which_key, len(parts), (b,), p=weights)
        drawn = [part(part_key, b, t) for part, part_key in zip(parts, keys, strict=True)]
        return jax.tree.map(lambda *values: jnp.stack(values)[which, jnp.arange(b)], *drawn)

    return draw


def denoising_loss(
    model: AnyModelConfig,
    objective: UniformDiffusion | ProgressiveDiffusion | MixedDiffusion,
    dtype: DTypeLike = jnp.float32,
    remat: str = "none",
    backend: Backend = "xla",
) -> Loss:
    """The loss of an objective, which is one program for all windows that are drawn.

    Args:
      model: the architecture, and the size of the videos.
      objective: the distribution of levels.
      dtype: of the matrix products.
      remat: see `STDiT3`.
      backend: of attention, see `choose_backend`.
    """
    network = networks(model, dtype, remat, backend)
    text_encoder: Any = T5Encoder(model.t5, jnp.dtype(dtype))
    draw = draw_levels(model, objective)

    def loss(params, batch, key):
        level_key, noise_key, drop_key = jax.random.split(key, 3)
        b, t = batch["latents"].shape[:2]
        drawn, caption_dropout = draw(level_key, b, t)
        transformer = params[model.transformer_part]

        features = caption_features(text_encoder, params, batch)
        dropped = jax.random.bernoulli(drop_key, caption_dropout)
        features, lengths = network.drop_captions(transformer, features, batch["length"], dropped)
        caption = network.caption(transformer, features[:, None], lengths[:, None])

        noisy, noise = sample_noisy(noise_key, batch["latents"], drawn.levels)
        height, width = (jnp.full((b,), value, jnp.float32) for value in (model.height, model.width))
        velocity, _ = network.predict(
            transformer, noisy, drawn.levels, caption, batch["fps"], height, width, drawn.num_valid
        )
        per_frame = frame_losses(velocity, velocity_target(batch["latents"], noise), drawn.loss_mask)
        per_sample = flow_loss(per_frame, drawn.loss_mask)
        value = mean_of_counted(per_sample, drawn.loss_mask)
        return value, LossReport(per_sample, losses_by_level(per_frame, drawn))

    return loss


def caption_features(text_encoder: Any, params: dict, batch: dict) -> jax.Array:
    """The captions of a batch for the transformer, [b, l, d]: precomputed, or from the text encoder."""
    if "features" in batch:
        return batch["features"]
    return text_encoder.apply({"params": params["t5"]}, batch["ids"], batch["length"])


def losses_by_level(per_frame: jax.Array, drawn: TrainLevels) -> dict[str, Average]:
    """The loss by levels: for each of `LEVEL_BINS` parts of 0..1, the sum of `per_frame` [b, t] and the frame count."""
    bins = jnp.minimum((drawn.levels * LEVEL_BINS).astype(jnp.int32), LEVEL_BINS - 1)
    averages = {}
    for number in range(LEVEL_BINS):
        counts = drawn.loss_mask * (bins == number)
        name = f"loss_level_{number / LEVEL_BINS:.1f}_{(number + 1) / LEVEL_BINS:.1f}"
        averages[name] = (jnp.sum(per_frame * counts), jnp.sum(counts))
    return averages


def at_size_of_batch(make: Callable[[AnyModelConfig], Loss], model: AnyModelConfig) -> Loss:
    """The loss that `make` gives for the model at the frame size of a batch's latents; each size is compiled once."""
    cell = model.vae.downsample

    def loss(params, batch, key):
        rows, columns = batch["latents"].shape[2:4]
        return make(dataclasses.replace(model, height=rows * cell, width=columns * cell))(params, batch, key)

    return loss
