"""Many devices: the mesh, and which of its axes each logical axis lies on. The only file that names mesh axes.

The networks name *logical* axes (`LOGICAL_AXES`) and know nothing of devices; a program that is called inside `use_mesh` is split by
this table, and its result is the same on every mesh but for rounding. Sequence parallelism is a change of place: tokens are
spread over `sequence` everywhere but in spatial attention, where frames are, and the compiler moves them by an all-to-all. Sizes
that a mesh axis does not divide are padded by the compiler; only a training batch has to divide.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from pavdm_jax.config import ModelConfig, require
from pavdm_jax.model import abstract_params

T = TypeVar("T")

DATA, SEQUENCE = "data", "sequence"
FSDP = ("fsdp", "fsdp_rest")
"""Parameters are spread over these two. Two, since no axis of a 1872 by 5616 kernel divides by 64, but 5616 does by 16, and 1872 by 4."""
FSDP_FIRST = 16

MESH_AXES = (DATA, *FSDP, SEQUENCE)

LOGICAL_AXES = (
    ("batch", (DATA, *FSDP)),  # videos; with guidance, the conditional and the unconditional half of them
    ("images", MESH_AXES),  # pixel frames of all videos, each coded by itself
    ("frames", SEQUENCE),  # latent frames of a window, in spatial attention
    ("tokens", SEQUENCE),  # tokens of a latent frame, everywhere else
)

STACKED = ("blocks", "caption_blocks", "layers")
"""Modules whose parameters are stacked by layer: the first axis is the one that is scanned, and is never split."""

MIN_SPLIT_SIZE = 2**10
"""Parameters of fewer values are whole on every device: gathering them costs more than keeping them."""


# --- meshes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; 1 does not split it.

    Attributes:
      data: copies of the model, each with its share of the batch.
      fsdp: devices that share the batch, as `data` does, and keep a part of every parameter each.
      sequence: devices that share the tokens of a video.
    """

    data: int = 1
    fsdp: int = 1
    sequence: int = 1

    def __post_init__(self) -> None:
        for name, size in asdict(self).items():
            require(size >= 1, f"mesh axis {name} must be at least 1, not {size}")

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in asdict(self).items() if size > 1) or "data=1"

    @property
    def size(self) -> int:
        """Devices that it takes."""
        return self.data * self.fsdp * self.sequence


