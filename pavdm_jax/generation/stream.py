"""What all streams of frames have in common: prompts, positions, decoding. The sampling methods are its subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.cli import enable_cache
from pavdm_jax.diffusion.sampler import WindowState
from pavdm_jax.distributed.mesh import make_mesh, use_mesh
from pavdm_jax.distributed.placement import place_params, place_replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import Conditions, decode_chunk, encode_frames, guidance_caption
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import Request
from pavdm_jax.geometry import chunk_frames, latent_size
from pavdm_jax.models.attention import choose_backend
from pavdm_jax.models.model import DTYPES, Model

T = TypeVar("T")

ENDLESS_CHUNKS = 2**30
"""Chunks of a video without end: more than twenty years of it."""


class VideoStream(ABC):
    """An iterator over a video's frames, uint8 `[b, f, h, w, 3]`, a chunk at a time.

    At any moment `save()` gives all that is needed to go on later; a stream of the same request that is given it with `restore`
    yields exactly the frames that are still to come. A round is what the sampling method does at a time: a shift, or a clip.

    Attributes:
      round: rounds done so far, of `num_rounds`.
      frames_done: frames made so far, the start clip's included.
    """

    unit: str  # what a round is called in a progress bar
    before_first_frames: str  # what is going on until the first frames come, for the same bar
    num_rounds: int
    _state: WindowState

    def __init__(self, model: Model, request: Request, prompts: PromptFeatures):
        enable_cache()
        self._mesh = make_mesh(request.mesh)
        self.model, self.request = model.replace(params=place_params(model.params, self._mesh)), request
        self.chunk_frames = chunk_frames(model.config)
        self.round, self.frames_done = 0, 0
        self._pending: list[np.ndarray] = []
        self._conditions = self._make_conditions(prompts)

    @abstractmethod
    def _sample(self) -> list[jax.Array]:
        """Do some rounds, count them in `round`, and return the latents of the chunks that are finished."""

    @property
    def done(self) -> bool:
        """Whether the video is whole."""
        return self.round >= self.num_rounds

    def advance(self) -> list[np.ndarray]:
        """Run one compiled call, and return the frames that came out of it, a chunk each: none while the window fills."""
        chunks = []
        start = self.request.start
        if start is not None and self.frames_done == 0:
            chunks.append(np.broadcast_to(start, (self.request.batch, *start.shape)))
            self.frames_done = len(start)
        for latents in self._sample():
            chunks.append(self._decode(latents))
            self.frames_done += chunks[-1].shape[1]
        return [frames for frames in chunks if frames.shape[1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        while self._pending or not self.done:
            if self._pending:
                yield self._pending.pop(0)
            else:
                self._pending = self.advance()

    def save(self) -> dict[str, np.ndarray]:
        """The position in the video as plain arrays."""
        return {
            # Copies: the next call takes the memory of the window.
            "latents": np.array(self._state.latents),
            "key": np.array(jax.random.key_data(self._state.key)),
            "round": np.asarray(self.round),
            "frames_done": np.asarray(self.frames_done),
            "pending": np.concatenate([self._no_frames(), *self._pending], axis=1),
        }

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Go to a position that `save` gave.

        Raises:
          ConfigError: the position belongs to a video of another size.
        """
        if saved["latents"].shape != self._state.latents.shape:
            raise ConfigError(
                f"the saved position has a window of shape {saved['latents'].shape}; this request's is {self._state.latents.shape}"
            )
        state = WindowState(jnp.array(saved["latents"]), jax.random.wrap_key_data(jnp.array(saved["key"])))
        self._state = place_replicated(state, self._mesh)
        self.round, self.frames_done = int(saved["round"]), int(saved["frames_done"])
        self._pending = [saved["pending"]] if saved["pending"].shape[1] else []

    # What the subclasses share.

    def _call(self, program: Callable[..., T], *arrays, **named) -> T:
        """A compiled program's result, on the devices of the request."""
        with use_mesh(self._mesh):
            return program(*arrays, **named)

    @property
    def _cell(self) -> tuple[int, int, int]:
        """Rows, columns and channels of a latent frame."""
        vae = self.model.config.vae
        return (*latent_size(self.request.height, self.request.width, vae), vae.latent_channels)

    def _encode(self, frames: np.ndarray) -> jax.Array:
        """Latents [b, t, h, w, c] of uint8 frames, [f, h, w, 3] for all samples or [b, f, h, w, 3]."""
        frames = np.broadcast_to(frames, (self.request.batch, *frames.shape[-4:]))
        return self._call(encode_frames, self.model.params["vae"], frames, config=self.model.config)

    def _decode(self, latents: jax.Array) -> np.ndarray:
        """The frames of a chunk, cut at the end of the video."""
        room = self.chunk_frames if self.request.frames is None else self.request.frames - self.frames_done
        return self._frames(latents)[:, : max(0, room)]

    def _frames(self, latents: jax.Array) -> np.ndarray:
        static = {"config": self.model.config, "num_frames": self.chunk_frames}
        return np.asarray(self._call(decode_chunk, self.model.params["vae"], latents, **static))

    def _make_conditions(self, prompts: PromptFeatures) -> Conditions:
        params, config, request = self.model.params["stdit3"], self.model.config, self.request
        caption = self._call(guidance_caption, params, prompts.features, prompts.lengths, config=config)
        numbers = (request.fps, request.height, request.width, request.guidance_scale)
        dtype = DTYPES[request.dtype]
        backend = choose_backend(self._mesh.devices.flat[0], dtype, config.stdit3.head_width)
        return Conditions(params, caption, *map(np.float32, numbers), config=config, dtype=dtype, backend=backend)

    def _no_frames(self) -> np.ndarray:
        return np.zeros((self.request.batch, 0, self.request.height, self.request.width, 3), np.uint8)
