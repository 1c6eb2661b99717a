"""The convolutions of the video autoencoders that XLA computes faster in another form than as they are defined.

Both are mathematically what `flax.linen.Conv` computes, with its parameters, names and initialisation. Timings are in
ahead_of_time/README.md.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike


class Conv3D(nn.Module):
    """A convolution of `[b, t, h, w, c]` over time, rows and columns.

    Rows and columns are padded with zeros and keep their number; time is not padded, so that
    (t - kernel time) // time_stride + 1 frames are left.

    In float32 it is the sum of 2-D convolutions, one for each frame that the kernel sees: XLA's CPU backend takes up to
    2.4 times as long for a 3-D one. In bfloat16 the sum would be rounded at each step, so it is one convolution.
    """

    channels: int
    kernel_size: Sequence[int] = (3, 3, 3)
    time_stride: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = _parameters(self, tuple(self.kernel_size), x.shape[-1], self.use_bias)
        x, (b, t, h, w, c) = x.astype(self.dtype), x.shape
        sides = [(size // 2, size // 2) for size in self.kernel_size[1:]]
        if self.dtype != jnp.float32:
            stride = (self.time_stride, 1, 1)
            return _convolve(x, kernel, [(0, 0), *sides], stride) + bias[None, None, None, None]
        frames = (t - self.kernel_size[0]) // self.time_stride + 1
        kernel, x = jax.lax.optimization_barrier((kernel, x))  # or XLA copies the planes of all layers at the beginning
        total = bias[None, None, None]
        for first, plane in enumerate(kernel):
            seen = x[:, first : first + (frames - 1) * self.time_stride + 1 : self.time_stride]
            total = total + _convolve(seen.reshape(b * frames, h, w, c), plane, sides)
        return total.reshape(b, frames, h, w, self.channels)


class UpsampleConv(nn.Module):
    """Twice as many rows and columns, by repeating each, and then a 3 × 3 convolution: `[..., h, w, c]`.

    An even row of the result sees the row before its own with the kernel's first row, and its own with the sum of the
    other two; an odd one sees its own with the sum of the first two, and the next with the last. So four convolutions
    with 2 × 2 kernels, for even and odd rows and columns, are enough: 4/9 of the arithmetic. Deviation from upstream:
    in bfloat16 the sums of kernels are rounded once more.
    """

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = _parameters(self, (3, 3), x.shape[-1])
        *leading, h, w, c = x.shape
        x = x.astype(self.dtype).reshape(math.prod(leading), h, w, c)
        rows = [
            jnp.stack([_convolve(x, part, (above, beside)) for part, beside in _halves(half, axis=1)], axis=3)
            for half, above in _halves(kernel, axis=0)
        ]
        doubled = jnp.stack(rows, axis=2) + bias[None, None, None, None, None]
        return doubled.reshape(*leading, 2 * h, 2 * w, self.channels)


def _halves(kernel: jax.Array, axis: int) -> list[tuple[jax.Array, tuple[int, int]]]:
    """For even and for odd places along an axis: the kernel of length 2 over what is not repeated, and its padding."""
    first, middle, last = jnp.split(kernel, 3, axis)
    return [
        (jnp.concatenate([first, middle + last], axis), (1, 0)),
        (jnp.concatenate([first + middle, last], axis), (0, 1)),
    ]


def _parameters(
    layer: Conv3D | UpsampleConv, kernel_size: tuple[int, ...], channels: int, use_bias: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a layer (zero without one), in its dtype."""
    shape = (*kernel_size, channels, layer.channels)
    kernel = layer.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:]) if use_bias else jnp.zeros(shape[-1:])
    return jnp.asarray(kernel, layer.dtype), jnp.asarray(bias, layer.dtype)


def _convolve(x: jax.Array, kernel: jax.Array, padding: Sequence[tuple[int, int]], stride: Sequence[int] = (1, 1)):
    """A convolution of channels-last arrays, `[b, ..., c]`."""
    letters = "DHW"[-len(padding) :]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=layout)
