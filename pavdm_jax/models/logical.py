"""How the arrays of the networks are split over devices, by logical names of their axes.

`distributed.mesh.LOGICAL_AXES` maps these names to axes of the mesh.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Split the first axes of an array over devices by their logical names.

    Axes that are None or not named are not split. Outside `use_mesh` it does nothing.
    """
    names = axes + (None,) * (x.ndim - len(axes))
    return nn.with_logical_constraint(x, names, fallback=nn.spmd.RulesFallback.RAISE_ERROR)


def spread(axis: str) -> int:
    """The number of devices over which an axis of this logical name is split; 1 outside `use_mesh`."""
    mesh_axes = (nn.logical_to_mesh_axes((axis,)) or (None,))[0] or ()
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[name] for name in ((mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes))


def padded_shard_map(
    function: Callable[..., jax.Array], *arrays: jax.Array, axes: tuple[tuple[str | None, ...], ...]
) -> jax.Array:
    """`function(*arrays)`, computed by each device on its own part, for what the compiler cannot split.

    Axes that do not divide evenly over the devices are padded with zeros during the call. Outside `use_mesh` it is the
    plain call.

    Args:
      function: a part of its result must depend on the same part of each array only.
      arrays: the result has the shape of the first one, and is split like it.
      axes: for each array, the logical names of its first axes; axes that are None or not named are not split.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(*arrays)

    def pad(array: jax.Array, names: tuple[str | None, ...]) -> jax.Array:
        widths = [(0, -size % spread(name) if name else 0) for size, name in zip(array.shape, names, strict=False)]
        return jnp.pad(array, widths + [(0, 0)] * (array.ndim - len(widths)))

    specs = tuple(nn.logical_to_mesh_axes(names) for names in axes)
    local = jax.shard_map(function, in_specs=specs, out_specs=specs[0], check_vma=False)
    result = local(*(pad(array, names) for array, names in zip(arrays, axes, strict=True)))
    return result[tuple(slice(size) for size in arrays[0].shape)]
