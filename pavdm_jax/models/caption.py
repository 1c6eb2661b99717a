"""What a video transformer keeps of its prompts: the keys and values of cross-attention, computed once for a video."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from pavdm_jax.errors import ConfigError


@struct.dataclass
class Caption:
    """Cross-attention keys and values of every block, for p prompts of which each covers t / p latent frames.

    Attributes:
      keys: [depth..., b, p, l, n, e]; STDiT3 has an axis of 2 after the depth, the spatial, then the temporal block.
      values: of the same shape.
      length: int [b, p], tokens of each prompt without padding, 0..l.
    """

    keys: jax.Array
    values: jax.Array
    length: jax.Array


def concatenate(captions: Sequence[Caption]) -> Caption:
    """Concatenate captions along the batch, for instance the prompts and the null caption of guidance."""
    return Caption(
        keys=jnp.concatenate([caption.keys for caption in captions], -5),
        values=jnp.concatenate([caption.values for caption in captions], -5),
        length=jnp.concatenate([caption.length for caption in captions], 0),
    )


def halves(caption: Caption) -> tuple[Caption, Caption]:
    """What `concatenate` made of two captions of equal batch."""
    keys, values = jnp.split(caption.keys, 2, -5), jnp.split(caption.values, 2, -5)
    length = jnp.split(caption.length, 2, 0)
    return Caption(keys[0], values[0], length[0]), Caption(keys[1], values[1], length[1])


def take(caption: Caption, prompt_index: jax.Array) -> Caption:
    """The prompts `prompt_index`, int [slots], of a caption, so that p = slots; an index ≥ p takes the last prompt."""
    return Caption(
        keys=jnp.take(caption.keys, prompt_index, -4, mode="clip"),
        values=jnp.take(caption.values, prompt_index, -4, mode="clip"),
        length=jnp.take(caption.length, prompt_index, 1, mode="clip"),
    )


def check_caption(caption: Caption, batch: int, latent_frames: int) -> None:
    """Refuse a caption that does not fit latents.

    Raises:
      ConfigError: it is of another batch, or its prompts cannot share the latent frames evenly.
    """
    b, p = caption.length.shape
    if b != batch:
        raise ConfigError(f"the caption is for a batch of {b}, the latents are a batch of {batch}")
    if latent_frames % p != 0:
        raise ConfigError(
            f"{p} prompts cannot share {latent_frames} latent frames evenly; use a divisor of {latent_frames}"
        )