def parse_mesh(text: str) -> MeshConfig:
    """A mesh as it is written: "data=2,sequence=4"; axes that are not named are 1.

    Raises:
      ConfigError: another axis, one that is named twice, or no number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (word.strip() for word in part.partition("="))
        known = list(MeshConfig.__dataclass_fields__)
        require(
            name in known and name not in sizes and size.isdecimal(),
            f"mesh '{text}' is not understood at '{part.strip()}'; write for instance data=2,sequence=4 "
            f"(axes: {', '.join(known)}), auto or single",
        )
        sizes[name] = int(size)
    return MeshConfig(**sizes)


def generation_mesh(text: str, videos: int, devices: int | None = None) -> MeshConfig:
    """The mesh on which `videos` videos are made.

    Args:
      text: "auto" takes all devices of this process: the halves of guidance and the videos lie on `data` as far as they divide, and
        tokens on the rest; "single" takes one device; or a mesh of all devices, see `parse_mesh`.
      videos: made at the same time.
      devices: how many "auto" takes, if not those of this process.

    Raises:
      ConfigError: not understood, or it does not take all devices.
    """
    if text == "single":
        return MeshConfig()
    if text == "auto":
        devices = devices or jax.local_device_count()
        data = math.gcd(devices, 2 * videos)
        return MeshConfig(data=data, sequence=devices // data)
    config = parse_mesh(text)
    check_mesh(config, jax.device_count())
    return config


def check_mesh(config: MeshConfig, devices: int) -> None:
    """Refuse a mesh that does not take exactly `devices` devices, and name those that do.

    Raises:
      ConfigError: as said.
    """
    used = [name for name, size in asdict(config).items() if size > 1] or [DATA]
    fitting = (
        ",".join(f"{name}={size}" for name, size in zip(used, sizes, strict=True))
        for sizes in _factorisations(devices, len(used))
    )
    require(
        config.size == devices,
        f"mesh {config} takes {config.size} devices and there are {devices}; these fit: {' or '.join(fitting)}",
    )


def train_mesh(text: str, rows: int, devices: int) -> MeshConfig:
    """The mesh on which a batch is trained.

    Args:
      text: "auto" takes all devices: they share the batch as far as it divides, up to 16 of them the parameters, too, and what
        remains shares the tokens; "single" takes one device; or a mesh of all devices, see `parse_mesh`.
      rows: samples that are worked on at once: a batch, or a part of one that is accumulated.
      devices: of all processes.

    Raises:
      ConfigError: not understood, it does not take all devices, or the rows do not divide over it.
    """
    if text == "single":
        require(
            jax.process_count() == 1, "mesh single is for one process; several share a mesh: auto, or such as data=2"
        )
        return MeshConfig()
    if text == "auto":
        shares = math.gcd(devices, rows)
        fsdp = math.gcd(shares, FSDP_FIRST)
        return MeshConfig(data=shares // fsdp, fsdp=fsdp, sequence=devices // shares)
    config = parse_mesh(text)
    check_mesh(config, devices)
    _check_rows(rows, config.data * config.fsdp)
    return config


def _factorisations(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            yield from ((first, *rest) for rest in _factorisations(number // first, parts - 1))


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a config over `devices`: by default all of this process if these are enough, else all of all processes.

    Devices of a topology description do, too, for compiling without them.

    Raises:
      ConfigError: it does not take exactly these devices.
    """
    if devices is None:
        if config.size == 1:
            devices = jax.local_devices()[:1]
        else:
            devices = jax.local_devices() if config.size == jax.local_device_count() else jax.devices()
    check_mesh(config, len(devices))
    return jax.make_mesh(_sizes(config), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """A mesh without devices: enough for shardings of any size."""
    return AbstractMesh(_sizes(config), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _sizes(config: MeshConfig) -> tuple[int, ...]:
    first = math.gcd(config.fsdp, FSDP_FIRST)
    return config.data, first, config.fsdp // first, config.sequence


@contextlib.contextmanager
def use_mesh(mesh: Mesh | None) -> Iterator[None]:
    """Programs that are called inside are split over the mesh; None changes nothing."""
    if mesh is None:
        yield
        return
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXES):
        yield


# --- parameters -------------------------------------------------------------------------------------------------------


def param_shardings(config: ModelConfig, mesh: Mesh | AbstractMesh) -> dict:
    """The tree of shardings of a model's parameters."""
    return tree_shardings(abstract_params(config), mesh)


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


def place_params(params: dict, mesh: Mesh | None) -> dict:
    """Parameters where programs on the mesh want them; those that are there already are not moved."""
    return params if mesh is None else jax.device_put(params, tree_shardings(params, mesh))


def place_whole(tree: T, mesh: Mesh | None) -> T:
    """Arrays whole on every device of the mesh."""
    return tree if mesh is None else jax.device_put(tree, replicated(mesh))


# --- arrays -----------------------------------------------------------------------------------------------------------


def process_rows(mesh: Mesh | None, size: int) -> list[int]:
    """The rows of a batch of `size` that the devices of this process hold: what it has to read.

    Processes whose devices share the tokens of the same videos read the same rows.

    Raises:
      ConfigError: see `batch_sharding`.
    """
    if mesh is None:
        return list(range(size))
    held = batch_sharding(mesh, size).addressable_devices_indices_map((size,)).values()
    return sorted({row for (rows,) in held for row in range(*rows.indices(size))})


def place_batch(batch: T, mesh: Mesh | None, size: int) -> T:
    """A training batch of `size`, each process giving its `process_rows` (the first axis), as arrays over the mesh.

    Raises:
      ConfigError: see `batch_sharding`.
    """
    if mesh is None:
        return batch
    sharding, rows = batch_sharding(mesh, size), process_rows(mesh, size)

    def place(array: np.ndarray) -> jax.Array:
        values = np.asarray(array)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            first, stop, _ = index[0].indices(size)
            return values[rows.index(first) :][: stop - first]

        return jax.make_array_from_callback((size, *values.shape[1:]), sharding, part)

    return jax.tree.map(place, batch)


def batch_sharding(mesh: Mesh | AbstractMesh, rows: int) -> NamedSharding:
    """Of arrays whose first axis is a batch of `rows`.

    Raises:
      ConfigError: they do not divide by the devices that share the batch.
    """
    axes = dict(LOGICAL_AXES)["batch"]
    _check_rows(rows, math.prod(mesh.shape[axis] for axis in axes))
    return NamedSharding(mesh, PartitionSpec(axes))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Of arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def _check_rows(rows: int, shards: int) -> None:
    fitting = " or ".join(str(n) for n in (rows // shards * shards, (rows // shards + 1) * shards) if n)
    require(
        rows % shards == 0, f"a batch of {rows} does not divide over {shards} devices (data times fsdp); use {fitting}"
    )


def whole(tree: T) -> T:
    """Inside a program: the arrays whole on every device, so that every process can read them; without a mesh, nothing."""
    return tree if _mesh().empty else jax.lax.with_sharding_constraint(tree, PartitionSpec())


def by_rows(array: jax.Array, axis: int) -> jax.Array:
    """Inside a program: an output split along its batch axis, or whole where that does not divide; without a mesh, nothing."""
    mesh, axes = _mesh(), dict(LOGICAL_AXES)["batch"]
    if mesh.empty or array.shape[axis] % math.prod(mesh.shape[name] for name in axes):
        return whole(array)
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*[None] * axis, axes))


def _mesh() -> AbstractMesh:
    return jax.sharding.get_abstract_mesh()
