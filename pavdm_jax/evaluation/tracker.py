"""Reads the shapes world back from pixels: what is seen, where, how fast, and whether the scene was cut.

Only pixels and a description of what should be there go in, so real, reconstructed and generated videos are measured
alike. Conventions for coordinates and lengths are those of `pavdm_jax.data.shapes_world`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

from pavdm_jax.data.shapes_world import (
    BACKGROUND,
    COLORS,
    KINDS,
    RADIUS_PX,
    Canvas,
    Description,
    Shape,
    canvas_size,
    signed_distance,
)
from pavdm_jax.errors import ConfigError

MIN_COVERAGE = 0.5  # of a pixel by a shape, for the pixel to count as the shape's
MIN_AREA_PX = 20.0  # at 64 pixels; smaller patches of a colour are specks (the smallest shape has 76)
MIN_SCORE = 0.75  # of the best template; lower ones are not a shape of this world
HIDDEN_PENALTY = (
    0.1  # score lost by a template that is wholly hidden; of two that fit what is seen, the one less hidden wins
)
TEMPLATE_RADII_PX = np.geomspace(0.75 * RADIUS_PX["small"], 1.25 * RADIUS_PX["large"], 13)  # at 64 pixels


# --- one frame --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detection:
    """A shape seen in a frame.

    `position` is its centre (x, y) in pixels, of the whole shape even if another one hides a part; `area` counts the
    pixels that are seen; `score` is the likeness to the best template, 0..1.
    """

    kind: str
    color: str
    size: str
    position: tuple[float, float]
    area: float
    score: float


def detect(frame: np.ndarray) -> list[Detection]:
    """The shapes in a frame, uint8 `[h, w, 3]`, best score first.

    A pixel belongs to the palette colour on whose mixture with the background it lies nearest, so soft and blurred
    outlines keep their colour. Each colour of a connected foreground is compared with templates of every kind and
    radius by normalised correlation; pixels of other colours may hide anything and do not count.
    """
    pixels, factor = _shrink(frame)
    scale = canvas_size(pixels.shape[:2])[2]
    coverage, nearest = _unmix(pixels)
    foreground = np.take_along_axis(coverage, nearest[None], axis=0)[0] >= MIN_COVERAGE
    regions, count = ndimage.label(foreground)  # pyright: ignore[reportGeneralTypeIssues]  # an int only with output=
    found = []
    for region in range(1, count + 1):
        inside = regions == region
        for index, area in enumerate(np.bincount(nearest[inside], minlength=len(COLORS))):
            if area < MIN_AREA_PX * scale**2:
                continue
            own = inside & (nearest == index)
            seen = ~foreground | own
            amount = coverage[index] * (ndimage.binary_dilation(own, iterations=2) & seen)
            kind, radius, centre, score = _fit(amount, seen, own, scale)
            if score >= MIN_SCORE:
                size = min(RADIUS_PX, key=lambda name: abs(np.log(RADIUS_PX[name] * scale / radius)))
                x, y = (float(value) * factor for value in centre)
                area = float(amount.sum()) * factor**2
                found.append(Detection(kind, list(COLORS)[index], size, (x, y), area, score))
    return sorted(found, key=lambda detection: -detection.score)


def _shrink(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """The frame as float, averaged over blocks so that its shorter side is 64 to 127 pixels; the side of a block."""
    height, width, scale = canvas_size(frame.shape[:2])
    factor = int(scale)
    height, width = height // factor, width // factor
    blocks = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float32), factor


def _unmix(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage 0..1 of each pixel by each colour over the background `[8, h, w]`; the likeliest colour `[h, w]`."""
    contrast = pixels - np.array(BACKGROUND, np.float32)
    palette = np.array(list(COLORS.values()), np.float32) - np.array(BACKGROUND, np.float32)
    coverage = contrast @ (palette / np.sum(palette**2, axis=1, keepdims=True)).T
    coverage = np.clip(np.moveaxis(coverage, -1, 0), 0, 1)
    residual = np.sum((contrast[None] - coverage[..., None] * palette[:, None, None, :]) ** 2, axis=-1)
    return coverage, np.argmin(residual, axis=0)


@dataclass(frozen=True)
class _Templates:
    """Soft masks `[n, side, side]` of every kind and radius in the middle of a square crop, with their transforms."""

    kinds: tuple[str, ...]
    radii: np.ndarray
    masks: np.ndarray
    transform: np.ndarray  # conjugate, of the masks moved to the origin
    transform_squared: np.ndarray


