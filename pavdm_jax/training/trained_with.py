"""What a stage of training makes of the record of a model's training."""

from typing import Any

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.masks import MASK_STRATEGIES, Masks
from pavdm_jax.diffusion.objectives import (
    DistilledGuidance,
    DistilledShift,
    MixedDiffusion,
    ProgressiveDiffusion,
    UniformDiffusion,
)
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.training.config import Stage
from pavdm_jax.training.denoising import DiffusionObjective


def trained_with(model: AnyModelConfig, stage: Stage, before: tuple[LevelPattern, ...]) -> tuple[LevelPattern, ...]:
    """The patterns that the transformer was last trained on after a stage: `before`, unless the stage trains it."""
    trains_it = any(name.split("/")[0] == model.transformer_part for name in stage.train)
    return (
        level_patterns(model, stage.objective)
        if trains_it and isinstance(stage.objective, DiffusionObjective)
        else before
    )


def level_patterns(model: AnyModelConfig, objective: DiffusionObjective) -> tuple[LevelPattern, ...]:
    """The patterns that an objective draws."""
    chunk_size = model.window.chunk_size
    match objective:
        case UniformDiffusion():
            return (LevelPattern("uniform", objective.clip_chunks * chunk_size, _context(objective.masks)),)
        case ProgressiveDiffusion():
            return (_progressive(model.window),)
        case DistilledGuidance():
            return (_progressive(model.window, guidance_scale=1.0),)
        case DistilledShift():
            return (_progressive(model.window, steps_per_shift=model.window.steps_per_shift, guidance_scale=1.0),)
        case MixedDiffusion():
            drawn = (pattern for part in objective.objectives for pattern in level_patterns(model, part))
            return tuple(dict.fromkeys(drawn))


def _progressive(window: WindowConfig, **sampling: Any) -> LevelPattern:
    context = window.context_chunks * window.chunk_size
    return LevelPattern("progressive", window.window_size, context, window.chunk_size, **sampling)


def _context(masks: Masks | None) -> int | None:
    """See `LevelPattern.context`."""
    used = [name for name in MASK_STRATEGIES if masks is not None and getattr(masks, name) > 0]
    if masks is not None and used == ["context"]:
        return masks.context_latents
    return None if used else 0
