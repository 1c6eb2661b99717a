"""How shapes move: speed, jitter, jumps, and the distance from a path that bounces off the borders."""

import numpy as np

from pavdm_jax.data.shapes_world import Canvas, canvas_size, folded
from pavdm_jax.errors import ConfigError

JUMP_PX = 4.0  # at 64 pixels; beyond one and a half times the way at the named speed, this is a jump
JUMP_GAP_SECONDS = 1.0  # places that lie further apart in time are not compared
MAX_SPEED = 45.0  # pixels of a 64-pixel canvas a second, along an axis; paths are sought up to it


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


def jitter(positions: np.ndarray, canvas: Canvas) -> float:
    """Standard deviation along an axis, in pixels of a 64-pixel canvas, of what a track `[f, 2]` adds to straight
    motion from frame to frame.

    From the median second difference, which the few frames of a bounce do not change; nan where fewer than five frames
    have neighbours.
    """
    bend = np.abs(positions[2:] - 2 * positions[1:-1] + positions[:-2])
    bend = bend[np.isfinite(bend).all(axis=1)]
    if len(bend) < 5:
        return float("nan")
    return float(np.median(bend)) / (0.6745 * 6**0.5) / canvas_size(canvas)[2]


def jumps(positions: np.ndarray, fps: float, speed: float, canvas: Canvas) -> np.ndarray:
    """Frames `[n]` at which a track `[f, 2]` goes on elsewhere than where a shape of this speed, in pixels of a
    64-pixel canvas a second, can be.

    A single frame that lies elsewhere while those around it agree is an error of the tracker, and no jump.
    """
    scale = canvas_size(canvas)[2]

    def possible(now: int, then: int) -> bool:
        way = float(np.hypot(*(positions[now] - positions[then])))
        return way <= scale * (JUMP_PX + 1.5 * speed * (now - then) / fps)

    known = [int(frame) for frame in np.flatnonzero(np.isfinite(positions).all(axis=1))]
    kept: list[int] = []
    found = []
    for number, now in enumerate(known):
        if kept and now - kept[-1] <= JUMP_GAP_SECONDS * fps and not possible(now, kept[-1]):
            after = known[number + 1] if number + 1 < len(known) else None
            if after is None or possible(after, kept[-1]):
                continue
            found.append(now)
        kept.append(now)
    return np.array(found, int)


def path_error(positions: np.ndarray, fps: float, low: np.ndarray, reach: np.ndarray, canvas: Canvas) -> float:
    """Root mean square distance, in pixels of a 64-pixel canvas, of a track `[f, 2]` of a few seconds from the nearest
    path of constant speed that bounces at `low` and `low + reach`, both `[2]` in pixels.

    nan where fewer than five frames have a place.
    """
    known = np.isfinite(positions).all(axis=1)
    if known.sum() < 5:
        return float("nan")
    scale = canvas_size(canvas)[2]
    seconds = np.flatnonzero(known) / fps
    squares = [
        _nearest_bounce((positions[known, axis] - low[axis]) / scale, seconds, float(reach[axis]) / scale)
        for axis in (0, 1)
    ]
    return float(np.sqrt(sum(squares)))


def _nearest_bounce(places: np.ndarray, seconds: np.ndarray, reach: float) -> float:
    """Mean square distance of places along an axis from the nearest path: of all starts and speeds of a grid, then of
    finer ones around the best. A start beyond the reach is one that moves backwards."""
    start, start_step = reach, reach / 40
    speed, speed_step = MAX_SPEED / 2, 0.5
    starts, speeds = np.arange(-40, 40), np.arange(-45, 46)
    best = np.inf
    for _ in range(3):
        tried_starts, tried_speeds = start + starts * start_step, speed + speeds * speed_step
        paths = folded(tried_starts[:, None, None] + tried_speeds[None, :, None] * seconds, reach)
        errors = np.mean((paths - places) ** 2, axis=-1)
        row, column = np.unravel_index(np.argmin(errors), errors.shape)
        start, speed, best = tried_starts[row], tried_speeds[column], float(errors[row, column])
        starts = speeds = np.arange(-8, 9)
        start_step, speed_step = start_step / 6, speed_step / 6
    return best
