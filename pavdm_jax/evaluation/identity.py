"""Whether the shapes of a prompt keep their identity through a video of the shapes world, and how they move.

A window of two seconds counts for a shape if something has its kind, colour and size, as far as the prompt names them,
in most of the frames in which it is not hidden. About twelve frames a second are looked at; lengths are pixels of a
64-pixel canvas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.data.shapes_world import (
    SPEED_PX_PER_S,
    Description,
    Scene,
    Shape,
    canvas_size,
    margins,
    parse_caption,
)
from pavdm_jax.evaluation import drift
from pavdm_jax.evaluation.paths import jitter, jumps, measured_speed, path_error
from pavdm_jax.evaluation.tracker import Detection, Observed, centres, follow, observe
from pavdm_jax.evaluation.two_second_clips import clip_length, clip_starts

SAMPLES_PER_SECOND = 12  # frames looked at, where a video has more
HIDDEN_SECONDS = 4.0  # the longest that a shape is taken for hidden, if it comes back
GONE_SECONDS = 1.0  # the same, if it does not
MIN_WHOLE = 0.8  # of an outline that is seen; with less, kind and size may be misread
MIN_DECIDED = 0.25  # of a window's frames: where a shape is hidden in more, the window does not count
STABLE_SECONDS = 1.0  # a majority over so long decides, and events within it are one

UNITS = {
    "present": "share of the named shapes, 0..1",
    "extra": "more shapes than are named",
    "speed_error": "% of the named speed",
    "jitter": "pixels of 64",
    "path_error": "pixels of 64",
    **drift.UNITS,
    "background_drift": "% of its colour, whatever the light",
}
"""The curves, and the unit of each."""


@dataclass(frozen=True)
class IdentityScore:
    """What was found in one video; curves have a value for each two-second window, nan where nothing can be said.

    Attributes:
      prompt: what it should show.
      window_seconds: when each window begins.
      curves: by the names in UNITS, means over the named shapes.
      shapes: the curves of each named shape.
      switches: identity switches: moments at which a shape loses its kind, colour or size, or goes on elsewhere.
      switches_per_minute: the same, a minute.
      jumps_per_minute: those at which a shape goes on elsewhere.
      survival_seconds: when the first switch happens; the video's length if none does.
      survived: whether none does.
    """

    prompt: str
    window_seconds: list[float]
    curves: dict[str, list[float]]
    shapes: list[dict[str, list[float]]]
    switches: int
    switches_per_minute: float
    jumps_per_minute: float
    survival_seconds: float
    survived: bool


def score_video(frames: np.ndarray, prompt: str | Scene, fps: float) -> IdentityScore:
    """Score a video of the shapes world against its prompt alone, or against the scene that it was made for.

    Args:
      frames: uint8 `[f, h, w, 3]`, at least 64 pixels high and wide.
      prompt: in the words of the world's captions.
      fps: of the frames.

    Raises:
      ConfigError: the prompt cannot be read, or the video is too small or too slow.
    """
    expected: Sequence[Shape | Description] = parse_caption(prompt) if isinstance(prompt, str) else prompt.shapes
    every = max(1, round(fps / SAMPLES_PER_SECOND))
    rate = fps / every
    length = clip_length(fps)
    starts = clip_starts(len(frames), length)
    windows = [slice(-(-start // every), -(-(start + length) // every)) for start in starts]
    observed = observe(frames[::every])
    followed = follow(observed.detections, expected)
    tracks = centres(followed)
    states = [
        _states(one, track, observed, rate, frames.shape[1:3]) for one, track in zip(followed, tracks, strict=True)
    ]
    speeds = [SPEED_PX_PER_S[shape.speed or "fast"] for shape in expected]
    shapes = [
        _shape_curves(shape, one, state, rate, frames.shape[1:3], windows)
        for shape, one, state in zip(expected, followed, states, strict=True)
    ]
    jumped = [jumps(track, rate, speed, frames.shape[1:3]) / rate for track, speed in zip(tracks, speeds, strict=True)]
    losses = [_losses(state, rate) for state in states]
    switches = _merged(np.concatenate([*jumped, *losses]))
    seconds = len(frames) / fps
    curves = {name: _mean_over_shapes([curve[name] for curve in shapes]) for name in shapes[0]}
    curves["extra"] = _extra(observed, len(expected), windows)
    curves["background_drift"] = drift.background_drift(observed.background, windows)
    return IdentityScore(
        prompt=prompt if isinstance(prompt, str) else "",
        window_seconds=[start / fps for start in starts],
        curves={name: curves[name] for name in UNITS},
        shapes=shapes,
        switches=len(switches),
        switches_per_minute=60 * len(switches) / seconds,
        jumps_per_minute=60 * len(_merged(np.concatenate(jumped))) / seconds,
        survival_seconds=float(switches[0]) if len(switches) else seconds,
        survived=not len(switches),
    )


# --- identity ---------------------------------------------------------------------------------------------------------


def _states(
    followed: list[Detection | None], track: np.ndarray, observed: Observed, fps: float, canvas: tuple[int, int]
) -> np.ndarray:
    """For each frame 1 where the shape is seen, nan where another one may hide it, and 0 where it is missing.

    What hides a shape has touched it when it was last seen; and where something else is seen whole in its place, it is
    missing.
    """
    seen = np.array([detection is not None for detection in followed])
    state = seen.astype(float)
    known = np.flatnonzero(seen)
    scale = canvas_size(canvas)[2]
    for frame in map(int, np.flatnonzero(~seen)):
        place = _place(frame, known, track, fps)
        if place is None:
            continue
        before = known[known < frame][-1]
        last = followed[before]
        assert last is not None
        now = observed.detections[frame]
        touching = {
            d.color for d in observed.detections[before] if d is not last and _near(d, last.position, last, scale)
        }
        hides = [d for d in now if d.color in touching and _near(d, place, last, scale, reach=0.4)]
        instead = [d for d in now if d.color not in touching and _near(d, place, last, scale, reach=0)]
        if hides and not any(d.visible >= MIN_WHOLE for d in instead):
            state[frame] = np.nan
    return state


def _near(
    other: Detection, place: Sequence[float] | np.ndarray, shape: Detection, scale: float, reach: float = 1.5
) -> bool:
    """Whether a shape at `place` lies by not more than `reach` of its radius outside of another one."""
    distance = float(np.hypot(*np.subtract(place, other.position)))
    return distance < scale * (1.2 * other.radius + reach * shape.radius)


def _place(frame: int, known: np.ndarray, track: np.ndarray, fps: float) -> np.ndarray | None:
    """Where a shape that is not seen should be: between its places before and after, or at the last one for a while."""
    before, after = known[known < frame], known[known > frame]
    if not len(before):
        return None
    if len(after) and after[0] - before[-1] <= HIDDEN_SECONDS * fps:
        part = (frame - before[-1]) / (after[0] - before[-1])
        return (1 - part) * track[before[-1]] + part * track[after[0]]
    return track[before[-1]] if frame - before[-1] <= GONE_SECONDS * fps else None


def _losses(state: np.ndarray, fps: float) -> np.ndarray:
    """Seconds at which a shape is lost: a majority over a second says so, and said otherwise before."""
    half = max(1, round(STABLE_SECONDS * fps / 2))
    there, lost = True, []
    for frame in range(len(state)):
        near = state[max(0, frame - half) : frame + half]
        near = near[np.isfinite(near)]
        if not len(near):
            continue
        now = bool(near.mean() >= 0.5)
        if there and not now:
            lost.append(frame / fps)
        there = now
    return np.array(lost)


def _merged(seconds: np.ndarray) -> np.ndarray:
    """Moments in order, without those within `STABLE_SECONDS` after another."""
    kept: list[float] = []
    for second in np.sort(seconds):
        if not kept or second - kept[-1] > STABLE_SECONDS:
            kept.append(float(second))
    return np.array(kept)


# --- curves -----------------------------------------------------------------------------------------------------------


def _shape_curves(
    shape: Shape | Description,
    followed: list[Detection | None],
    state: np.ndarray,
    fps: float,
    canvas: tuple[int, int],
    windows: list[slice],
) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = {name: [] for name in ("present", "speed_error", "jitter", "path_error")}
    track = centres([followed])[0]
    for window in windows:
        decided = state[window][np.isfinite(state[window])]
        enough = len(decided) >= MIN_DECIDED * len(state[window])
        curves["present"].append(float(decided.mean() > 0.5) if enough else float("nan"))
        error = float("nan")
        if shape.speed is not None:
            error = 100 * abs(measured_speed(track[window], fps, canvas) / SPEED_PX_PER_S[shape.speed] - 1)
        curves["speed_error"].append(error)
        curves["jitter"].append(jitter(track[window], canvas))
        curves["path_error"].append(_path_error(followed[window], track[window], fps, canvas))
    return curves | drift.shape_drift(followed, windows)


def _path_error(followed: Sequence[Detection | None], track: np.ndarray, fps: float, canvas: tuple[int, int]) -> float:
    whole = [d for d in followed if d is not None and d.visible >= drift.MIN_VISIBLE]
    if not whole:
        return float("nan")
    height, width, scale = canvas_size(canvas)
    radius, aspect, tilt = (float(np.median([getattr(d, n) for d in whole])) for n in ("radius", "aspect", "tilt"))
    low, high = scale * margins(whole[0].kind, radius, aspect, tilt)
    return path_error(track, fps, low, np.array([width, height]) - low - high, canvas)


def _mean_over_shapes(curves: list[list[float]]) -> list[float]:
    return [
        float(np.mean(known)) if len(known := [v for v in values if np.isfinite(v)]) else float("nan")
        for values in zip(*curves, strict=True)
    ]


def _extra(observed: Observed, named: int, windows: list[slice]) -> list[float]:
    more = np.array([max(0, len(found) - named) for found in observed.detections], float)
    return [float(more[window].mean()) for window in windows]
