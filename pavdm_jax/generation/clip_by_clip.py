"""The paper's baselines as a stream: clips of one noise level, each continued from the end of the last (paper, section 4).

"replacement" keeps the context clean (RN, Open-Sora's way): its last frames, decoded and encoded again. "noisy-replacement" noises
the context's latents to the level of the clip at every step (RW).
"""

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.noise_levels import uniform_levels
from pavdm_jax.diffusion.sampler import WindowState, sample_keys
from pavdm_jax.distributed.placement import place_replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import run_clip
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import Request
from pavdm_jax.generation.stream import ENDLESS_CHUNKS, VideoStream
from pavdm_jax.geometry import num_chunks
from pavdm_jax.models.model import Model

CLIP_CHUNKS = 3
"""Chunks of a clip, as Open-Sora samples: 51 frames, of which 17 are context in all clips but a first one."""


class ClipStream(VideoStream):
    """Sampling by replacement; a round is a clip. Deviation: the context goes through 8-bit frames before it is encoded again."""

    unit = "clip"
    before_first_frames = "sampling the first clip"

    def __init__(self, model: Model, request: Request, prompts: PromptFeatures):
        super().__init__(model, request, prompts)
        if request.change_seconds:
            raise ConfigError(f"method {request.method} takes one prompt; timelines need method progressive")
        config, window = model.config, request.window
        given = 0 if request.start is None else len(request.start)
        if given != 0 and given < self.chunk_frames:
            raise ConfigError(f"the start clip has {given} frames; at least {self.chunk_frames} (one chunk) are needed")
        chunks = ENDLESS_CHUNKS
        if request.frames is not None:
            if request.frames <= given:
                raise ConfigError(
                    f"{request.frames} frames are asked for, and the start clip has {given} already; ask for more"
                )
            chunks = num_chunks(request.frames - given, config)
        first = CLIP_CHUNKS - (given > 0)
        self.num_rounds = 1 + max(0, -(-(chunks - first) // (CLIP_CHUNKS - 1)))
        self._clip_latents = CLIP_CHUNKS * window.chunk_size
        self._levels = shift_levels(
            uniform_levels(window.steps), request.height, request.width, self._clip_latents, config.noise_base_size
        )
        context = jnp.zeros((request.batch, window.chunk_size, *self._cell))
        if given:
            context = self._encode(request.start[-self.chunk_frames :])
        self._state = place_replicated(WindowState(context, sample_keys(request.seeds)), self._mesh)

    def _sample(self) -> list[jax.Array]:
        k = self.request.window.chunk_size
        begins = self.round == 0 and self.request.start is None  # a first clip has nothing to continue
        clip = self._call(
            run_clip,
            self._conditions,
            keys=self._state.key,
            context=self._state.latents[:, : 0 if begins else k],
            clip_number=np.int32(self.round),
            levels=self._levels,
            num_frames=self._clip_latents,
            noisy_context=self.request.method == "noisy-replacement",
        )
        self._state = self._state.replace(latents=self._next_context(clip[:, -k:]))
        self.round += 1
        return [clip[:, at : at + k] for at in range(0 if begins else k, self._clip_latents, k)]

    def _next_context(self, latents: jax.Array) -> jax.Array:
        if self.request.method == "noisy-replacement":
            return latents
        return self._encode(self._frames(latents))
