"""Score a model of the shapes world: `pavdm evaluate --videos 20 --frames 1440`.

Prompts describe sets of shapes that training never showed (`shapes_world.held_out`); the tracker reads the shapes back
from the pixels (`evaluation/identity.py`). For every moment asked for, the two-second window that it ends or lies in is
looked at. Means over videos have 95 % intervals, of at least five videos.

A comparison of systems has two steps with options of their own: `pavdm evaluate make FILE --output FOLDER` makes the
videos, and `pavdm evaluate score FOLDER` scores these or any other videos.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.data.shapes_world import named_world
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import make, score
from pavdm_jax.evaluation.bootstrap import Estimate, mean_with_interval
from pavdm_jax.evaluation.held_out import held_out_prompts, reconstruction_psnr
from pavdm_jax.evaluation.identity import IdentityScore, score_video
from pavdm_jax.evaluation.measure import mean_of_known
from pavdm_jax.evaluation.summary import as_json, show_estimate
from pavdm_jax.generation.options import DEFAULT_FRAMES, Options
from pavdm_jax.generation.pipeline import generate
from pavdm_jax.models.model import PARTS
from pavdm_jax.outputs import check_output
from pavdm_jax.video.images import contact_sheet, write_png


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure, and how much of it."""

    checkpoint: str = "demo"
    """a model folder or training run; or demo, or its student demo-distilled, which does a fifth of the work"""
    videos: int = 20
    """each with a prompt and a seed of its own"""
    frames: int = DEFAULT_FRAMES
    """of each video"""
    moments: tuple[float, ...] = (5, 30, 60)
    """seconds at which the presence of shapes is told; those after the end are left out"""
    seed: int = 1000
    """of the first video; the prompts, and the clips of the VAE's score, are drawn by it, too"""
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
    if config.videos < 1:
        raise ConfigError(f"videos must be at least 1, not {config.videos}")
    if not 0 <= config.seed <= 2**31 - config.videos:  # each video has the next one
        raise ConfigError(f"seed must be 0 to {2**31 - config.videos} for {config.videos} videos, not {config.seed}")
    if config.sheet_rows < 1:
        raise ConfigError(f"sheet_rows must be at least 1, not {config.sheet_rows}")
    if not all(0 < second < math.inf for second in config.moments):
        raise ConfigError(f"moments must be seconds above 0, not {config.moments}")
    for path, ending in ((config.output, ".json"), (config.sheet, ".png")):
        if path is not None:
            check_output(path, (ending,))
    world = named_world(config.world)
    enable_cache()
    model = load(config.checkpoint, PARTS)
    fps = model.config.fps
    seconds = tuple(second for second in config.moments if round(second * fps) <= config.frames)
    if not seconds:
        raise ConfigError(
            f"none of the moments {config.moments} lies within {config.frames} frames; ask for longer videos"
        )
    scores, rows = [], []
    for number, prompt in enumerate(
        tqdm(held_out_prompts(config.videos, config.seed, model.config.height, world), unit="video")
    ):
        seed = config.seed + number
        video = generate(
            model, prompt, config.frames, seed=seed, guidance_scale=config.guidance_scale, method=config.method
        )
        scores.append(score_video(video, prompt, fps))
        if number < config.sheet_rows:  # copies, as a view keeps the whole video
            rows.append([video[min(round(second * fps), len(video) - 1)].copy() for second in (0, 15, 30, 45, 60)])
    if config.sheet is not None:
        frames = [frame for row in rows for frame in row]
        write_png(config.sheet, contact_sheet(frames, columns=5))
    settings = {
        "checkpoint": config.checkpoint,
        "world": config.world,
        "videos": config.videos,
        "frames": config.frames,
        "seed": config.seed,
        "method": config.method,
        "guidance_scale": model.config.guidance_scale if config.guidance_scale is None else config.guidance_scale,
    }
    means = summarise(scores, seconds) | {"vae_psnr_db": reconstruction_psnr(model, 32, config.seed, world)}
    return settings | as_json(means) | {"scores": as_json(scores)}


def summarise(scores: Sequence[IdentityScore], seconds: Sequence[float]) -> dict[str, dict[str, Estimate] | Estimate]:
    """Means over videos, by the names of the JSON file; `right_of_all_clips` is the share of shapes that are as named.

    Args:
      scores: of the videos.
      seconds: the moments at which the presence of shapes is told.
    """
    found = {f"{second:g} s": [_at(score, second) for score in scores] for second in seconds}
    return {
        "present": {moment: mean_with_interval([here for here, _ in both]) for moment, both in found.items()},
        "present_and_no_other": {
            moment: mean_with_interval([only for _, only in both]) for moment, both in found.items()
        },
        "right_of_all_clips": _by_number(scores, lambda score: mean_of_known(score.curves["present"])),
        "survival_seconds": mean_with_interval([score.survival_seconds for score in scores]),
        "survived": mean_with_interval([score.survived for score in scores]),
        "switches_per_minute": _by_number(scores, lambda score: score.switches_per_minute),
        "jumps_per_minute": _by_number(scores, lambda score: score.jumps_per_minute),
        "speed_error_percent": mean_with_interval([mean_of_known(score.curves["speed_error"]) for score in scores]),
    }


def _by_number(scores: Sequence[IdentityScore], value: Callable[[IdentityScore], float]) -> dict[str, Estimate]:
    """The mean over all videos, over those of one shape, and over those of several, which are harder."""
    groups = {
        "all": scores,
        "one shape": [score for score in scores if len(score.shapes) == 1],
        "several": [score for score in scores if len(score.shapes) > 1],
    }
    return {name: mean_with_interval([value(score) for score in group]) for name, group in groups.items() if group}


def _at(score: IdentityScore, second: float) -> tuple[float, float]:
    """Whether all named shapes are there in the window that ends at a moment or has it within, and whether nothing else
    is: 0, 1, or nan where a shape may be hidden."""
    window = max(n for n, start in enumerate(score.window_seconds) if start < second)
    present, extra = score.curves["present"][window], score.curves["extra"][window]
    if np.isnan(present):
        return present, present
    return float(present == 1), float(present == 1 and extra < 0.5)


def run(config: EvaluateConfig) -> int:
    """Print a table, and write JSON when `output` is given; returns the exit code."""
    result = evaluate(config)
    for name, value in result.items():
        if name != "scores":
            print(f"{name:30} {_shown(value)}")
    if config.output is not None:
        storage.write(Path(config.output), (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return 0


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if "mean" in value:
        return show_estimate(Estimate(**value))
    return ", ".join(f"{moment}: {_shown(one)}" for moment, one in value.items())


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
