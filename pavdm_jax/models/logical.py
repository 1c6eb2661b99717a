"""Where the arrays of the networks lie on several devices, in names that know no device:
`distributed.mesh.LOGICAL_AXES` gives them a meaning.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Spread the first axes of an array as their logical names say; None, and the axes that are not named, stay
    together.

    Outside `use_mesh` it does nothing.
    """
    names = axes + (None,) * (x.ndim - len(axes))
    return nn.with_logical_constraint(x, names, fallback=nn.spmd.RulesFallback.RAISE_ERROR)


def spread(axis: str) -> int:
    """Over how many devices an axis of this logical name is spread; 1 outside `use_mesh`."""
    mesh_axes = (nn.logical_to_mesh_axes((axis,)) or (None,))[0] or ()
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[name] for name in ((mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes))


def padded_shard_map(
    function: Callable[..., jax.Array], *arrays: jax.Array, axes: tuple[tuple[str | None, ...], ...]
) -> jax.Array:
    """`function(*arrays)`, computed by each device on its part alone, for what the compiler cannot split by itself.

    The result's axes are those of the first array. Axes that do not divide over the devices are padded with zeros for
    the time. Outside `use_mesh` it is the function.

    Args:
      function: of arrays; parts of its result must depend on the same parts of the arrays only.
      arrays: the first decides where the result lies.
      axes: for each array, the logical names of its first axes; None, and axes that are not named, are whole on every
        device.
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
