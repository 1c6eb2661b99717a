"""Finds the coloured regions of a frame before a dark, plain or linearly graded background."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pavdm_jax.data.shapes_world import COLORS, RADIUS_PX, canvas_size, color_index

MIN_AREA_PX = 20.0  # at 64 pixels; smaller patches of a colour are specks (the smallest shape has 70)
MIN_CONTRAST = 22.0  # of the background, Euclidean in 0..255; less is taken for background
NOISE_FACTOR = 3.5  # in noise, so many times the median distance of the background's pixels from its gradient
ROUNDS = 4  # of fitting the background, each without what lay far off in the one before
MIN_COVERAGE = 0.35  # of a region's pixel, by its contrast; the dark rim of an outlined shape has 0.4 and more
CROP_RADII = 1.8  # half the side of a crop, in radii of a large shape
_BLOCK = np.ones((3, 3), bool)
_CROSS = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Region:
    """What is seen of one colour in a connected part of the foreground.

    Attributes:
      color: its name.
      origin: (x, y) of the crop's upper left corner, in pixels of the reduced frame.
      amount: how much of each pixel it covers, 0..1, float32 `[side, side]`.
      seen: False where something else may hide it, bool `[side, side]`.
      rgb: its mean colour away from its outline, which tells the exact hue.
      contrast: standard deviation over mean of its brightness there, from the texture.
    """

    color: str
    origin: tuple[int, int]
    amount: np.ndarray
    seen: np.ndarray
    rgb: np.ndarray
    contrast: float


@dataclass(frozen=True)
class Segmented:
    """The regions of a frame; the background's colours at the four corners and in the middle `[5, 3]`; the factor by
    which lengths of the reduced frame are smaller than the frame's, and that by which they exceed the world's."""

    regions: list[Region]
    background: np.ndarray
    factor: int
    scale: float


def segment(frame: np.ndarray) -> Segmented:
    """The regions of a frame, uint8 `[h, w, 3]`.

    A linear gradient is fitted to the background; what differs from it is foreground. Each foreground pixel has the
    named colour for which the pixels around it vote, the more strongly the more they differ from the background, so
    soft outlines and the dark tones of textures keep their colour.
    """
    pixels, factor = _reduce(frame)
    height, width, scale = canvas_size(pixels.shape[:2])
    empty, corners, noise = _fit_background(pixels)
    contrast = pixels - empty
    strength = np.linalg.norm(contrast, axis=-1)
    foreground = ndimage.binary_fill_holes(strength > max(MIN_CONTRAST, NOISE_FACTOR * noise))
    assert foreground is not None  # scipy's types allow None, for in-place work
    votes = np.zeros((len(COLORS), height, width), np.float32)
    np.put_along_axis(votes, color_index(pixels)[None], (strength * foreground)[None], axis=0)
    color = np.argmax(ndimage.uniform_filter(votes, 3, axes=(1, 2)), axis=0)
    labels, count = ndimage.label(foreground)  # pyright: ignore[reportGeneralTypeIssues]  # an int only with output=
    found = []
    for label in range(1, count + 1):
        inside = labels == label
        for number in np.flatnonzero(np.bincount(color[inside], minlength=len(COLORS)) >= MIN_AREA_PX * scale**2):
            own = inside & (color == number)
            core = ndimage.binary_erosion(own, _BLOCK)
            if np.sum(core) >= 4:
                found.append(_region(list(COLORS)[number], own, core, foreground, pixels, contrast, scale))
    return Segmented(found, corners, factor, scale)


def _reduce(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """The frame as float, averaged over blocks so that its shorter side is 64 to 127 pixels; the side of a block."""
    height, width, scale = canvas_size(frame.shape[:2])
    factor = int(scale)
    height, width = height // factor, width // factor
    blocks = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float32), factor


def _fit_background(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The background of every pixel `[h, w, 3]`, at corners and middle `[5, 3]`, and the median distance from it."""
    height, width = pixels.shape[:2]
    x, y = np.meshgrid(*((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5 for size in (width, height)))
    basis = np.stack([np.ones_like(x), x, y], axis=-1)
    thinned, colors = (image[::2, ::2].reshape(-1, 3) for image in (basis, pixels))  # a quarter suffices
    value = colors.max(axis=1)
    chosen = value <= np.median(value)
    noise = 0.0
    coefficients = np.zeros((3, 3), np.float32)
    for _ in range(ROUNDS):
        own = thinned[chosen]
        coefficients = np.linalg.solve(own.T @ own + 1e-3 * np.eye(3, dtype=np.float32), own.T @ colors[chosen])
        distance = np.linalg.norm(colors - thinned @ coefficients, axis=1)
        noise = float(np.median(distance[chosen]))
        chosen = distance <= max(MIN_CONTRAST / 2, NOISE_FACTOR * noise)
    places = np.array([(1, -0.5, -0.5), (1, 0.5, -0.5), (1, -0.5, 0.5), (1, 0.5, 0.5), (1, 0, 0)], np.float32)
    return basis @ coefficients, places @ coefficients, noise


def _relative(contrast: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Each pixel's contrast `[h, w, 3]`, relative to that of the nearest pixel inside, 0..1."""
    rows, columns = np.asarray(ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True))
    full = contrast[rows, columns]
    return np.clip(np.sum(contrast * full, axis=-1) / np.maximum(np.sum(full**2, axis=-1), 1.0), 0, 1)


def _region(
    color: str,
    own: np.ndarray,
    core: np.ndarray,
    foreground: np.ndarray,
    pixels: np.ndarray,
    contrast: np.ndarray,
    scale: float,
) -> Region:
    """A pixel's coverage is its contrast relative to the nearest pixel inside the region: textures do not matter."""
    half = int(np.ceil(CROP_RADII * RADIUS_PX["large"] * scale))
    row, column = (round(float(value)) for value in np.ravel(ndimage.center_of_mass(own)))

    def crop(image: np.ndarray) -> np.ndarray:
        """A square around the centre of mass, with zeros beyond the frame."""
        pad = [(half, half)] * 2 + [(0, 0)] * (image.ndim - 2)
        return np.pad(image, pad)[row : row + 2 * half, column : column + 2 * half]

    mine, others, near = crop(own), crop(foreground & ~own), crop(contrast)
    # Blur carries the foreground beyond the outline: what is far weaker than the inside is not yet of the region.
    mine &= _relative(near, crop(core)) > MIN_COVERAGE
    inner = ndimage.binary_erosion(mine, _CROSS) | crop(core)
    amount = _relative(near, inner)
    seen = np.logical_not(ndimage.binary_dilation(others, _CROSS)) | inner
    around = np.asarray(ndimage.binary_dilation(mine, _BLOCK, iterations=2), bool)
    amount = np.where(inner, 1, amount * (around & seen)).astype(np.float32)
    tones = pixels[core]
    brightness = tones.sum(axis=1)
    return Region(
        color,
        (column - half, row - half),
        amount,
        seen,
        tones.mean(axis=0),
        float(brightness.std() / max(brightness.mean(), 1.0)),
    )
