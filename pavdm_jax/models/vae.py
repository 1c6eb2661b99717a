"""The video VAE: a spatial and a temporal autoencoder, with latents normalised per channel.

Micro clips are coded independently. Source: Open-Sora opensora/models/vae/vae.py, `VideoAutoencoderPipeline`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from pavdm_jax.config import VAEConfig
from pavdm_jax.geometry import latent_frames
from pavdm_jax.models.logical import spread
from pavdm_jax.models.vae_spatial import SpatialVAE
from pavdm_jax.models.vae_temporal import TemporalVAE

PUBLISHED_SHIFT = (-0.10, 0.34, 0.27, 0.98)
PUBLISHED_SCALE = (3.85, 2.32, 2.33, 3.06)
"""The normalisation of Open-Sora's latents, for each channel."""

MICRO_BATCH_VALUES = 2**26
"""About how many values (256 MB in float32) a layer of the spatial VAE may hold at full resolution.

It decides how many frames go through at a time, at least one. At 240x424 and the published widths that is up to five,
of 17 or 119 frames one, as none are padded; the frames of a small model go through all at once.
"""


def sample_posterior(mean: jax.Array, log_variance: jax.Array, key: jax.Array) -> jax.Array:
    """A sample of the diagonal Gaussian posterior, of any shape; log-variances are clamped to -30..20 as upstream."""
    deviation = jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))
    return mean + deviation * jax.random.normal(key, mean.shape)


def _even_groups(count: int, unit: int, limit: int) -> int:
    """The group size, a multiple of `unit` up to `limit`, with the least padding of `count` elements; at best large."""
    sizes = range(unit, min(limit, count + -count % unit) + 1, unit)
    return min(sizes, key=lambda size: (count + -count % size, -size))


class VideoVAE(nn.Module):
    """Pixel frames `[b, f, h, w, 3]` in -1..1 ↔ normalised latents `[b, t, h, w, c]`.

    Clips are cut into micro clips of `config.micro_frames` frames, which are coded independently: 17 frames become
    `config.micro_latents` = 5 latent frames, a remainder of r frames ceil(r / 4). The normalisation,
    `(z - shift) / scale` for each channel, is stored with the weights.
    """

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        config = self.config
        self.spatial = SpatialVAE(config.spatial, self.dtype)
        self.temporal = TemporalVAE(config.temporal, self.dtype)
        channels = (config.latent_channels,)
        self.shift = self.param("shift", lambda _: jnp.resize(jnp.asarray(PUBLISHED_SHIFT), channels))
        self.scale = self.param("scale", lambda _: jnp.resize(jnp.asarray(PUBLISHED_SCALE), channels))

    def encode_spatial(self, frames: jax.Array) -> jax.Array:
        """Spatial latents `[b, f, h, w, c]` of frames `[b, f, h, w, 3]` in -1..1: the means of the posterior.

        A few frames go through at a time, so that memory does not grow with the clip.
        """
        return self._frame_by_frame(lambda vae, images: vae.encode(images)[0], frames, cell=1)

    def encode_temporal(self, latents: jax.Array) -> jax.Array:
        """Video latents `[b, t, h, w, c]`, not normalised, from the spatial latents `[b, f, h, w, c]` of a clip."""
        starts = range(0, latents.shape[1], self.config.micro_frames)
        clips = [self.encode_micro(latents[:, start : start + self.config.micro_frames])[0] for start in starts]
        return jnp.concatenate(clips, axis=1)

    def encode_micro(self, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Posterior mean and log-variance `[b, t, h, w, c]`, not normalised, from the spatial latents of a micro clip.

        The clip may be shorter than a micro clip.
        """
        return self.temporal.encode(latents, latent_frames(latents.shape[1], self.config))

    def decode_temporal(self, latents: jax.Array, num_frames: int) -> jax.Array:
        """Spatial latents `[b, num_frames, h, w, c]` from video latents `[b, t, h, w, c]` that are not normalised."""
        clips = []
        for clip in range(-(-num_frames // self.config.micro_frames)):
            frames = min(self.config.micro_frames, num_frames - clip * self.config.micro_frames)
            start = clip * self.config.micro_latents
            clips.append(self.temporal.decode(latents[:, start : start + self.config.micro_latents], frames))
        return jnp.concatenate(clips, axis=1)

    def decode_spatial(self, latents: jax.Array) -> jax.Array:
        """Frames `[b, f, h, w, 3]` in about -1..1 from the spatial latents `[b, f, h, w, c]` of a clip."""
        return self._frame_by_frame(lambda vae, z: vae.decode(z), latents, cell=self.config.spatial.downsample)

    def _frame_by_frame(self, code: Callable, clips: jax.Array, cell: int):
        """Apply `code(spatial VAE, images [n, h, w, c])` to all frames `[b, f, h, w, c]`, some at a time.

        `cell` is the number of pixels along a side of an element of `clips`: 1 for frames, more for latents.
        """
        b, f, h, w, c = clips.shape
        values = h * w * cell**2 * self.config.spatial.block_channels[0]
        devices = spread("images")
        at_once = _even_groups(b * f, devices, devices * max(1, MICRO_BATCH_VALUES // values))
        if at_once == b * f:  # no loop: on a CPU the gradient of a convolution is thirty times slower within one
            coded = code(self.spatial, clips.reshape(-1, h, w, c))
            return jax.tree.map(lambda x: x.reshape(b, f, *x.shape[1:]), coded)
        images = jnp.pad(clips.reshape(-1, h, w, c), ((0, -b * f % at_once), *[(0, 0)] * 3))
        scan = nn.scan(
            lambda vae, carry, images: (carry, code(vae, images)),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        _, coded = scan(self.spatial, None, images.reshape(-1, at_once, h, w, c))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: b * f].reshape(b, f, *x.shape[2:]), coded)

    def normalise(self, latents: jax.Array) -> jax.Array:
        """(z − shift) / scale for each channel of latents `[b, t, h, w, c]`."""
        return (latents - self.shift[None, None, None, None]) / self.scale[None, None, None, None]

    def denormalise(self, latents: jax.Array) -> jax.Array:
        """The inverse of `normalise`."""
        return latents * self.scale[None, None, None, None] + self.shift[None, None, None, None]

    def encode(self, frames: jax.Array) -> jax.Array:
        """Normalised latents `[b, t, h, w, c]` of frames `[b, f, h, w, 3]` in -1..1, in whole cells.

        Deviation: they are the means of both posteriors, which upstream samples.
        """
        return self.normalise(self.encode_temporal(self.encode_spatial(frames)))

    def decode(self, latents: jax.Array, num_frames: int) -> jax.Array:
        """Frames `[b, num_frames, h, w, 3]` in about -1..1 (not clipped) from normalised latents `[b, t, h, w, c]`."""
        return self.decode_spatial(self.decode_temporal(self.denormalise(latents), num_frames))

    def reconstruct(self, frames: jax.Array) -> jax.Array:
        """Encode, then decode frames `[b, f, h, w, 3]`; also used to initialise every parameter."""
        return self.decode(self.encode(frames), frames.shape[1])


def makes_latents(name: str) -> bool:
    """Whether latents depend on the parameter of this name; decoder parameters may change while latents stay valid."""
    return not any(side in name for side in ("decoder", "post_quant"))
