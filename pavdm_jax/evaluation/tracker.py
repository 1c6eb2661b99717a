"""Reads the shapes world back from pixels: what is seen, where, with which exact hue, size, aspect, tilt and texture.

Only pixels and a description of what should be there go in, so real, reconstructed and generated videos are measured
alike. Conventions for coordinates and lengths are those of `pavdm_jax.data.shapes_world`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from pavdm_jax.data.shapes_world import KINDS, RADIUS_PX, Description, Shape, hue_and_saturation
from pavdm_jax.evaluation.outline_fit import Fits, fit_outlines
from pavdm_jax.evaluation.regions import Region, Segmented, segment

OTHER = "other"  # the kind of what has no kind of this world: half a disc, two shapes grown together
MIN_SCORE = 0.96  # rendered shapes reach 0.98 under the blur and noise of a small VAE; half a disc has 0.93
HIDDEN_PENALTY = 0.1  # score lost by an outline that is wholly hidden; of two that fit, the less hidden one wins
SIZE_MARGIN = 1.3  # radii beyond the small and the large one by more than this factor are no shape's
MAX_ASPECT = 1.6  # and its inverse
FRAMES_AT_ONCE = 64  # of a video, to bound memory


# --- one frame --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detection:
    """What is seen at one place of a frame.

    Attributes:
      kind: of KINDS, or `OTHER`.
      color, size: the nearest names.
      position: the centre (x, y) in pixels, of the whole shape even if another one hides a part.
      area: of what is seen, in pixels.
      score: likeness to the best outline, 0..1.
      visible: the part of the outline that nothing else may hide.
      radius: in pixels of a 64-pixel canvas; the geometric mean of half width and half height.
      aspect: width over height before the tilt.
      tilt: degrees, clockwise.
      hue: degrees.
      contrast: of the texture, standard deviation over mean of the brightness.
    """

    kind: str
    color: str
    size: str
    position: tuple[float, float]
    area: float
    score: float
    visible: float
    radius: float
    aspect: float
    tilt: float
    hue: float
    contrast: float


@dataclass(frozen=True)
class Observed:
    """The detections of each frame, best score first; the background's colours at corners and middle `[f, 5, 3]`."""

    detections: list[list[Detection]]
    background: np.ndarray


def observe(video: np.ndarray) -> Observed:
    """All that is seen in uint8 frames `[f, h, w, 3]`."""
    detections: list[list[Detection]] = []
    background = np.zeros((len(video), 5, 3), np.float32)
    for start in range(0, len(video), FRAMES_AT_ONCE):
        frames = [segment(frame) for frame in video[start : start + FRAMES_AT_ONCE]]
        regions = [region for frame in frames for region in frame.regions]
        fits = fit_outlines([r.amount for r in regions], [r.seen for r in regions])
        number = 0
        for at, frame in enumerate(frames):
            background[start + at] = frame.background
            found = [_detection(region, frame, fits, number + i) for i, region in enumerate(frame.regions)]
            detections.append(sorted(found, key=lambda detection: -detection.score))
            number += len(frame.regions)
    return Observed(detections, background)


def _detection(region: Region, frame: Segmented, fits: dict[str, Fits], number: int) -> Detection:
    scores = {kind: fits[kind].likeness[number] - HIDDEN_PENALTY * (1 - fits[kind].visible[number]) for kind in KINDS}
    kind = max(scores, key=lambda name: scores[name])
    x, y, radius, log_aspect, tilt = (float(value) for value in fits[kind].parameters[number])
    radius /= frame.scale
    size = min(RADIUS_PX, key=lambda name: abs(np.log(RADIUS_PX[name] / radius)))
    likeness, aspect = float(fits[kind].likeness[number]), float(np.exp(log_aspect))
    known = (
        likeness >= MIN_SCORE
        and RADIUS_PX["small"] / SIZE_MARGIN <= radius <= RADIUS_PX["large"] * SIZE_MARGIN
        and 1 / MAX_ASPECT <= aspect <= MAX_ASPECT
    )
    return Detection(
        kind=kind if known else OTHER,
        color=region.color,
        size=size,
        position=((region.origin[0] + x) * frame.factor, (region.origin[1] + y) * frame.factor),
        area=float(region.amount.sum()) * frame.factor**2,
        score=likeness,
        visible=float(fits[kind].visible[number]),
        radius=radius,
        aspect=aspect,
        tilt=tilt,
        hue=float(hue_and_saturation(region.rgb)[0]),
        contrast=region.contrast,
    )


# --- a video ----------------------------------------------------------------------------------------------------------


def matches(detection: Detection, expected: Shape | Description) -> bool:
    """Whether a detection is a shape of this world of the kind, colour and size that are expected, as far as named."""
    return detection.kind != OTHER and all(
        getattr(expected, name) in (None, getattr(detection, name)) for name in ("kind", "color", "size")
    )


def follow(detections: list[list[Detection]], expected: Sequence[Shape | Description]) -> list[list[Detection | None]]:
    """The detection of each expected shape in each frame, `[n_expected][f]`; None where none matches.

    As many shapes as possible are found in a frame; of several ways, the one in which they moved least is taken.
    """
    found: list[list[Detection | None]] = [[None] * len(detections) for _ in expected]
    last: list[tuple[float, float] | None] = [None] * len(expected)
    for number, present_now in enumerate(detections):
        if not present_now:
            continue
        cost = np.full((len(expected), len(present_now)), 1e6)
        for row, shape in enumerate(expected):
            for column, detection in enumerate(present_now):
                if matches(detection, shape):
                    place = last[row]
                    cost[row, column] = 0.0 if place is None else np.hypot(*np.subtract(place, detection.position))
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            if cost[row, column] < 1e6:
                found[row][number] = present_now[column]
                last[row] = present_now[column].position
    return found


def centres(followed: list[list[Detection | None]]) -> np.ndarray:
    """Positions `[n, f, 2]` of followed shapes; nan where there is none."""
    return np.array([[(np.nan, np.nan) if d is None else d.position for d in one] for one in followed])
