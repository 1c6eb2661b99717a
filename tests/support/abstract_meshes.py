"""Meshes without devices, of any size, and what is on one of their devices."""

import math

import jax
from jax.sharding import AbstractMesh, AxisType

from pavdm_jax.distributed.mesh import MESH_AXES, MeshConfig, mesh_sizes


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """A mesh without devices: enough for shardings."""
    return AbstractMesh(mesh_sizes(config), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def bytes_of_a_device(tree) -> int:
    """Memory that placed shapes take on each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
