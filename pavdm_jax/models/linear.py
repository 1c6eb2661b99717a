"""The linear layers of transformers and text encoders, which keep to JAX's default precision of matrix products.

JAX has a setting for float32 arrays, `jax_default_matmul_precision` (or `JAX_DEFAULT_MATMUL_PRECISION` in the
environment). With "bfloat16", factors are rounded to bfloat16 and products summed in float32. TPUs and GPUs follow it
by themselves, but XLA's CPU backend does not, though recent CPUs multiply bfloat16 several times faster (AMX). Here it
is followed everywhere, in both passes. All else stays float32: the residual stream, norms, attention, and what noise
levels become.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike


def default_precision() -> str | None:
    """The user's setting; None without one."""
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def linear(
    width: int, dtype: DTypeLike, kernel_init: Initializer, name: str | None = None, use_bias: bool = True
) -> nn.Dense:
    """A dense layer [..., i] to [..., width] that computes in `dtype`, or as said above."""
    return nn.Dense(width, use_bias, dtype, kernel_init=kernel_init, name=name, dot_general=_product)


def _product(x: jax.Array, kernel: jax.Array, dimensions: Any, **settings) -> jax.Array:
    """What `nn.Dense` asks of `dot_general`: [..., i] times [i, o]."""
    if default_precision() != "bfloat16" or x.dtype != jnp.float32:
        return jax.lax.dot_general(x, kernel, dimensions, **settings)
    return _rounded_product(x, kernel)


@jax.custom_vjp
def _rounded_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., i] times [i, o] in float32 from factors in bfloat16; so are both products of its gradient.

    No axes are merged, which would undo their split over devices.
    """
    return _forward(x, kernel)[0]


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _contract(x, (x.ndim - 1,), kernel, (0,)), (x, kernel)


def _backward(factors: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = factors
    gradient = gradient.astype(jnp.bfloat16)
    leading = tuple(range(x.ndim - 1))
    return _contract(gradient, (x.ndim - 1,), kernel, (1,)), _contract(x, leading, gradient, leading)


_rounded_product.defvjp(_forward, _backward)


def _contract(a: jax.Array, axes: tuple[int, ...], b: jax.Array, of_b: tuple[int, ...]) -> jax.Array:
    return jax.lax.dot_general(a, b, ((axes, of_b), ((), ())), preferred_element_type=jnp.float32)
