"""Everything that is measured on one video of any origin, in one pass over its frames."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.appearance import brightness, saturation, sharpness
from pavdm_jax.evaluation.contrast import start_end_contrast
from pavdm_jax.evaluation.features import FeatureCollector
from pavdm_jax.evaluation.motion import motion_amplitude
from pavdm_jax.evaluation.networks import Network
from pavdm_jax.evaluation.run_settings import read_settings
from pavdm_jax.evaluation.scenes import count_scenes
from pavdm_jax.evaluation.similarity import SimilarityOverTime
from pavdm_jax.evaluation.truth import check_prompt, known_prompt, truth_scores
from pavdm_jax.evaluation.two_second_clips import clip_length, clip_starts, two_second_clips
from pavdm_jax.evaluation.vbench_long import Consistency, MappingTable, dimension_curves, video_consistencies
from pavdm_jax.evaluation.videos import VideoFile
from pavdm_jax.video.clips import frame_rate, iterate_video, probe


@dataclass(frozen=True)
class ClipMetric:
    """A score of a two-second clip, uint8 `[f, h, w, 3]` at so many frames a second, hence a curve over a video."""

    name: str
    unit: str
    protocol: str
    score: Callable[[np.ndarray, float], float]


CLIP_METRICS = (
    ClipMetric(
        "motion_amplitude",
        "% of shorter side / s",
        "OpenCV, Farneback optical flow (5 levels, window 15) between frames round(fps / 8) apart, longer side reduced "
        "to 256 px; mean of the largest 5 % of magnitudes, median over the pairs of a clip",
        motion_amplitude,
    ),
    ClipMetric("brightness", "0..1", "mean luma (BT.601), mean over frames", lambda clip, _: brightness(clip).mean()),
    ClipMetric("saturation", "0..1", "mean HSV saturation, mean over frames", lambda clip, _: saturation(clip).mean()),
    ClipMetric(
        "sharpness",
        "squared grey levels",
        "variance of the Laplacian of 8-bit luma at the size of the file, mean over frames",
        lambda clip, _: sharpness(clip).mean(),
    ),
)


@dataclass(frozen=True)
class VideoScores:
    """What was measured on a video.

    Attributes:
      path: the file, as it was named.
      system: see `VideoFile`.
      prompt: what it should show, if that is known (`truth.known_prompt`).
      fps, frames, height, width: of the video.
      scenes: cuts plus one.
      clip_seconds: when each two-second clip begins.
      curves: by metric, a score for each clip.
      means: by metric, over the clips, or of the whole video; those of VBench-Long's consistencies also count what lies
        between clips.
      contrasts: by metric that has a curve, the last 15 % minus the first.
      similarity: by distance in frames.
      consistencies: by name, what a consistency of VBench-Long is made of.
      run: what made it, if that is known (`run_settings.read_settings`).
    """

    path: str
    system: str
    prompt: str | None
    fps: float
    frames: int
    height: int
    width: int
    scenes: int
    clip_seconds: list[float]
    curves: dict[str, list[float]]
    means: dict[str, float]
    contrasts: dict[str, float]
    similarity: dict[int, float]
    consistencies: dict[str, Consistency]
    run: dict[str, Any] | None = None


def measure_video(
    video: VideoFile,
    networks: Sequence[Network] = (),
    tables: Mapping[str, MappingTable] | None = None,
    shapes_world: bool = False,
) -> tuple[VideoScores, dict[str, np.ndarray]]:
    """Score a video file.

    Args:
      video: the file.
      networks: that look at it; what the file beside it (`feature_files`) says is used without them.
      tables: of VBench-Long's consistencies, by name.
      shapes_world: whether the video is of the shapes world and scored against its prompt, too.

    Returns:
      The scores, and by network its output for each clip.

    Raises:
      ConfigError: the video cannot be read, or what is beside it, or it has no prompt of the shapes world; one line
        that names it.
    """
    path, prompt = str(video.path), known_prompt(video.path)
    if shapes_world:
        prompt = check_prompt(video.path, prompt)
    probe(path)  # a damaged file, or one that is cut off, is found before the long work
    fps = frame_rate(path)
    try:
        length = clip_length(fps)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    similarity, features = SimilarityOverTime(), FeatureCollector(video.path, networks)
    curves: dict[str, list[float]] = {metric.name: [] for metric in CLIP_METRICS}
    height = width = 0
    for clip in two_second_clips(_frames(path, similarity), length):
        height, width = clip.shape[1:3]
        features.add(clip, fps)
        for metric in CLIP_METRICS:
            curves[metric.name].append(float(metric.score(clip, fps)))
    if similarity.count < 2:
        raise ConfigError(f"{path} has only one frame; a video of at least 2 can be scored")
    starts = clip_starts(similarity.count, length)
    outputs = features.finish(len(starts))
    curves |= dimension_curves(outputs, min(height, width))
    consistencies = video_consistencies(outputs, tables or {})
    of_truth, of_whole = truth_scores(path, prompt, fps) if shapes_world and prompt is not None else ({}, {})
    curves |= of_truth
    scores = VideoScores(
        path=path,
        system=video.system,
        prompt=prompt,
        fps=fps,
        frames=similarity.count,
        height=height,
        width=width,
        scenes=count_scenes(path),
        clip_seconds=[start / fps for start in starts],
        curves=curves,
        means={name: mean_of_known(curve) for name, curve in curves.items()}
        | {name: found.score for name, found in consistencies.items()}
        | of_whole,
        contrasts={name: start_end_contrast(curve) for name, curve in curves.items()},
        similarity=similarity.means(),
        consistencies=consistencies,
        run=read_settings(video.path),
    )
    return scores, outputs


def _frames(path: str, similarity: SimilarityOverTime) -> Iterator[np.ndarray]:
    """The frames of a file, one by one, each of which `similarity` sees, too."""
    size = None
    for frame in (frame for group in iterate_video(path) for frame in group):
        if size is not None and frame.shape != size:
            raise ConfigError(f"{path} changes its size on the way; convert it to one size")
        size = frame.shape
        similarity.add(frame)
        yield frame


def mean_of_known(curve: Sequence[float]) -> float:
    """The mean of a curve without its missing points; nan if there is none."""
    known = [value for value in curve if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
