"""How parameters, batches and results are split over a mesh."""

import math
from typing import TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from pavdm_jax.distributed.mesh import FSDP, LOGICAL_AXES, check_rows

T = TypeVar("T")

STACKED = ("blocks", "caption_blocks", "layers")
"""Modules whose parameters are stacked by layer; their first axis is scanned, and never split."""

MIN_SPLIT_SIZE = 2**10
"""Parameters of fewer values are replicated: gathering them would cost more than keeping them."""

# --- parameters -------------------------------------------------------------------------------------------------------


def tree_shardings(tree: T, mesh: Mesh | AbstractMesh) -> T:
    """The shardings of parameters, or of trees with their names and shapes (moving averages, optimiser states).

    Args:
      tree: of arrays, or of their `jax.ShapeDtypeStruct`.
      mesh: over which they are split.

    Returns:
      A tree of `NamedSharding`.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _param_spec(path, leaf, mesh)), tree)


def _param_spec(path: tuple, leaf: jax.ShapeDtypeStruct, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Split the longest axis that `FSDP` divides; else an axis for each of its two parts, where there is one."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    begin = 1 if any(name in STACKED for name in names) else 0
    if math.prod(leaf.shape) < MIN_SPLIT_SIZE:
        return PartitionSpec()
    longest_first = sorted(range(begin, len(leaf.shape)), key=lambda axis: -leaf.shape[axis])
    split: dict[int, tuple[str, ...]] = {}
    for parts in (FSDP, FSDP[:1], FSDP[1:]):
        shards = math.prod(mesh.shape[part] for part in parts)
        fits = (axis for axis in longest_first if axis not in split and leaf.shape[axis] % shards == 0)
        axis = None if FSDP in split.values() else next(fits, None)
        if axis is not None:
            split[axis] = parts
    return PartitionSpec(*(split.get(axis) for axis in range(len(leaf.shape))))


def batch_sharding(mesh: Mesh | AbstractMesh, rows: int) -> NamedSharding:
    """The sharding of arrays whose first axis is a batch of `rows`.

    Raises:
      ConfigError: the devices that split the batch do not divide it.
    """
    axes = dict(LOGICAL_AXES)["batch"]
    check_rows(rows, math.prod(mesh.shape[axis] for axis in axes))
    return NamedSharding(mesh, PartitionSpec(axes))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding of arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: T) -> T:
    """Inside a compiled program, replicate arrays on all devices, so that every process can read them.

    Without a mesh it does nothing.
    """
    return tree if _mesh().empty else jax.lax.with_sharding_constraint(tree, PartitionSpec())


def shard_batch(array: jax.Array, axis: int) -> jax.Array:
    """Inside a compiled program, split an array along its batch axis, or replicate it where that does not divide.

    Without a mesh it does nothing.
    """
    mesh, axes = _mesh(), dict(LOGICAL_AXES)["batch"]
    if mesh.empty or array.shape[axis] % math.prod(mesh.shape[name] for name in axes):
        return replicate(array)
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*[None] * axis, axes))


def _mesh() -> AbstractMesh:
    return jax.sharding.get_abstract_mesh()
