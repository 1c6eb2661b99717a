"""The paper's method (arXiv 2410.08151, section 3) as a stream, and SkyReels-V2's own schedules as others of its plans.

A request becomes a `Plan` in chunks and shifts, which the window slides along.
"""

import itertools
import warnings
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.block_schedule import before_first, check_lag, plan_blocks
from pavdm_jax.diffusion.family_levels import window_levels, window_solver
from pavdm_jax.diffusion.sampler import FinishedChunk, WindowState, sample_keys
from pavdm_jax.diffusion.window import ShiftInputs, num_shifts, plan_shifts, segments
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import first_window, run_segment
from pavdm_jax.generation.prompts import PromptFeatures, encode_texts
from pavdm_jax.generation.request import Request
from pavdm_jax.generation.stream import ENDLESS_CHUNKS, VideoStream
from pavdm_jax.geometry import begin_of, decodable_latents, decoded_frames, least_frames, new_latents
from pavdm_jax.models.model import Model


@dataclass(frozen=True)
class Plan:
    """A checked request in the sampler's units.

    Chunk 0 is the first one that the window sees; the start clip may begin before it.

    Attributes:
      window: of the request.
      table: noise levels after the noise shift, see `window_levels`.
      num_given: chunks of the start clip that the window sees as clean context.
      num_noised: the following chunks of the start clip: they are noised to the levels of a window that is already
        full, and sampled again.
      num_chunks: chunks in all: given, noised and new.
      held: latent frames at the head of chunk 0 that are given and kept: an image, or the end of the start clip.
      num_shown: of the held ones, those of the start clip, whose frames are shown already.
      num_shifts: the number of the shift after the last one.
      prompt_starts: the first chunk of each prompt.
    """

    window: WindowConfig
    table: np.ndarray
    num_given: int
    num_noised: int
    num_chunks: int
    held: int
    num_shown: int
    num_shifts: int
    prompt_starts: tuple[int, ...]

    @property
    def first_shift(self) -> int:
        """The number of the first shift: those that would bring in the noised chunks are skipped."""
        return self.num_noised

    @property
    def known_latents(self) -> int:
        """Latent frames of the start clip that the window sees."""
        return (self.num_given + self.num_noised) * self.window.chunk_size + self.num_shown

    def segment(self, start: int, length: int) -> ShiftInputs:
        """`length` shifts from number `start` on; behind the last one, shifts that change nothing."""
        stop = min(start + length, self.num_shifts)
        plan = plan_shifts if self.window.lag is None else plan_blocks
        part = plan(
            self.window, self.table, self.num_chunks, self.num_given, self.prompt_starts, self.held, start, stop
        )
        return next(segments(part, length))

    def takes_noise(self, shift: int) -> bool:
        """Whether noise is drawn in a shift from this number on, so that another seed makes another video."""
        if self.window.context_noise > 0 and (self.window.lag is None or self.held):
            return True
        if self.window.lag is None:
            return self.num_given + shift < self.num_chunks
        return bool((self.segment(shift, max(1, self.num_shifts - shift)).entering >= 0).any())

    def start(self) -> ShiftInputs:
        """The first shift, as `initial_state` takes it."""
        first = jax.tree.map(lambda array: array[0], self.segment(self.first_shift, 1))
        return first if self.window.lag is None else before_first(first, self.num_given)


