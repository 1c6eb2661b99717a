"""Embeddings of noise levels, frame rates and positions, and the conversion of latents to tokens and back.

Source: Open-Sora opensora/models/layers/blocks.py (embedders) and RoPE (arXiv 2104.09864), with angles in float32; and
Wan 2.1 (SkyReels-V2 skyreels_v2_infer/modules/transformer.py), with angles in float64 as in its port to diffusers.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.initializers import normal

MAX_PERIOD = 10000.0
SINUSOID_WIDTH = 256
EMBEDDING_DEVIATION = 0.02
TIMESTEPS = 1000.0
"""Timesteps, the unit of the level embedder: level 1 is timestep 1000."""


class ScalarEmbedder(nn.Module):
    """Embeds a number (a timestep in 0..1000, or frames per second): sinusoids, then a small network, in float32."""

    hidden_size: int

    @nn.compact
    def __call__(self, values: jax.Array) -> jax.Array:
        """Map float [...] to float32 [..., d]."""
        return two_layers(sinusoids(values, SINUSOID_WIDTH), self.hidden_size, self.hidden_size)


class TimestepEmbedder(nn.Module):
    """Embeds a whole timestep in 0..999: sinusoids of angles in float64, then a small network, in float32."""

    sinusoid_width: int
    hidden_size: int

    @nn.compact
    def __call__(self, timesteps: jax.Array) -> jax.Array:
        """Map int [...] to float32 [..., d]; numbers beyond 0..999 are taken as the nearest of them."""
        frequencies = MAX_PERIOD ** (-np.arange(0, self.sinusoid_width, 2) / self.sinusoid_width)
        angles = np.arange(TIMESTEPS)[:, None] * frequencies[None, :]
        table = np.concatenate([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
        x = jnp.take(jnp.asarray(table), timesteps, 0, mode="clip")
        return two_layers(x, self.hidden_size, self.hidden_size)


def two_layers(x: jax.Array, hidden: int, out: int) -> jax.Array:
    """Linear, SiLU, linear in float32, [..., i] to [..., out]: "linear_in" and "linear_out" of the calling module."""
    x = nn.silu(nn.Dense(hidden, kernel_init=normal(EMBEDDING_DEVIATION), name="linear_in")(x))
    return nn.Dense(out, kernel_init=normal(EMBEDDING_DEVIATION), name="linear_out")(x)


def sinusoids(values: jax.Array, width: int) -> jax.Array:
    """Cosines, then sines, of `values` [...] at width/2 frequencies from 1 to almost 1/10000: float32 [..., width]."""
    angles = values.astype(jnp.float32)[..., None] * _expand(_frequencies(width), values.ndim)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


def position_embedding(
    rows: int, columns: int, height: jax.Array, width: jax.Array, hidden_size: int, base_size: int
) -> jax.Array:
    """The position of each token in its frame, in units that depend on the video's size but not on its token count.

    Args:
      rows: of the token grid.
      columns: of the token grid.
      height: float [b], pixels of the video.
      width: float [b], pixels of the video.
      hidden_size: d; the first half encodes the column, the second the row, each as sines, then cosines.
      base_size: pixels; a video of base_size² pixels has scale 1.

    Returns:
      float32 [b, s, d], row-major tokens.
    """
    scale = jnp.sqrt(height.astype(jnp.float32) * width.astype(jnp.float32)) / base_size
    base_tokens = round((rows * columns) ** 0.5)

    def encode(count: int) -> jax.Array:
        places = jnp.arange(count, dtype=jnp.float32)[None, :] / scale[:, None] * (base_tokens / count)
        angles = places[..., None] * _expand(_frequencies(hidden_size // 2), 2)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)

    grid = (height.shape[0], rows, columns, hidden_size // 2)
    column = jnp.broadcast_to(encode(columns)[:, None], grid)
    row = jnp.broadcast_to(encode(rows)[:, :, None], grid)
    return einops.rearrange(jnp.concatenate([column, row], -1), "b h w d -> b (h w) d")


def rotate(x: jax.Array, start: jax.Array | None = None, window: int | None = None) -> jax.Array:
    """Rotary position embedding along time: rotates each pair of neighbouring channels by an angle proportional to t.

    Args:
      x: queries or keys, float32 [b, t, s, n, e].
      start: int [], the place of the first latent frame in a window; None: it is the window's first.
      window: latent frames of that window.

    Returns:
      float32 [b, t, s, n, e].
    """
    t, e = x.shape[1], x.shape[-1]
    angles = np.arange(window or t, dtype=np.float32)[:, None] * _frequencies(e)[None, :]
    cos, sin = (places(f(angles), start, t)[None, :, None, None, :] for f in (np.cos, np.sin))
    return _rotate_pairs(x, cos, sin)


def places(table: np.ndarray, start: jax.Array | None, frames: int, axis: int = 0) -> np.ndarray | jax.Array:
    """Of a table of a window's latent frames along `axis`, the `frames` from place `start` on, int [], or the first."""
    if start is None:
        return table.take(np.arange(frames), axis)
    return jax.lax.dynamic_slice_in_dim(jnp.asarray(table), start, frames, axis)


