"""The scores of single videos as means with intervals, a table and a JSON file."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pavdm_jax.evaluation.bootstrap import FEWEST, RESAMPLES, Estimate, curve_with_intervals, mean_with_interval
from pavdm_jax.evaluation.contrast import SHARE
from pavdm_jax.evaluation.measure import CLIP_METRICS, VideoScores
from pavdm_jax.evaluation.scenes import scenes_protocol
from pavdm_jax.evaluation.similarity import DISTANCES, EVERY
from pavdm_jax.evaluation.truth import WHOLE_VIDEO, truth_protocols, truth_units
from pavdm_jax.evaluation.two_second_clips import CLIP_SECONDS
from pavdm_jax.evaluation.vbench_long import CONSISTENCIES, dimension_protocols

UNITS = (
    {"scenes": "cuts + 1"}
    | {metric.name: metric.unit for metric in CLIP_METRICS}
    | dict.fromkeys(dimension_protocols(), "0..1")
    | truth_units()
)
"""Every score, and its unit."""

CURVES = tuple(name for name in UNITS if name not in {"scenes", *CONSISTENCIES, *WHOLE_VIDEO})
"""Those of each two-second clip; the others are of a whole video."""


@dataclasses.dataclass(frozen=True)
class SystemSummary:
    """What the videos of one system have in common: means over videos, with intervals.

    Attributes:
      videos: how many were scored.
      scenes: cuts plus one.
      means, contrasts: by metric.
      similarity: by distance in frames.
      curves: by metric, a mean for each two-second clip.
      clip_seconds: when the clips begin, by the longest video.
    """

    videos: int
    scenes: Estimate
    means: dict[str, Estimate]
    contrasts: dict[str, Estimate]
    similarity: dict[int, Estimate]
    curves: dict[str, list[Estimate]]
    clip_seconds: list[float]


def summarise(scores: Sequence[VideoScores]) -> dict[str, SystemSummary]:
    """By system, in the order in which they appear."""
    systems = {score.system: [other for other in scores if other.system == score.system] for score in scores}
    return {name: _summary(videos) for name, videos in systems.items()}


def _summary(videos: list[VideoScores]) -> SystemSummary:
    def over_videos(score: Callable[[VideoScores], dict[Any, float]]) -> dict[Any, Estimate]:
        found = [score(video) for video in videos]
        names = dict.fromkeys(name for scores in found for name in scores)
        return {name: mean_with_interval([scores.get(name, math.nan) for scores in found]) for name in names}

    names = dict.fromkeys(name for video in videos for name in video.curves)
    return SystemSummary(
        videos=len(videos),
        scenes=mean_with_interval([video.scenes for video in videos]),
        means=over_videos(lambda video: video.means),
        contrasts=over_videos(lambda video: video.contrasts),
        similarity=over_videos(lambda video: video.similarity),
        curves={name: curve_with_intervals([video.curves.get(name, []) for video in videos]) for name in names},
        clip_seconds=max((video.clip_seconds for video in videos), key=len),
    )


def protocols(names: Iterable[str]) -> dict[str, str]:
    """How each of the named scores is measured, its unit, and what all have in common: written beside the numbers."""
    of_scores = {metric.name: f"{metric.protocol} [{metric.unit}]" for metric in CLIP_METRICS}
    of_scores |= dimension_protocols() | truth_protocols()
    return {
        "scenes": scenes_protocol(),
        **{name: of_scores[name] for name in names},
        "contrasts": f"mean over the last {SHARE:.0%} of a curve minus mean over the first {SHARE:.0%}, of the clips "
        "that have a score",
        "similarity": f"SSIM of luma, longer side reduced to 256 px, by distance in frames; of every {EVERY}th frame "
        "with those before it",
        "curves": f"a score for each clip of {CLIP_SECONDS} s, cut as by VBench-Long: int(fps) * {CLIP_SECONDS} "
        "frames, a short last one completed by frames before it; clips are not compressed again",
        "intervals": f"95 %, expanded percentile bootstrap over videos (Hesterberg 2015), {RESAMPLES} resamples; "
        f"none of fewer than {FEWEST} videos",
    }


def as_json(value: Any) -> Any:
    """Values that JSON has: dataclasses as objects, what is missing (nan) as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def score_names(summaries: dict[str, SystemSummary]) -> list[str]:
    """The scores that at least one system has, in their order."""
    return list(dict.fromkeys(name for summary in summaries.values() for name in summary.means))


def table(summaries: dict[str, SystemSummary]) -> str:
    """The means with their intervals in plain text: a line a score, a column a system."""
    rows = [("", [f"{name} ({summary.videos})" for name, summary in summaries.items()])]
    rows.append(("scenes", [show_estimate(summary.scenes) for summary in summaries.values()]))
    for name in score_names(summaries):
        rows.append((name, [show_estimate(summary.means.get(name)) for summary in summaries.values()]))
        changes = [show_estimate(summary.contrasts.get(name), sign="+") for summary in summaries.values()]
        if any(name in summary.contrasts for summary in summaries.values()):
            rows.append(("  end - start", changes))
    for distance in DISTANCES:
        row = [show_estimate(summary.similarity[distance]) for summary in summaries.values()]
        rows.append((f"similarity at {distance} frames", row))
    return "\n".join(_aligned(rows))


def show_estimate(estimate: Estimate | None, sign: str = "") -> str:
    """The mean with its interval, as far as there are any."""
    if estimate is None or estimate.mean is None:
        return "-"
    mean = f"{estimate.mean:{sign}.4g}"
    return mean if estimate.low is None else f"{mean} [{estimate.low:{sign}.4g}, {estimate.high:{sign}.4g}]"


def _aligned(rows: list[tuple[str, list[str]]]) -> list[str]:
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[column]) for _, cells in rows) for column in range(len(rows[0][1]))]
    return [
        "  ".join([name.ljust(first), *(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))]).rstrip()
        for name, cells in rows
    ]
