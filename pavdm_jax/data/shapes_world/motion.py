"""Where shapes are: constant velocity, and bounces off the borders, in closed form."""

import numpy as np

from pavdm_jax.data.shapes_world.outlines import margins
from pavdm_jax.data.shapes_world.scene import BASE_CANVAS, DIRECTIONS, SPEED_PX_PER_S, Canvas, Scene, canvas_size


def positions(scene: Scene, frame_indices: np.ndarray, canvas: Canvas = BASE_CANVAS, fps: float = 24.0) -> np.ndarray:
    """Centres `[n_shapes, f, 2]` as (x, y) in pixels at the given frames (any numbers, not only consecutive ones)."""
    low, reach = ranges(scene, canvas)
    start = np.array([shape.position for shape in scene.shapes]) * reach
    seconds = np.asarray(frame_indices, np.float64) / fps
    travelled = initial_velocities(scene, canvas)[:, None, :] * seconds[None, :, None]
    return low[:, None, :] + folded(start[:, None, :] + travelled, reach[:, None, :])


def ranges(scene: Scene, canvas: Canvas = BASE_CANVAS) -> tuple[np.ndarray, np.ndarray]:
    """The least coordinates of centres `[n_shapes, 2]`, (x, y) in pixels, and how far from there they reach."""
    height, width, scale = canvas_size(canvas)
    low, high = np.moveaxis(scale * _margins(scene), 1, 0)
    return low, np.array([width, height]) - low - high


def bounding_radii(scene: Scene, canvas: Canvas = BASE_CANVAS) -> np.ndarray:
    """How far shapes reach out to any side, `[n_shapes]`, in pixels."""
    return canvas_size(canvas)[2] * _margins(scene).max(axis=(1, 2))


def _margins(scene: Scene) -> np.ndarray:
    return np.stack([margins(s.kind, s.radius, s.look.aspect, s.look.tilt) for s in scene.shapes])


def initial_velocities(scene: Scene, canvas: Canvas) -> np.ndarray:
    """`[n_shapes, 2]` at frame 0, in pixels a second."""
    directions = np.array([DIRECTIONS[shape.direction] for shape in scene.shapes])
    speeds = np.array([SPEED_PX_PER_S[shape.speed] for shape in scene.shapes])
    return canvas_size(canvas)[2] * speeds[:, None] * directions


def folded(unfolded: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    """Positions within 0..reach of what would be at `unfolded` if there were no borders."""
    phase = np.mod(unfolded, 2 * reach)
    return np.minimum(phase, 2 * reach - phase)


def start_that_leads_to(position: np.ndarray, travelled: np.ndarray, reach: np.ndarray) -> np.ndarray | None:
    """Where to start, within 0..reach on each axis, to be at `position` after `travelled`; None if no start leads
    there. All are `[2]`."""
    starts = np.mod(np.stack([position, -position]) - travelled, 2 * reach)
    inside = starts <= reach
    return np.where(inside[0], starts[0], starts[1]) if np.all(inside.any(axis=0)) else None
