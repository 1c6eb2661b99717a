"""Scaled dot-product attention of all networks: prefix lengths instead of masks, by XLA, cuDNN or a TPU kernel.

Prefix lengths are enough for what is masked here (padding of captions, empty ends of windows), and unlike masks they
suit every backend: cuDNN takes them without building a bias, and without requiring sequences of even length. The TPU
kernel is the flash attention that comes with JAX, in Pallas; like cuDNN it never has all logits in memory.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pavdm_jax.models.logical import padded_shard_map

CUDNN_MIN_COMPUTE_CAPABILITY = 8.0
CUDNN_MAX_HEAD_WIDTH = 128
CUDNN_HEAD_WIDTH_MULTIPLE = 8

FLASH_MIN_KEYS = 1024
"""Where there are fewer keys, their logits are small, and the TPU kernel is not used."""

FLASH_BLOCK = 512
"""Queries, and keys, of a block of the TPU kernel; both are padded to whole blocks."""

FLASH_HEAD_WIDTH = 128
"""Of the TPU kernel, to which narrower heads are padded."""

Backend = Literal["xla", "cudnn", "pallas"]


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    kv_length: jax.Array | None = None,
    axes: tuple[str | None, ...] = (),
    backend: Backend = "xla",
) -> jax.Array:
    """softmax(q·k / sqrt(e))·v, with logits and softmax in float32.

    Batch axes come first, in any number, and then the query axes, in any number: merging axes would undo their split
    over devices where they do not divide evenly.

    Args:
      q: queries [batch..., queries..., n, e].
      k: keys [batch..., s, n, e].
      v: values [batch..., s, n, e].
      kv_length: int [batch...]; each batch entry sees its first `kv_length` keys only; None: all. With 0 the output is
        zero.
      axes: logical names of the axes of `q`; needed for "cudnn" and "pallas", whose calls the compiler does not split
        over devices.
      backend: see `choose_backend`; "xla" works everywhere.

    Returns:
      The shape of `q`, in the dtype of `v`.
    """
    if backend == "cudnn":
        output = _on_mesh(_cudnn_attention, q, k, v, kv_length, axes)
    elif backend == "pallas" and k.shape[-3] >= FLASH_MIN_KEYS:
        output = _on_mesh(_flash_attention, q, k, v, kv_length, axes)
    else:
        output = _plain_attention(q, k, v, kv_length)
    if kv_length is None:
        return output
    return jnp.where(_append_axes(kv_length > 0, q.ndim), output, jnp.zeros((), output.dtype))


def choose_backend(device: jax.Device, dtype: DTypeLike, head_width: int) -> Backend:
    """The attention backend for a device, which may be one that programs are only compiled for.

    It is "cudnn" for 16-bit dtypes on NVIDIA GPUs from compute capability 8.0, if `head_width` is a multiple of 8 and
    at most 128; "pallas" for 16-bit dtypes and heads of at most 128 on TPUs; else "xla".
    """
    half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    if half and head_width <= FLASH_HEAD_WIDTH and device.platform == "tpu":
        return "pallas"
    fits = head_width % CUDNN_HEAD_WIDTH_MULTIPLE == 0 and head_width <= CUDNN_MAX_HEAD_WIDTH
    return "cudnn" if half and fits and compute_capability(device) >= CUDNN_MIN_COMPUTE_CAPABILITY else "xla"


def _plain_attention(q: jax.Array, k: jax.Array, v: jax.Array, kv_length: jax.Array | None) -> jax.Array:
    batch = "abcd"[: k.ndim - 3]
    queries = "tuvw"[: q.ndim - 2 - len(batch)]
    logits = jnp.einsum(f"{batch}{queries}ne,{batch}sne->{batch}n{queries}s", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5
    if kv_length is not None:
        # A finite minimum: a row without any key becomes a mean, not NaN, and its gradient stays finite.
        last_axis = jax.lax.broadcasted_iota(jnp.int32, (1,) * (logits.ndim - 1) + logits.shape[-1:], logits.ndim - 1)
        logits = jnp.where(last_axis < _append_axes(kv_length, logits.ndim), logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits).astype(v.dtype)
    return jnp.einsum(f"{batch}n{queries}s,{batch}sne->{batch}{queries}ne", weights, v)


def _on_mesh(
    function: Callable[..., jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    kv_length: jax.Array | None,
    axes: tuple[str | None, ...],
) -> jax.Array:
    batch = axes[: k.ndim - 3]
    if kv_length is None:
        return padded_shard_map(functools.partial(function, kv_length=None), q, k, v, axes=(axes, batch, batch))
    return padded_shard_map(function, q, k, v, kv_length, axes=(axes, batch, batch, batch))


def _cudnn_attention(q: jax.Array, k: jax.Array, v: jax.Array, kv_length: jax.Array | None) -> jax.Array:
    # cuDNN takes one batch axis and one query axis.
    shape, (tokens, n, e) = q.shape, k.shape[-3:]
    k, v = (a.reshape(-1, tokens, n, e) for a in (k, v))
    q = q.astype(v.dtype).reshape(k.shape[0], -1, n, e)
    queries = q.shape[1]
    if kv_length is None and tokens % 2 == 1:
        kv_length = jnp.full(k.shape[0], tokens)
    # At least one key, because it is not documented what cuDNN computes without any.
    lengths = None if kv_length is None else jnp.maximum(kv_length, 1).astype(jnp.int32).reshape(-1)
    # JAX refuses odd numbers of queries or keys in training, a rule for attention with a bias, of which there is none.
    q, k, v = (_to_even(a) for a in (q, k.astype(v.dtype), v))
    output = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths, implementation="cudnn")
    return output[:, :queries].reshape(shape)


def _flash_attention(q: jax.Array, k: jax.Array, v: jax.Array, kv_length: jax.Array | None) -> jax.Array:
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel  # slow to import, and wanted on TPUs only

    shape, (tokens, n, e) = q.shape, k.shape[-3:]
    k, v = (a.reshape(-1, tokens, n, e) for a in (k, v))
    q = q.astype(v.dtype).reshape(k.shape[0], -1, n, e)
    queries = q.shape[1]
    # The kernel wants whole blocks; what is appended to the keys is of another segment, which no query sees.
    q, k, v = (_to_blocks(a).swapaxes(1, 2) for a in (q, k.astype(v.dtype), v))
    lengths = jnp.full(k.shape[0], tokens) if kv_length is None else jnp.maximum(kv_length, 1).reshape(-1)
    seen = jnp.arange(k.shape[2])[None, :] < lengths[:, None]
    segments = kernel.SegmentIds(jnp.ones((q.shape[0], q.shape[2]), jnp.int32), seen.astype(jnp.int32))
    names = [field.name for field in dataclasses.fields(kernel.BlockSizes)]
    sizes = kernel.BlockSizes(**{name: 1 if name == "block_b" else FLASH_BLOCK for name in names})
    output = kernel.flash_attention(q, k, v, segment_ids=segments, sm_scale=e**-0.5, block_sizes=sizes)
    return output.swapaxes(1, 2)[:, :queries, :, :e].reshape(shape)


def _to_blocks(array: jax.Array) -> jax.Array:
    """[b, t, n, e] with zeros appended to whole blocks of tokens and the kernel's head width."""
    widths = (0, -array.shape[1] % FLASH_BLOCK), (0, 0), (0, FLASH_HEAD_WIDTH - array.shape[3])
    return jnp.pad(array, ((0, 0), *widths))


def _to_even(array: jax.Array) -> jax.Array:
    """[b, t, n, e] with a token of zeros appended if t is odd."""
    return jnp.pad(array, ((0, 0), (0, array.shape[1] % 2), (0, 0), (0, 0)))


def _append_axes(array: jax.Array, ndim: int) -> jax.Array:
    return array.reshape(array.shape + (1,) * (ndim - array.ndim))


def compute_capability(device: jax.Device) -> float:
    """The compute capability of an NVIDIA GPU, such as 9.0; 0 for CPUs, TPUs and other GPUs."""
    version = str(getattr(device, "compute_capability", ""))
    return float(version) if re.fullmatch(r"\d+\.\d+", version) else 0.0
