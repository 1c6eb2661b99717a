"""What training on the shapes world never showed: prompts of its test split, how they begin, and clips for the VAE."""

import numpy as np

from pavdm_jax.data.shapes_world import SIMPLE, Scene, World, caption, render, sample_scene
from pavdm_jax.generation.programs import decode_frames, encode_frames
from pavdm_jax.generation.prompts_file import PromptLine
from pavdm_jax.models.model import Model


def held_out_prompts(count: int, seed: int, canvas: int, world: World = SIMPLE) -> list[str]:
    """Distinct prompts of held-out scenes that name every size and speed."""
    return list(_held_out_scenes(count, seed, canvas, world))


def held_out_starts(count: int, seed: int, canvas: int, frames: int, world: World = SIMPLE) -> list[PromptLine]:
    """The same prompts, each with so many frames of its scene as the start clip."""
    scenes = _held_out_scenes(count, seed, canvas, world)
    return [PromptLine(prompt, start=render(scene, frames, canvas)) for prompt, scene in scenes.items()]


def _held_out_scenes(count: int, seed: int, canvas: int, world: World) -> dict[str, Scene]:
    scenes: dict[str, Scene] = {}
    number = 0
    while len(scenes) < count:
        rng = np.random.default_rng([seed, number])
        scene = sample_scene(rng, canvas, split="test", world=world)
        scenes.setdefault(caption(scene, rng, complete=True), scene)
        number += 1
    return scenes


def reconstruction_psnr(model: Model, clips: int, seed: int, world: World = SIMPLE) -> float:
    """Mean peak signal-to-noise ratio in dB of held-out clips after the VAE, one micro clip each."""
    config, ratios = model.config, []
    for number in range(clips):
        rng = np.random.default_rng([seed, number])
        scene = sample_scene(rng, config.height, split="test", world=world)
        frames = render(scene, config.vae.still_frames, config.height)
        latents = encode_frames(model.params["vae"], frames[None], config=config)
        decoded = decode_frames(model.params["vae"], latents, config=config)
        error = np.mean(np.square((np.asarray(decoded[0], np.float32) - frames) / 255))
        ratios.append(-10 * np.log10(error))
    return float(np.mean(ratios))
