"""Make the videos of a comparison: `pavdm evaluate make comparison.py --output FOLDER`.

Each system gets a folder, in which each prompt and seed has a video of the same name as in the others, and beside it a
JSON file with its settings. `pavdm evaluate score FOLDER` scores them. Given again, the command makes what is missing.
Systems whose checkpoint is not there, or whose training is not finished, are left out until then.
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pavdm_jax import storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.lora import find, find_base
from pavdm_jax.checkpoints.model_folder import is_embedded, is_model
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.evaluation.comparison import Comparison, System, read_comparison
from pavdm_jax.evaluation.made_by import made_by
from pavdm_jax.evaluation.score_files import read_scores
from pavdm_jax.generation.pipeline import check_method
from pavdm_jax.generation.prompts import encode_prompts
from pavdm_jax.generation.recording import Recording, check_outputs
from pavdm_jax.generation.request import Request, make_request
from pavdm_jax.models.model import DTYPES, Model

EXAMPLES = """
examples:
  pavdm evaluate make comparison.py --output comparison/
  pavdm evaluate make comparison.py --output comparison/ --share 1/4
  pavdm evaluate make configs/comparison_shapes.py --output comparison/ --prompts 6 --systems pa rn rw
  pavdm evaluate make configs/comparison_shapes.py --output more/ --earlier scores.json

A comparison is a Python file:

  from pavdm_jax.evaluation.comparison import Comparison, System

  comparison = Comparison(
      systems=(System("progressive"), System("replacement", options={"method": "replacement"})),
      prompts=("a red circle moves left", "a small blue square moves fast"),
      seeds=(0, 1),
      frames=1440,
  )
