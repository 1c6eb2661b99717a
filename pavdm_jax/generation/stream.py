"""The base class of the sampling methods: what all streams of frames share (prompts, positions, decoding)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.cli import enable_cache
from pavdm_jax.diffusion.family_levels import guided_frames, repeated_frames
from pavdm_jax.diffusion.sampler import WindowState
from pavdm_jax.distributed.mesh import make_mesh, use_mesh
from pavdm_jax.distributed.placement import place_params, place_replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.decoding import Decoding, start_decoding
from pavdm_jax.generation.programs import Conditions, encode_frames, guidance_caption
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import Request
from pavdm_jax.geometry import latent_size
from pavdm_jax.models.attention import choose_backend
from pavdm_jax.models.model import DTYPES, SAMPLING_PARTS, Model, part_name

T = TypeVar("T")

OF_SOLVER = "memory_"
"""Prefix of what a position keeps for the solver (see `diffusion.solvers`), numbered."""

ENDLESS_CHUNKS = 2**30
"""The number of chunks of a video without end, which would last more than twenty years."""


class VideoStream(ABC):
    """An iterator over a video's frames, uint8 `[b, f, h, w, 3]`, one micro clip (17 frames) or chunk at a time.

    `save()` returns the position in the video at any moment. A stream of the same request continues from it after
    `restore`, and yields exactly the remaining frames; a stream of another seed, prompt or length branches off there.
    A round is the unit in which the sampling method counts: a shift, or a clip.

    Attributes:
      round: rounds done so far, of `num_rounds`.
      frames_done: pixel frames made so far, the start clip's included.
      kept_frames: pixel frames of the start clip that are shown unchanged.
    """

    unit: str  # what a round is called in a progress bar
    before_first_frames: str  # what is going on until the first frames come, for the same bar
    num_rounds: int
    _state: WindowState

    def __init__(self, model: Model, request: Request, prompts: PromptFeatures):
        enable_cache()
        self._mesh = make_mesh(request.mesh)
        # A text encoder stays where it is: it may be too large for the accelerator.
        sampled = {part: model.params[part] for part in map(partial(part_name, config=model.config), SAMPLING_PARTS)}
        self.model = model.replace(params={**model.params, **place_params(sampled, self._mesh)})
        self.request = request
        self.round, self.frames_done, self.kept_frames = 0, 0, 0 if request.start is None else request.given_frames
        self._prompts = self._asked = prompts
        self._conditions = self._make_conditions(prompts)
        self._changes: list[tuple[int, tuple[str, ...]]] = []  # prompts from `set_prompt`, and where they begin
        self._is_cut = False  # whether frames behind the end of the video were made, and are lost
        self._pending: list[np.ndarray] = []
        self._decoding = self._start_decoding()

    @abstractmethod
    def advance(self) -> list[np.ndarray]:
        """Run one compiled call, and return the finished frames by micro clips: none while the window fills."""

    @abstractmethod
    def _next_change(self) -> int:
        """The chunk, or clip, from which on another prompt can hold."""

    @abstractmethod
    def _change(self, place: int, texts: tuple[str, ...]) -> None:
        """Let a prompt for each sample hold from a chunk or clip on."""

    @property
    @abstractmethod
    def _oldest_place(self) -> int:
        """Where the oldest prompt begins that a chunk, or clip, in the window may still have."""

    def _apply_change(self, place: int, texts: tuple[str, ...]) -> None:
        """Change the prompt, and note it for `save`; what no chunk needs any more is dropped from the notes."""
        self._change(place, texts)
        changes = [*self._changes, (place, texts)]
        self._changes = [change for change in changes if change[0] >= self._oldest_place]

    def _forget_changes(self) -> None:
        """Let the prompts of the request hold again."""
        self._changes, self._prompts = [], self._asked
        self._conditions = self._make_conditions(self._asked)

    @property
    @abstractmethod
    def _chunks(self) -> tuple[int, int]:
        """How long a chunk, or clip, is, and how many the video has."""

    @abstractmethod
    def _check_window(self, shape: tuple[int, ...], round_number: int, chunks: tuple[int, int]) -> None:
        """Check that a window of this shape, at a round of a video with these `_chunks`, is also one of this video.

        Raises:
          ConfigError: it is not.
        """

    @property
    def place(self) -> str:
        """The size of the frames, and what makes them, in words: "240x424 on 8 NVIDIA H100"."""
        devices = self._mesh.devices.flat
        kind = f"{self._mesh.size} {devices[0].device_kind}" if devices[0].platform != "cpu" else "CPU"
        return f"{self.request.height}x{self.request.width} on {kind}"

    @property
    def done(self) -> bool:
        """Whether all rounds are done."""
        return self.round >= self.num_rounds

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        while not self._pending:
            if self.done:
                raise StopIteration
            self._pending = self.advance()
        return self._pending.pop(0)

    def set_prompt(self, prompt: str | Sequence[str]) -> None:
        """Change the prompt from the next chunk on that enters the window; of the baselines, from the next clip on.

        The change is visible when that chunk leaves the window, `noisy_chunks` shifts later. The later prompts of a
        timeline still follow. `save` keeps the change.

        Args:
          prompt: for all samples, or one for each.

        Raises:
          ConfigError: the number of prompts is not that of the samples, or a prompt is empty after cleaning.
        """
        texts = (prompt,) * self.request.batch if isinstance(prompt, str) else prompt
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"a prompt is text, or a list of texts, not {prompt!r}")
        if len(texts) != self.request.batch:
            raise ConfigError(f"{len(texts)} prompts are given for {self.request.batch} samples; give one each")
        self._apply_change(self._next_change(), tuple(texts))

    def save(self) -> dict[str, np.ndarray]:
        """The position in the video as NumPy arrays, for `restore`."""
        return {
            "method": np.asarray(self.request.method),
            # Copies: the next call takes the memory of the window.
            "latents": np.array(self._state.latents),
            "finished": np.array(self._decoding.kept),
            "round": np.asarray(self.round),
            "frames_done": np.asarray(self.frames_done),
            "chunks": np.asarray(self._chunks),
            "is_cut": np.asarray(self._is_cut),
            "pending": np.concatenate([self._no_frames(), *self._pending], axis=1),
            "changed_at": np.asarray([place for place, _ in self._changes], np.int64),
            "changed_to": np.asarray([texts for _, texts in self._changes], np.str_).reshape(-1, self.request.batch),
        } | {
            f"{OF_SOLVER}{number}": np.array(array) for number, array in enumerate(jax.tree.leaves(self._state.memory))
        }

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continue from a position that `save` returned; the noise of later chunks is that of this stream's seeds.

        Raises:
          ConfigError: the position is of another method, size or window, or lies behind the end of this video, or where
            a shorter video came to its end.
        """
        missing = sorted(self.save().keys() - saved.keys())
        if missing:
            raise ConfigError(f"the saved position lacks {', '.join(missing)}; it is none of `save`")
        if (method := str(saved["method"])) != self.request.method:
            raise ConfigError(f"the saved position is of method {method}; this request's is {self.request.method}")
        shape, expected = saved["latents"].shape, self._state.latents.shape
        if (shape[0], *shape[2:]) != (expected[0], *expected[2:]):
            raise ConfigError(f"the saved position has a window of shape {shape}; this request's is {expected}")
        round_number = int(saved["round"])
        if round_number > self.num_rounds:
            raise ConfigError(
                f"the saved position is after {int(saved['frames_done'])} frames, behind the end of this request; "
                "ask for more frames"
            )
        length, number = saved["chunks"].tolist()
        self._check_window(shape, round_number, (length, number))
        if saved["is_cut"] and (self.request.frames is None or self.request.frames > int(saved["frames_done"])):
            raise ConfigError(
                f"the saved position is the end of a video of {int(saved['frames_done'])} frames, and what a longer "
                "one would show next is lost; take an earlier position"
            )
        leaves, memory = jax.tree.flatten(self._state.memory)
        remembered = [jnp.array(saved[f"{OF_SOLVER}{number}"]) for number in range(len(leaves))]
        state = WindowState(jnp.array(saved["latents"]), self._state.key, memory.unflatten(remembered))
        self._state, kept = place_replicated((state, jnp.array(saved["finished"])), self._mesh)
        self._decoding = self._start_decoding()
        self._decoding.begin(kept)
        self.round, self.frames_done = round_number, int(saved["frames_done"])
        self._is_cut = bool(saved["is_cut"])
        self._pending = [saved["pending"]] if saved["pending"].shape[1] else []
        if self._prompts is not self._asked:
            self._forget_changes()
        for place, texts in zip(saved["changed_at"].tolist(), saved["changed_to"].tolist(), strict=True):
            self._apply_change(place, tuple(texts))

    # What the subclasses share.

    def _call(self, program: Callable[..., T], *arrays, **named) -> T:
        """A compiled program's result, on the devices of the request."""
        with use_mesh(self._mesh):
            return program(*arrays, **named)

    @property
    def _cell(self) -> tuple[int, int, int]:
        """Rows, columns and channels of a latent frame."""
        vae = self.request.config.vae
        return (*latent_size(self.request.height, self.request.width, vae), vae.latent_channels)

    def _make_conditions(self, prompts: PromptFeatures) -> Conditions:
        params, config, request = self.model.transformer, self.request.config, self.request
        dtype = DTYPES[request.dtype]
        caption = self._call(guidance_caption, params, *prompts, config=config, guided=request.guided, dtype=dtype)
        fps, height, width = map(np.float32, (request.fps, *request.told_size))
        scale = np.float32(request.guidance_scale) if request.guided else None
        static = {
            "config": config,
            "dtype": dtype,
            "guided_frames": guided_frames(config, request.told_size),
            "repeated_frames": repeated_frames(config, request.told_size),
            "backend": choose_backend(self._mesh.devices.flat[0], dtype, config.transformer.head_width),
        }
        return Conditions(params, caption, fps, height, width, scale, **static)

    def _start_frames(self) -> list[np.ndarray]:
        """The frames of the start clip that are kept; nothing from the second call on."""
        if self.frames_done or not self.kept_frames or self.request.start is None:
            return []
        self.frames_done = self.kept_frames
        start = self.request.start[:, : self.kept_frames]
        return [np.broadcast_to(start, (self.request.batch, *start.shape[1:]))]

    def _encode(self, frames: np.ndarray) -> jax.Array:
        """Latents [b, t, h, w, c] of uint8 frames [b, f, h, w, 3], or [1, f, h, w, 3] for all samples."""
        frames = np.broadcast_to(frames, (self.request.batch, *frames.shape[1:]))
        return self._call(encode_frames, self.model.params["vae"], frames, config=self.request.config)

    def _start_decoding(self) -> Decoding:
        dtype = DTYPES[self.request.dtype]
        return start_decoding(self.request.config, self.model.params["vae"], self._no_latents, dtype)

    def _decode_finished(self, latents: jax.Array) -> list[np.ndarray]:
        """The frames that the next latents of the video finish, up to its end."""
        return [self._cut(np.asarray(frames)) for frames in self._call(self._decoding.decode, latents)]

    def _cut(self, frames: np.ndarray) -> np.ndarray:
        """Count new frames, and cut those behind the end of the video."""
        room = frames.shape[1] if self.request.frames is None else self.request.frames - self.frames_done
        self._is_cut |= frames.shape[1] > max(0, room)
        frames = frames[:, : max(0, room)]
        self.frames_done += frames.shape[1]
        return frames

    @property
    def _no_latents(self) -> jax.Array:
        return jnp.zeros((self.request.batch, 0, *self._cell))

    def _no_frames(self) -> np.ndarray:
        return np.zeros((self.request.batch, 0, self.request.height, self.request.width, 3), np.uint8)


def one_sample(saved: dict[str, np.ndarray], sample: int) -> dict[str, np.ndarray]:
    """The position, from `VideoStream.save`, of one sample of a batch alone."""
    axis_of = {"latents": 0, "finished": 0, "pending": 0, "changed_to": 1}
    axis_of |= {name: 0 for name in saved if name.startswith(OF_SOLVER)}
    return {
        name: np.take(array, [sample], axis_of[name]) if name in axis_of else array for name, array in saved.items()
    }
