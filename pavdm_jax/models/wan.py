"""Wan 2.1's video diffusion transformer, with a timestep for each latent frame: SkyReels-V2-DF.

Source: SkyReels-V2 (SkyworkAI/SkyReels-V2 at abed76f, skyreels_v2_infer/modules/transformer.py).
Deviations:
  - timesteps are always [b, t]; one timestep for the whole clip is a value of that array;
  - frame rates belong to their samples, where upstream mixes them up between the samples of a batch;
  - the velocity is clean minus noise, as everywhere in this project; upstream's is noise minus clean;
  - the caption's keys and values are computed once for a video, and given to every call (`Caption`);
  - a window may be filled in part: attention then sees its first latent frames only.

Timestep and frame-rate embeddings, modulations, norm statistics, rotations and softmax are float32 whatever `dtype` is.

On several devices the tokens of a frame are split over them, and each device attends from its own to all keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.initializers import normal, xavier_uniform, zeros
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from pavdm_jax.errors import ConfigError
from pavdm_jax.models.attention import Backend, attention
from pavdm_jax.models.caption import Caption, check_caption
from pavdm_jax.models.depth import ATTENTION_OUTPUT, over_depth
from pavdm_jax.models.embeddings import (
    EMBEDDING_DEVIATION,
    SpaceTimeRotation,
    TimestepEmbedder,
    grid_size,
    patchify,
    rotate_in_space_and_time,
    space_time_rotation,
    two_layers,
    unpatchify,
)
from pavdm_jax.models.frame_memory import FrameMemory
from pavdm_jax.models.linear import linear
from pavdm_jax.models.logical import constrain
from pavdm_jax.models.normalisation import NORM_EPSILON, modulated_norm
from pavdm_jax.wan_config import WanConfig

NUM_MODULATIONS = 6  # shift, scale and gate of the self-attention, then of the feed-forward network
COARSE_FPS = 16
"""Frames per second that have an embedding of their own; all other frame rates share the second."""

TOKENS_APART = ("batch", None, "tokens")
"""Logical axes of [b, t, s, d]."""


class CaptionKeysValues(nn.Module):
    """The keys and values of the caption for one block."""

    config: WanConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, carry: None, x: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        """Map projected features [b, p, l, d] to keys and values [b, p, l, n, e], with a carry for `nn.scan`."""
        width, heads = self.config.hidden_size, (self.config.num_heads, self.config.head_width)
        keys = _rms_norm("key_norm")(_linear(width, self.dtype, "key")(x)).astype(self.dtype)
        values = _linear(width, self.dtype, "value")(x)
        return carry, (keys.reshape(*x.shape[:-1], *heads), values.reshape(*x.shape[:-1], *heads))


class Block(nn.Module):
    """Self-attention over all tokens of all frames, cross-attention, and a feed-forward network."""

    config: WanConfig
    dtype: DTypeLike
    backend: Backend

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        modulation: jax.Array,
        rotation: SpaceTimeRotation,
        num_valid: jax.Array | None,
        memory: FrameMemory | None = None,
        start: jax.Array | None = None,
    ) -> tuple[jax.Array, FrameMemory | None]:
        """Map tokens [b, t, s, d] to tokens [b, t, s, d], and the memory to one with these latent frames.

        Args:
          x: [b, t, s, d].
          keys: of the caption, [b, p, l, n, e].
          values: of the same shape.
          modulation: float32 [b, t, 6, d], from timestep and frame rate; to it each block adds its own table.
          rotation: of queries and keys in self-attention.
          num_valid: int [b], the latent frames that self-attention sees; None: all.
          memory, start: see `WanTransformer.remember`.
        """
        width = self.config.hidden_size
        table = self.param("modulation_table", normal(width**-0.5), (NUM_MODULATIONS, width))
        # Each [b, t, 1, d]: one modulation for all tokens of a latent frame.
        modulations = jnp.split(table[None, None] + modulation, NUM_MODULATIONS, 2)
        shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = modulations

        y = modulated_norm(x, shift_attention, scale_attention, self.dtype)
        y, memory = self._self_attention(y, rotation, num_valid, memory, start)
        y = checkpoint_name(y, ATTENTION_OUTPUT)
        x = (x + gate_attention * _linear(width, self.dtype, "attention_out")(y)).astype(x.dtype)
        norm = nn.LayerNorm(NORM_EPSILON, dtype=jnp.float32, use_fast_variance=False, name="cross_norm")
        y = checkpoint_name(self._cross_attention(norm(x).astype(self.dtype), keys, values), ATTENTION_OUTPUT)
        x = x + _linear(width, self.dtype, "cross_out")(y)
        y = modulated_norm(x, shift_mlp, scale_mlp, self.dtype)
        y = nn.gelu(_linear(self.config.mlp_size, self.dtype, "mlp_in")(y), approximate=True)
        return (x + gate_mlp * _linear(width, self.dtype, "mlp_out")(y)).astype(x.dtype), memory

    def _self_attention(
        self,
        x: jax.Array,
        rotation: SpaceTimeRotation,
        num_valid: jax.Array | None,
        memory: FrameMemory | None,
        start: jax.Array | None,
    ) -> tuple[jax.Array, FrameMemory | None]:
        b, t, s, d = x.shape
        n, e = self.config.num_heads, self.config.head_width
        q = _rms_norm("query_norm")(_linear(d, self.dtype, "query")(x)).reshape(b, t, s, n, e)
        k = _rms_norm("key_norm")(_linear(d, self.dtype, "key")(x)).reshape(b, t, s, n, e)
        v = _linear(d, self.dtype, "value")(x).reshape(b, t, s, n, e)
        q, k = (rotate_in_space_and_time(a, rotation).astype(self.dtype) for a in (q, k))
        if memory is not None and start is not None:
            memory = memory.replaced(k, v, start)
            k, v = memory.keys, memory.values
        # Whole on every device of a video, before frames and tokens become one axis.
        k, v = (constrain(a, "batch").reshape(b, -1, n, e) for a in (k, v))
        y = attention(q, k, v, None if num_valid is None else num_valid * s, TOKENS_APART, self.backend)
        return y.reshape(b, t, s, d), memory

    def _cross_attention(self, x: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        b, t, s, d = x.shape
        p, n, e = keys.shape[1], self.config.num_heads, self.config.head_width
        q = _rms_norm("cross_query_norm")(_linear(d, self.dtype, "cross_query")(x)).astype(self.dtype)
        q = q.reshape(b, p, t // p, s, n, e)
        y = attention(q, keys, values, None, ("batch", None, None, "tokens"), self.backend)
        return y.reshape(b, t, s, d)


class FpsEmbedder(nn.Module):
    """The share of the frame rate in the modulation of the blocks."""

    hidden_size: int

    @nn.compact
    def __call__(self, fps: jax.Array) -> jax.Array:
        """Map float [b] to float32 [b, 6·d]."""
        table = self.param("table", normal(1.0), (2, self.hidden_size))
        x = jnp.where((fps == COARSE_FPS)[:, None], table[None, 0], table[None, 1])
        return two_layers(x, self.hidden_size, NUM_MODULATIONS * self.hidden_size)


def wan_timesteps(levels: jax.Array) -> jax.Array:
    """What the network is told of noise levels, of any shape: int32, 1000 · level rounded down.

    Solvers use the levels themselves.
    """
    return jnp.floor(1000 * levels).astype(jnp.int32)


class WanTransformer(nn.Module):
    """Predicts the velocity (clean minus noise) of each latent frame, each at its own timestep.

    Parameters are float32, and those of the blocks stacked, [depth, ...]. Initialise all of them by
    `init(key, method="init_all")`.

    Attributes:
      config: the architecture.
      dtype: of matrix products and of the residual stream.
      remat: a key of `depth.REMAT_POLICIES`; another value raises `ConfigError`.
      backend: of attention, see `attention.choose_backend`.
    """

    config: WanConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    backend: Backend = "xla"

    def setup(self) -> None:
        config = self.config
        axes = (0, 0, nn.broadcast, nn.broadcast, nn.broadcast, 0, nn.broadcast)
        self.blocks = over_depth(Block, config.depth, axes, self.remat)(config, self.dtype, self.backend)
        self.patch_embed = _linear(config.hidden_size, self.dtype)
        self.level_embed = TimestepEmbedder(config.sinusoid_width, config.hidden_size)
        self.modulation = _linear(
            NUM_MODULATIONS * config.hidden_size, jnp.float32, kernel_init=normal(EMBEDDING_DEVIATION)
        )
        if config.embeds_fps:
            self.fps_embed = FpsEmbedder(config.hidden_size)
        self.caption_in = _linear(config.hidden_size, self.dtype, kernel_init=normal(EMBEDDING_DEVIATION))
        self.caption_out = _linear(config.hidden_size, self.dtype, kernel_init=normal(EMBEDDING_DEVIATION))
        self.caption_blocks = over_depth(CaptionKeysValues, config.depth, (nn.broadcast,))(config, self.dtype)
        cell = config.patch_size[0] * config.patch_size[1] * config.latent_channels
        self.final_table = self.param("final_table", normal(config.hidden_size**-0.5), (2, config.hidden_size))
        self.final = _linear(cell, self.dtype, kernel_init=zeros)

    def encode_caption(self, features: jax.Array, lengths: jax.Array) -> Caption:
        """The part of cross-attention that does not depend on the latents, needed once for a video.

        Args:
          features: float [b, p, l, caption_channels], from the text encoder, l = max_caption_tokens; latent frame i
            sees prompt i // (t / p).
          lengths: int [b, p], tokens without padding, a prefix of l; the features of the padding are not used.

        Returns:
          A caption whose length is l everywhere: padding counts as zero features, and the network attends to it.

        Raises:
          ConfigError: features of another l; the result would be another, since padding counts.
        """
        tokens = features.shape[2]
        if tokens != self.config.max_caption_tokens:
            raise ConfigError(
                f"captions have {tokens} tokens; pad them to {self.config.max_caption_tokens}: padding is attended to"
            )
        is_token = jnp.arange(tokens)[None, None, :] < lengths[..., None]
        features = jnp.where(is_token[..., None], features, jnp.zeros((), features.dtype))
        x = nn.gelu(self.caption_in(features), approximate=True)
        _, (keys, values) = self.caption_blocks(None, self.caption_out(x))
        return Caption(keys, values, jnp.full(lengths.shape, tokens, jnp.int32))

    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        caption: Caption,
        fps: jax.Array,
        num_valid: jax.Array | None = None,
    ) -> jax.Array:
        """Predict the velocity.

        Args:
          latents: float [b, t, h, w, c], with any h and w; they are padded to whole patches.
          timesteps: float or int [b, t], 0 (clean) to 999 (noise) for each latent frame; a fraction is cut off, as
            upstream does, and numbers beyond 999 count as 999.
          caption: of the same b; its p divides t.
          fps: float [b], pixel frames per second; without meaning where the network does not embed it.
          num_valid: int [b], the latent frames of each sample that count, a prefix of t; None: all. The output of the
            others is finite, but without meaning.

        Returns:
          float32 [b, t, h, w, c].

        Raises:
          ConfigError: the caption's batch or number of prompts does not fit the latents.
        """
        return self.remember(latents, timesteps, caption, fps, num_valid)[0]

    def remember(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        caption: Caption,
        fps: jax.Array,
        num_valid: jax.Array | None,
        memory: FrameMemory | None = None,
        start: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """Predict the velocity of some latent frames of a window, whose others are remembered: `STDiT3.remember`."""
        config = self.config
        b, t, h, w, _ = latents.shape
        check_caption(caption, b, t)
        x = self.patch_embed(patchify(latents, config.patch_size))
        x = constrain(x, *TOKENS_APART)

        time = self.level_embed(timesteps.astype(jnp.int32))
        modulation = self.modulation(nn.silu(time)).reshape(b, t, NUM_MODULATIONS, config.hidden_size)
        if config.embeds_fps:
            modulation = modulation + self.fps_embed(fps).reshape(b, 1, NUM_MODULATIONS, config.hidden_size)
        window = None if memory is None else memory.keys.shape[2]
        rotation = space_time_rotation(
            t, *grid_size(h, w, config.patch_size), config.head_width, start=start, window=window
        )
        keys, values = caption.keys.astype(self.dtype), caption.values.astype(self.dtype)
        x, memory = self.blocks(x, keys, values, modulation, rotation, num_valid, memory, start)

        shift, scale = jnp.split(self.final_table[None, None] + time[:, :, None], 2, 2)
        x = self.final(modulated_norm(x, shift, scale, self.dtype))
        return -unpatchify(x, h, w, config.patch_size).astype(jnp.float32), memory

    def init_all(self) -> jax.Array:
        """Use every parameter once, for `init(key, method="init_all")`."""
        config, one = self.config, jnp.ones((1,))
        features = jnp.zeros((1, 1, config.max_caption_tokens, config.caption_channels))
        caption = self.encode_caption(features, jnp.ones((1, 1), jnp.int32))
        latents = jnp.zeros((1, 1, *config.patch_size, config.latent_channels))
        return self(latents, jnp.ones((1, 1)), caption, one)


def _rms_norm(name: str) -> nn.RMSNorm:
    """Over all channels of all heads."""
    return nn.RMSNorm(NORM_EPSILON, dtype=jnp.float32, name=name)


def _linear(width: int, dtype: DTypeLike, name: str | None = None, kernel_init=None) -> nn.Dense:
    return linear(width, dtype, kernel_init or xavier_uniform(), name)
