"""Dense layers follow JAX's default precision of matrix products, which XLA's CPU backend does not by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.initializers import normal

from pavdm_jax.models.linear import linear


@pytest.fixture
def layer():
    module = linear(24, jnp.float32, normal(0.1))
    x = jax.random.normal(jax.random.key(0), (2, 3, 16))
    return module, module.init(jax.random.key(1), x), x


def rounded(x):
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16), np.float64)


def test_by_default_products_are_those_of_float32(layer):
    module, variables, x = layer
    exact = np.asarray(x, np.float64) @ np.asarray(variables["params"]["kernel"], np.float64)
    np.testing.assert_allclose(module.apply(variables, x), exact, atol=1e-5)
    assert not np.allclose(module.apply(variables, x), rounded(x) @ rounded(variables["params"]["kernel"]), atol=1e-5)


def test_with_bfloat16_factors_are_rounded_and_sums_are_not(layer):
    module, variables, x = layer
    kernel = variables["params"]["kernel"]
    weights = jax.random.normal(jax.random.key(2), (2, 3, 24))
    with jax.default_matmul_precision("bfloat16"):
        y = module.apply(variables, x)
        of_x, of_kernel = jax.grad(
            lambda x, kernel: jnp.sum(module.apply({"params": variables["params"] | {"kernel": kernel}}, x) * weights),
            (0, 1),
        )(x, kernel)
    assert y.dtype == of_x.dtype == of_kernel.dtype == jnp.float32
    np.testing.assert_allclose(y, rounded(x) @ rounded(kernel), atol=1e-5)
    np.testing.assert_allclose(of_x, rounded(weights) @ rounded(kernel).T, atol=1e-5)
    of_all = np.einsum("abi,abo->io", rounded(x), rounded(weights))
    np.testing.assert_allclose(of_kernel, of_all, atol=1e-5)
