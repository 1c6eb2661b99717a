"""Fits tilted ellipses, rectangles and triangles to the soft masks of regions, by least squares, many at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.data.shapes_world import KINDS, signed_distance, turned

STEPS = (
    (3.0, 5),
    (1.5, 4),
)  # width in pixels of the model's soft outline, and steps of Levenberg and Marquardt with it
WIDTHS = (1.0, 1.75, 2.5)  # outlines of rendered and of blurred shapes; the best one counts
ASPECT_PRIOR = 3.0  # weight of log(aspect) beside pixels: decides only where much is hidden
AREA = {"circle": np.pi, "square": 3.14, "triangle": 1.8}  # of a shape of radius 1
SYMMETRY = {"circle": 2, "square": 4, "triangle": 3}  # turns by a whole circle over this number change nothing
CENTROID = {"circle": 0.0, "square": 0.0, "triangle": 0.3}  # below the centre, in radii
CHANGES = (0.2, 0.2, 0.2, 0.03, 2.0)  # of the parameters, for slopes
BATCH = 128  # regions fitted together


@dataclass(frozen=True)
class Fits:
    """The best outline of each of n regions, of one kind.

    Attributes:
      parameters: `[n, 5]`: x and y of the centre in the crop, radius, log of the aspect, tilt in degrees.
      likeness: correlation of the mask with the outline's where it is seen `[n]`, 0..1.
      visible: the part of the outline's area that is seen `[n]`.
    """

    parameters: np.ndarray
    likeness: np.ndarray
    visible: np.ndarray


def fit_outlines(amounts: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> dict[str, Fits]:
    """Fit each kind to each of n masks `[side, side]`, 0..1, where they are seen."""
    if not amounts:
        return {kind: Fits(np.zeros((0, 5)), np.zeros(0), np.zeros(0)) for kind in KINDS}
    parts: dict[str, list[Fits]] = {kind: [] for kind in KINDS}
    for start in range(0, len(amounts), BATCH):
        mask = np.stack(amounts[start : start + BATCH]).astype(np.float32)
        weight = np.stack(seen[start : start + BATCH]).astype(np.float32)
        for kind in KINDS:
            parts[kind].append(_fit(kind, mask, weight))
    return {
        kind: Fits(*(np.concatenate([getattr(fit, name) for fit in fits]) for name in Fits.__dataclass_fields__))
        for kind, fits in parts.items()
    }


def _fit(kind: str, mask: np.ndarray, weight: np.ndarray) -> Fits:
    parameters = _first_guess(kind, mask * weight)
    for width, steps in STEPS:
        parameters = _improve(kind, parameters, mask, weight, width, steps)
    best, likeness = np.full(len(mask), -1.0), np.zeros(len(mask))
    visible = np.zeros(len(mask))
    squares = np.sum(weight * mask**2, axis=(1, 2))
    for width in WIDTHS:
        model = _model(kind, parameters, mask.shape[1], width)
        own = np.sum(weight * model**2, axis=(1, 2))
        likeness = np.sum(weight * mask * model, axis=(1, 2)) / np.sqrt(np.maximum(squares * own, 1e-6))
        visible = np.sum(weight * model, axis=(1, 2)) / np.maximum(np.sum(model, axis=(1, 2)), 1e-6)
        best = np.maximum(best, likeness)
    return Fits(parameters, best, visible)


def _first_guess(kind: str, mask: np.ndarray) -> np.ndarray:
    """Centre of mass, radius by the area, and the tilt by the phase of the angular moment of the kind's symmetry."""
    side = mask.shape[1]
    at = np.arange(side, dtype=np.float32) + 0.5
    area = np.maximum(np.sum(mask, axis=(1, 2)), 1.0)
    x, y = np.sum(mask * at, axis=(1, 2)) / area, np.sum(mask * at[:, None], axis=(1, 2)) / area
    radius = np.sqrt(area / AREA[kind])
    tilt = np.zeros(len(mask))
    if kind != "circle":
        order = SYMMETRY[kind]
        offset = (at - x[:, None])[:, None, :] + 1j * (at - y[:, None])[:, :, None]
        # A square's corners lie at 45 degrees from its axes, a triangle's tip at -90.
        corner = 45.0 if kind == "square" else -90.0
        phase = np.rad2deg(np.angle(np.sum(mask * offset**order, axis=(1, 2)))) / order
        turn = 360 / order
        tilt = np.mod(phase - corner + turn / 2, turn) - turn / 2
    down = CENTROID[kind] * radius
    x, y = x + down * np.sin(np.deg2rad(tilt)), y - down * np.cos(np.deg2rad(tilt))
    return np.stack([x, y, radius, np.zeros(len(mask)), tilt], axis=1)


def _model(kind: str, parameters: np.ndarray, side: int, width: float) -> np.ndarray:
    """Soft masks `[n, side, side]` of outlines."""
    x, y, radius, log_aspect, tilt = (p[:, None, None] for p in parameters.astype(np.float32).T)
    at = np.arange(side, dtype=np.float32) + 0.5
    u, v = turned(at[None, None, :] - x, at[None, :, None] - y, tilt)
    return np.clip(0.5 - signed_distance(kind, u, v, radius, np.exp(log_aspect)) / np.float32(width), 0, 1)


def _improve(
    kind: str, parameters: np.ndarray, mask: np.ndarray, weight: np.ndarray, width: float, steps: int
) -> np.ndarray:
    """Steps of Levenberg and Marquardt on all regions at once; a step that does not help is not taken."""
    damping = np.full(len(mask), 1e-2)

    def residuals(at: np.ndarray) -> np.ndarray:
        pixels: np.ndarray = (weight * (_model(kind, at, mask.shape[1], width) - mask)).reshape(len(mask), -1)
        return np.concatenate([pixels, np.float32(ASPECT_PRIOR) * at[:, 3:4].astype(np.float32)], axis=1)

    rest = residuals(parameters)
    for _ in range(steps):
        slopes = np.stack(
            [(residuals(parameters + change) - rest) / np.float32(change.sum()) for change in np.diag(CHANGES)], axis=1
        )
        curvature = slopes @ slopes.transpose(0, 2, 1)
        ridge = damping[:, None] * np.diagonal(curvature, axis1=1, axis2=2) + 1e-4
        curvature = curvature + ridge[:, :, None] * np.eye(5)
        step = np.linalg.solve(curvature, -(slopes @ rest[:, :, None]))[:, :, 0]
        step = np.clip(step, (-3, -3, -2, -0.2, -15), (3, 3, 2, 0.2, 15))
        tried = parameters + step
        tried[:, 2] = np.clip(tried[:, 2], 2.0, mask.shape[1] / 2)
        tried[:, 3] = np.clip(tried[:, 3], -1.0, 1.0)
        new = residuals(tried)
        better = np.sum(new**2, axis=1) < np.sum(rest**2, axis=1)
        parameters = np.where(better[:, None], tried, parameters)
        rest = np.where(better[:, None], new, rest)
        damping = np.where(better, damping / 5, damping * 5)
    return parameters
