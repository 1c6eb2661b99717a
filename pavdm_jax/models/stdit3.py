"""STDiT3, the video diffusion transformer: alternating spatial and temporal blocks, a level for each latent frame.

Source: Open-Sora opensora/models/stdit/stdit3.py, with the per-frame levels of PA-VDM (arXiv 2410.08151, section 3.2).
Deviations:
  - levels are always [b, t]; one level for the whole clip, or clean frames among noisy ones, are values of that array;
  - the caption's keys and values are computed once for a video, and given to every call (`Caption`);
  - a caption without any token adds nothing, where upstream fails;
  - for training from scratch the final layer is initialised to zero, so that the first prediction is zero velocity.

Level and frame-rate embeddings, norm statistics, rotary angles and softmax are float32 whatever `dtype` is.

On several devices the tokens of a frame are split over them. Spatial attention needs all tokens of a frame: there the
frames are split instead (logical axes "tokens" and "frames").
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.initializers import normal, xavier_uniform, zeros
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from pavdm_jax.config import STDiT3Config
from pavdm_jax.models.attention import Backend, attention
from pavdm_jax.models.caption import Caption, check_caption
from pavdm_jax.models.depth import ATTENTION_OUTPUT, over_depth
from pavdm_jax.models.embeddings import (
    EMBEDDING_DEVIATION,
    TIMESTEPS,
    ScalarEmbedder,
    grid_size,
    patchify,
    position_embedding,
    rotate,
    unpatchify,
)
from pavdm_jax.models.frame_memory import FrameMemory
from pavdm_jax.models.linear import linear
from pavdm_jax.models.logical import constrain
from pavdm_jax.models.normalisation import NORM_EPSILON, modulated_norm

NUM_MODULATIONS = 6  # shift, scale and gate of the attention, then of the feed-forward network
XAVIER = xavier_uniform()

TOKENS_APART = ("batch", None, "tokens")
FRAMES_APART = ("batch", "frames", None)
"""Logical axes of [b, t, s, d]: split by tokens, or by frames."""


class CaptionKeysValues(nn.Module):
    """The keys and values of the caption for one pair of blocks."""

    config: STDiT3Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, carry: None, x: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        """Map projected features [b, p, l, d] to keys and values [2, b, p, l, n, e], with a carry for `nn.scan`."""
        width = 2 * self.config.hidden_size
        both = jnp.stack([_linear(width, self.dtype, name)(x) for name in ("spatial", "temporal")])
        both = both.reshape(*both.shape[:-1], 2, self.config.num_heads, self.config.head_width)
        return carry, (both[..., 0, :, :], both[..., 1, :, :])


# --- blocks -----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward network.

    Self-attention is within a latent frame (spatial), or along time at one place of the frame (temporal).
    """

    config: STDiT3Config
    temporal: bool
    dtype: DTypeLike
    backend: Backend

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        caption: tuple[jax.Array, jax.Array, jax.Array],
        modulation: jax.Array,
        num_valid: jax.Array | None,
        memory: FrameMemory | None = None,
        start: jax.Array | None = None,
    ) -> tuple[jax.Array, FrameMemory | None]:
        """Map tokens [b, t, s, d] to tokens [b, t, s, d], and the memory to one with these latent frames.

        Args:
          x: [b, t, s, d].
          caption: keys and values [b, p, l, n, e] and length [b, p].
          modulation: float32 [b, t, 6, d], from the levels; to it each block adds its own table.
          num_valid: int [b], the latent frames that temporal attention sees; None: all.
          memory, start: of a temporal block, see `STDiT3.remember`.
        """
        width = self.config.hidden_size
        table = self.param("modulation_table", normal(width**-0.5), (NUM_MODULATIONS, width))
        # Each [b, t, 1, d]: one modulation for all tokens of a latent frame.
        modulations = jnp.split(table[None, None] + modulation, NUM_MODULATIONS, 2)
        shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = modulations
        # The branches of temporal blocks are initialised to zero, so that training begins from an image model.
        out_init = zeros if self.temporal else XAVIER

        y = modulated_norm(x, shift_attention, scale_attention, self.dtype)
        y, memory = self._self_attention(y, num_valid, memory, start)
        y = checkpoint_name(y, ATTENTION_OUTPUT)
        x = _gated_sum(x, gate_attention, _linear(width, self.dtype, "attention_out", out_init)(y))
        y = checkpoint_name(self._cross_attention(x, *caption), ATTENTION_OUTPUT)
        x = x + _linear(width, self.dtype, "cross_out", out_init)(y)
        y = modulated_norm(x, shift_mlp, scale_mlp, self.dtype)
        y = nn.gelu(_linear(self.config.mlp_size, self.dtype, "mlp_in")(y), approximate=True)
        return _gated_sum(x, gate_mlp, _linear(width, self.dtype, "mlp_out", out_init)(y)), memory

    def _self_attention(
        self, x: jax.Array, num_valid: jax.Array | None, memory: FrameMemory | None, start: jax.Array | None
    ) -> tuple[jax.Array, FrameMemory | None]:
        b, t, s, d = x.shape
        n, e = self.config.num_heads, self.config.head_width
        if not self.temporal:
            x = constrain(x, *FRAMES_APART)
        q, k, v = jnp.split(_linear(3 * d, self.dtype, "qkv")(x).reshape(b, t, s, 3 * n, e), 3, 3)
        q = nn.RMSNorm(NORM_EPSILON, dtype=jnp.float32, name="query_norm")(q)
        k = nn.RMSNorm(NORM_EPSILON, dtype=jnp.float32, name="key_norm")(k)
        if not self.temporal:
            q, k, v = (a.astype(self.dtype) for a in (q, k, v))
            y = attention(q, k, v, axes=FRAMES_APART[:2], backend=self.backend)
            return constrain(y.reshape(b, t, s, d), *TOKENS_APART), memory
        window = None if memory is None else memory.keys.shape[1]
        q, k, v = (a.astype(self.dtype) for a in (rotate(q, start, window), rotate(k, start, window), v))
        if memory is not None and start is not None:
            memory = memory.replaced(k, v, start)
            k, v = memory.keys, memory.values
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
        kv_length = None if num_valid is None else jnp.broadcast_to(num_valid[:, None], (b, s))
        y = attention(q, k, v, kv_length, ("batch", "tokens"), self.backend)
        return y.reshape(b, s, t, d).swapaxes(1, 2), memory

    def _cross_attention(self, x: jax.Array, keys: jax.Array, values: jax.Array, length: jax.Array) -> jax.Array:
        b, t, s, d = x.shape
        p, n, e = length.shape[1], self.config.num_heads, self.config.head_width
        q = _linear(d, self.dtype, "cross_query")(x).reshape(b, p, t // p, s, n, e)
        y = attention(q, keys, values, length, ("batch", None, None, "tokens"), self.backend)
        return y.reshape(b, t, s, d)


class Pair(nn.Module):
    """A spatial and a temporal block, the body of the scan over depth."""

    config: STDiT3Config
    dtype: DTypeLike
    backend: Backend

    @nn.compact
    def __call__(self, x, keys, values, length, modulation, num_valid, memory, start):
        """See `Block.__call__`; keys and values [2, b, p, l, n, e] and the memory are this pair's."""
        x, _ = Block(self.config, False, self.dtype, self.backend, name="spatial")(
            x, (keys[0], values[0], length), modulation, num_valid
        )
        return Block(self.config, True, self.dtype, self.backend, name="temporal")(
            x, (keys[1], values[1], length), modulation, num_valid, memory, start
        )


def _gated_sum(x: jax.Array, gate: jax.Array, y: jax.Array) -> jax.Array:
    return (x + gate * y).astype(x.dtype)


def _linear(width: int, dtype: DTypeLike, name: str | None = None, kernel_init=XAVIER) -> nn.Dense:
    return linear(width, dtype, kernel_init, name)


# --- the network ------------------------------------------------------------------------------------------------------


class STDiT3(nn.Module):
    """Predicts the velocity (clean minus noise) of each latent frame, each at its own noise level.

    Parameters are float32, and those of the blocks stacked, [depth, ...]. Initialise all of them by
    `init(key, method="init_all")`.

    Attributes:
      config: the architecture.
      dtype: of matrix products and of the residual stream.
      remat: which activations of a pair of blocks the backward pass computes again instead of keeping them: "none",
        "full" (all of them: least memory, a third more arithmetic), or "attention" (all but the outputs of attention).
        Another value raises `ConfigError`.
      backend: of attention, see `attention.choose_backend`.
    """

    config: STDiT3Config
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    backend: Backend = "xla"

    def setup(self) -> None:
        config = self.config
        axes = (0, 0, nn.broadcast, nn.broadcast, nn.broadcast, 0, nn.broadcast)
        self.blocks = over_depth(Pair, config.depth, axes, self.remat)(config, self.dtype, self.backend)

        self.patch_embed = _linear(config.hidden_size, self.dtype)
        self.level_embed = ScalarEmbedder(config.hidden_size)
        self.fps_embed = ScalarEmbedder(config.hidden_size)
        self.modulation = nn.Dense(NUM_MODULATIONS * config.hidden_size, kernel_init=normal(EMBEDDING_DEVIATION))

        caption_shape = (config.max_caption_tokens, config.caption_channels)
        self.null_caption = self.param("null_caption", normal(config.caption_channels**-0.5), caption_shape)
        self.caption_in = _linear(config.hidden_size, self.dtype)
        self.caption_out = _linear(config.hidden_size, self.dtype)
        self.caption_blocks = over_depth(CaptionKeysValues, config.depth, (nn.broadcast,))(config, self.dtype)

        cell = config.patch_size[0] * config.patch_size[1] * 2 * config.latent_channels
        self.final_table = self.param("final_table", normal(config.hidden_size**-0.5), (2, config.hidden_size))
        self.final = _linear(cell, self.dtype, kernel_init=zeros)

    def encode_caption(self, features: jax.Array, lengths: jax.Array) -> Caption:
        """The part of cross-attention that does not depend on the latents, needed once for a video.

        Args:
          features: float [b, p, l, caption_channels], from the text encoder; latent frame i sees prompt i // (t / p).
          lengths: int [b, p], tokens without padding, a prefix of l; the features of the padding are not used.
        """
        x = nn.gelu(self.caption_in(features), approximate=True)
        _, (keys, values) = self.caption_blocks(None, self.caption_out(x))
        return Caption(keys, values, lengths)

    def encode_null_caption(self, lengths: jax.Array) -> Caption:
        """The null caption, for the unconditional half of guidance, cut to the prompts' `lengths`, int [b, p].

        Upstream, too, the null caption keeps the mask of the prompt.
        """
        one = self.encode_caption(self.null_caption[None, None], jnp.ones((1, 1), jnp.int32))
        shape = (*one.keys.shape[:2], *lengths.shape, *one.keys.shape[4:])
        return Caption(jnp.broadcast_to(one.keys, shape), jnp.broadcast_to(one.values, shape), lengths)

    def __call__(
        self,
        latents: jax.Array,
        levels: jax.Array,
        caption: Caption,
        fps: jax.Array,
        height: jax.Array,
        width: jax.Array,
        num_valid: jax.Array | None = None,
    ) -> jax.Array:
        """Predict the velocity.

        Args:
          latents: float [b, t, h, w, c], with any h and w; they are padded to whole patches.
          levels: float [b, t], noise level of each latent frame, from 0 (clean) to 1 (noise).
          caption: of the same b; its p divides t.
          fps: float [b], pixel frames per second.
          height: float [b], of the video in pixels.
          width: float [b], of the video in pixels.
          num_valid: int [b], the latent frames of each sample that count, a prefix of t; None: all. The output of the
            others is finite, but without meaning.

        Returns:
          float32 [b, t, h, w, 2c]: the velocity, then c channels that Open-Sora's weights have but do not use.

        Raises:
          ConfigError: the caption's batch or number of prompts does not fit the latents.
        """
        return self.remember(latents, levels, caption, fps, height, width, num_valid)[0]

    def remember(
        self,
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
        """Predict the velocity of some latent frames of a window, whose others are remembered.

        Args:
          latents, levels, caption, fps, height, width: see `__call__`, of these latent frames alone.
          num_valid: int [b], the latent frames of the whole window that count; None: all.
          memory: of the window; None: these are all of its frames, and nothing is remembered.
          start: int [], the place of the first of these latent frames in the window, where there is a memory.

        Returns:
          Their velocity, and the memory with them. With all frames of the window it is what `__call__` predicts.
        """
        config = self.config
        b, t, h, w, _ = latents.shape
        check_caption(caption, b, t)

        rows, columns = grid_size(h, w, config.patch_size)
        position = position_embedding(rows, columns, height, width, config.hidden_size, config.base_size)
        x = self.patch_embed(patchify(latents, config.patch_size))
        x = constrain((x + position[:, None]).astype(self.dtype), *TOKENS_APART)

        time = self.level_embed(levels.astype(jnp.float32) * TIMESTEPS) + self.fps_embed(fps)[:, None]
        modulation = self.modulation(nn.silu(time)).reshape(b, t, NUM_MODULATIONS, config.hidden_size)
        keys, values = caption.keys.astype(self.dtype), caption.values.astype(self.dtype)
        x, memory = self.blocks(x, keys, values, caption.length, modulation, num_valid, memory, start)

        shift, scale = jnp.split(self.final_table[None, None] + time[:, :, None], 2, 2)
        x = self.final(modulated_norm(x, shift, scale, self.dtype))
        return unpatchify(x, h, w, config.patch_size).astype(jnp.float32), memory

    def init_all(self) -> jax.Array:
        """Use every parameter once, for `init(key, method="init_all")`."""
        config, one = self.config, jnp.ones((1,))
        caption = self.encode_null_caption(jnp.ones((1, 1), jnp.int32))
        latents = jnp.zeros((1, 1, *config.patch_size, config.latent_channels))
        return self(latents, jnp.ones((1, 1)), caption, one, one, one)
