"""SkyReels-V2's own schedules as plans of the sliding window, in which chunks wait as pure noise until they begin.

In its asynchronous schedule a chunk (`causal_block_size` latent frames) begins `lag` steps (`ar_step`) after the one
before it. The window holds all chunks that have begun, and more, behind or before them, as long as there is room. The
synchronous schedule is a window of one chunk, the whole video. Source: SkyReels-V2
skyreels_v2_infer/pipelines/diffusion_forcing_pipeline.py, `generate_timestep_matrix`; its pipelines never let the
window slide.

Once the window has filled this is the progressive plan (`window.plan_shifts`). Differences: chunks that wait are in the
window, at the level of noise; at the end of the video finished chunks stay in it; given frames are held, and noised for
the network before every step (`addnoise_condition`).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.window import ShiftInputs, num_shifts, shifts_per_chunk
from pavdm_jax.errors import ConfigError


def plan_blocks(
    config: WindowConfig,
    levels: np.ndarray,
    num_chunks: int,
    num_given: int = 0,
    prompt_starts: Sequence[int] = (0,),
    held: int = 0,
    start: int = 0,
    stop: int | None = None,
) -> ShiftInputs:
    """The shifts `start` to `stop` of a video, of `lag` steps each, after which the next chunk begins.

    Steps behind a chunk's last one, in its last shift, change nothing. The window before the first shift is
    `initial_state` of `before_first`.

    Args:
      config: sizes of the window, which has a lag; `context_noise` is the level to which given frames are noised.
      levels: [steps + 1] float32, falling from the first noise level to 0; chunks wait at the first.
      num_chunks, num_given, prompt_starts, held, start, stop: as for `plan_shifts`.

    Returns:
      The shifts along the leading axis, as NumPy arrays.

    Raises:
      ConfigError: there is nothing to generate, the video leaves the window unfinished (see `check_lag`), or the levels
        are of another number of steps.
    """
    if levels.shape != (config.steps + 1,):
        raise ConfigError(f"the levels have shape {levels.shape}; {config.steps} steps need ({config.steps + 1},)")
    check_lag(config, num_chunks)
    total = num_shifts(config, num_chunks, num_given)
    shifts = np.arange(start, total if stop is None else min(stop, total))
    lag, k = config.steps_per_shift, config.chunk_size

    end = _end(config, shifts, num_chunks, num_given)
    first, next_first = (
        np.maximum(0, behind - config.slots) for behind in (end, _end(config, shifts + 1, num_chunks, num_given))
    )
    chunks = first[:, None] + np.arange(config.slots)
    present = chunks < end[:, None]
    steps = lag * (shifts[:, None, None] - (chunks - num_given)[:, None, :]) + np.arange(lag + 1)[:, None]
    unfinished = (present & (chunks >= num_given))[:, None, :]
    emitted = num_given + shifts - shifts_per_chunk(config) + 1
    prompts = np.searchsorted(np.asarray(prompt_starts), chunks, side="right") - 1
    given_frames = num_given * k + held
    return ShiftInputs(
        levels=np.where(unfinished, levels[np.clip(steps, 0, config.steps)], 0).astype(np.float32),
        num_valid=_int32((end - first) * k),
        chunks=_int32(np.where(present, chunks, -1)),
        entering=_int32(np.where(end > _end(config, shifts - 1, num_chunks, num_given), end - 1, -1)),
        emitted=_int32(np.where(emitted >= num_given, emitted, -1)),
        roll=_int32(next_first - first),
        prompt_index=_int32(np.where(present, prompts, 0)),
        held=_int32(np.maximum(0, given_frames - first * k)),
        held_level=np.full(len(shifts), config.context_noise, np.float32),
        first_step=_int32(shifts * lag),
        context_noise=np.zeros(len(shifts), np.float32),
    )


def before_first(first_shift: ShiftInputs, num_given: int) -> ShiftInputs:
    """The first shift of `plan_blocks` as `initial_state` takes it: those that wait are pure noise."""
    is_noise = np.broadcast_to(first_shift.chunks >= num_given, np.shape(first_shift.levels))
    return dataclasses.replace(first_shift, levels=is_noise.astype(np.float32))


def check_lag(config: WindowConfig, num_chunks: int) -> None:
    """Check that the chunks of a video are finished before they leave the window.

    Raises:
      ConfigError: they are not; the message names the least lag that would do.
    """
    if num_chunks > config.slots < shifts_per_chunk(config):
        raise ConfigError(
            f"with a lag of {config.steps_per_shift} of {config.steps} steps, chunks would leave the window of "
            f"{config.slots} chunks unfinished; use a lag of {-(-config.steps // config.slots)} or more, more "
            f"noisy_chunks, or a video of at most {config.window_size} latent frames"
        )


def _end(config: WindowConfig, shifts: np.ndarray, num_chunks: int, num_given: int) -> np.ndarray:
    """The chunk behind the window's last one: all that have begun are in it, and the first ones in any case."""
    return np.minimum(num_chunks, np.maximum(config.slots, num_given + 1 + shifts))


def _int32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32)
