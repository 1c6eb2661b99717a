"""The geometry of circles, squares and triangles: ellipses, rectangles and longer or shorter triangles, tilted."""

from functools import lru_cache

import numpy as np

SQUARE_HALF_SIDE = 0.886  # of the radius: a square of the circle's area
TRIANGLE_HALF_HEIGHT = 0.9  # of the radius; its base is two radii long, so it is nearly equilateral

Length = float | np.floating | np.ndarray


def signed_distance(kind: str, x: np.ndarray, y: np.ndarray, radius: Length, aspect: Length = 1.0) -> np.ndarray:
    """Distance in pixels from the points (x, y), relative to the shape's centre, to its outline; negative inside.

    `radius` and `aspect` broadcast with the points, or are numbers. An ellipse's distance is right to first order
    beside its outline.
    """
    if np.ndim(aspect) == 0 and aspect == 1:
        half_width = half_height = radius
    else:
        half_width, half_height = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    if kind == "circle":
        if half_width is half_height:
            return np.sqrt(x * x + y * y) - radius
        u, v = x / half_width, y / half_height
        distance = np.sqrt(u * u + v * v)
        slope = np.sqrt((u / half_width) ** 2 + (v / half_height) ** 2)
        return distance * (distance - 1) / np.maximum(slope, 1e-6)
    if kind == "square":
        return np.maximum(np.abs(x) - SQUARE_HALF_SIDE * half_width, np.abs(y) - SQUARE_HALF_SIDE * half_height)
    half_height = TRIANGLE_HALF_HEIGHT * half_height
    leg = np.hypot(half_width, 2 * half_height)
    beside_leg = (2 * half_height * np.abs(x) - half_width * (y + half_height)) / leg
    return np.maximum(beside_leg, y - half_height)


def turned(x: np.ndarray, y: np.ndarray, degrees: Length) -> tuple[np.ndarray, np.ndarray]:
    """Points in the coordinates of a shape that is tilted by so many degrees, clockwise as seen."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return cosine * x + sine * y, cosine * y - sine * x


@lru_cache(maxsize=1024)
def margins(kind: str, radius: float, aspect: float, degrees: float) -> np.ndarray:
    """How far a shape's centre stays away from the borders `[2, 2]`, in the unit of `radius`: from the left and upper
    one, then from the right and lower one. As far as its outline reaches out, and at least the radius."""
    half_width, half_height = radius * aspect**0.5, radius / aspect**0.5
    tilt = np.deg2rad(degrees)
    own = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])  # rows: the shape's own axes
    if kind == "circle":
        reach = np.hypot(half_width * own[0], half_height * own[1])
        return np.maximum(radius, np.stack([reach, reach]))
    if kind == "square":
        corners = SQUARE_HALF_SIDE * np.array([(x * half_width, y * half_height) for x in (-1, 1) for y in (-1, 1)])
    else:
        top = TRIANGLE_HALF_HEIGHT * half_height
        corners = np.array([(0, -top), (-half_width, top), (half_width, top)])
    places = corners @ own
    return np.maximum(radius, np.stack([-places.min(axis=0), places.max(axis=0)]))
