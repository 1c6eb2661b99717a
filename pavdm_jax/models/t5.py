"""The T5 v1.1 text encoder, and umT5.

Source: "GLU Variants Improve Transformer" (arXiv 2002.05202) and Hugging Face's `T5EncoderModel`, which Open-Sora runs;
"UniMax" (arXiv 2304.09151) and `UMT5EncoderModel`, which Wan 2.1 and SkyReels-V2 run. Linear layers have no biases,
attention scores are not scaled (the query's initial values carry the scale), and the only positional information is a
bias added to the scores, one number for each head and bucket of distances: shared by all layers in T5, each layer's own
in umT5.
"""

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.initializers import normal
from jax.typing import DTypeLike

from pavdm_jax.config import T5Config
from pavdm_jax.models.linear import linear
from pavdm_jax.models.logical import constrain

NORM_EPSILON = 1e-6


class T5Encoder(nn.Module):
    """Caption features from token ids.

    The residual stream, norm statistics and softmax are float32 whatever `dtype` is. Deviation: upstream keeps the
    residual stream in the dtype of the matrix products; in float32 the two agree.

    Attributes:
      config: the architecture.
      dtype: of the matrix products. float32 or bfloat16: float16 overflows in the feed-forward layers of the published
        weights.
    """

    config: T5Config
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        """Encode captions.

        Args:
          ids: int [b, l], token ids in 0..vocab_size-1, padded at the end.
          lengths: int [b], tokens of each caption without padding, with the closing `</s>`, 1..l.

        Returns:
          float32 [b, l, d_model]; the features of the padding are finite, but without meaning.
        """
        config = self.config
        table = self.param("token_embedding", normal(1.0), (config.vocab_size, config.d_model))
        bias = None
        if not config.bias_in_every_layer:
            bias = score_bias(_bias_table(self, config), ids.shape[1], config)
        is_token = jnp.arange(ids.shape[1])[None, :] < lengths[:, None]

        layers = nn.scan(
            EncoderLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]  # annotated as an int
            length=config.num_layers,
        )
        x = constrain(table[ids].astype(jnp.float32), "batch")
        x, _ = layers(config, self.dtype, name="layers")(x, bias, is_token)
        return _norm(jnp.float32, "final_norm")(x)


class EncoderLayer(nn.Module):
    """Self-attention, then a gated feed-forward network, each after an RMSNorm and added to its input."""

    config: T5Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array | None, is_token: jax.Array) -> tuple[jax.Array, None]:
        """Map x float32 [b, l, d] to ([b, l, d], None), as `nn.scan` needs it.

        `bias` [n, l, l] is added to the attention scores, None where the layer has its own; `is_token` bool [b, l] is
        False for padding.
        """
        if bias is None:
            bias = score_bias(_bias_table(self, self.config), x.shape[1], self.config)
        x = x + self._attention(_norm(self.dtype, "attention_norm")(x), bias, is_token)
        x = x + self._feed_forward(_norm(self.dtype, "mlp_norm")(x))
        return x, None

    def _attention(self, x: jax.Array, bias: jax.Array, is_token: jax.Array) -> jax.Array:
        config = self.config
        width = config.num_heads * config.d_kv
        query = self._linear("query", width, (config.d_model * config.d_kv) ** -0.5)(x)
        key = self._linear("key", width, config.d_model**-0.5)(x)
        value = self._linear("value", width, config.d_model**-0.5)(x)
        query, key, value = (
            einops.rearrange(a, "b l (n e) -> b l n e", n=config.num_heads) for a in (query, key, value)
        )
        scores = jnp.einsum("bqne,bkne->bnqk", query, key, preferred_element_type=jnp.float32) + bias[None]
        scores = jnp.where(is_token[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        heads = einops.rearrange(jnp.einsum("bnqk,bkne->bqne", weights, value), "b l n e -> b l (n e)")
        return self._linear("attention_out", config.d_model, width**-0.5)(heads)

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        config = self.config
        gate = nn.gelu(self._linear("mlp_gate", config.d_ff, config.d_model**-0.5)(x), approximate=True)
        hidden = gate * self._linear("mlp_in", config.d_ff, config.d_model**-0.5)(x)
        return self._linear("mlp_out", config.d_model, config.d_ff**-0.5)(hidden)

    def _linear(self, name: str, width: int, deviation: float) -> nn.Dense:
        return linear(width, self.dtype, normal(deviation), name, use_bias=False)


def _bias_table(module: nn.Module, config: T5Config) -> jax.Array:
    return module.param("relative_bias", lambda _: jnp.asarray(initial_biases(config)))


def initial_biases(config: T5Config) -> np.ndarray:
    """The relative position biases that training from nothing starts with, float32 [buckets, n].

    Each head looks for the token at its own place: one before, one after, two before, and so on. Deviation: upstream's
    are random and small, and so they stay at our learning rates: the embedded model's encoder saw captions as bags of
    words for long, to which "a red circle and a blue square" and "a blue circle and a red square" are nearly the same.
    """
    distances = sorted(range(-config.relative_max_distance, config.relative_max_distance + 1), key=abs)
    buckets = relative_buckets(np.array(distances), config.relative_buckets, config.relative_max_distance)
    nearest = dict(zip(reversed(buckets), reversed(distances), strict=True))  # of each bucket, its nearest distance
    heads = np.arange(config.num_heads)
    places = (1 + heads // 2) * np.where(heads % 2 == 0, -1, 1)
    away = np.abs([[nearest.get(bucket, 0)] for bucket in range(config.relative_buckets)] - places)
    return (-BIAS_OF_A_DOUBLING * np.log2(1 + away)).astype(np.float32)


BIAS_OF_A_DOUBLING = 3.0
"""By how much the initial bias falls as the distance from a head's place doubles; scores vary by about 1 at first."""


def score_bias(table: jax.Array, num_tokens: int, config: T5Config) -> jax.Array:
    """The relative position bias of the attention scores, float32 [n, l, l], from a table [buckets, n]."""
    distances = np.arange(num_tokens)[None, :] - np.arange(num_tokens)[:, None]
    buckets = relative_buckets(distances, config.relative_buckets, config.relative_max_distance)
    return einops.rearrange(table[buckets].astype(jnp.float32), "query key n -> n query key")


def relative_buckets(distances: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance (key position minus query position), in 0..num_buckets-1.

    Each direction has half of the buckets; the upper half is for keys after the query. Within a half, the first half of
    the buckets has one distance each; the others widen logarithmically up to `max_distance`, and the last one also
    takes all larger distances.
    """
    half = num_buckets // 2
    exact = half // 2
    distance = np.abs(distances)
    octaves = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.log(max_distance / exact)
    wide = np.minimum(exact + (octaves * (half - exact)).astype(np.int32), half - 1)
    return np.where(distances > 0, half, 0) + np.where(distance < exact, distance, wide)


def _norm(dtype: DTypeLike, name: str) -> nn.RMSNorm:
    return nn.RMSNorm(NORM_EPSILON, dtype=dtype, name=name)