class SpaceTimeRotation(NamedTuple):
    """The rotations of queries and keys by their places in a clip; see `space_time_rotation`.

    Attributes:
      time: float32 [2, t, i], cosines and sines for the first 2i channels.
      space: float32 [2, s, j], for the last 2j channels.
    """

    time: np.ndarray | jax.Array
    space: np.ndarray | jax.Array


def space_time_rotation(
    t: int, rows: int, columns: int, head_width: int, start: jax.Array | None = None, window: int | None = None
) -> SpaceTimeRotation:
    """Rotary position embedding of Wan, for t latent frames of rows × columns tokens.

    With u = head_width // 6, the last 2u channels turn with the column, the 2u before them with the row, all others
    with the frame. Positions count from 0 at the first frame, row and column that the network sees.

    Args:
      t: latent frames.
      rows: of the token grid.
      columns: of the token grid.
      head_width: e, even.
      start, window: see `rotate`.
    """
    place = 2 * (head_width // 6)
    token = np.arange(rows * columns)

    def angles(positions: np.ndarray, width: int) -> np.ndarray:
        return positions[:, None] * MAX_PERIOD ** (-np.arange(0, width, 2) / width)[None, :]

    def turns(angles: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)

    in_space = np.concatenate([angles(token // columns, place), angles(token % columns, place)], -1)
    in_time = turns(angles(np.arange(window or t), head_width - 2 * place))
    return SpaceTimeRotation(places(in_time, start, t, axis=1), turns(in_space))


def rotate_in_space_and_time(x: jax.Array, rotation: SpaceTimeRotation) -> jax.Array:
    """Rotate queries or keys, float32 [b, t, s, n, e], by their places in the clip."""
    cos, sin = rotation.time[:, None, :, None, None, :]
    in_time = _rotate_pairs(x[..., : 2 * cos.shape[-1]], cos, sin)
    cos, sin = rotation.space[:, None, None, :, None, :]
    in_space = _rotate_pairs(x[..., -2 * cos.shape[-1] :], cos, sin)
    return jnp.concatenate([in_time, in_space], -1)


def _rotate_pairs(x: jax.Array, cos: np.ndarray | jax.Array, sin: np.ndarray | jax.Array) -> jax.Array:
    """Rotate each pair of neighbouring channels of x [..., e], by cosines and sines that broadcast to [..., e/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, odd * cos + even * sin], -1).reshape(x.shape)


def patchify(latents: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
    """Latents [b, t, h, w, c] to tokens [b, t, s, row·column·c], row-major; the last patches are padded with zeros."""
    ph, pw = patch_size
    rows, columns = grid_size(latents.shape[2], latents.shape[3], patch_size)
    missing = (rows * ph - latents.shape[2], columns * pw - latents.shape[3])
    latents = jnp.pad(latents, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    return einops.rearrange(latents, "b t (h ph) (w pw) c -> b t (h w) (ph pw c)", ph=ph, pw=pw)


def unpatchify(tokens: jax.Array, h: int, w: int, patch_size: tuple[int, int]) -> jax.Array:
    """The inverse of `patchify`: tokens [b, t, s, row·column·c] to latents [b, t, h, w, c], the padding cut off."""
    ph, pw = patch_size
    rows, _ = grid_size(h, w, patch_size)
    latents = einops.rearrange(tokens, "b t (h w) (ph pw c) -> b t (h ph) (w pw) c", h=rows, ph=ph, pw=pw)
    return latents[:, :, :h, :w]


def grid_size(h: int, w: int, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens that cover `h` × `w` latent cells."""
    return -(-h // patch_size[0]), -(-w // patch_size[1])


def _frequencies(width: int) -> np.ndarray:
    """float32 [width/2], falling geometrically from 1."""
    return (MAX_PERIOD ** (-np.arange(0, width, 2) / width)).astype(np.float32)


def _expand(vector: np.ndarray, leading: int) -> np.ndarray:
    return vector.reshape((1,) * leading + vector.shape)
