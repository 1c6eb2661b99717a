"""Between a process's own memory, where a whole model waits, and the devices of all processes."""

from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding, SingleDeviceSharding

T = TypeVar("T")


def spread_tree(tree: T, shardings: T) -> T:
    """Arrays that every process has whole, as arrays over the devices of all of them."""

    def spread(array: jax.Array, sharding: Sharding) -> jax.Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

    return jax.tree.map(spread, tree, shardings)


def gather_tree(tree: T) -> T:
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
