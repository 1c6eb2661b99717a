"""Whether a request samples a model as it was trained."""

from collections.abc import Sequence

from pavdm_jax.generation.request import Request
from pavdm_jax.geometry import latent_frames
from pavdm_jax.models.level_pattern import LevelPattern, name_patterns


def needed_pattern(request: Request) -> LevelPattern:
    """The noise levels of a request's network calls; of the baselines, those of clips that continue another one."""
    window, clip, vae = request.config.window, request.clip, request.config.vae
    if request.method == "progressive":
        if (window.noisy_chunks, window.context_chunks) == (1, 0):
            return LevelPattern("uniform", window.window_size, request.held_latents)
        context = window.context_chunks * window.chunk_size
        sampling = window.steps_per_shift, request.guidance_scale
        levels = "progressive" if window.lag is None else "waiting"
        return LevelPattern(levels, window.seen_at_once, context, window.chunk_size, *sampling)
    context = latent_frames(clip.context_frames, vae) if request.method == "replacement" else 0
    return LevelPattern("uniform", latent_frames(clip.frames, vae), context)


def unlike_training(trained_with: Sequence[LevelPattern], request: Request) -> str | None:
    """One line about a model that is sampled otherwise than it was trained; None where it is not, or is not known."""
    needed = needed_pattern(request)
    if not trained_with or any(pattern.covers(needed) for pattern in trained_with):
        return None
    return (
        f"{request.config.name} was trained with {name_patterns(trained_with)}; this request samples with {needed}, "
        "outside of that training"
    )
