"""The tracker's own error: what it reads from rendered frames whose truth is known, by condition, kind and size."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pavdm_jax.data.shapes_world import (
    COLORS,
    HIDDEN,
    KINDS,
    RADIUS_PX,
    Scene,
    Shape,
    World,
    exact_color,
    hue_and_saturation,
    positions,
    render,
    sample_scene,
    visibility,
)
from pavdm_jax.evaluation.tracker import Detection, matches, observe


@dataclass(frozen=True)
class Condition:
    """What is done to a rendered frame: Gaussian blur (standard deviation in pixels), then noise (in 0..255); or the
    part of the shape that is seen, because another one lies over it."""

    blur: float = 0.0
    noise: float = 0.0
    visible: tuple[float, float] = (1.0, 1.0)


CONDITIONS = {
    "clean": Condition(),
    "noise 8": Condition(noise=8),
    "blur 0.8": Condition(blur=0.8),
    "blur 0.8, noise 8": Condition(blur=0.8, noise=8),
    "blur 1.2, noise 8": Condition(blur=1.2, noise=8),
    "70 to 90 % visible": Condition(visible=(0.7, 0.9)),
    "50 to 70 % visible": Condition(visible=(0.5, 0.7)),
}
"""Blur of 0.8 and noise of 8 are about the 28 dB of a small VAE's reconstruction."""


@dataclass(frozen=True)
class TrackerError:
    """Of shapes of one kind and size under one condition.

    Attributes:
      samples: frames, each with one such shape; textures, hues and the rest are drawn from the world.
      right: the share in which something with its colour, kind and size is seen within 3 pixels.
      invented: how many more things are seen than there are, a frame.
      position_px, radius_percent, hue_degrees: medians of the absolute errors where it is right; hue is nan for white.
      elongation_percent: median length of the error of the log aspect, as a vector with twice the tilt's direction.
      radius_bias_percent: median of the signed error.
    """

    condition: str
    kind: str
    size: str
    samples: int
    right: float
    invented: float
    position_px: float
    radius_percent: float
    radius_bias_percent: float
    elongation_percent: float
    hue_degrees: float


def tracker_errors(
    samples: int = 50, seed: int = 0, world: World = HIDDEN, conditions: tuple[str, ...] = tuple(CONDITIONS)
) -> list[TrackerError]:
    """The tracker's error on `samples` frames of 64 pixels for each condition, kind and size."""
    return [
        _error(name, kind, size, samples, np.random.default_rng([seed, number]), world)
        for name in conditions
        for number, (kind, size) in enumerate((kind, size) for kind in KINDS for size in RADIUS_PX)
    ]


def degrade(video: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """uint8 frames `[f, h, w, 3]`, blurred and with noise."""
    blurred = ndimage.gaussian_filter(video.astype(np.float64), (0, condition.blur, condition.blur, 0))
    return np.clip(np.rint(blurred + rng.normal(0, condition.noise, video.shape)), 0, 255).astype(np.uint8)


def elongation(aspect: float, tilt: float) -> np.ndarray:
    """Log aspect and direction as a vector `[2]`, the same for all ways to write one elongation."""
    return np.log(aspect) * np.array([np.cos(2 * np.deg2rad(tilt)), np.sin(2 * np.deg2rad(tilt))])


def _error(name: str, kind: str, size: str, samples: int, rng: np.random.Generator, world: World) -> TrackerError:
    condition = CONDITIONS[name]
    scenes = [_scene(kind, size, condition, rng, world) for _ in range(samples)]
    video = np.concatenate([render(scene, 1) for scene in scenes])
    seen = observe(degrade(video, condition, rng)).detections
    errors, invented = [], 0
    for scene, found in zip(scenes, seen, strict=True):
        invented += max(0, len(found) - len(scene.shapes))
        place = positions(scene, np.zeros(1))[0, 0]
        near = [d for d in found if matches(d, scene.shapes[0]) and np.hypot(*(place - d.position)) < 3]
        if near:
            errors.append(_errors(scene.shapes[0], place, near[0]))
    table = np.array(errors).reshape(-1, 4)
    distance, radius, stretch, hue = table.T if len(table) else np.full((4, 1), np.nan)
    return TrackerError(
        name,
        kind,
        size,
        samples,
        right=len(errors) / samples,
        invented=invented / samples,
        position_px=float(np.median(distance)),
        radius_percent=float(100 * np.median(np.abs(radius))),
        radius_bias_percent=float(100 * np.median(radius)),
        elongation_percent=float(100 * np.median(stretch)),
        hue_degrees=float(np.nanmedian(hue)) if np.isfinite(hue).any() else float("nan"),
    )


def _errors(shape: Shape, place: np.ndarray, found: Detection) -> tuple[float, float, float, float]:
    true_hue = float(hue_and_saturation(np.array(exact_color(shape)))[0])
    hue = abs((found.hue - true_hue + 180) % 360 - 180) if shape.color != "white" else np.nan
    stretch = elongation(found.aspect, found.tilt) - elongation(shape.look.aspect, shape.look.tilt)
    return (
        float(np.hypot(*(place - found.position))),
        float(np.log(found.radius / shape.radius)),
        float(np.hypot(*stretch)),
        float(hue),
    )


def _scene(kind: str, size: str, condition: Condition, rng: np.random.Generator, world: World) -> Scene:
    """A scene with the shape first, and over it another one where a part is to be hidden."""
    world = dataclasses.replace(world, meetings=0.0)
    while True:
        drawn = sample_scene(rng, world=world)
        places = rng.random((2, 2))
        colors = rng.permutation(list(COLORS))
        looks = [sample_scene(rng, world=world).shapes[0] for _ in range(2)]
        shape, other = (
            Shape(k, str(color), s, "slow", "up", (float(x), float(y)), one.look)
            for k, s, color, (x, y), one in zip(
                (kind, looks[1].kind), (size, looks[1].size), colors, places, looks, strict=False
            )
        )
        hidden = condition.visible[0] < 1
        scene = Scene((shape, other) if hidden else (shape,), drawn.background, drawn.light)
        low, high = condition.visible
        if not hidden or low <= visibility(scene, np.zeros(1))[0, 0] <= high:
            return scene
