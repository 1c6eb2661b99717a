"""How the networks of each family are called: one interface, which generation and training use.

In this room `networks(config)` is the only place that asks a model for its family. Arrays are `[b, t, h, w, c]`,
levels 0 (clean) to 1 (noise), and the velocity points from noise to clean, whatever the family's own conventions are.
"""

from abc import ABC, abstractmethod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pavdm_jax.config import ModelConfig
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.geometry import least_frames
from pavdm_jax.models.attention import Backend
from pavdm_jax.models.caption import Caption
from pavdm_jax.models.frame_memory import FrameMemory, empty_memory
from pavdm_jax.models.stdit3 import STDiT3
from pavdm_jax.models.vae import VideoVAE
from pavdm_jax.models.wan import WanTransformer, wan_timesteps
from pavdm_jax.models.wan_vae import WanVAE, decode_next, encode_video
from pavdm_jax.wan_config import WanModelConfig


class Networks(ABC):
    """The transformer and the VAE of a model; `params` are those of the one that a method is about."""

    _transformer: STDiT3 | WanTransformer
    _vae: VideoVAE | WanVAE

    def init_transformer(self, key: jax.Array) -> dict:
        """Random parameters."""
        return dict(self._transformer.init(key, method="init_all")["params"])

    def init_vae(self, key: jax.Array) -> dict:
        """Random parameters."""
        frames, cell = self._vae.config.still_frames, self._vae.config.downsample
        clip = jnp.zeros((1, frames, 2 * cell, 2 * cell, 3))
        return dict(self._vae.init(key, clip, method="reconstruct")["params"])

    def caption(self, params: dict, features: jax.Array, lengths: jax.Array) -> Caption:
        """What cross-attention keeps of prompts: features [b, p, l, d] of the text encoder, and lengths int [b, p]."""
        return _apply(self._transformer, params, features, lengths, method="encode_caption")

    @abstractmethod
    def null_caption(self, params: dict, lengths: jax.Array) -> Caption:
        """What guidance leads away from where there is no negative prompt, for prompts of `lengths` int [b, p]."""

    @abstractmethod
    def drop_captions(
        self, params: dict, features: jax.Array, lengths: jax.Array, dropped: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Training features [b, l, d] and lengths [b] with those of some samples, bool [b], as in `null_caption`."""

    @abstractmethod
    def predict(
        self,
        params: dict,
        latents: jax.Array,
        levels: jax.Array,
        caption: Caption,
        fps: jax.Array,
        height: jax.Array,
        width: jax.Array,
        num_valid: jax.Array | None,
        memory: FrameMemory | None = None,
        start: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """The velocity [b, t, h, w, c] at `levels` [b, t], and the memory with these frames; the others are [b].

        See the transformers; memory and start are of calls on a part of a window, see `STDiT3.remember`.
        """

    def empty_memory(self, shape: tuple[int, ...]) -> FrameMemory:
        """Of a window of latents of `shape` (b, t, h, w, c), none of which is remembered."""
        return empty_memory(self._transformer.config, shape, self._transformer.dtype)

    @abstractmethod
    def encode(self, params: dict, frames: jax.Array) -> jax.Array:
        """Latents of frames [b, f, h, w, 3] in -1..1, the means of the posterior."""

    @abstractmethod
    def decode(self, params: dict, latents: jax.Array) -> jax.Array:
        """The frames of a clip that is coded by itself; of Open-Sora, of one micro clip."""


def networks(
    config: AnyModelConfig, dtype: DTypeLike = jnp.float32, remat: str = "none", backend: Backend = "xla"
) -> Networks:
    """The networks of a model.

    Args:
      config: the architecture.
      dtype: in which the transformer and the VAE compute.
      remat, backend: of the transformer, see `STDiT3` and `WanTransformer`.
    """
    if isinstance(config, ModelConfig):
        return OpenSora(config, dtype, remat, backend)
    return Wan(config, dtype, remat, backend)


class OpenSora(Networks):
    """Open-Sora 1.2: STDiT3, and a VAE that codes micro clips independently."""

    def __init__(self, config: ModelConfig, dtype: DTypeLike, remat: str, backend: Backend):
        self._config = config
        self._transformer = STDiT3(config.stdit3, dtype, remat, backend)
        self._vae = VideoVAE(config.vae, jnp.dtype(dtype))

    def null_caption(self, params: dict, lengths: jax.Array) -> Caption:
        """The trained one, cut to the prompts' lengths as upstream does (Open-Sora opensora/models/stdit/stdit3.py)."""
        return _apply(self._transformer, params, lengths, method="encode_null_caption")

    def drop_captions(
        self, params: dict, features: jax.Array, lengths: jax.Array, dropped: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return jnp.where(dropped[:, None, None], params["null_caption"][None], features), lengths

    def predict(
        self,
        params: dict,
        latents: jax.Array,
        levels: jax.Array,
        caption: Caption,
        fps: jax.Array,
        height: jax.Array,
        width: jax.Array,
        num_valid: jax.Array | None,
        memory: FrameMemory | None = None,
        start: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        inputs = (latents, levels, caption, fps, height, width, num_valid, memory, start)
        output, memory = _apply(self._transformer, params, *inputs, method="remember")
        return output[..., : self._config.stdit3.latent_channels], memory

    def encode(self, params: dict, frames: jax.Array) -> jax.Array:
        return _apply(self._vae, params, frames, method="encode")

    def decode(self, params: dict, latents: jax.Array) -> jax.Array:
        num_frames = least_frames(latents.shape[1], self._config.vae)
        return _apply(self._vae, params, latents, num_frames, method="decode")


class Wan(Networks):
    """Wan 2.1 and SkyReels-V2-DF: full attention over space and time, and a causal VAE."""

    _vae: WanVAE

    def __init__(self, config: WanModelConfig, dtype: DTypeLike, remat: str, backend: Backend):
        self._transformer = WanTransformer(config.wan, dtype, remat, backend)
        self._vae = WanVAE(config.vae, jnp.dtype(dtype))
        self._config = config

    def null_caption(self, params: dict, lengths: jax.Array) -> Caption:
        """No words at all: padding alone. The published model is guided by a negative prompt, its config's."""
        config = self._config.wan
        nothing = jnp.zeros((*lengths.shape, config.max_caption_tokens, config.caption_channels))
        return self.caption(params, nothing, jnp.zeros_like(lengths))

    def drop_captions(
        self, params: dict, features: jax.Array, lengths: jax.Array, dropped: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return features, jnp.where(dropped, 0, lengths)

    def predict(
        self,
        params: dict,
        latents: jax.Array,
        levels: jax.Array,
        caption: Caption,
        fps: jax.Array,
        height: jax.Array,
        width: jax.Array,
        num_valid: jax.Array | None,
        memory: FrameMemory | None = None,
        start: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        inputs = (latents, wan_timesteps(levels), caption, fps, num_valid, memory, start)
        return _apply(self._transformer, params, *inputs, method="remember")

    def encode(self, params: dict, frames: jax.Array) -> jax.Array:
        return encode_video(self._vae, params, frames)

    def decode(self, params: dict, latents: jax.Array) -> jax.Array:
        return decode_next(self._vae, params, latents)[0]


def _apply(network: nn.Module, params: dict, *inputs: Any, **named: Any) -> Any:
    """`network.apply`, whose annotation also allows for the pair that it returns with mutable variables."""
    return network.apply({"params": params}, *inputs, **named)