@lru_cache(maxsize=8)
def _templates(scale: float) -> _Templates:
    half = (
        int(np.ceil((RADIUS_PX["large"] + TEMPLATE_RADII_PX[-1]) * scale)) + 2
    )  # a centre may lie a large radius away
    offsets = np.arange(-half, half, dtype=np.float32)
    pairs = [(kind, radius * scale) for kind in KINDS for radius in TEMPLATE_RADII_PX]
    masks = np.stack(
        [np.clip(0.5 - signed_distance(kind, offsets[None, :], offsets[:, None], r), 0, 1) for kind, r in pairs]
    )
    moved = fft.ifftshift(masks, axes=(1, 2))
    kinds, radii = zip(*pairs, strict=True)
    return _Templates(
        kinds, np.array(radii), masks, np.asarray(fft.rfft2(moved)).conj(), np.asarray(fft.rfft2(moved**2)).conj()
    )


def _fit(amount: np.ndarray, seen: np.ndarray, own: np.ndarray, scale: float) -> tuple[str, float, np.ndarray, float]:
    """Kind, radius, centre (x, y) in pixels and score of the template nearest to `amount` where it is `seen`."""
    templates = _templates(scale)
    half = templates.masks.shape[1] // 2
    row, column = (round(float(value)) for value in np.ravel(ndimage.center_of_mass(own)))
    crop, visible = (
        np.pad(image, half)[row : row + 2 * half, column : column + 2 * half]
        for image in (amount, seen.astype(np.float32))
    )
    common = np.asarray(fft.irfft2(np.asarray(fft.rfft2(crop))[None] * templates.transform))
    expected = np.asarray(fft.irfft2(np.asarray(fft.rfft2(visible))[None] * templates.transform_squared))
    whole = np.sum(templates.masks**2, axis=(1, 2))[:, None, None]
    likeness = common / np.sqrt(np.maximum(expected, 1.0) * np.sum(crop**2))
    score = likeness - HIDDEN_PENALTY * (1 - expected / whole)
    near = slice(half - int(RADIUS_PX["large"] * scale), half + int(RADIUS_PX["large"] * scale) + 1)
    window = score[:, near, near]
    best, down, across = np.unravel_index(np.argmax(window), window.shape)
    shift = np.array([down, across]) + near.start - half
    mask = np.roll(templates.masks[best], tuple(shift), axis=(0, 1)) * visible
    # What is left between the centres of mass, of what is seen and of the template's same part, is the sub-pixel shift.
    rest = np.array(ndimage.center_of_mass(crop)) - np.array(ndimage.center_of_mass(mask))
    centre = (np.array([row, column]) + shift + rest + 0.5)[::-1]
    return templates.kinds[best], float(templates.radii[best]), centre, float(window[best, down, across])


# --- a video ----------------------------------------------------------------------------------------------------------


def track(video: np.ndarray, expected: Sequence[Shape | Description]) -> np.ndarray:
    """Centres (x, y) in pixels of each expected shape, `[n_expected, f, 2]`; nan in frames without its colour and kind.

    Of several candidates the one of the right size (if the description names one), then the one nearest to the last
    place, is taken.

    Args:
      video: uint8 `[f, h, w, 3]`.
      expected: shapes of a scene, or what `parse_caption` reads from a prompt.
    """
    found = np.full((len(expected), len(video), 2), np.nan)
    last: list[np.ndarray | None] = [None] * len(expected)
    for number, frame in enumerate(video):
        free = detect(frame)
        for index, shape in enumerate(expected):
            candidates = [d for d in free if (d.kind, d.color) == (shape.kind, shape.color)]
            if not candidates:
                continue
            place = last[index]
            chosen = min(
                candidates,
                key=lambda d, shape=shape, place=place: (
                    shape.size not in (None, d.size),
                    0.0 if place is None else float(np.linalg.norm(place - d.position)),
                ),
            )
            free.remove(chosen)
            found[index, number] = last[index] = np.array(chosen.position)
    return found


def present(video: np.ndarray, expected: Sequence[Shape | Description]) -> bool:
    """Whether each expected shape is seen, with its colour and kind, in most (over half) frames of a short window."""
    seen = np.isfinite(track(video, expected)).all(axis=-1)
    return bool(np.all(seen.mean(axis=1) > 0.5))


