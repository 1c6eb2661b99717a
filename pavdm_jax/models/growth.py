"""A trained transformer with more blocks, or patches of another size: it starts about where the old one ended."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.families import AnyTransformerConfig

OUTPUTS = ("attention_out", "cross_out", "mlp_out")
"""The last layers of a block's branches; with zeros in them, the block changes nothing."""


def can_become(old: AnyTransformerConfig, new: AnyTransformerConfig) -> bool:
    """Whether `grow` makes a transformer the other: patches, STDiT3's unit of places, and a greater depth are free."""
    free = {name: getattr(new, name) for name in ("patch_size", "base_size", "depth") if hasattr(new, name)}
    return type(old) is type(new) and replace(old, **free) == new and old.depth <= new.depth


def grow(params: dict[str, Any], old: AnyTransformerConfig, new: AnyTransformerConfig) -> dict[str, Any]:
    """The parameters of a transformer for a config that it `can_become`."""
    return _resize_patches(_deepen(params, old.depth, new.depth), old.patch_size, new.patch_size)


def _deepen(params: dict[str, Any], old: int, new: int) -> dict[str, Any]:
    """Put copies of the blocks behind them that add nothing yet: the function stays the same, exactly.

    Source: LLaMA Pro, arXiv 2401.02415, section 3.2.
    """
    if old == new:
        return params
    source = np.arange(new) * old // new
    is_copy = np.diff(source, prepend=-1) == 0

    def stack(path: tuple, x: jax.Array) -> jax.Array:
        x = jnp.take(x, source, 0)
        if not any(entry.key in OUTPUTS for entry in path):
            return x
        return jnp.where(is_copy.reshape(-1, *(1,) * (x.ndim - 1)), 0, x)

    stacks = {name: params[name] for name in ("blocks", "caption_blocks")}
    return params | jax.tree_util.tree_map_with_path(stack, stacks)


def _resize_patches(params: dict[str, Any], old: tuple[int, int], new: tuple[int, int]) -> dict[str, Any]:
    """Change the first and the last layer for patches, latent rows and columns of a token, of another size.

    A latent frame that is the same everywhere becomes the same tokens, and these the same velocity: the kernel of the
    first layer is spread evenly over the cells of the new patch, with the sum of the old one, and each cell of the last
    layer gets the mean of the old cells. What differs within a patch is for the training to find. (FlexiViT, arXiv
    2212.08013, finds the first layer by least squares over all patches; these starts are for long trainings.)
    """
    if old == new:
        return params
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
