"""What was run to make the videos of a system, as far as it is noted of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pavdm_jax.evaluation.measure import VideoScores

OF_A_VIDEO = ("prompts", "seeds", "start", "image")
"""Settings that tell the videos of a system apart."""


@dataclass(frozen=True)
class Run:
    """What the videos of a system were made with; where they differ, a list has all there is.

    Attributes:
      videos: how many there are.
      known: of how many it is known.
      checkpoints, weights, trained_with: the models, their fingerprints, and the noise levels of their training.
      commits, devices: of this package, and that it ran on.
      seconds_of_computing: of the videos for which it was noted.
      timed: how many these are.
      settings: what all videos have in common, as in their comments.
      differing: names of settings in which videos differ, beside prompt, seed and start clip.
    """

    videos: int
    known: int
    checkpoints: list[str]
    weights: list[str]
    trained_with: list[str]
    commits: list[str]
    devices: list[str]
    seconds_of_computing: float
    timed: int
    settings: dict[str, Any]
    differing: list[str]


def what_was_run(videos: Sequence[VideoScores]) -> dict[str, Run]:
    """By system, in the order in which they appear."""
    found: dict[str, list[dict[str, Any] | None]] = {}
    for video in videos:
        found.setdefault(video.system, []).append(video.run)
    return {system: _run(said) for system, said in found.items()}


def _run(each: list[dict[str, Any] | None]) -> Run:
    known = [said for said in each if said is not None]
    made_by = [said["made_by"] for said in known if isinstance(said.get("made_by"), dict)]
    settings = [{k: v for k, v in said["settings"].items() if k not in OF_A_VIDEO} for said in known]
    seconds = [float(said["seconds_of_computing"]) for said in known if _is_number(said.get("seconds_of_computing"))]
    names = list(dict.fromkeys(name for of_video in settings for name in of_video))
    common = {name for name in names if all(of_video.get(name) == settings[0].get(name) for of_video in settings)}
    return Run(
        videos=len(each),
        known=len(known),
        checkpoints=_distinct(said.get("checkpoint") for said in known),
        weights=_distinct(of_video.get("weights") for of_video in settings),
        trained_with=_distinct(of_video.get("trained_with") for of_video in settings),
        commits=_distinct(made.get("commit") for made in made_by),
        devices=_distinct(made.get("devices") for made in made_by),
        seconds_of_computing=sum(seconds),
        timed=len(seconds),
        settings={name: settings[0][name] for name in names if name in common},
        differing=[name for name in names if name not in common],
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value is not None))
