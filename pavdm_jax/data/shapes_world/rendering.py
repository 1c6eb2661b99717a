"""Pixels of a scene, with soft outlines; and what of them is seen of each shape."""

import numpy as np

from pavdm_jax.data.shapes_world.colors import exact_color
from pavdm_jax.data.shapes_world.motion import bounding_radii, positions
from pavdm_jax.data.shapes_world.outlines import signed_distance, turned
from pavdm_jax.data.shapes_world.scene import BASE_CANVAS, Canvas, Scene, Shape, canvas_size

STRIPE_PERIOD = 0.8  # of the radius
DOT_PERIOD = 0.85  # of the radius
OUTLINE_WIDTH = 0.24  # of the radius
RIM_WIDTH = 0.15  # of the radius; stripes and dots leave a rim free, so that the kind of a small shape can be told


def render(
    scene: Scene, num_frames: int, canvas: Canvas = BASE_CANVAS, fps: float = 24.0, first_frame: int = 0
) -> np.ndarray:
    """The frames `first_frame` to `first_frame + num_frames` as uint8 `[f, h, w, 3]`, with anti-aliased outlines."""
    frames = first_frame + np.arange(num_frames)
    light = lighting(scene, frames, fps).astype(np.float32)[:, None, None, None]
    video = (background(scene, canvas) * light + 0.5).astype(np.uint8)
    tracks = positions(scene, frames, canvas, fps).astype(np.float32)
    for shape, track, extent in zip(scene.shapes, tracks, bounding_radii(scene, canvas), strict=True):
        where, coverage, inside = _patches(shape, track, extent, canvas)
        color = np.array(exact_color(shape), np.float32)
        tone = _tone(shape, inside, canvas) * light if shape.look.texture.kind != "plain" else light
        below = video[where].astype(np.float32)
        video[where] = (below + coverage[..., None] * (color * tone - below) + 0.5).astype(np.uint8)
    return video


def lighting(scene: Scene, frame_indices: np.ndarray, fps: float = 24.0) -> np.ndarray:
    """The factor `[f]`, at most 1, of all brightness at the given frames."""
    light = scene.light
    turns = np.asarray(frame_indices, np.float64) / fps / light.period + light.phase
    return 1 - light.depth * (0.5 + 0.5 * np.cos(2 * np.pi * turns))


def background(scene: Scene, canvas: Canvas = BASE_CANVAS) -> np.ndarray:
    """The background in full light, float32 `[h, w, 3]`, 0..255; it changes linearly across the canvas."""
    height, width, _ = canvas_size(canvas)
    angle = np.deg2rad(scene.background.angle)
    across, down = np.cos(angle), np.sin(angle)
    x, y = ((np.arange(size) + 0.5) / size - 0.5 for size in (width, height))
    mix = 0.5 + (across * x[None, :] + down * y[:, None]) / (abs(across) + abs(down))
    first, second = (np.array(color, np.float32) for color in (scene.background.first, scene.background.second))
    return first + mix.astype(np.float32)[..., None] * (second - first)


def visibility(scene: Scene, frame_indices: np.ndarray, canvas: Canvas = BASE_CANVAS, fps: float = 24.0) -> np.ndarray:
    """The part of each shape that no other one hides, 0..1, `[n_shapes, f]`."""
    height, width, _ = canvas_size(canvas)
    frames = np.asarray(frame_indices)
    tracks = positions(scene, frames, canvas, fps).astype(np.float32)
    uncovered = np.ones((len(frames), height, width), np.float32)
    seen = np.ones((len(scene.shapes), len(frames)))
    extents = bounding_radii(scene, canvas)
    for number in reversed(range(len(scene.shapes))):
        where, coverage, _ = _patches(scene.shapes[number], tracks[number], extents[number], canvas)
        seen[number] = np.sum(coverage * uncovered[where], axis=(1, 2)) / np.sum(coverage, axis=(1, 2))
        uncovered[where] *= 1 - coverage
    return seen


_Inside = tuple[np.ndarray, np.ndarray, np.ndarray]


def _patches(shape: Shape, track: np.ndarray, extent: float, canvas: Canvas) -> tuple[tuple, np.ndarray, _Inside]:
    """A square around the centre `track[f]` in each frame: its pixels as an index of a video; how much of each pixel
    the shape covers `[f, side, side]`; and the points' x, y and signed distance in the shape's own coordinates."""
    height, width, scale = canvas_size(canvas)
    side = int(np.ceil(2 * extent)) + 3  # the outline, half a pixel of its soft edge, and rounding
    corner = np.clip(np.round(track - side / 2).astype(int), 0, np.array([width, height])[None, :] - side)
    columns, rows = (corner[:, axis, None] + np.arange(side)[None, :] for axis in (0, 1))
    x, y = ((cells + 0.5 - track[:, axis, None]).astype(np.float32) for axis, cells in ((0, columns), (1, rows)))
    x, y = x[:, None, :], y[:, :, None]
    if shape.look.tilt:
        x, y = turned(x, y, np.float32(shape.look.tilt))
    distance = signed_distance(shape.kind, x, y, np.float32(scale * shape.radius), np.float32(shape.look.aspect))
    where = (np.arange(len(track))[:, None, None], rows[:, :, None], columns[:, None, :])
    return where, np.clip(0.5 - distance, 0, 1), (x, y, distance)


def _tone(shape: Shape, inside: _Inside, canvas: Canvas) -> np.ndarray:
    """The factor `[f, side, side, 1]` of a textured shape's colour: 1, or 1 - contrast where its texture is dark."""
    x, y, distance = inside
    texture, radius = shape.look.texture, np.float32(canvas_size(canvas)[2] * shape.radius)
    if texture.kind == "outline":
        dark = distance + OUTLINE_WIDTH * radius
    else:
        wave = np.float32((STRIPE_PERIOD if texture.kind == "stripes" else DOT_PERIOD) / (2 * np.pi)) * radius
        shift = np.float32(2 * np.pi * texture.phase)
        u, v = turned(x, y, np.float32(texture.angle))
        if texture.kind == "stripes":
            dark = np.sin(u / wave + shift) * wave
        else:
            dark = (np.cos(u / wave + shift) + np.cos(v / wave + shift) - 0.7) * wave
        dark = np.minimum(dark, -distance - RIM_WIDTH * radius)
    return (1 - np.float32(texture.contrast) * np.clip(0.5 + dark, 0, 1))[..., None]
