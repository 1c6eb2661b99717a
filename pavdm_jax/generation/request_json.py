"""A request as JSON values: what a video's comment and an unfinished run's record say."""

import dataclasses
import json

from pavdm_jax.checkpoints.fingerprint import fingerprint
from pavdm_jax.generation.request import Request

UNSEEN = ("segment", "mesh", "config", "start", "image", "clip", "fixed_length", "single")
"""Fields that do not decide what the video is, or that are described otherwise."""


def describe(request: Request) -> dict:
    """All that decides what the videos of a request are, beside the weights."""
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    described = {name: value for name, value in fields.items() if name not in UNSEEN}
    text = dataclasses.asdict(request.config.text)
    described |= {name: text[name] for name in ("aesthetic_score", "motion_score", "camera_motion")}
    if request.method == "progressive":
        described["window"] = dataclasses.asdict(request.config.window) | {"fixed_length": request.fixed_length}
    else:
        described["clip"] = dataclasses.asdict(request.clip)
    for name in ("start", "image"):
        frames = fields[name]
        described[name] = None if frames is None else fingerprint(frames.shape, frames.tobytes())
    described["start_frames"] = request.given_frames
    return json.loads(json.dumps(described))
