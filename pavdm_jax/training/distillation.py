"""Training losses of distillation: a student learns the velocity of a frozen teacher, the model that it starts from.

The teacher's transformer is beside the student's parameters, as `params["teacher"]` of its name in the model; text
encoder and windows are shared.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pavdm_jax.diffusion.distillation import mean_velocity, sample_steps, steps_of_teacher
from pavdm_jax.diffusion.family_levels import noise_base_size
from pavdm_jax.diffusion.flow import Velocity, euler_step, interpolate
from pavdm_jax.diffusion.guidance import guide
from pavdm_jax.diffusion.objectives import DistilledGuidance, DistilledShift, flow_loss, frame_losses
from pavdm_jax.diffusion.train_levels import sample_progressive
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.flops import train_flops
from pavdm_jax.models.attention import Backend
from pavdm_jax.models.networks import Networks, networks
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.training.config import Objective
from pavdm_jax.training.denoising import DISTILLED, caption_features, losses_by_level
from pavdm_jax.training.loss import Loss, LossReport, mean_of_counted

TEACHER = "teacher"
"""Where the teacher's parameters are, beside the parts of the model."""


def distillation_loss(
    model: AnyModelConfig,
    objective: DistilledGuidance | DistilledShift,
    dtype: DTypeLike = jnp.float32,
    remat: str = "none",
    backend: Backend = "xla",
) -> Loss:
    """The loss of an objective; arguments are those of `denoising.denoising_loss`."""
    student = networks(model, dtype, remat, backend)
    teacher = networks(model, dtype, backend=backend)  # keeps nothing for a backward pass
    text_encoder: Any = T5Encoder(model.t5, jnp.dtype(dtype))
    size = (model.height, model.width, noise_base_size(model, model.window.window_size))
    part = model.transformer_part

    def loss(params, batch, key):
        level_key, noise_key, rollout_key = jax.random.split(key, 3)
        window, one_prompt = model.window, jnp.zeros(model.window.slots, jnp.int32)
        clips = batch["latents"][:, : window.window_size]
        features = jax.lax.stop_gradient(caption_features(text_encoder, params, batch))
        noise = jax.random.normal(noise_key, clips.shape, jnp.float32)
        guided = network_velocity(model, teacher, params[TEACHER][part], features, batch, objective.guidance_scale)
        predict = network_velocity(model, student, params[part], features, batch)

        if isinstance(objective, DistilledGuidance):
            start = sample_progressive(level_key, objective, window, len(clips), *size)
            noisy = interpolate(clips, noise, start.levels)
            target = guided(noisy, start.levels, start.num_valid, one_prompt)
        else:
            drawn = sample_steps(level_key, objective, window, len(clips), *size)
            start, levels = drawn.rows[0], jnp.stack([row.levels for row in drawn.rows])
            noisy = interpolate(clips, noise, start.levels)
            if objective.rollout:
                frozen = network_velocity(model, teacher, jax.lax.stop_gradient(params[part]), features, batch)
                before = interpolate(clips, noise, drawn.before.levels)
                velocity = frozen(before, drawn.before.levels, drawn.before.num_valid, one_prompt)
                made = euler_step(before, velocity, drawn.before.levels, start.levels)
                is_made = jax.random.bernoulli(rollout_key, objective.rollout, (len(clips), 1, 1, 1, 1))
                noisy = jnp.where(is_made, made, noisy)
            target = mean_velocity(guided, noisy, levels, start.num_valid, window.slots)
        velocity = predict(noisy, start.levels, start.num_valid, one_prompt)

        per_frame = frame_losses(velocity, jax.lax.stop_gradient(target), start.loss_mask)
        per_sample = flow_loss(per_frame, start.loss_mask)
        value = mean_of_counted(per_sample, start.loss_mask)
        return value, LossReport(per_sample, losses_by_level(per_frame, start))

    return loss


def network_velocity(
    model: AnyModelConfig,
    network: Networks,
    params: dict,
    features: jax.Array,
    batch: dict,
    guidance_scale: float = 1.0,
) -> Velocity:
    """The velocity of a transformer for the captions of a batch, guided unless the scale is 1.

    The two halves of guidance are called one after the other, so that a batch that is split over devices stays so.
    """
    lengths = batch["length"][:, None]
    height, width = (jnp.full(len(lengths), value, jnp.float32) for value in (model.height, model.width))
    captions = [network.caption(params, features[:, None], lengths)]
    if guidance_scale != 1:
        captions.append(network.null_caption(params, lengths))

    def velocity(latents: jax.Array, levels: jax.Array, num_valid: jax.Array, prompt_index: jax.Array) -> jax.Array:
        predictions = [
            network.predict(params, latents, levels, caption, batch["fps"], height, width, num_valid)[0]
            for caption in captions
        ]
        return predictions[0] if guidance_scale == 1 else guide(predictions[0], predictions[1], guidance_scale)

    return velocity


def teacher_flops(model: AnyModelConfig, objective: Objective, latents: tuple[int, ...]) -> float:
    """FLOPs of the forward passes that make windows and targets in a training step on latents [b, t, h, w, c].

    They are those of the teacher, and of the student's rollout; 0 for other objectives.
    """
    if not isinstance(objective, DISTILLED):
        return 0.0
    steps, rollouts = 1, 0
    if isinstance(objective, DistilledShift):
        steps, rollouts = steps_of_teacher(objective, model.window), int(objective.rollout > 0)
    passes = steps * (1 if objective.guidance_scale == 1 else 2) + rollouts
    return passes * train_flops(model.transformer, latents) / 3  # a training step is three passes
