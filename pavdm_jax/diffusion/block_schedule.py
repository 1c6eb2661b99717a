"""SkyReels-V2's own schedules as plans of the sliding window: all frames at once, or blocks one after the other.

Rows are network calls. In row r block b, of which the first p are given, is at step r − lag · (b − p): it waits as pure
noise before step 0, is updated in each of the steps, and is done behind the last. The window holds all blocks that have
begun, and more if there is room. Source: SkyReels-V2 skyreels_v2_infer/pipelines/diffusion_forcing_pipeline.py,
`generate_timestep_matrix`; its pipelines never let the window slide.

Once the window has filled this is the progressive plan (`window.plan_shifts`). Differences: blocks that wait are in the
window, at the level of noise; at the end of the video finished blocks stay in it; given frames are held.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pavdm_jax.diffusion.sampler import Noise, WindowState, initial_state
from pavdm_jax.diffusion.solvers import Solver
from pavdm_jax.diffusion.window import ShiftInputs
from pavdm_jax.errors import ConfigError
from pavdm_jax.wan_config import BlockScheduleConfig


@struct.dataclass
class StepTables:
    """What happens to each latent frame of the video in each row.

    Attributes:
      steps: int32 [rows, t]: the solver's step, from 0; −1 while the frame waits, `config.steps` when it is done or
        given.
      updated: bool [rows, t].
      windows: int32 [rows, 2]: the latent frames that the network sees, the second number behind the last.
    """

    steps: np.ndarray
    updated: np.ndarray
    windows: np.ndarray


def num_rows(config: BlockScheduleConfig, num_frames: int, given_frames: int = 0) -> int:
    """Network calls of a video of `num_frames` latent frames.

    Raises:
      ConfigError: a length that this schedule cannot have; the message names the nearest.
    """
    blocks, given = _count(config, num_frames, given_frames)
    return config.steps + _lag(config) * (blocks - given - 1)


def step_tables(config: BlockScheduleConfig, num_frames: int, given_frames: int = 0) -> StepTables:
    """The schedule of a video of `num_frames` latent frames, of which the first ones are given; see `num_rows`."""
    blocks, given = _count(config, num_frames, given_frames)
    rows = np.arange(num_rows(config, num_frames, given_frames))
    steps, windows = _steps(config, rows, blocks, given), _windows(config, rows, blocks, given)
    steps = np.repeat(steps, config.block_size, axis=1)
    updated = (steps >= 0) & (steps < config.steps)
    return StepTables(_int32(steps), updated, _int32(windows * config.block_size))


def plan_blocks(config: BlockScheduleConfig, levels: np.ndarray, num_frames: int, given_frames: int = 0) -> ShiftInputs:
    """The same schedule as a plan of shifts.

    Without a lag it is one shift of one chunk, the whole video. With one, a block is a chunk, and a shift has `lag`
    steps, after which the next block begins. Steps behind the last row, in the last shift, change nothing.

    Args:
      config: of the schedule.
      levels: [steps + 1] float32, falling from the first noise level to 0; blocks wait at the first.
      num_frames: latent frames of the video, the given ones included.
      given_frames: latent frames at its start that are given.

    Returns:
      The shifts along the leading axis, as NumPy arrays. The window before the first is `waiting_window`.

    Raises:
      ConfigError: a length that this schedule cannot have, or levels of another number of steps.
    """
    if levels.shape != (config.steps + 1,):
        raise ConfigError(f"the levels have shape {levels.shape}; {config.steps} steps need ({config.steps + 1},)")
    blocks, given = _count(config, num_frames, given_frames)
    lag, size = _lag(config), config.block_size
    if lag == 0:  # all blocks are one chunk, whose given head is held
        lag, size, blocks, given = config.steps, num_frames, 1, 0
    updating = -(-config.steps // lag)  # shifts from the beginning of a block to its end
    shifts = np.arange(blocks - given - 1 + updating)
    slots = min(config.window_size // size, blocks) if size < num_frames else 1
    end = np.minimum(blocks, np.maximum(slots, given + 1 + np.arange(len(shifts) + 1)))
    first = end - slots
    chunks = first[:-1, None] + np.arange(slots)
    steps = lag * (shifts[:, None, None] - (chunks - given)[:, None, :]) + np.arange(lag + 1)[:, None]
    steps = np.where(chunks[:, None, :] < given, config.steps, steps)
    emitted = given + shifts - updating + 1
    return ShiftInputs(
        levels=levels[np.clip(steps, 0, config.steps)].astype(np.float32),
        num_valid=np.full(len(shifts), slots * size, np.int32),
        chunks=_int32(chunks),
        entering=_int32(np.where(np.diff(end, prepend=end[0])[:-1] > 0, end[:-1] - 1, -1)),
        emitted=_int32(np.where(emitted >= given, emitted, -1)),
        roll=_int32(np.diff(first)),
        prompt_index=np.zeros(chunks.shape, np.int32),
        held=_int32(np.maximum(0, given_frames - first[:-1] * size)),
        held_level=np.full(len(shifts), config.given_noise, np.float32),
        first_step=_int32(shifts * lag),
        context_noise=np.zeros(len(shifts), np.float32),
    )


def waiting_window(
    noise: Noise, keys: jax.Array, given: jax.Array, first_shift: ShiftInputs, solver: Solver
) -> WindowState:
    """The window before the first shift of `plan_blocks`: the given latent frames [b, t, h, w, c], and pure noise."""
    k = jax.eval_shape(noise, jnp.int32(0)).shape[1]
    whole = given.shape[1] // k
    is_noise = jnp.broadcast_to(first_shift.chunks >= whole, first_shift.levels.shape).astype(jnp.float32)
    head = None if given.shape[1] == whole * k else given
    first_shift = dataclasses.replace(first_shift, levels=is_noise)
    return initial_state(noise, keys, given[:, : whole * k], first_shift, head, solver)


def _steps(config: BlockScheduleConfig, rows: np.ndarray, blocks: int, given: int) -> np.ndarray:
    """[rows, blocks]; see `StepTables.steps`."""
    number = np.arange(blocks) - given
    steps = np.clip(rows[:, None] - _lag(config) * number, -1, config.steps)
    return np.where(number < 0, config.steps, steps)


def _windows(config: BlockScheduleConfig, rows: np.ndarray, blocks: int, given: int) -> np.ndarray:
    """[rows, 2], in blocks; see `StepTables.windows`."""
    room = config.window_size // config.block_size
    begun = np.sum(_steps(config, rows, blocks, given) >= 0, axis=1)
    end = np.minimum(blocks, np.maximum(room, begun))
    return np.stack([np.maximum(0, end - room), end], axis=1)


def _lag(config: BlockScheduleConfig) -> int:
    return min(config.lag, config.steps)


def _count(config: BlockScheduleConfig, num_frames: int, given_frames: int) -> tuple[int, int]:
    """Blocks of a video, and how many of them are given."""
    size, room = config.block_size, config.window_size // config.block_size
    for name, frames in (("num_frames", num_frames), ("given_frames", given_frames)):
        if frames % size:
            raise ConfigError(
                f"{name} {frames} is no whole number of blocks of {size} latent frames; use "
                f"{frames // size * size} or {(frames // size + 1) * size}"
            )
    if not 0 <= given_frames < num_frames:
        raise ConfigError(f"{given_frames} given latent frames leave nothing to generate of {num_frames}")
    if num_frames > config.window_size and config.lag * room < config.steps:
        least = -(-config.steps // room)
        raise ConfigError(
            f"with a lag of {config.lag} blocks would leave the window of {config.window_size} latent frames "
            f"unfinished; use a lag of {least} or more, or a window of {num_frames}"
        )
    return num_frames // size, given_frames // size


def _int32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32)
