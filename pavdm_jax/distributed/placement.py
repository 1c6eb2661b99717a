"""Moving arrays between the memory of a process's host and the devices of all processes."""

from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from pavdm_jax.distributed.partitioning import batch_sharding, replicated, tree_shardings

T = TypeVar("T")


def place_params(params: dict, mesh: Mesh) -> dict:
    """Split parameters over the mesh as programs expect them; those that are split so already are not moved."""
    return jax.device_put(params, tree_shardings(params, mesh))


def place_replicated(tree: T, mesh: Mesh) -> T:
    """Copy arrays to every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


# --- arrays -----------------------------------------------------------------------------------------------------------


def process_rows(mesh: Mesh, size: int) -> list[int]:
    """The rows of a batch of `size` that the devices of this process hold, and that it therefore has to read.

    Processes whose devices split the tokens of the same videos read the same rows.

    Raises:
      ConfigError: see `batch_sharding`.
    """
    held = batch_sharding(mesh, size).addressable_devices_indices_map((size,)).values()
    return sorted({row for index in held if index is not None for row in range(*index[0].indices(size))})


def place_batch(batch: T, mesh: Mesh, size: int) -> T:
    """A training batch of `size` as arrays over the mesh; each process gives its `process_rows` along the first axis.

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
    """Split arrays that every process holds whole over the devices of all processes; an array that is there twice, as
    those of a teacher are that its student adapts, is so once on the devices."""
    placed: dict[tuple[int, Sharding], jax.Array] = {}

    def spread(array: jax.Array, sharding: Sharding) -> jax.Array:
        if (id(array), sharding) not in placed:
            values = np.asarray(array)
            placed[id(array), sharding] = jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
        return placed[id(array), sharding]

    return jax.tree.map(spread, tree, shardings)


def to_host(tree: T) -> T:
    """Gather arrays from the devices of all processes into the memory of each host; all processes must call it."""

    def gather(array: jax.Array) -> jax.Array:
        if not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
        return jax.device_put(array, on_host())

    return jax.tree.map(gather, tree)


def on_host() -> SingleDeviceSharding:
    """The sharding of arrays in host memory, for whole models that are too large for one accelerator.

    Where JAX has no CPU device, it is the first accelerator.
    """
    try:
        return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return on_first_device()


def on_first_device() -> SingleDeviceSharding:
    """The sharding of arrays on the first device of this process."""
    return SingleDeviceSharding(jax.local_devices()[0])
