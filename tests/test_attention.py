"""The one door to attention: its mathematics, prefix lengths, and which backend is chosen when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavdm_jax.models.attention import attention, choose_backend


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
        (jnp.bfloat16, 72, 0.0, "xla"),
        (jnp.bfloat16, 36, 9.0, "xla"),
        (jnp.bfloat16, 512, 9.0, "xla"),
    ],
)
def test_backend(dtype, head_width, compute_capability, backend):
    assert choose_backend(jnp.dtype(dtype), head_width, compute_capability) == backend
