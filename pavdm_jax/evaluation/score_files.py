"""The JSON file of `pavdm evaluate score`, read back: scores of videos that need not be there any more."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.measure import VideoScores
from pavdm_jax.evaluation.similarity import DISTANCES
from pavdm_jax.evaluation.summary import UNITS, protocols
from pavdm_jax.evaluation.vbench_long import Consistency


def read_scores(named: str) -> list[VideoScores]:
    """The videos of a file of scores.

    Raises:
      ConfigError: it is no such file, or a score in it was measured in another way.
    """
    path = storage.local_path(named, "--earlier")
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
        videos = [_video(video) for video in said["videos"]]
        before = dict(said["protocols"])
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; give one that --output wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path} is not a file of scores as --output writes it: {reason}") from None
    told = {name for video in videos for part in (video.means, video.curves, video.contrasts) for name in part}
    unknown = sorted(told - UNITS.keys())
    if unknown or any(video.similarity.keys() != set(DISTANCES) for video in videos):
        what = f"scores that this version does not have ({', '.join(unknown)})" if unknown else "other similarities"
        raise ConfigError(f"{path} has {what}; score its videos again")
    now = protocols(name for name in UNITS if name != "scenes")
    for name, protocol in before.items():
        if now.get(name, protocol) != protocol:
            raise ConfigError(
                f"{path} has {name} measured in another way than now ('{protocol}', not '{now[name]}'); score its "
                "videos again"
            )
    return videos


def with_earlier(scores: Sequence[VideoScores], earlier: Sequence[VideoScores]) -> list[VideoScores]:
    """The scores of each video once, by its system and the name of its file: the first of them, `scores` first.

    They are in the order of their names within a system, as if all had been scored at once.
    """
    found: dict[tuple[str, str], VideoScores] = {}
    for video in [*scores, *earlier]:
        found.setdefault((video.system, Path(video.path).name), video)
    systems = list(dict.fromkeys(system for system, _ in found))
    return [found[key] for key in sorted(found, key=lambda key: (systems.index(key[0]), key[1]))]


def _video(said: dict[str, Any]) -> VideoScores:
    numbers = {name: _numbers(said[name]) for name in ("means", "contrasts")}
    video = VideoScores(
        path=_of(str, said["path"]),
        system=_of(str, said["system"]),
        prompt=None if said["prompt"] is None else _of(str, said["prompt"]),
        fps=float(said["fps"]),
        frames=_of(int, said["frames"]),
        height=_of(int, said["height"]),
        width=_of(int, said["width"]),
        scenes=_of(int, said["scenes"]),
        clip_seconds=[float(second) for second in said["clip_seconds"]],
        curves={name: [_number(value) for value in curve] for name, curve in said["curves"].items()},
        similarity={int(distance): _number(value) for distance, value in said["similarity"].items()},
        consistencies={name: _consistency(found) for name, found in said["consistencies"].items()},
        run=_run(said.get("run")),
        **numbers,
    )
    if not (video.fps > 0 and video.frames > 0 and video.height > 0 and video.width > 0):
        raise ValueError(f"{video.path} has {video.frames} frames of {video.height}x{video.width} at {video.fps} fps")
    return video


def _consistency(said: dict[str, Any]) -> Consistency:
    found = Consistency(**{field.name: said[field.name] for field in dataclasses.fields(Consistency)})
    return dataclasses.replace(found, in_clip=[_number(value) for value in found.in_clip], score=_number(found.score))


def _run(said: Any) -> dict[str, Any] | None:
    if said is not None:
        _of(dict, _of(dict, said)["settings"])
    return said


def _numbers(said: dict[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in said.items()}


def _number(value: Any) -> float:
    """Back from `as_json`, in which null stands for what is missing."""
    return math.nan if value is None else float(value)


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of kind {kind.__name__}")
    return value
