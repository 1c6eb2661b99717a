"""A request as JSON values: what a video's comment and an unfinished run's record say; and back."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pavdm_jax.checkpoints.config_json import check_kinds, from_json
from pavdm_jax.checkpoints.fingerprint import fingerprint
from pavdm_jax.config import ClipConfig, WindowConfig
from pavdm_jax.distributed.mesh import MeshConfig, generation_mesh
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.generation.options import Options
from pavdm_jax.generation.request import Request, has_two_halves, window_of_clips, with_noise_shift
from pavdm_jax.wan_config import WanModelConfig

SCORES = ("aesthetic_score", "motion_score", "camera_motion")

UNSEEN = ("segment", "mesh", "config", "start", "image", "clip", "fixed_length", "single")
"""Fields that do not decide what the video is, or that are described otherwise."""


def describe(request: Request) -> dict:
    """All that decides what the videos of a request are, beside the weights."""
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    described = {name: value for name, value in fields.items() if name not in UNSEEN}
    if isinstance(request.config, WanModelConfig):
        described["noise_shift"] = request.config.noise_shift
    text = dataclasses.asdict(request.config.text)
    described |= {name: text[name] for name in SCORES}
    if request.method == "progressive":
        described["window"] = dataclasses.asdict(request.config.window) | {"fixed_length": request.fixed_length}
    else:
        described["clip"] = dataclasses.asdict(request.clip)
    for name in ("start", "image"):
        frames = fields[name]
        described[name] = None if frames is None else fingerprint(frames.shape, frames.tobytes())
    described["start_frames"] = request.given_frames
    return json.loads(json.dumps(described))


def read_request(
    said: Mapping[str, Any], config: AnyModelConfig, read_frames: Callable[[int], np.ndarray], mesh: str = Options.mesh
) -> Request:
    """The request of a single video, from what `describe` said of it.

    Args:
      said: see `describe`; more than that is not looked at.
      config: of the model.
      read_frames: number → so many first frames of the video, uint8 [f, h, w, 3]; they stand for its start clip or
        image.
      mesh: see `Options`.

    Raises:
      ConfigError: that is no description of a request of this version.
    """
    try:
        window, clip, fixed_length = config.window, ClipConfig(), False
        if said["method"] == "progressive":
            values = dict(said["window"])
            fixed_length = values.pop("fixed_length")
            window = from_json(WindowConfig, json.dumps(values))
        else:
            window = window_of_clips(window)
            clip = from_json(ClipConfig, json.dumps(said["clip"]))
        if "noise_shift" in said:
            config = with_noise_shift(config, float(said["noise_shift"]))
        text = dataclasses.replace(config.text, **{name: said[name] for name in SCORES})
        plain = ("frames", "height", "width", "fps", "guidance_scale", "method", "dtype")
        fields: dict[str, Any] = {name: said[name] for name in plain} | {
            "config": dataclasses.replace(config, window=window, text=text),
            "prompts": tuple(
                tuple((float(second), str(prompt)) for second, prompt in line) for line in said["prompts"]
            ),
            "single": True,
            "told_size": tuple(said["told_size"]),
            "negative_prompts": said["negative_prompts"] and tuple(said["negative_prompts"]),
            "seeds": tuple(said["seeds"]),
            "start": read_frames(said["start_frames"])[None] if said["start"] else None,
            "image": read_frames(1)[None] if said["image"] else None,
            "fixed_length": fixed_length,
            "clip": clip,
            "segment": Options.segment,
            "mesh": MeshConfig(),
        }
        request = Request(**fields)
        check_kinds(request, Request, "")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"the settings in its comment are not of this version ({first_line(error)})") from None
    halves = has_two_halves(request.guidance_scale, window)
    return dataclasses.replace(request, mesh=generation_mesh(mesh, videos=1, guided=halves))
