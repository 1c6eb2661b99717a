"""Score a model of the shapes world: `python -m pavdm_jax.evaluate --videos 20 --frames 1440`.

Prompts describe sets of shapes that training never showed (`shapes_world.held_out`); the tracker reads the shapes back from the pixels.
For every moment asked for, the two seconds before it are looked at.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints import load
from pavdm_jax.command_line import exit_with, read_fields
from pavdm_jax.compilation import enable_cache
from pavdm_jax.compiled import decode_chunk, encode_frames
from pavdm_jax.config import require
from pavdm_jax.data.shapes_world import SPEED_PX_PER_S, Description, caption, parse_caption, render, sample_scene
from pavdm_jax.evaluation.tracker import detect, measured_speed, present, scene_cuts, track
from pavdm_jax.model import PARTS, Model
from pavdm_jax.pipeline import generate
from pavdm_jax.video_io import check_output, contact_sheet, write_png

WINDOW_SECONDS = 2


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure, and how much of it."""

    checkpoint: str = "demo"  # a model folder, or "demo"
    videos: int = 20  # each with a prompt and a seed of its own
    frames: int = 1440  # of each video
    seconds: tuple[float, ...] = (5, 30, 60)  # when to look; moments after the end are left out
    seed: int = 1000  # of the first video
    guidance_scale: float | None = None  # None: the model's
    method: str = "progressive"  # or one of the baselines, see `python -m pavdm_jax --help`
    output: str | None = None  # a JSON file for the scores of every video
    sheet: str | None = None  # a PNG with frames of the first videos at 0, 15, 30, 45 and 60 s
    sheet_rows: int = 6  # videos on the sheet


@dataclass(frozen=True)
class VideoScore:
    """What the tracker found in one video; lists have an entry for each moment."""

    prompt: str
    seed: int
    present: list[bool]  # all named shapes, with their colour and kind
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


def reconstruction_psnr(model: Model, clips: int, seed: int) -> float:
    """Mean peak signal-to-noise ratio in dB of held-out clips after the VAE, one micro clip each."""
    config, ratios = model.config, []
    for number in range(clips):
        rng = np.random.default_rng([seed, number])
        frames = render(sample_scene(rng, config.height, split="test"), config.vae.micro_frames, config.height)
        latents = encode_frames(model.params["vae"], frames[None], config=config)
        decoded = decode_chunk(model.params["vae"], latents, config=config, num_frames=len(frames))
        error = np.mean(np.square((np.asarray(decoded[0], np.float32) - frames) / 255))
        ratios.append(-10 * np.log10(error))
    return float(np.mean(ratios))


def held_out_prompts(count: int, seed: int, canvas: int) -> list[str]:
    """Distinct prompts of held-out scenes that name every size and speed."""
    prompts: dict[str, None] = {}
    number = 0
    while len(prompts) < count:
        rng = np.random.default_rng([seed, number])
        prompts[caption(sample_scene(rng, canvas, split="test"), rng, complete=True)] = None
        number += 1
    return list(prompts)


def evaluate(config: EvaluateConfig) -> dict:
    """All scores of a model, as JSON values."""
    require(config.seed >= 0, f"seed must be 0 or more, not {config.seed}")
    require(config.videos >= 1, f"videos must be at least 1, not {config.videos}")
    require(all(second > 0 for second in config.seconds), f"seconds must be above 0, not {config.seconds}")
    for path, ending in ((config.output, ".json"), (config.sheet, ".png")):
        if path is not None:
            check_output(path, (ending,))
    enable_cache()
    model = load(config.checkpoint, PARTS)
    fps = model.config.fps
    seconds = tuple(second for second in config.seconds if round(second * fps) <= config.frames)
    require(
        bool(seconds), f"none of the moments {config.seconds} lies within {config.frames} frames; ask for longer videos"
    )
    scores, rows = [], []
    for number, prompt in enumerate(
        tqdm(held_out_prompts(config.videos, config.seed, model.config.height), unit="video")
    ):
        seed = config.seed + number
        video = generate(
            model, prompt, config.frames, seed=seed, guidance_scale=config.guidance_scale, method=config.method
        )
        scores.append(score_video(video, prompt, seed, seconds, fps))
        rows.append([video[min(round(second * fps), len(video) - 1)] for second in (0, 15, 30, 45, 60)])
    if config.sheet is not None:
        frames = [frame for row in rows[: config.sheet_rows] for frame in row]
        write_png(config.sheet, contact_sheet(frames, columns=5))
    return {
        "checkpoint": config.checkpoint,
        "videos": config.videos,
        "frames": config.frames,
        "method": config.method,
        "guidance_scale": model.config.guidance_scale if config.guidance_scale is None else config.guidance_scale,
        "present": {f"{s:g} s": float(np.mean([score.present[i] for score in scores])) for i, s in enumerate(seconds)},
        "present_and_no_other": {
            f"{s:g} s": float(np.mean([score.only[i] for score in scores])) for i, s in enumerate(seconds)
        },
        "median_relative_speed_error": _median([error for score in scores for error in score.speed_errors]),
        "scene_cuts_per_video": float(np.mean([score.cuts for score in scores])),
        "vae_psnr_db": reconstruction_psnr(model, 32, config.seed),
        "scores": [dataclasses.asdict(score) for score in scores],
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def main() -> None:
    """The command line: prints a table, and writes JSON when `--output` is given."""
    exit_with(run, interrupted="interrupted; nothing was written")


def run() -> int:
    """Evaluate what the command line says; the exit code."""
    config = read_fields(EvaluateConfig, sys.argv[1:], "evaluate", __doc__)
    result = evaluate(config)
    for name, value in result.items():
        if name != "scores":
            shown = ", ".join(f"{k}: {v:.2f}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name:30} {shown}")
    if config.output is not None:
        storage.write(Path(config.output), (json.dumps(result, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    main()
