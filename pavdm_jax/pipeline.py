"""From a prompt to frames: `generate`, and `generate_stream`, which hands frames over as they are finished.

Order of things: the request is checked and becomes a `Plan`; the prompt is encoded once; then segments of a few shifts run as one
compiled program, and every chunk that they finish is decoded and yielded. Memory does not depend on the length of the video.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.config import ModelConfig, TextConfig, WindowConfig, require
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.guidance import guided
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.sampler import WindowState, gaussian_noise, initial_state, sample_keys, sample_segment
from pavdm_jax.diffusion.window import ShiftInputs, num_shifts, plan_shifts, segments
from pavdm_jax.geometry import chunk_frames, latent_size
from pavdm_jax.geometry import num_chunks as count_chunks
from pavdm_jax.model import Model
from pavdm_jax.models.stdit3 import Caption, STDiT3, concatenate, take
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.models.vae import VideoVAE
from pavdm_jax.request import DTYPES, Request, make_request
from pavdm_jax.text import clean_caption, compose_prompt

ENDLESS_CHUNKS = 2**30
"""Chunks of a video without end: more than a thousand years of it."""


@dataclass(frozen=True)
class Plan:
    """A checked request in the sampler's units.

    Attributes:
      window: the model's, with the request's number of steps.
      table: noise levels after the noise shift, see `level_table`.
      num_given: chunks of the start clip that the window sees.
      num_chunks: these, and the chunks to make.
      num_shifts: of the whole video.
      chunk_frames: pixel frames of a chunk.
      prompt_of_chunk: the timeline, in chunks.
    """

    window: WindowConfig
    table: np.ndarray
    num_given: int
    num_chunks: int
    num_shifts: int
    chunk_frames: int
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
        require(window.context_chunks > 0, "this window has no context chunk, so no start clip can be continued")
        num_given = min(window.context_chunks, given_frames // frames)
        require(num_given > 0, f"the start clip has {given_frames} frames; at least {frames} (one chunk) are needed")
    num_chunks = ENDLESS_CHUNKS
    if request.frames is not None:
        require(
            request.frames > given_frames,
            f"{request.frames} frames are asked for, and the start clip has {given_frames} already; ask for more",
        )
        num_chunks = num_given + count_chunks(request.frames - given_frames, config)
    table = shift_levels(level_table(window), request.height, request.width, window.window_size, config.noise_base_size)
    # Chunk 0 of the plan is the first one that the window sees; the start clip may begin before it.
    first_frame = given_frames - num_given * frames
    timeline, number = [], 0
    for second in request.change_seconds:
        chunks_before = max(0, -((first_frame - round(second * request.fps)) // frames))
        require(chunks_before < num_chunks, f"the prompt at second {second:g} would begin after the end of the video")
        timeline += [number] * (chunks_before - len(timeline))
        number += 1
    return Plan(
        window=window,
        table=np.asarray(table),
        num_given=num_given,
        num_chunks=num_chunks,
        num_shifts=num_shifts(window, num_chunks, num_given),
        chunk_frames=frames,
        prompt_of_chunk=(*timeline, number),
    )


# --- compiled parts ---------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="config")
def encode_prompts(params: dict, ids: jax.Array, lengths: jax.Array, *, config: ModelConfig) -> Caption:
    """Token ids [b, p, l] to the caption keys and values of guidance: the prompts, then the null caption, along the batch."""
    b, p, tokens = ids.shape
    text_encoder = T5Encoder(config.t5)
    features = text_encoder.apply({"params": params["t5"]}, ids.reshape(b * p, tokens), lengths.reshape(b * p))
    network, variables = STDiT3(config.stdit3), {"params": params["stdit3"]}
    prompts = network.apply(variables, features.reshape(b, p, tokens, -1), lengths, method="encode_caption")
    null = network.apply(variables, lengths, method="encode_null_caption")
    return concatenate([prompts, null])


@functools.partial(jax.jit, static_argnames="chunk")
def first_window(keys: jax.Array, known: jax.Array, first_shift: ShiftInputs, *, chunk: tuple[int, ...]) -> WindowState:
    """The window before the first shift; `chunk` is the shape [k, h, w, c] of a chunk (see `initial_state`)."""
    return initial_state(gaussian_noise(keys, chunk), keys, known, first_shift)


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="state")
def run_segment(
    params: dict,
    caption: Caption,
    state: WindowState,
    plan: ShiftInputs,
    video: dict[str, jax.Array],
    *,
    config: ModelConfig,
    dtype: jnp.dtype,
):
    """Some shifts of the window: the new state, and the finished chunks (see `sample_segment`).

    Args:
      params: of the STDiT3.
      caption: from `encode_prompts`.
      video: scalars "fps", "height", "width" and "guidance_scale".
    """
    network = STDiT3(config.stdit3, dtype)

    def velocity(latents, levels, num_valid, prompt_index):
        b = latents.shape[0]
        per_frame = caption if caption.length.shape[1] == 1 else take(caption, prompt_index)
        fps, height, width = (jnp.full((b,), video[name]) for name in ("fps", "height", "width"))
        valid = jnp.full((b,), num_valid)
        output = network.apply({"params": params}, latents, levels, per_frame, fps, height, width, valid)
        return output[..., : config.stdit3.latent_channels]

    chunk = (config.window.chunk_size, *state.latents.shape[2:])
    noise = gaussian_noise(state.key, chunk)
    return sample_segment(guided(velocity, video["guidance_scale"]), noise, state, plan)


@functools.partial(jax.jit, static_argnames=("config", "num_frames"))
def decode_chunk(params: dict, latents: jax.Array, *, config: ModelConfig, num_frames: int) -> jax.Array:
    """Latents of a chunk to uint8 frames [b, f, h, w, 3]."""
    frames = VideoVAE(config.vae).apply({"params": params}, latents, num_frames, method="decode")
    return jnp.round((jnp.clip(frames, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames="config")
def encode_frames(params: dict, frames: jax.Array, *, config: ModelConfig) -> jax.Array:
    """uint8 frames [b, f, h, w, 3] to latents, by posterior means."""
    pixels = frames.astype(jnp.float32) / 127.5 - 1.0
    return VideoVAE(config.vae).apply({"params": params}, pixels, method="encode")


# --- the stream -------------------------------------------------------------------------------------------------------


class VideoStream:
    """An iterator over a video's frames, uint8 `[b, f, h, w, 3]`, a chunk at a time.

    Between two chunks, `save()` gives all that is needed to go on later; a stream of the same request that is given it with
    `restore` yields exactly the frames that are still to come.

    Attributes:
      plan: what will be computed.
      shift: shifts done so far, of `plan.num_shifts`.
      frames_done: frames made so far, the start clip's included.
    """

    def __init__(self, model: Model, request: Request):
        self.model, self.request = model, request
        self.plan = make_plan(model.config, request)
        self.shift, self.frames_done = 0, 0
        self._pending: list[np.ndarray] = []
        self._caption = self._encode_prompts()
        self._state = self._first_state()

    def _encode_prompts(self) -> Caption:
        config = self.model.config.text
        batch = [
            self.model.tokenizer.tokenize([_clean(prompt, config) for _, prompt in timeline], config.max_tokens)
            for timeline in self.request.prompts
        ]
        ids, lengths = (jnp.asarray(np.stack(arrays)) for arrays in zip(*batch, strict=True))
        return encode_prompts(self.model.params, ids, lengths, config=self.model.config)

    def _first_state(self) -> WindowState:
        config, plan = self.model.config, self.plan
        b, k = self.request.batch, plan.window.chunk_size
        cell = (*latent_size(self.request.height, self.request.width, config.vae), config.vae.latent_channels)
        known = jnp.zeros((b, 0, *cell))
        if plan.num_given:
            clip = self.request.start[-plan.num_given * plan.chunk_frames :]
            latents = encode_frames(self.model.params["vae"], clip[None], config=config)
            known = jnp.broadcast_to(latents, (b, *latents.shape[1:]))
        keys = sample_keys(self.request.seeds)
        first_shift = jax.tree.map(lambda array: array[0], plan.segment(0, 1))
        return first_window(keys, known, first_shift, chunk=(k, *cell))

    def save(self) -> dict[str, np.ndarray]:
        """The position in the video as plain arrays."""
        return {
            # Copies: the next segment takes the memory of the window.
            "latents": np.array(self._state.latents),
            "key": np.array(jax.random.key_data(self._state.key)),
            "shift": np.asarray(self.shift),
            "frames_done": np.asarray(self.frames_done),
            "pending": np.concatenate([self._no_frames(), *self._pending], axis=1),
        }

    def _no_frames(self) -> np.ndarray:
        return np.zeros((self.request.batch, 0, self.request.height, self.request.width, 3), np.uint8)

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Go to a position that `save` gave.

        Raises:
          ConfigError: the position belongs to a video of another size.
        """
        require(
            saved["latents"].shape == self._state.latents.shape,
            f"the saved position has a window of shape {saved['latents'].shape}; this request's is {self._state.latents.shape}",
        )
        self._state = WindowState(jnp.array(saved["latents"]), jax.random.wrap_key_data(jnp.array(saved["key"])))
        self.shift, self.frames_done = int(saved["shift"]), int(saved["frames_done"])
        self._pending = [saved["pending"]] if saved["pending"].shape[1] else []

    @property
    def done(self) -> bool:
        """Whether the video is whole."""
        return self.shift >= self.plan.num_shifts

    def advance(self) -> list[np.ndarray]:
        """Run one segment, and return the frames that came out of it, a chunk each: none while the window fills."""
        chunks = []
        start = self.request.start
        if start is not None and self.frames_done == 0:
            chunks.append(np.broadcast_to(start, (self.request.batch, *start.shape)))
            self.frames_done = len(start)
        for latents in self._run(self.plan.segment(self.shift, self.request.segment)):
            chunks.append(self._decode(latents))
            self.frames_done += chunks[-1].shape[1]
        self.shift = min(self.shift + self.request.segment, self.plan.num_shifts)
        return chunks

    def __iter__(self) -> Iterator[np.ndarray]:
        while self._pending or not self.done:
            if self._pending:
                yield self._pending.pop(0)
            else:
                self._pending = self.advance()

    def _run(self, segment: ShiftInputs) -> list[jax.Array]:
        config, request = self.model.config, self.request
        video = {name: jnp.float32(getattr(request, name)) for name in ("fps", "height", "width", "guidance_scale")}
        self._state, finished = run_segment(
            self.model.params["stdit3"],
            self._caption,
            self._state,
            segment,
            video,
            config=config,
            dtype=DTYPES[request.dtype],
        )
        return [finished.latents[i] for i, number in enumerate(segment.emitted.tolist()) if number >= 0]

    def _decode(self, latents: jax.Array) -> np.ndarray:
        frames = decode_chunk(
            self.model.params["vae"], latents, config=self.model.config, num_frames=self.plan.chunk_frames
        )
        room = None if self.request.frames is None else self.request.frames - self.frames_done
        return np.asarray(frames)[:, :room]


