"""Embeddings of levels and places, rotary angles, and patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import FORWARD_TOLERANCE, relative_error

from pavdm_jax.models.embeddings import ScalarEmbedder, patchify, position_embedding, rotate, sinusoids, unpatchify


@pytest.mark.parametrize("name", ["stdit3_a", "stdit3_b"])
def test_position_embedding_matches_the_reference(name):
    settings, golden = golden_data.load(name)
    rows, columns = -(-settings["H"] // 2), -(-settings["W"] // 2)
    height, width = golden["inputs"]["height"], golden["inputs"]["width"]
    ours = position_embedding(rows, columns, height, width, settings["hidden_size"], settings["input_sq_size"])
    assert relative_error(ours[:1], golden["taps"]["pos_embed"]) < FORWARD_TOLERANCE


def test_position_embedding_follows_the_size_of_each_sample():
    height, width = jnp.array([512.0, 256.0]), jnp.array([512.0, 256.0])
    large, small = position_embedding(4, 4, height, width, 32, 512)
    # Token 0 is the corner in both. At half the size and as many tokens, coordinates are twice as far apart.
    np.testing.assert_array_equal(large[0], small[0])
    np.testing.assert_allclose(large[2, :16], small[1, :16], atol=1e-6)
    np.testing.assert_allclose(large[2 * 4, 16:], small[1 * 4, 16:], atol=1e-6)
    assert not np.allclose(large[2], large[2 * 4])


def test_sinusoids_put_cosines_first():
    values = sinusoids(jnp.array([[0.0, 2.0]]), 8)
    np.testing.assert_array_equal(values[0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
    angles = 2.0 * 10000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(values[0, 1], np.concatenate([np.cos(angles), np.sin(angles)]), atol=1e-6)


def test_sinusoids_are_float32_even_of_bfloat16_values():
    assert sinusoids(jnp.ones((2,), jnp.bfloat16), 8).dtype == jnp.float32


def test_level_embedder_matches_the_reference():
    _, golden = golden_data.load("stdit3_a")
    weights = golden["weights"]
    params = {
        ours: {"kernel": weights[f"t_embedder.mlp.{n}.weight"].T, "bias": weights[f"t_embedder.mlp.{n}.bias"]}
        for ours, n in (("linear_in", 0), ("linear_out", 2))
    }
    timesteps = golden["inputs"]["t_per_frame"].reshape(-1)
    ours = ScalarEmbedder(params["linear_out"]["bias"].size).apply({"params": params}, timesteps)
    assert relative_error(ours, golden["taps"]["t_embedder"]) < FORWARD_TOLERANCE


def test_rotation_keeps_lengths_and_turns_neighbouring_channels():
    x = jax.random.normal(jax.random.key(0), (1, 6, 2, 3, 8))
    y = rotate(x)
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    pairs = (a.reshape(*a.shape[:-1], 4, 2) for a in (x, y))
    np.testing.assert_allclose(*(jnp.linalg.norm(pair, axis=-1) for pair in pairs), rtol=1e-5)
    unit = rotate(jnp.zeros((1, 6, 1, 1, 8)).at[..., 0].set(1.0))[0, :, 0, 0]
    np.testing.assert_allclose(unit[:, 0], np.cos(np.arange(6)), atol=1e-6)
    np.testing.assert_allclose(unit[:, 1], np.sin(np.arange(6)), atol=1e-6)


def test_products_of_rotated_vectors_depend_on_the_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 8))
    q, k = (rotate(jnp.broadcast_to(a[None, None, None, None], (1, 9, 1, 1, 8)))[0, :, 0, 0] for a in (q, k))
    products = q @ k.T
    np.testing.assert_allclose(jnp.diagonal(products, 3), np.full(6, products[0, 3]), atol=1e-5)
    assert not np.allclose(products[0, 3], products[3, 0], atol=1e-2)


@pytest.mark.parametrize(("h", "w"), [(4, 6), (5, 7), (1, 1)])
def test_patches_and_back(h, w):
    latents = jax.random.normal(jax.random.key(0), (2, 3, h, w, 4))
    tokens = patchify(latents, (2, 2))
    assert tokens.shape == (2, 3, -(-h // 2) * -(-w // 2), 16)
    np.testing.assert_array_equal(tokens[:, :, 0, :4], latents[:, :, 0, 0])
    np.testing.assert_array_equal(unpatchify(tokens, h, w, (2, 2)), latents)


def test_padding_is_zero_and_at_the_end():
    tokens = patchify(jnp.ones((1, 1, 3, 2, 1)), (2, 2))
    np.testing.assert_array_equal(tokens[0, 0], [[1, 1, 1, 1], [1, 1, 0, 0]])
