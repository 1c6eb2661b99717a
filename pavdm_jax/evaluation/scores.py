"""Scores of videos of the shapes world: the tracker reads the shapes back from the pixels."""

from dataclasses import dataclass, field

import numpy as np

from pavdm_jax.data.shapes_world import (
    SIMPLE,
    SPEED_PX_PER_S,
    Description,
    World,
    caption,
    parse_caption,
    render,
    sample_scene,
)
from pavdm_jax.evaluation.cuts import scene_cuts
from pavdm_jax.evaluation.paths import measured_speed
from pavdm_jax.evaluation.tracker import detect, present, track
from pavdm_jax.generation.programs import decode_frames, encode_frames
from pavdm_jax.models.model import Model

WINDOW_SECONDS = 2


@dataclass(frozen=True)
class VideoScore:
    """What the tracker found in one video; lists have an entry for each moment."""

    prompt: str
    seed: int
    present: list[bool]  # all named shapes, with their kind, colour and size
    only: list[bool]  # and as many shapes as were named
    speed_errors: list[float] = field(default_factory=list)  # relative to the named speed, one a shape and moment
    cuts: int = 0


def score_video(video: np.ndarray, prompt: str, seed: int, seconds: tuple[float, ...], fps: float) -> VideoScore:
    """Look at a video, uint8 `[f, h, w, 3]`, at the given moments."""
    expected = parse_caption(prompt)
    found, only, errors = [], [], []
    for second in seconds:
        stop = min(round(second * fps), len(video))
        clip = video[max(0, stop - round(WINDOW_SECONDS * fps)) : stop]
        found.append(present(clip, expected))
        counts = [len(detect(frame)) for frame in clip[::4]]
        only.append(bool(found[-1] and np.median(counts) == len(expected)))
        errors += _speed_errors(clip, expected, fps)
    return VideoScore(prompt, seed, found, only, errors, scene_cuts(video))


def _speed_errors(clip: np.ndarray, expected: list[Description], fps: float) -> list[float]:
    errors = []
    for shape, positions in zip(expected, track(clip, expected), strict=True):
        speed = measured_speed(positions, fps, clip.shape[1:3])
        if shape.speed is not None and np.isfinite(speed):
            errors.append(float(abs(speed / SPEED_PX_PER_S[shape.speed] - 1.0)))
    return errors


def reconstruction_psnr(model: Model, clips: int, seed: int, world: World = SIMPLE) -> float:
    """Mean peak signal-to-noise ratio in dB of held-out clips after the VAE, one micro clip each."""
    config, ratios = model.config, []
    for number in range(clips):
        rng = np.random.default_rng([seed, number])
        scene = sample_scene(rng, config.height, split="test", world=world)
        frames = render(scene, config.vae.micro_frames, config.height)
        latents = encode_frames(model.params["vae"], frames[None], config=config)
        decoded = decode_frames(model.params["vae"], latents, config=config, num_frames=len(frames))
        error = np.mean(np.square((np.asarray(decoded[0], np.float32) - frames) / 255))
        ratios.append(-10 * np.log10(error))
    return float(np.mean(ratios))


def held_out_prompts(count: int, seed: int, canvas: int, world: World = SIMPLE) -> list[str]:
    """Distinct prompts of held-out scenes that name every size and speed."""
    prompts: dict[str, None] = {}
    number = 0
    while len(prompts) < count:
        rng = np.random.default_rng([seed, number])
        prompts[caption(sample_scene(rng, canvas, split="test", world=world), rng, complete=True)] = None
        number += 1
    return list(prompts)
