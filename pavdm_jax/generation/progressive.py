"""The paper's method as a stream: a request becomes a `Plan` in chunks and shifts, and the window slides along it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.config import ModelConfig, WindowConfig
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.sampler import WindowState, sample_keys
from pavdm_jax.diffusion.window import ShiftInputs, num_shifts, plan_shifts, segments
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import first_window, run_segment
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import Request
from pavdm_jax.generation.stream import ENDLESS_CHUNKS, VideoStream
from pavdm_jax.geometry import chunk_frames
from pavdm_jax.geometry import num_chunks as count_chunks
from pavdm_jax.models.model import Model


@dataclass(frozen=True)
class Plan:
    """A checked request in the sampler's units.

    Attributes:
      window: the model's, with the request's number of steps.
      table: noise levels after the noise shift, see `level_table`.
      num_given: chunks of the start clip that the window sees.
      num_chunks: these, and the chunks to make.
      num_shifts: of the whole video.
      prompt_of_chunk: the timeline, in chunks.
    """

    window: WindowConfig
    table: np.ndarray
    num_given: int
    num_chunks: int
    num_shifts: int
    prompt_of_chunk: tuple[int, ...]

    def segment(self, start: int, length: int) -> ShiftInputs:
        """`length` shifts from `start` on, filled up with inert ones."""
        stop = min(start + length, self.num_shifts)
        part = plan_shifts(self.window, self.table, self.num_chunks, self.num_given, self.prompt_of_chunk, start, stop)
        return next(segments(part, length))


def make_plan(config: ModelConfig, request: Request) -> Plan:
    """Count the chunks and shifts of a request.

    Raises:
      ConfigError: the start clip is too short, or leaves nothing to make.
    """
    window, frames = request.window, chunk_frames(config)
    given_frames = 0 if request.start is None else len(request.start)
    num_given = 0
    if request.start is not None:
        if window.context_chunks <= 0:
            raise ConfigError("this window has no context chunk, so no start clip can be continued")
        num_given = min(window.context_chunks, given_frames // frames)
        if num_given <= 0:
            raise ConfigError(f"the start clip has {given_frames} frames; at least {frames} (one chunk) are needed")
    num_chunks = ENDLESS_CHUNKS
    if request.frames is not None:
        if request.frames <= given_frames:
            raise ConfigError(
                f"{request.frames} frames are asked for, and the start clip has {given_frames} already; ask for more"
            )
        num_chunks = num_given + count_chunks(request.frames - given_frames, config)
    table = shift_levels(level_table(window), request.height, request.width, window.window_size, config.noise_base_size)
    # Chunk 0 of the plan is the first one that the window sees; the start clip may begin before it.
    first_frame = given_frames - num_given * frames
    timeline, number = [], 0
    for second in request.change_seconds:
        chunks_before = max(0, -((first_frame - round(second * request.fps)) // frames))
        if chunks_before >= num_chunks:
            raise ConfigError(f"the prompt at second {second:g} would begin after the end of the video")
        timeline += [number] * (chunks_before - len(timeline))
        number += 1
    return Plan(
        window=window,
        table=np.asarray(table),
        num_given=num_given,
        num_chunks=num_chunks,
        num_shifts=num_shifts(window, num_chunks, num_given),
        prompt_of_chunk=(*timeline, number),
    )


class ProgressiveStream(VideoStream):
    """Progressive sampling; a round is a shift, and `request.segment` of them are one compiled call."""

    unit = "shift"
    before_first_frames = "filling the window"

    def __init__(self, model: Model, request: Request, prompts: PromptFeatures):
        self.plan = make_plan(model.config, request)
        self.num_rounds = self.plan.num_shifts
        super().__init__(model, request, prompts)
        self._state = self._first_state()

    def _first_state(self) -> WindowState:
        plan, request = self.plan, self.request
        known = jnp.zeros((request.batch, 0, *self._cell))
        if plan.num_given:
            known = self._encode(request.start[-plan.num_given * self.chunk_frames :])
        first_shift = jax.tree.map(lambda array: array[0], plan.segment(0, 1))
        keys, chunk = sample_keys(request.seeds), (plan.window.chunk_size, *self._cell)
        return self._call(first_window, keys, known, first_shift, chunk=chunk)

    def _sample(self) -> list[jax.Array]:
        segment = self.plan.segment(self.round, self.request.segment)
        self._state, finished = self._call(run_segment, self._conditions, self._state, segment)
        self.round = min(self.round + self.request.segment, self.num_rounds)
        return [finished.latents[i] for i, number in enumerate(segment.emitted.tolist()) if number >= 0]