def make_plan(request: Request) -> Plan:
    """Count the chunks and shifts of a request.

    Raises:
      ConfigError: the start clip is too short, a prompt begins after the end of the video, or chunks would leave the
        window unfinished.
    """
    config, window = request.config, request.config.window
    num_given, num_noised = _known_chunks(request)
    num_shown = request.held_latents if request.image is None else 0
    num_new = ENDLESS_CHUNKS
    if request.frames is not None:
        known = (num_given + num_noised) * window.chunk_size + num_shown
        new = new_latents(request.frames - request.given_frames, config.vae, known)
        num_new = -(-(num_shown + new) // window.chunk_size)
    unfinished = window.noisy_chunks - 1 if request.fixed_length else 0
    num_chunks = num_given + num_noised + num_new + unfinished
    plan = Plan(
        window=window,
        table=window_levels(config, request.told_size),
        num_given=num_given,
        num_noised=num_noised,
        num_chunks=num_chunks,
        held=request.held_latents,
        num_shown=num_shown,
        num_shifts=num_shifts(window, num_chunks, num_given) - unfinished,
        prompt_starts=(0,),
    )
    if window.lag is not None:
        check_lag(window, num_chunks)
    return replace(plan, prompt_starts=_prompt_starts(request, plan, num_chunks - unfinished))


def _known_chunks(request: Request) -> tuple[int, int]:
    """Chunks of the start clip that are context, and chunks that are noised (see `Plan`)."""
    window, vae = request.config.window, request.config.vae
    if window.lag is not None and window.context_chunks == 0:
        _check_held(request)
        return 0, 0
    wanted = window.noisy_chunks - 1 if request.fixed_length or window.context_chunks == 0 else 0
    least = window.context_chunks + wanted if request.fixed_length else 1
    shortest = decoded_frames(least * window.chunk_size, vae)
    if request.start is None:
        if request.fixed_length:
            raise ConfigError(
                f"fixed_length starts from a known video of at least {shortest} frames; give one as start "
                "(the beginning of a video that was made without it will do)"
            )
        return 0, 0
    available = decodable_latents(request.given_frames, vae) // window.chunk_size
    if available < least:
        raise ConfigError(f"the start clip has {len(request.start[0])} frames; at least {shortest} frames are needed")
    num_noised = min(wanted, available)
    if not window.context_chunks and not wanted:
        raise ConfigError(
            "a window of one noisy chunk without context sees nothing of a start clip; give context_chunks 1"
        )
    return min(window.context_chunks, available - num_noised), num_noised


def _check_held(request: Request) -> None:
    """Check that the end of a start clip can be held at the head of the first chunk, which is to be made."""
    held, chunk = request.held_latents, request.config.window.chunk_size
    if request.start is not None and held == 0:
        least = decoded_frames(1, request.config.vae)
        raise ConfigError(f"the start clip has {request.given_frames} frames; at least {least} frames are needed")
    if held >= chunk and request.start is not None:
        raise ConfigError(
            f"the {held} latent frames of the start clip's end leave nothing to make of a chunk of {chunk}; give "
            "context_chunks 1"
        )


def _prompt_starts(request: Request, plan: Plan, end: int) -> tuple[int, ...]:
    """The first chunk of each prompt of the timeline.

    It is the first one whose frames all lie at or behind the prompt's second, or else the last chunk.
    """
    vae, k = request.config.vae, plan.window.chunk_size
    # The window begins within a clip that is decoded whole, where its known latents are only the end of one.
    first_frame = request.given_frames - decoded_frames(plan.known_latents, vae)
    before = -plan.known_latents % vae.decoded_together
    starts = [0]
    for second in request.change_seconds:
        frame = round(second * request.fps)
        if request.frames is not None and frame >= request.frames:
            raise ConfigError(f"the prompt at second {second:g} would begin after the end of the video")
        latent = (frame - first_frame) * vae.micro_latents // vae.micro_frames - before
        chunk = max(0, latent // k - 2)  # it is no later
        while first_frame + begin_of(before + chunk * k, vae) < frame:
            chunk += 1
        starts.append(min(chunk, end - 1))
    for number, (start, later) in enumerate(itertools.pairwise(starts)):
        if start == later:
            never = request.prompts[0][number][1]
            warnings.warn(
                f"the prompt {never!r} is never seen: the next one begins within the same chunk (of {k} latent frames)",
                stacklevel=2,
            )
    return tuple(starts)


class ProgressiveStream(VideoStream):
    """Progressive sampling; a round is a shift, and `request.segment` of them are one compiled call."""

    unit = "shift"
    before_first_frames = "filling the window"

    def __init__(self, model: Model, request: Request, prompts: PromptFeatures):
        self.plan = make_plan(request)
        self._starts_asked = self.plan.prompt_starts
        self.num_rounds = self.plan.num_shifts
        super().__init__(model, request, prompts)
        self.round = self.plan.first_shift
        self._solver = window_solver(request.config)
        self._state = self._first_state()

    def _first_state(self) -> WindowState:
        plan, request, vae = self.plan, self.request, self.request.config.vae
        known, held = jnp.zeros((request.batch, 0, *self._cell)), None
        if plan.known_latents and request.start is not None:
            begin = request.given_frames - decoded_frames(plan.known_latents, vae)
            latents = self._encode(request.start[:, begin:])
            # Of a micro clip whose later latent frames are made again, the others stay.
            first_made = latents.shape[1] - plan.num_noised * plan.window.chunk_size
            self._decoding.begin(latents[:, :first_made])
            self.kept_frames = begin + least_frames(first_made // vae.decoded_together * vae.decoded_together, vae)
            known = latents[:, latents.shape[1] - plan.known_latents :]
            if plan.num_shown:
                known, held = known[:, plan.num_shown :], known
        if request.image is not None:
            held = self._encode(request.image)
        keys, chunk = sample_keys(request.seeds), (plan.window.chunk_size, *self._cell)
        return self._call(first_window, keys, known, plan.start(), held, self._solver, chunk=chunk)

    def slide(self) -> tuple[ShiftInputs, FinishedChunk]:
        """Run one compiled call without decoding: its shifts, and what leaves the window in each."""
        segment = self.plan.segment(self.round, self.request.segment)
        self._state, finished = self._call(run_segment, self._conditions, self._state, segment, self._solver)
        self.round = min(self.round + self.request.segment, self.num_rounds)
        return segment, finished

    def advance(self) -> list[np.ndarray]:
        segment, finished = self.slide()
        made = self._start_frames()
        for i, number in enumerate(segment.emitted.tolist()):
            if number >= 0:
                shown = self.plan.num_shown if number == 0 else 0
                made += self._decode_finished(finished.latents[i][:, shown:])
        return [frames for frames in made if frames.shape[1]]

    @property
    def _chunks(self) -> tuple[int, int]:
        return self.plan.window.chunk_size, self.plan.num_chunks

    def _check_window(self, shape: tuple[int, ...], round_number: int, chunks: tuple[int, int]) -> None:
        size, number = chunks
        if shape != self._state.latents.shape or size != self.plan.window.chunk_size:
            raise ConfigError(
                f"the saved position has a window of shape {shape} in chunks of {size}; this request's is "
                f"{self._state.latents.shape} in chunks of {self.plan.window.chunk_size}"
            )
        # What the window holds follows from the shift before.
        last = max(round_number - 1, self.plan.first_shift)
        other = replace(self.plan, num_chunks=number, num_shifts=last + 1)
        held, held_by_other = (replace(plan, num_shifts=last + 1).segment(last, 1) for plan in (self.plan, other))
        if number != self.plan.num_chunks and not all(
            jax.tree.leaves(jax.tree.map(np.array_equal, held, held_by_other))
        ):
            raise ConfigError(
                "the saved position was taken when its video came to its end, and nothing entered its window any more; "
                "this video is of another length: take an earlier position"
            )

    def _forget_changes(self) -> None:
        super()._forget_changes()
        self.plan = replace(self.plan, prompt_starts=self._starts_asked)

    def _next_change(self) -> int:
        return min(self.plan.num_given + self.round, self.plan.num_chunks - 1)

    @property
    def _oldest_place(self) -> int:
        return self.plan.prompt_starts[0]

    def _change(self, place: int, texts: tuple[str, ...]) -> None:
        starts = list(self.plan.prompt_starts)
        number = int(np.searchsorted(starts, place, side="right"))
        # Prompts of chunks that have left the window are dropped, so that their number stays small.
        window_begins = max(0, self.plan.num_given + self.round - self.plan.window.slots)
        forgotten = max(0, int(np.searchsorted(starts, window_begins, side="right")) - 1)
        features = encode_texts(self.model, self.request, texts)
        self._prompts = self._prompts.insert(number, features).without_first(forgotten)
        starts.insert(number, place)
        self.plan = replace(self.plan, prompt_starts=tuple(starts[forgotten:]))
        self._conditions = self._make_conditions(self._prompts)
