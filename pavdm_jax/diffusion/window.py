"""The sliding window as data: what every shift does, as arrays that enter `lax.scan`.

Number a video's chunks 0..N−1. The first G are given and clean; chunk j enters as pure noise at shift j − G and is
finished K shifts later (K noisy chunks fit in the window). The window holds consecutive chunks, packed to the left: up
to `context` finished ones, then those being denoised, then empty slots. Growing, sliding, shrinking, starting from text
alone, and videos shorter than the window are values of this one formula. Source: arXiv 2410.08151, section 3, and
desaixie/pa_vdm, opensora/schedulers/rf/__init__.py, which has separate phases instead.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import struct

from pavdm_jax.config import WindowConfig
from pavdm_jax.errors import ConfigError


@struct.dataclass
class ShiftInputs:
    """What one shift does; with a leading axis, the plan of many shifts.

    A slot is the place of a chunk in the window (`config.slots` of them); r is `config.steps_per_shift`.

    Attributes:
      levels: [r + 1, slots] float32 in 0..1: levels before each step and after the last one; the context's level in
        finished chunks, 0 in empty slots.
      num_valid: [] int32: latent frames that the window holds, a prefix; 0 marks an inert shift, which does nothing.
      chunks: [slots] int32: chunk number in each slot; −1 in empty ones.
      entering: [] int32: the chunk that enters as noise at the start of the shift; −1 for none.
      emitted: [] int32: the chunk that is clean at the end of the shift; −1 for none.
      roll: [] int32: 1 when the window moves on by a chunk at the end of the shift, else 0.
      prompt_index: [slots] int32: the prompt that each slot follows; 0 in empty ones.
      held: [] int32: latent frames at the window's head that are given while the rest of their chunk is made.
      held_level: [] float32: level of the held frames for the network; they stay clean.
      first_step: [] int32: the number of the shift's first step, from the video's start.
      context_noise: [] float32: level to which a finished chunk is noised when it becomes context.
    """

    levels: jax.Array | np.ndarray
    num_valid: jax.Array | np.ndarray
    chunks: jax.Array | np.ndarray
    entering: jax.Array | np.ndarray
    emitted: jax.Array | np.ndarray
    roll: jax.Array | np.ndarray
    prompt_index: jax.Array | np.ndarray
    held: jax.Array | np.ndarray
    held_level: jax.Array | np.ndarray
    first_step: jax.Array | np.ndarray
    context_noise: jax.Array | np.ndarray


def shifts_per_chunk(config: WindowConfig) -> int:
    """Shifts from a chunk's beginning to its end: as many as there are noisy chunks, where none waits."""
    return -(-config.steps // config.steps_per_shift)


def num_shifts(config: WindowConfig, num_chunks: int, num_given: int) -> int:
    """The shifts that a video of `num_chunks` chunks takes when the first `num_given` are given.

    Each new chunk begins in a shift of its own, and the last one leaves `shifts_per_chunk` - 1 shifts later.

    Raises:
      ConfigError: `num_given` is negative, or no chunk is left to generate.
    """
    if num_given < 0:
        raise ConfigError(f"the number of given chunks must be 0 or more, not {num_given}")
    if num_chunks <= num_given:
        raise ConfigError(
            f"a video of {num_chunks} chunks leaves nothing to generate after {num_given} given ones; ask for a longer "
            "video"
        )
    return num_chunks - num_given + shifts_per_chunk(config) - 1


def plan_shifts(
    config: WindowConfig,
    table: jax.Array | np.ndarray,
    num_chunks: int,
    num_given: int = 0,
    prompt_starts: Sequence[int] = (0,),
    held: int = 0,
    start: int = 0,
    stop: int | None = None,
) -> ShiftInputs:
    """The shifts `start` to `stop` of a video.

    The window at the start of shift i does not depend on later shifts. So a plan can be made in pieces, and a longer
    video (or an endless one, with a huge `num_chunks`) begins as a shorter one does.

    Args:
      config: sizes of the window.
      table: [steps_per_shift, noisy_chunks], `level_table(config)` after the noise shift.
      num_chunks: chunks of the whole video, the given ones included.
      num_given: chunks at the video's start that are given and clean; 0 starts from text alone.
      prompt_starts: the first chunk of each prompt, in ascending order; of prompts that begin with the same chunk the
        last one is followed.
      held: latent frames at the head of chunk 0 that are given, such as an image; the rest of the chunk is generated.
      start, stop: number of the first shift, and the number behind the last one; None: to the end.

    Returns:
      The shifts along the leading axis, as NumPy arrays.

    Raises:
      ConfigError: there is nothing to generate, or the table does not fit the window.
    """
    table = np.asarray(table, np.float32)
    expected = (config.steps_per_shift, config.noisy_chunks)
    if table.shape != expected:
        raise ConfigError(f"the level table has shape {table.shape}; this window needs {expected}")
    total = num_shifts(config, num_chunks, num_given)
    shifts = np.arange(start, total if stop is None else min(stop, total))

    first = _first_chunk(config, shifts, num_given)
    end = np.minimum(num_chunks, num_given + shifts + 1)
    chunks = first[:, None] + np.arange(config.slots)[None, :]
    present = chunks < end[:, None]

    # A chunk that entered `age` shifts ago began at the last column of the table; each shift moves it one to the left.
    age = shifts[:, None] - (chunks - num_given)
    denoised = present & (chunks >= num_given) & (age < config.noisy_chunks)
    column = np.where(denoised, config.noisy_chunks - 1 - age, 0)
    after = np.concatenate([np.zeros(1, np.float32), table[0, :-1]])
    rows = np.concatenate([table, after[None, :]])
    finished = np.where(present, np.float32(config.context_noise), np.float32(0))
    levels = np.where(denoised[:, None, :], np.moveaxis(rows[:, column], 0, 1), finished[:, None, :])
    prompts = np.searchsorted(np.asarray(prompt_starts), chunks, side="right") - 1
    return ShiftInputs(
        levels=levels,
        num_valid=_int32((end - first) * config.chunk_size),
        chunks=_int32(np.where(present, chunks, -1)),
        entering=_int32(np.where(num_given + shifts < num_chunks, num_given + shifts, -1)),
        emitted=_int32(np.where(shifts >= config.noisy_chunks - 1, num_given + shifts - config.noisy_chunks + 1, -1)),
        roll=_int32(_first_chunk(config, shifts + 1, num_given) - first),
        prompt_index=_int32(np.where(present, prompts, 0)),
        held=_int32(np.where(first == 0, held, 0)),
        held_level=np.zeros(len(shifts), np.float32),
        first_step=_int32(shifts * config.steps_per_shift),
        context_noise=np.full(len(shifts), config.context_noise, np.float32),
    )


def segments(plan: ShiftInputs, length: int) -> Iterator[ShiftInputs]:
    """Cut a plan into pieces of `length` shifts, so that one compiled program runs them all.

    The last piece is padded with inert shifts.

    Raises:
      ConfigError: `length` is below 1.
    """
    if length < 1:
        raise ConfigError(f"a segment needs at least 1 shift, not {length}")
    for start in range(0, len(plan.num_valid), length):
        piece = jax.tree.map(lambda array, start=start: array[start : start + length], plan)
        yield _pad(piece, length - len(piece.num_valid))


def _pad(piece: ShiftInputs, count: int) -> ShiftInputs:
    """Append `count` inert shifts."""

    def pad(array: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([array, np.full((count, *array.shape[1:]), value, array.dtype)])

    empty = {"chunks": -1, "entering": -1, "emitted": -1}
    return ShiftInputs(**{name: pad(array, empty.get(name, 0)) for name, array in vars(piece).items()})


def _first_chunk(config: WindowConfig, shifts: np.ndarray, num_given: int) -> np.ndarray:
    """The chunk in slot 0: the first unfinished one, less the context."""
    unfinished = num_given + np.maximum(0, shifts - config.noisy_chunks + 1)
    return np.maximum(0, unfinished - config.context_chunks)


def _int32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32)