def _clean(prompt: str, config: TextConfig) -> str:
    caption = clean_caption(compose_prompt(prompt, config.aesthetic_score))
    require(
        bool(clean_caption(prompt)),
        f"nothing is left of the prompt {prompt!r} when it is cleaned; write it in English words",
    )
    return caption


def generate_stream(model: Model, prompt, frames: int | None = 1440, **options) -> VideoStream:
    """Frames of a video while it is made; `frames=None` goes on for ever.

    Args and errors: see `generate`. Yields uint8 `[b, f, h, w, 3]`, f being 17 for most models (the start clip comes first, and
    the last chunk is cut), with b = 1 for a single prompt.
    """
    return VideoStream(model, make_request(model.config, prompt, frames=frames, **options))


def generate(model: Model, prompt, frames: int = 1440, **options) -> np.ndarray:
    """Make a video.

    Args:
      model: from `load`.
      prompt: a text; a list of texts for a batch; or a timeline `[(second, text), ...]` that starts at second 0.
      frames: pixel frames of the whole video, a start clip's included; any number.
      options: the other fields of `request.Options`: seconds, height and width or resolution and aspect_ratio, fps, steps,
        guidance_scale, seed, samples, start, dtype, segment.

    Returns:
      uint8 `[frames, height, width, 3]`; with a batch axis in front for a list of prompts or `samples` > 1.

    Raises:
      ConfigError: something in the request cannot work; the message names the value and the remedy.
    """
    stream = generate_stream(model, prompt, frames, **options)
    require(stream.request.frames is not None, "an endless video does not fit in memory; use generate_stream")
    video = np.concatenate(list(stream), axis=1)
    return video[0] if stream.request.single else video
