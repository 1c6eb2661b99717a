"""A trained transformer with patches of another size: one of more or fewer tokens starts where the old one ended."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from pavdm_jax.families import AnyTransformerConfig


def differs_in_patches_alone(one: AnyTransformerConfig, other: AnyTransformerConfig) -> bool:
    """Whether two transformers differ in patches, and STDiT3's unit of the places that tokens have, or in nothing."""
    free = {name: getattr(other, name) for name in ("patch_size", "base_size") if hasattr(other, name)}
    return type(one) is type(other) and replace(one, **free) == other


def resize_patches(params: dict[str, Any], old: tuple[int, int], new: tuple[int, int]) -> dict[str, Any]:
    """The parameters of a transformer for patches of another size; all but the first and the last layer stay.

    A latent frame that is the same everywhere becomes the same tokens, and these the same velocity: the kernel of the
    first layer is spread evenly over the cells of the new patch, with the sum of the old one, and each cell of the last
    layer gets the mean of the old cells. What differs within a patch is for the training to find. (FlexiViT, arXiv
    2212.08013, finds the first layer by least squares over all patches; these starts are for long trainings.)

    Args:
      params: with "patch_embed", whose kernel is [row·column·c, d], and "final", [d, row·column·o] with a bias.
      old: latent rows, columns of a token.
      new: those wanted.
    """
    cells, wanted = old[0] * old[1], new[0] * new[1]
    first, last = params["patch_embed"], params["final"]

    def spread(kernel: jax.Array) -> jax.Array:
        total = kernel.reshape(cells, -1, kernel.shape[-1]).astype(jnp.float32).sum(0)
        return jnp.tile(total / wanted, (wanted, 1)).astype(kernel.dtype)

    def average(values: jax.Array) -> jax.Array:
        mean = values.reshape(*values.shape[:-1], cells, -1).astype(jnp.float32).mean(-2)
        return jnp.tile(mean, (*(1,) * (mean.ndim - 1), wanted)).astype(values.dtype)

    return params | {
        "patch_embed": first | {"kernel": spread(first["kernel"])},
        "final": {name: average(values) for name, values in last.items()},
    }
