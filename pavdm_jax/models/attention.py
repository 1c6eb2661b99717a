"""The one door to attention: prefix lengths instead of masks, and a backend chosen by device, dtype and head width.

Prefix lengths say all that we need (real caption tokens, valid frames of a window), and unlike masks they fit
every backend: cuDNN takes them without building a bias, and without its rule that masked sequences be of even length.
"""

import functools
import re

import jax
import jax.numpy as jnp

CUDNN_MIN_COMPUTE_CAPABILITY = 8.0
CUDNN_MAX_HEAD_WIDTH = 128
CUDNN_HEAD_WIDTH_MULTIPLE = 8


def attention(q: jax.Array, k: jax.Array, v: jax.Array, kv_length: jax.Array | None = None) -> jax.Array:
    """softmax(q·k / sqrt(e))·v, with logits and softmax in float32.

    Args:
      q: queries [b, t, n, e].
      k: keys [b, s, n, e].
      v: values [b, s, n, e].
      kv_length: int [b], each batch entry sees its first `kv_length` keys only; None: all. With 0 the output is zero.

    Returns:
      [b, t, n, e] in the dtype of `v`.
    """
    if choose_backend(v.dtype, v.shape[-1], _compute_capability()) == "cudnn":
        output = _cudnn_attention(q, k, v, kv_length)
    else:
        output = _plain_attention(q, k, v, kv_length)
    if kv_length is None:
        return output
    return jnp.where((kv_length > 0)[:, None, None, None], output, jnp.zeros((), output.dtype))


def choose_backend(dtype: jnp.dtype, head_width: int, compute_capability: float) -> str:
    """The backend's name: "cudnn" for half precision on an NVIDIA GPU, if the heads fit it, else "xla".

    `compute_capability` is 0 on any other device.
    """
    fits = head_width % CUDNN_HEAD_WIDTH_MULTIPLE == 0 and head_width <= CUDNN_MAX_HEAD_WIDTH
    half = dtype in (jnp.bfloat16, jnp.float16)
    return "cudnn" if half and fits and compute_capability >= CUDNN_MIN_COMPUTE_CAPABILITY else "xla"


def _plain_attention(q: jax.Array, k: jax.Array, v: jax.Array, kv_length: jax.Array | None) -> jax.Array:
    logits = jnp.einsum("btne,bsne->bnts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if kv_length is not None:
        # A finite minimum: a row without any key becomes a mean, not NaN, and its gradient stays finite.
        is_key = jnp.arange(k.shape[1])[None, :] < kv_length[:, None]
        logits = jnp.where(is_key[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
    return jnp.einsum("bnts,bsne->btne", jax.nn.softmax(logits).astype(v.dtype), v)


def _cudnn_attention(q: jax.Array, k: jax.Array, v: jax.Array, kv_length: jax.Array | None) -> jax.Array:
    # At least one key: what cuDNN computes without any is not documented.
    lengths = None if kv_length is None else jnp.maximum(kv_length, 1).astype(jnp.int32)
    return jax.nn.dot_product_attention(
        q.astype(v.dtype), k.astype(v.dtype), v, key_value_seq_lengths=lengths, implementation="cudnn"
    )


@functools.cache
def _compute_capability() -> float:
    """The NVIDIA compute capability of the default device; 0 on CPU, TPU and other GPUs."""
    if jax.default_backend() != "gpu":
        return 0.0
    version = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    return float(version) if re.fullmatch(r"\d+\.\d+", version) else 0.0
