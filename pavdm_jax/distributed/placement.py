"""Between a process's own memory, where a whole model waits, and the devices of all processes."""

from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from pavdm_jax.distributed.partitioning import batch_sharding, replicated, tree_shardings

T = TypeVar("T")


def place_params(params: dict, mesh: Mesh) -> dict:
    """Parameters where programs on the mesh want them; those that are there already are not moved."""
    return jax.device_put(params, tree_shardings(params, mesh))


def place_replicated(tree: T, mesh: Mesh) -> T:
    """Arrays whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


# --- arrays -----------------------------------------------------------------------------------------------------------


def process_rows(mesh: Mesh, size: int) -> list[int]:
    """The rows of a batch of `size` that the devices of this process hold: what it has to read.

    Processes whose devices share the tokens of the same videos read the same rows.

    Raises:
      ConfigError: see `batch_sharding`.
    """
    held = batch_sharding(mesh, size).addressable_devices_indices_map((size,)).values()
    return sorted({row for index in held if index is not None for row in range(*index[0].indices(size))})


def place_batch(batch: T, mesh: Mesh, size: int) -> T:
    """A training batch of `size`, each process giving its `process_rows` (the first axis), as arrays over the mesh.

    Raises:
      ConfigError: see `batch_sharding`.
    """
    sharding, rows = batch_sharding(mesh, size), process_rows(mesh, size)

    def place(array: np.ndarray) -> jax.Array:
        values = np.asarray(array)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # it is for arrays that the sharding cannot index
            first, stop, _ = index[0].indices(size)
            return values[rows.index(first) :][: stop - first]

        return jax.make_array_from_callback((size, *values.shape[1:]), sharding, part)

    return jax.tree.map(place, batch)


def to_devices(tree: T, shardings: T) -> T:
    """Arrays that every process has whole, as arrays over the devices of all of them."""

    def spread(array: jax.Array, sharding: Sharding) -> jax.Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

    return jax.tree.map(spread, tree, shardings)


def to_host(tree: T) -> T:
    """Arrays over the devices of all processes, whole in the memory of every host; all processes have to call it."""

    def gather(array: jax.Array) -> jax.Array:
        if not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
        return jax.device_put(array, on_host())

    return jax.tree.map(gather, tree)


def on_host() -> SingleDeviceSharding:
    """The memory of this process's host, where a whole model waits that one accelerator could not hold.

    Where JAX was told to have no CPU device, it is the first accelerator.
    """
    try:
        return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return on_first_device()


def on_first_device() -> SingleDeviceSharding:
    """The first device of this process."""
    return SingleDeviceSharding(jax.local_devices()[0])
