"""The paper's baselines as a stream: clips of one noise level, each conditioned on the end of the one before it.

The paper (arXiv 2410.08151) compares with them in section 4. Method "replacement" keeps the context clean (RN,
replacement without noise): the last frames, decoded and encoded again as in Open-Sora's `scripts/inference.py`, or
with `keep_latents` their latents. Method "noisy-replacement" noises the context's latents to the level of the clip at
every step (RW, replacement with noise). Of Wan's VAE, whose latents depend on all that was before in the clip, the
context is always decoded and encoded again.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.diffusion.family_levels import clip_levels
from pavdm_jax.diffusion.sampler import WindowState, sample_keys
from pavdm_jax.distributed.placement import place_replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import decode_frames, run_clip
from pavdm_jax.generation.prompts import PromptFeatures, encode_texts
from pavdm_jax.generation.request import Request
from pavdm_jax.generation.stream import ENDLESS_CHUNKS, VideoStream
from pavdm_jax.geometry import check_clip, check_context, latent_frames
from pavdm_jax.models.model import DTYPES, Model


def check_clips(request: Request) -> None:
    """Check the clips of a request.

    Raises:
      ConfigError: a timeline is asked for, the lengths of clip and context do not suit the VAE, or the start clip is
        shorter than the context.
    """
    clip, vae = request.clip, request.config.vae
    if request.change_seconds:
        raise ConfigError(f"method {request.method} takes one prompt; timelines need method progressive")
    check_clip(clip.frames, vae)
    check_context(clip.context_frames, vae)
    if clip.keep_latents and not vae.hands_on_latents:
        raise ConfigError(
            f"keep_latents is not possible with {request.config.name}, whose VAE codes a clip from its first frame on; "
            "leave it out"
        )
    if _keeps_latents(request) and clip.context_frames % vae.micro_frames:
        raise ConfigError(
            f"a context of {clip.context_frames} frames has no latents of its own to hand on; use a multiple of "
            f"{vae.micro_frames} frames, or method replacement without keep_latents"
        )
    if request.start is not None and request.given_frames < clip.context_frames:
        raise ConfigError(
            f"the start clip has {request.given_frames} frames; at least the {clip.context_frames} of context_frames "
            "are needed"
        )


def _keeps_latents(request: Request) -> bool:
    """Whether the context is handed on as latents."""
    noisy = request.method == "noisy-replacement"
    return request.clip.keep_latents or (noisy and request.config.vae.hands_on_latents)


class ClipStream(VideoStream):
    """Sampling by replacement; a round is a clip.

    Deviation from upstream: frames that are encoded again were rounded to 8 bits first.

    Raises:
      ConfigError: see `check_clips`.
    """

    unit = "clip"
    before_first_frames = "sampling the first clip"

    def __init__(self, model: Model, request: Request, prompts: PromptFeatures):
        check_clips(request)
        clip, vae = request.clip, request.config.vae
        self._keeps_latents = _keeps_latents(request)
        start = request.start if request.image is None else request.image
        given = 0 if start is None else min(start.shape[1], clip.context_frames)
        super().__init__(model, request, prompts)
        self._clip_latents = latent_frames(clip.frames, vae)
        self.num_rounds = ENDLESS_CHUNKS
        if request.frames is not None:
            first = clip.frames - (given if request.image is None else 0)
            rest = request.frames - request.given_frames - first
            self.num_rounds = 1 + max(0, -(-rest // (clip.frames - clip.context_frames)))
        self._levels = clip_levels(request.config, clip.steps, request.told_size, self._clip_latents)
        context = jnp.zeros((request.batch, 0, *self._cell))
        if start is not None:
            context = self._encode(start[:, start.shape[1] - given :])
        self._state = place_replicated(WindowState(context, sample_keys(request.seeds)), self._mesh)

    def advance(self) -> list[np.ndarray]:
        clip, vae = self.request.clip, self.request.config.vae
        # An image that is one latent frame is decoded with the clip that it begins.
        begins = self.round == 0 and self.request.start is None
        known_frames = 0 if begins else clip.context_frames
        latents = self._call(
            run_clip,
            self._conditions,
            keys=self._state.key,
            context=self._state.latents,
            clip_number=np.int32(self.round),
            levels=self._levels,
            edit_ratio=np.float32(clip.edit_ratio),
            num_frames=self._clip_latents,
            noisy_context=self.request.method == "noisy-replacement",
        )
        self.round += 1
        known_clips, known_rest = divmod(known_frames, vae.micro_frames)
        first = known_clips
        if not self._keeps_latents:  # of a context that is longer than what is new, some known frames are needed
            first = min(first, (clip.frames - clip.context_frames) // vae.micro_frames)
        decoded = []
        for at in range(first * vae.micro_latents, self._clip_latents, vae.micro_latents):
            decoded.append(self._decode(latents[:, at : at + vae.micro_latents]))
        self._state = replace(self._state, latents=self._next_context(latents, decoded))
        begun, *whole = decoded[known_clips - first :]
        new = [begun[:, known_rest:], *whole]
        made = self._start_frames()
        return made + [frames for frames in map(self._cut, new) if frames.shape[1]]

    @property
    def _chunks(self) -> tuple[int, int]:
        return self.request.clip.frames, self.num_rounds

    def _check_window(self, shape: tuple[int, ...], round_number: int, chunks: tuple[int, int]) -> None:
        context = latent_frames(self.request.clip.context_frames, self.request.config.vae)
        if round_number and chunks[0] != self.request.clip.frames:
            raise ConfigError(
                f"the saved position has clips of {chunks[0]} frames; this request's clip_frames are "
                f"{self.request.clip.frames}"
            )
        if round_number and shape[1] != context:  # that of a first clip may be shorter, or none
            raise ConfigError(
                f"the saved position has a context of {shape[1]} latent frames; this request's context_frames "
                f"{self.request.clip.context_frames} are {context}"
            )

    def _next_change(self) -> int:
        return self.round

    @property
    def _oldest_place(self) -> int:
        return self._changed_at

    def _change(self, place: int, texts: tuple[str, ...]) -> None:
        self._changed_at = place
        features = encode_texts(self.model, self.request, texts)
        self._prompts = self._prompts.insert(1, features).without_first(1)
        self._conditions = self._make_conditions(self._prompts)

    def _decode(self, latents: jax.Array) -> np.ndarray:
        """The frames of latents that are coded by themselves."""
        named = {"config": self.request.config, "dtype": DTYPES[self.request.dtype]}
        return np.asarray(self._call(decode_frames, self.model.params["vae"], latents, **named))

    def _next_context(self, latents: jax.Array, decoded: list[np.ndarray]) -> jax.Array:
        frames = self.request.clip.context_frames
        if self._keeps_latents:
            return latents[:, -latent_frames(frames, self.request.config.vae) :]
        return self._encode(np.concatenate(decoded, axis=1)[:, -frames:])
