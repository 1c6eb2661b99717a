"""Videos of the shapes world against their prompts: scores beside those of videos of any origin."""

import json
from pathlib import Path

from pavdm_jax.data.shapes_world import named_world, parse_caption
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.identity import UNITS, score_video
from pavdm_jax.evaluation.tracker_error import TrackerError, tracker_errors
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import read_comment

_SWITCH = "moment at which a shape loses its kind, colour or size for a second, or goes on elsewhere"

WHOLE_VIDEO = {
    "survival_seconds": ("s", f"until the first identity switch, the video's length if there is none; {_SWITCH}"),
    "survived": ("share of videos, 0..1", "without an identity switch"),
    "switches_per_minute": ("a minute", f"identity switches: {_SWITCH}"),
    "jumps_per_minute": ("a minute", "identity switches at which a shape goes on elsewhere"),
}
"""Scores of a whole video: unit, and how each is measured."""

_DRIFT = "from the video's own first clip, where it is 0; frames in which the shape is seen nearly whole"

CURVES = {
    "present": "named shapes that have their kind (any of the world's where none is named), colour and size in most "
    "frames in which nothing hides them",
    "extra": "things seen beyond as many as are named, mean over frames; parts and mixtures of shapes count",
    "speed_error": "measured against the class of speed that is named; nothing where none is",
    "jitter": "deviation of a shape's centre from straight motion, from the median second difference",
    "path_error": "root mean square distance of a shape's centre from the nearest path of constant speed with bounces",
    "hue_drift": f"of the exact hue {_DRIFT}",
    "size_drift": f"of the exact radius {_DRIFT}",
    "elongation_drift": f"of width over height, with its direction, {_DRIFT}",
    "tilt_drift": f"of the angle {_DRIFT}",
    "texture_drift": f"of the texture's contrast {_DRIFT}",
    "background_drift": "of the background's colours from the video's own first clip, where it is 0",
}
"""Scores of each clip, and how each is measured; the units are in `UNITS`."""

OF_ALL = ("extra", "background_drift")
"""Curves of the whole picture; the others are means over the named shapes."""

TRACKER_SAMPLES = 20
TRACKER_CONDITIONS = ("clean", "blur 0.8, noise 8", "50 to 70 % visible")


def known_prompt(path: Path) -> str | None:
    """What a video should show, by the JSON file that `pavdm evaluate make` writes beside it, or by its own comment.

    None where neither says so, or where the prompt changes on the way.
    """
    for read in (lambda: path.with_suffix(".json").read_text(encoding="utf-8-sig"), lambda: read_comment(path) or ""):
        try:
            said = json.loads(read())
        except (OSError, ValueError, RecursionError):
            continue
        match said:
            case {"redone": list(changes)} if any(
                isinstance(change, dict) and change.get("prompt") for change in changes
            ):
                return None
            case {"prompt": str(prompt)} | {"prompts": [[[_, str(prompt)]]]}:
                return prompt
    return None


def check_prompt(path: Path, prompt: str | None) -> str:
    """The prompt of a video that is to be scored against it.

    Raises:
      ConfigError: it is not known, or is none of the shapes world.
    """
    if prompt is None:
        raise ConfigError(
            f"{path} does not say its prompt, against which --world scores it; write a file "
            f'{path.with_suffix(".json").name} beside it, such as {{"prompt": "a red circle moves left"}}'
        )
    try:
        parse_caption(prompt)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return prompt


def truth_scores(path: str, prompt: str, fps: float) -> tuple[dict[str, list[float]], dict[str, float]]:
    """By name, the curves of a video file and the scores of it as a whole.

    Raises:
      ConfigError: the video cannot be read, or is too small or too slow.
    """
    frames = read_video(path)
    try:
        found = score_video(frames, prompt, fps)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return found.curves, {name: float(getattr(found, name)) for name in WHOLE_VIDEO}


def truth_protocols() -> dict[str, str]:
    """How each of these scores is measured, with its unit."""
    return {name: f"{how} [{unit}]" for name, (unit, how) in WHOLE_VIDEO.items()} | {
        name: f"{how}; {'' if name in OF_ALL else 'mean over shapes, '}about 12 frames a second [{UNITS[name]}]"
        for name, how in CURVES.items()
    }


def truth_units() -> dict[str, str]:
    """The unit of each of these scores."""
    return {name: unit for name, (unit, _) in WHOLE_VIDEO.items()} | UNITS


def reported_errors(world: str) -> list[TrackerError]:
    """The tracker's own error on renderings of a world, so many for each condition, kind and size."""
    return tracker_errors(TRACKER_SAMPLES, world=named_world(world), conditions=TRACKER_CONDITIONS)
