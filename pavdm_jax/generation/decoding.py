"""From finished latent frames to pixel frames, as they come: by micro clips, or chunk by chunk by a causal VAE.

Both ways need some latent frames that came before, and no more: they are what a position in a video keeps.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pavdm_jax.families import AnyModelConfig
from pavdm_jax.generation.programs import decode_frames, decode_next_frames
from pavdm_jax.wan_config import WanModelConfig


class Decoding(Protocol):
    """Turns latents [b, t, h, w, c] of a video into its frames, uint8 [b, f, h, w, 3].

    Attributes:
      kept: [b, t, h, w, c], the latents that what follows needs.
    """

    kept: jax.Array

    def begin(self, latents: jax.Array) -> None:
        """Let latents go before, none or more, whose frames are known as far as they can be decoded."""
        ...

    def decode(self, latents: jax.Array) -> list[jax.Array]:
        """The frames that the next latents finish."""
        ...


def start_decoding(config: AnyModelConfig, params: dict, empty: jax.Array, dtype: DTypeLike) -> Decoding:
    """Decoding of a video from its beginning; `params` are the VAE's, `empty` is [b, 0, h, w, c].

    The VAE computes in `dtype`, and Wan's remembers in it what it has seen: half as much in bfloat16.
    """
    if isinstance(config, WanModelConfig):
        return _Continued(config, params, empty, dtype)
    return _ByMicroClips(config, params, empty, dtype)


class _ByMicroClips:
    """Open-Sora's: latent frames wait until they fill a micro clip."""

    def __init__(self, config: AnyModelConfig, params: dict, empty: jax.Array, dtype: DTypeLike):
        self._config, self._params, self.kept, self._dtype = config, params, empty, dtype

    def begin(self, latents: jax.Array) -> None:
        size = self._config.vae.decoded_together
        self.kept = latents[:, latents.shape[1] - latents.shape[1] % size :]

    def decode(self, latents: jax.Array) -> list[jax.Array]:
        size = self._config.vae.decoded_together
        if self.kept.shape[1]:
            latents = jnp.concatenate([self.kept, latents], axis=1)
        whole = latents.shape[1] // size * size
        self.kept = latents[:, whole:]
        micro_clips = (latents[:, at : at + size] for at in range(0, whole, size))
        return [decode_frames(self._params, clip, config=self._config, dtype=self._dtype) for clip in micro_clips]


DECODED_AT_ONCE = 5
"""The most latent frames of one call, which bounds the memory of decoding a long chunk."""


class _Continued:
    """Wan's: what its decoder remembers of the video goes from call to call, and can be made from a few latents.

    Every call is for a chunk, or for pieces of a long one, also when it is made again from the latents that are kept,
    so that the same programs run and a resumed video has the same frames, bit for bit.
    """

    def __init__(self, config: WanModelConfig, params: dict, empty: jax.Array, dtype: DTypeLike):
        self._dtype = dtype
        self._vae, self._params, self._chunk, self.kept = config.vae, params, config.window.chunk_size, empty
        self._past: Any = None

    def begin(self, latents: jax.Array) -> None:
        self._keep(latents)
        self._past = None

    def decode(self, latents: jax.Array) -> list[jax.Array]:
        if self._past is None:
            for at in range(0, self.kept.shape[1], self._chunk):
                self._next(self.kept[:, at : at + self._chunk])
        self._keep(jnp.concatenate([self.kept, latents], axis=1))
        return self._next(latents)

    def _keep(self, latents: jax.Array) -> None:
        chunks = -(-self._vae.decoder_reach // self._chunk)
        self.kept = latents[:, max(0, latents.shape[1] - chunks * self._chunk) :]

    def _next(self, latents: jax.Array) -> list[jax.Array]:
        made = []
        for at in range(0, latents.shape[1], DECODED_AT_ONCE):
            piece = latents[:, at : at + DECODED_AT_ONCE]
            frames, self._past = decode_next_frames(
                self._params, piece, self._past, config=self._vae, dtype=self._dtype
            )
            made.append(frames)
        return made
