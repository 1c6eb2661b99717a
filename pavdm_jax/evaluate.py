"""Score a model of the shapes world: `pavdm evaluate --videos 20 --frames 1440`.

Prompts describe sets of shapes that training never showed (`shapes_world.held_out`); the tracker reads the shapes back
from the pixels. For every moment asked for, the two seconds before it are looked at.

A comparison of systems has two steps with options of their own: `pavdm evaluate make FILE --output FOLDER` makes the
videos, and `pavdm evaluate score FOLDER` scores these or any other videos.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.data.shapes_world import named_world
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import make, score
from pavdm_jax.evaluation.scores import held_out_prompts, reconstruction_psnr, score_video
from pavdm_jax.generation.options import DEFAULT_FRAMES, Options
from pavdm_jax.generation.pipeline import generate
from pavdm_jax.models.model import PARTS
from pavdm_jax.video.images import check_output, contact_sheet, write_png


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure, and how much of it."""

    checkpoint: str = "demo"
    """a model folder, or demo, the embedded model"""
    videos: int = 20
    """each with a prompt and a seed of its own"""
    frames: int = DEFAULT_FRAMES
    """of each video"""
    seconds: tuple[float, ...] = (5, 30, 60)
    """when to look; moments after the end are left out"""
    seed: int = 1000
    """of the first video"""
    world: str = "simple"
    """simple or hidden: the shapes world that prompts and reconstructed clips come from"""
    guidance_scale: float | None = None
    """by default the model's"""
    method: str = Options.method
    """how videos are extended: progressive or one of the baselines, see `pavdm --help`"""
    output: str | None = None
    """a JSON file for the scores of every video"""
    sheet: str | None = None
    """a PNG with frames of the first videos at 0, 15, 30, 45 and 60 s"""
    sheet_rows: int = 6
    """videos on the sheet"""


def evaluate(config: EvaluateConfig) -> dict:
    """All scores of a model, as JSON values."""
    if config.seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {config.seed}")
    if config.videos < 1:
        raise ConfigError(f"videos must be at least 1, not {config.videos}")
    if not all(second > 0 for second in config.seconds):
        raise ConfigError(f"seconds must be above 0, not {config.seconds}")
    for path, ending in ((config.output, ".json"), (config.sheet, ".png")):
        if path is not None:
            check_output(path, (ending,))
    world = named_world(config.world)
    enable_cache()
    model = load(config.checkpoint, PARTS)
    fps = model.config.fps
    seconds = tuple(second for second in config.seconds if round(second * fps) <= config.frames)
    if not seconds:
        raise ConfigError(
            f"none of the moments {config.seconds} lies within {config.frames} frames; ask for longer videos"
        )
    scores, rows = [], []
    for number, prompt in enumerate(
        tqdm(held_out_prompts(config.videos, config.seed, model.config.height, world), unit="video")
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
        "world": config.world,
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
        "vae_psnr_db": reconstruction_psnr(model, 32, config.seed, world),
        "scores": [dataclasses.asdict(score) for score in scores],
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def run(config: EvaluateConfig) -> int:
    """Print a table, and write JSON when `output` is given; returns the exit code."""
    result = evaluate(config)
    for name, value in result.items():
        if name != "scores":
            shown = ", ".join(f"{k}: {v:.2f}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name:30} {shown}")
    if config.output is not None:
        storage.write(Path(config.output), (json.dumps(result, indent=1) + "\n").encode())
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    steps = {"make": make.main, "score": score.main}
    if given and given[0] in steps:
        steps[given[0]](given[1:])
        return
    exit_with(
        lambda: run(read_command(EvaluateConfig, given, "pavdm evaluate", __doc__)),
        interrupted="interrupted; nothing was written",
    )


if __name__ == "__main__":
    main()
