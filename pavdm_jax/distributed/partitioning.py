"""How parameters, batches and results are split over a mesh."""

import math
from typing import TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from pavdm_jax.distributed.mesh import FSDP, LOGICAL_AXES, check_rows

T = TypeVar("T")

STACKED = ("blocks", "caption_blocks", "layers")
"""Modules whose parameters are stacked by layer: the first axis is the one that is scanned, and is never split."""

MIN_SPLIT_SIZE = 2**10
"""Parameters of fewer values are whole on every device: gathering them costs more than keeping them."""

# --- parameters -------------------------------------------------------------------------------------------------------


def tree_shardings(tree: T, mesh: Mesh | AbstractMesh) -> T:
    """The shardings of parameters, or of anything that keeps their names and shapes: averages, states of an optimiser.

    Args:
      tree: of arrays, or of their `jax.ShapeDtypeStruct`.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _param_spec(path, leaf, mesh)), tree)


def _param_spec(path: tuple, leaf: jax.ShapeDtypeStruct, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The longest axis that all of `FSDP` divide; else an axis for each part of it, as far as there are such."""
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
    """Of arrays whose first axis is a batch of `rows`.

    Raises:
      ConfigError: they do not divide by the devices that share the batch.
    """
    axes = dict(LOGICAL_AXES)["batch"]
    check_rows(rows, math.prod(mesh.shape[axis] for axis in axes))
    return NamedSharding(mesh, PartitionSpec(axes))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Of arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: T) -> T:
    """Inside a program: the arrays whole on every device, so that every process can read them.

    Without a mesh it does nothing.
    """
    return tree if _mesh().empty else jax.lax.with_sharding_constraint(tree, PartitionSpec())


def shard_batch(array: jax.Array, axis: int) -> jax.Array:
    """Inside a program: an output split along its batch axis, or whole where that does not divide; without a mesh,
    nothing.
    """
    mesh, axes = _mesh(), dict(LOGICAL_AXES)["batch"]
    if mesh.empty or array.shape[axis] % math.prod(mesh.shape[name] for name in axes):
        return replicate(array)
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*[None] * axis, axes))


def _mesh() -> AbstractMesh:
    return jax.sharding.get_abstract_mesh()
