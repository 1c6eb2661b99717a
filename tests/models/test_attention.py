"""The one door to attention: its mathematics, prefix lengths, and which backend is chosen when."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas

from pavdm_jax.config import STDiT3Config
from pavdm_jax.models import attention as attention_module
from pavdm_jax.models.attention import attention, choose_backend
from pavdm_jax.models.stdit3 import STDiT3


@dataclass
class Absent:
    """A device that is not there."""

    compute_capability: str = ""
    platform: str = "gpu"


def draw(b: int, t: int, s: int, n: int, e: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((b, t, n, e), (b, s, n, e), (b, s, n, e))
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))


def test_attention_is_the_softmax_of_scaled_products():
    q, k, v = (np.asarray(a, np.float64) for a in draw(2, 5, 7, 3, 8))
    weights = np.exp(np.einsum("btne,bsne->bnts", q, k) / np.sqrt(8))
    expected = np.einsum("bnts,bsne->btne", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(attention(*draw(2, 5, 7, 3, 8)), expected, atol=1e-6)


def test_keys_beyond_the_length_do_not_exist():
    q, k, v = draw(3, 5, 7, 2, 8)
    lengths = jnp.array([7, 4, 1])
    output = attention(q, k, v, lengths)
    for i, length in enumerate((7, 4, 1)):
        alone = attention(q[i : i + 1], k[i : i + 1, :length], v[i : i + 1, :length])
        np.testing.assert_allclose(output[i : i + 1], alone, atol=1e-6)


@pytest.mark.parametrize("lengths", [None, jnp.array([60, 33])])
def test_the_tpu_kernel_computes_the_same(lengths, monkeypatch):
    """Interpreted; with queries and keys that fill no block, and gradients."""
    monkeypatch.setattr(attention_module, "FLASH_MIN_KEYS", 1)
    monkeypatch.setattr(attention_module, "FLASH_BLOCK", 128)
    monkeypatch.setattr(pallas, "pallas_call", functools.partial(pallas.pallas_call, interpret=True))
    arrays = draw(2, 35, 60, 3, 24)
    flash = attention(*arrays, lengths, backend="pallas")
    np.testing.assert_allclose(flash, attention(*arrays, lengths), atol=1e-6)
    of_flash, plain = (
        jax.grad(lambda a, backend=backend: (attention(*a, lengths, backend=backend) ** 2).sum())(arrays)
        for backend in ("pallas", "xla")
    )
    for ours, expected in zip(of_flash, plain, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_tpu_kernel_is_for_many_keys_and_half_precision():
    assert choose_backend(Absent(platform="tpu"), jnp.bfloat16, 128) == "pallas"
    assert choose_backend(Absent(platform="tpu"), jnp.float32, 128) == "xla"
    assert choose_backend(Absent(platform="tpu"), jnp.bfloat16, 144) == "xla"
    q, k, v = draw(1, 4, 64, 1, 8)  # the kernel, which would fail here, is not called
    np.testing.assert_array_equal(attention(q, k, v, backend="pallas"), attention(q, k, v))


def test_no_key_at_all_gives_zero_and_finite_gradients():
    q, k, v = draw(2, 3, 4, 2, 8)
    lengths = jnp.array([0, 2])
    output = attention(q, k, v, lengths)
    assert not output[0].any()
    assert output[1].all()
    gradients = jax.grad(lambda arrays: attention(*arrays, lengths).sum())((q, k, v))
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)


def test_bfloat16_keeps_logits_and_softmax_in_float32():
    q, k, v = draw(1, 4, 64, 1, 8)
    # Logits near 200, where bfloat16 values lie 1 apart: rounding them would change weights by a factor of up to e^0.5.
    q, k = (a.at[..., 0].set(24.0).astype(jnp.bfloat16) for a in (q, k))
    v = v.astype(jnp.bfloat16)
    output = attention(q, k, v)
    assert output.dtype == jnp.bfloat16
    exact = attention(*(a.astype(jnp.float32) for a in (q, k, v)))
    np.testing.assert_allclose(output.astype(jnp.float32), exact, atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "head_width", "compute_capability", "backend"),
    [
        (jnp.bfloat16, 72, 9.0, "cudnn"),
        (jnp.float16, 128, 8.0, "cudnn"),
        (jnp.float32, 72, 9.0, "xla"),
        (jnp.bfloat16, 72, 7.5, "xla"),
        (jnp.bfloat16, 36, 9.0, "xla"),
        (jnp.bfloat16, 512, 9.0, "xla"),
    ],
)
def test_backend(dtype, head_width, compute_capability, backend):
    assert choose_backend(Absent(str(compute_capability)), dtype, head_width) == backend


def test_a_device_without_compute_capability_has_no_cudnn():
    assert choose_backend(jax.local_devices()[0], jnp.bfloat16, 72) == "xla"
    assert choose_backend(Absent("gfx942"), jnp.bfloat16, 72) == "xla"


@pytest.mark.parametrize(("queries", "keys"), [(5, 7), (5, 8), (6, 7), (6, 8)])
@pytest.mark.parametrize("lengths", [None, (3, 0)])
def test_what_cudnn_is_given_is_even_and_gives_the_same(monkeypatch, queries, keys, lengths):
    """JAX's own attention in the place of cuDNN's, with its rule for training."""
    plain = jax.nn.dot_product_attention

    def even(q, k, v, key_value_seq_lengths, implementation):
        assert implementation == "cudnn"
        assert q.shape[1] % 2 == k.shape[1] % 2 == v.shape[1] % 2 == 0
        return plain(q, k, v, key_value_seq_lengths=key_value_seq_lengths, implementation="xla")

    arrays = draw(2, queries, keys, 3, 8)
    lengths = None if lengths is None else jnp.array(lengths)

    def result_and_gradients(backend):
        return jax.value_and_grad(lambda a: jnp.square(attention(*a, lengths, backend=backend)).sum())(arrays)

    expected = result_and_gradients("xla")
    monkeypatch.setattr(jax.nn, "dot_product_attention", even)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), result_and_gradients("cudnn"), expected)


def test_the_transformer_computes_all_attention_by_the_backend_it_is_given(monkeypatch):
    """JAX's own attention in the place of cuDNN's: spatial, temporal and cross-attention of each pair of blocks."""
    plain, calls = jax.nn.dot_product_attention, []

    def recorded(q, k, v, key_value_seq_lengths, implementation):
        calls.append(implementation)
        return plain(q, k, v, key_value_seq_lengths=key_value_seq_lengths, implementation="xla")

    def by_xla(*arguments):
        calls.append("xla")
        return of_xla(*arguments)

    of_xla = attention_module._plain_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", recorded)
    monkeypatch.setattr(attention_module, "_plain_attention", by_xla)
    config = STDiT3Config(depth=1, hidden_size=32, num_heads=2, caption_channels=16, max_caption_tokens=8)
    for backend in ("xla", "cudnn"):
        network = STDiT3(config, backend=backend)
        jax.eval_shape(lambda network=network: network.init(jax.random.key(0), method="init_all"))
        assert set(calls) == {backend}
        calls.clear()
