"""The convolutions in another form than flax's are the same: parameters, results, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pavdm_jax.models.convolution import Conv3D, UpsampleConv


def same(ours, theirs, x):
    """Both have equal parameters, results and gradients, of parameters drawn by `theirs`."""
    params = theirs.init(jax.random.key(0), x)
    drawn = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, drawn, params)
    params = jax.tree.map(lambda p: p + 0.1, params)  # a bias that is not 0

    def loss(layer, params, x):
        y = layer.apply(params, x)
        return jnp.sum(jnp.sin(y)), y

    (_, expected), gradients = jax.value_and_grad(loss, argnums=(1, 2), has_aux=True)(theirs, params, x)
    (_, result), ours_gradients = jax.value_and_grad(loss, argnums=(1, 2), has_aux=True)(ours, params, x)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours_gradients, gradients)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kernel, stride", [((3, 3, 3), 1), ((3, 3, 3), 2), ((3, 1, 1), 2), ((1, 1, 1), 1)])
def test_a_sum_of_flat_convolutions_is_the_convolution_in_space_and_time(kernel, stride, use_bias):
    x = jax.random.normal(jax.random.key(1), (2, 7, 5, 4, 3))
    sides = [(size // 2, size // 2) for size in kernel[1:]]
    theirs = nn.Conv(6, kernel, (stride, 1, 1), padding=((0, 0), *sides), use_bias=use_bias)
    same(Conv3D(6, kernel, stride, use_bias), theirs, x)


def test_in_bfloat16_it_rounds_once():
    x = jax.random.normal(jax.random.key(1), (1, 5, 6, 6, 32))
    ours, theirs = Conv3D(8, dtype=jnp.bfloat16), nn.Conv(8, (3, 3, 3), padding=((0, 0), (1, 1), (1, 1)))
    params = theirs.init(jax.random.key(0), x)
    rounded = nn.Conv(8, (3, 3, 3), padding=((0, 0), (1, 1), (1, 1)), dtype=jnp.bfloat16)
    np.testing.assert_array_equal(ours.apply(params, x), rounded.apply(params, x))


class Repeated(nn.Module):
    """The definition: cells repeated, then a 3 × 3 convolution with the parameters of a layer."""

    channels: int

    @nn.compact
    def __call__(self, x):
        x = jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2)
        conv = nn.Conv(self.channels, (3, 3))
        nn.share_scope(self, conv)
        return conv(x)


@pytest.mark.parametrize("leading", [(2,), (2, 3)])
def test_four_small_convolutions_are_one_of_repeated_cells(leading):
    x = jax.random.normal(jax.random.key(1), (*leading, 5, 4, 3))
    same(UpsampleConv(6), Repeated(6), x)


def test_a_clip_without_frames_has_none_after_it():
    x = jnp.zeros((1, 0, 4, 4, 3))
    assert UpsampleConv(2).init_with_output(jax.random.key(0), x)[0].shape == (1, 0, 8, 8, 2)
    assert Conv3D(2, (3, 1, 1)).init_with_output(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 3)))[0].shape[1] == 0