"""


@dataclass(frozen=True)
class MakeConfig:
    """Which comparison, and where its videos go."""

    comparison: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """a Python file that sets `comparison`"""
    output: str
    """the folder of the videos"""
    share: str = "1/1"
    """K/N: only every Nth video from the Kth on, so that N processes or machines can share the work"""
    prompts: int | None = None
    """only the first so many prompts; more can be asked for later"""
    systems: tuple[str, ...] = ()
    """only these systems; others can be asked for later"""
    earlier: tuple[str, ...] = ()
    """files of scores, of `pavdm evaluate score --output`: videos that were scored in them are left out, so that a
    comparison can go on when its videos are gone"""
    crf: int = 18
    """H.264 quality, 1 to 51; smaller is better"""
    quiet: bool = False
    """no progress bars"""


def run(config: MakeConfig) -> int:
    """Make the videos that are missing; returns the exit code."""
    comparison = read_comparison(config.comparison)
    if config.prompts is not None:
        if config.prompts < 1:
            raise ConfigError(f"--prompts must be at least 1, not {config.prompts}")
        comparison = replace(comparison, prompts=comparison.prompts[: config.prompts])
    unknown = [name for name in config.systems if name not in {system.name for system in comparison.systems}]
    if unknown:
        names = ", ".join(system.name for system in comparison.systems)
        raise ConfigError(f"--systems {unknown[0]} is none of the comparison, which has {names}")
    if config.systems:
        chosen = tuple(system for system in comparison.systems if system.name in config.systems)
        comparison = replace(comparison, systems=chosen)
    earlier = [video for file in config.earlier for video in read_scores(file)]
    scored = {(video.system, Path(video.path).name) for video in earlier}
    folder = storage.local_path(config.output, "--output")
    first, of = _read_share(config.share)
    missing = {system.name: name for system in comparison.systems if (name := _missing(system)) is not None}
    left_out = [system for system in comparison.systems if system.name in missing]
    if left_out:
        names = ", ".join(f"{system} ({name})" for system, name in missing.items())
        if len(left_out) == len(comparison.systems):
            raise ConfigError(f"no system of the comparison has a finished model to load: {names}; train them first")
        print(printable(f"left out, because there is no finished model to load: {names}"), file=sys.stderr)
    enable_cache()
    for system in comparison.systems:
        if system not in left_out:
            _check_system(system, comparison)
    number = 0
    for system in comparison.systems:
        mine = []
        for video in comparison.videos:
            if (system.name, video[2]) in scored:
                continue
            if number % of == first - 1:
                mine.append(video)
            number += 1
        wanted = mine and system not in left_out
        runs = [video.run for video in earlier if video.system == system.name and video.run is not None]
        weights = {run["settings"].get("weights") for run in runs}
        code = _make_system(system, comparison, mine, folder / system.name, config, weights) if wanted else 0
        if code:
            return code
    return 0


def _missing(system: System) -> str | None:
    """What is not there of a system: its model (or adapters of one, a finished run, a certain checkpoint of a run), or
    the adapters that it is sampled with; None if it can be made."""
    try:
        base, _ = find_base(system.checkpoint)
    except ConfigError:  # adapters without their base
        return system.checkpoint
    if not is_embedded(base):
        folder = storage.as_path(base)
        with storage.cloud_errors(folder):
            if not (is_model(folder) or is_model(folder / "model") or (folder / "ema").is_dir()):
                return system.checkpoint
    try:
        if system.lora is not None:
            find(system.lora)
    except ConfigError:
        return system.lora
    return None


def _read_share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    share = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= share[0] <= share[1]:
        raise ConfigError(f"--share {text} is not possible; write K/N with K from 1 to N, such as 1/4")
    return share


def _check_system(system: System, comparison: Comparison) -> None:
    """Refuse options that cannot be, by the first video, before those of other systems are made."""
    try:
        model = load(system.checkpoint, parts=(), lora=system.lora)
        check_method(_request(system, comparison, comparison.videos[:1], model))
    except ConfigError as error:
        raise ConfigError(f"system {system.name}: {error}") from None


def _request(system: System, comparison: Comparison, videos: list, model: Model) -> Request:
    """The request of videos `(prompt, seed, name)` of a system."""
    options = {"frames": comparison.frames} | dict(system.options) | {"seed": [seed for _, seed, _ in videos]}
    starts = [line.start for line, _, _ in videos if line.start is not None]
    if starts and not system.from_text:  # all have one, or none
        options["start"] = starts
    return make_request(model.config, [line.prompt for line, _, _ in videos], 1, **options)


def _make_system(
    system: System, comparison: Comparison, videos: list, folder: Path, config: MakeConfig, earlier: set
) -> int:
    """The videos `(prompt, seed, name)` of one system; the weights are read once.

    `earlier` are the fingerprints of the weights that made the system's earlier videos.
    """
    paths = [folder / name for _, _, name in videos]
    check_outputs(paths, config.crf)
    model = load(system.checkpoint, parts=(), lora=system.lora)  # the text encoder is at work before the rest is read
    request = _request(system, comparison, videos, model)
    (features,) = encode_prompts(model, request, progress=not config.quiet)
    model = load(system.checkpoint, dtype=DTYPES[request.dtype], lora=system.lora)
    for n, path in enumerate(paths):
        part = slice(n, n + 1)
        recording = Recording(model, request.part(part), features.part(part), [path], config.crf, states=False)
        if n == 0 and earlier - {recording.identity["weights"]}:
            print(f"{system.name}: --earlier has videos of other weights, which will count with these", file=sys.stderr)
        beside = path.with_suffix(".json")
        before = _seconds_before(beside) if recording.record.exists() else 0
        settings = {
            "system": system.name,
            "prompt": videos[n][0].prompt,
            "seed": videos[n][1],
            "checkpoint": system.checkpoint,
            "lora": system.lora,
            "seconds_of_computing": None,  # as it stays if this run is killed
            "made_by": made_by(),
            "settings": recording.identity,
        }
        resume = path.exists() or recording.record.exists()
        recording.is_done(resume)  # refuses before anything is said of what may be another video
        if not (path.exists() and beside.exists()):
            _note(beside, settings)
        started = time.time()
        finished = recording.run(resume=resume, progress=not config.quiet)
        took = time.time() - started
        if before is not None and (not finished or recording.frames_done):  # else it was finished before
            _note(beside, settings | {"seconds_of_computing": round(before + took, 1)})
        if not finished:
            print("interrupted; the same command goes on", file=sys.stderr)
            return 130
        made = f"{recording.frames_done} frames in {took:.0f} s" if recording.frames_done else "is there already"
        print(printable(f"{path}: {made}"))
    return 0


def _note(beside: Path, settings: dict) -> None:
    storage.write(beside, (json.dumps(settings, indent=1) + "\n").encode())


def _seconds_before(beside: Path) -> float | None:
    """Seconds of computing until a video was interrupted; None if that was not noted, because the run was killed."""
    try:
        seconds = json.loads(beside.read_text())["seconds_of_computing"]
        return None if seconds is None else float(seconds)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(arguments: Sequence[str]) -> None:
    """The command line after `pavdm evaluate make`."""
    exit_with(
        lambda: run(read_command(MakeConfig, arguments, "pavdm evaluate make", __doc__, EXAMPLES)),
        interrupted="interrupted; the same command goes on",
    )