def measured_speed(positions: np.ndarray, fps: float, canvas: Canvas) -> float:
    """Speed along a track `[f, 2]` in pixels of a 64-pixel canvas per second, as `shapes_world.SPEED_PX_PER_S`.

    The median over displacements of a third of a second; those with a turn in the middle (a bounce) do not count,
    unless nothing is straight. Frames without a position are left out; nan if no displacement is left.
    """
    if positions.ndim != 2:
        raise ConfigError(f"measured_speed takes one track [f, 2], not an array of shape {positions.shape}")
    half = max(1, round(fps / 6))
    first, middle, last = positions[: -2 * half], positions[half:-half], positions[2 * half :]
    direct = np.linalg.norm(last - first, axis=-1)
    along = np.linalg.norm(middle - first, axis=-1) + np.linalg.norm(last - middle, axis=-1)
    known = np.isfinite(along)
    straight = known & (direct >= 0.9 * along)
    chosen = direct[straight if straight.any() else known]
    return float(np.median(chosen)) * fps / (2 * half) / canvas_size(canvas)[2] if len(chosen) else float("nan")


# --- cuts -------------------------------------------------------------------------------------------------------------

CUT_SIDE_PX = 256  # longer frames are reduced to this before they are compared
CUT_RATIO = 3.0  # change at a cut over the mean change of its neighbours
CUT_MIN_CONTENT = 15.0  # of 255; smaller changes are never a cut
CUT_NEIGHBOURS = 2  # frames on either side
CUT_MIN_SCENE = 15  # frames


def scene_cuts(video: np.ndarray) -> int:
    """Number of abrupt changes in uint8 frames `[f, h, w, 3]`; the number of scenes is one more (see `cut_frames`)."""
    return len(cut_frames(video))


def cut_frames(video: np.ndarray) -> list[int]:
    """First frames of new scenes, by the rule of PySceneDetect 0.6's `AdaptiveDetector` with its default settings.

    A decision is due two frames after the frame that it is about, and the least length of a scene is counted up to
    then, so a scene may be 13 frames long; release 0.7 counts up to the frame itself, to 15.
    """
    content = _content_changes(video)
    cuts: list[int] = []
    last_cut = 0
    for t in range(CUT_NEIGHBOURS, len(content) - CUT_NEIGHBOURS):
        around = np.r_[content[t - CUT_NEIGHBOURS : t], content[t + 1 : t + 1 + CUT_NEIGHBOURS]].mean()
        abrupt = content[t] / around >= CUT_RATIO if around >= 1e-5 else True
        long_enough = t + CUT_NEIGHBOURS - last_cut >= CUT_MIN_SCENE
        if abrupt and content[t] >= CUT_MIN_CONTENT and long_enough:
            cuts.append(t)
            last_cut = t
    return cuts


def _content_changes(video: np.ndarray) -> np.ndarray:
    """Mean absolute change of hue, saturation and value from the frame before `[f]`; 0 in the first frame."""
    changes = np.zeros(len(video))
    before = None
    for t, frame in enumerate(video):
        now = _hsv(_reduce(frame))
        if before is not None:
            changes[t] = np.abs(now - before).mean()
        before = now
    return changes


def _reduce(frame: np.ndarray) -> np.ndarray:
    """The frame with its longer side at most `CUT_SIDE_PX`: bilinear at pixel centres, not smoothed, in 8 bits."""
    factor = max(frame.shape[:2]) / CUT_SIDE_PX
    if factor <= 1:
        return frame
    image = frame.astype(np.float64)
    for axis in (0, 1):
        size, target = frame.shape[axis], round(frame.shape[axis] / factor)
        at = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        weight = np.expand_dims(at - low, tuple(a for a in range(3) if a != axis))
        image = image.take(low, axis) * (1 - weight) + image.take(low + 1, axis) * weight
    return np.rint(image).astype(np.uint8)


def _hsv(frame: np.ndarray) -> np.ndarray:
    """8-bit RGB `[h, w, 3]` as hue 0..179, saturation and value 0..255, int32, with OpenCV's integer rounding."""
    red, green, blue = np.moveaxis(frame.astype(np.int32), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    sector = np.where(
        value == red, green - blue, np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    divisor = np.maximum(np.arange(256), 1)
    hue = (sector * np.rint((180 << 12) / (6 * divisor)).astype(np.int32)[spread] + (1 << 11)) >> 12
    saturation = (spread * np.rint((255 << 12) / divisor).astype(np.int32)[value] + (1 << 11)) >> 12
    return np.stack([np.where(hue < 0, hue + 180, hue), saturation, value])
