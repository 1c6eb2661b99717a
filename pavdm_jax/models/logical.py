"""Where the arrays of the networks lie on several devices, in names that know no device: `sharding.LOGICAL_AXES` gives them a meaning."""

import math

import jax
from flax import linen as nn


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Spread the first axes of an array as their logical names say; None, and the axes that are not named, stay together.

    Outside `sharding.use_mesh` it does nothing.
    """
    names = axes + (None,) * (x.ndim - len(axes))
    return nn.with_logical_constraint(x, names, fallback=nn.spmd.RulesFallback.RAISE_ERROR)


def spread(axis: str) -> int:
    """Over how many devices an axis of this logical name is spread; 1 outside `sharding.use_mesh`."""
    mesh_axes = nn.logical_to_mesh_axes((axis,))[0] or ()
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[name] for name in ((mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes))
