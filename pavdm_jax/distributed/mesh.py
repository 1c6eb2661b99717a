"""Meshes of devices, and the mesh axes over which each logical axis is split. The only file that names mesh axes.

The networks name *logical* axes (`LOGICAL_AXES`) only. A program that is called inside `use_mesh` is split by this
table; its result is the same on every mesh except for rounding. Sequence parallelism follows from the table, too:
tokens are split over `sequence` everywhere except in spatial attention, where frames are, and the compiler inserts an
all-to-all between the two. Sizes that a mesh axis does not divide are padded by the compiler; only the size of a
training batch must be divisible.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import jax
from flax import linen as nn
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh

from pavdm_jax.errors import ConfigError

T = TypeVar("T")

DATA, SEQUENCE = "data", "sequence"

FSDP = ("fsdp", "fsdp_rest")
"""The axes over which parameters are split (fully sharded data parallelism).

There are two, because no axis of a 1872 by 5616 kernel is divisible by 64, while 5616 is by 16, and 1872 by 4.
"""

FSDP_FIRST = 16
"""The largest size of the first of them."""

MESH_AXES = (DATA, *FSDP, SEQUENCE)
"""All axes of a mesh, in their order."""

LOGICAL_AXES = (
    ("batch", (DATA, *FSDP)),  # videos; with guidance, the conditional and the unconditional half of them
    ("images", MESH_AXES),  # pixel frames of all videos, which the spatial VAE codes one by one
    ("frames", SEQUENCE),  # latent frames of a window, in spatial attention
    ("tokens", SEQUENCE),  # tokens of a latent frame, everywhere else
    ("rows", SEQUENCE),  # rows of a video's frames, which the causal VAE codes one after the other
)

# --- meshes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeshConfig:
    """The number of devices along each axis; 1 does not split it.

    Attributes:
      data: copies of the model, each with its part of the batch.
      fsdp: devices that split the batch, as `data` does, and also every parameter.
      sequence: devices that split the tokens of a video.

    Raises:
      ConfigError: a number below 1.
    """

    data: int = 1
    fsdp: int = 1
    sequence: int = 1

    def __post_init__(self) -> None:
        for name, size in asdict(self).items():
            if size < 1:
                raise ConfigError(f"mesh axis {name} must be at least 1, not {size}")

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in asdict(self).items() if size > 1) or "data=1"

    @property
    def size(self) -> int:
        """The number of devices of the mesh."""
        return self.data * self.fsdp * self.sequence


def parse_mesh(text: str) -> MeshConfig:
    """The mesh of a text such as "data=2,sequence=4"; axes that are not named are 1.

    Raises:
      ConfigError: an unknown axis, an axis that is named twice, or a size that is no number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (word.strip() for word in part.partition("="))
        known = list(MeshConfig.__dataclass_fields__)
        if name not in known or name in sizes or not size.isdecimal():
            raise ConfigError(
                f"mesh '{text}' is not understood at '{part.strip()}'; write for instance data=2,sequence=4 "
                f"(axes: {', '.join(known)}), auto or single"
            )
        sizes[name] = int(size)
    return MeshConfig(**sizes)


def generation_mesh(text: str, videos: int, devices: int | None = None, guided: bool = True) -> MeshConfig:
    """The mesh for generation.

    Args:
      text: "auto" uses all devices of this process: `data` splits the videos and the two halves of guidance as far as
        the devices divide them, and `sequence` takes the rest. "single" uses one device. Or a mesh of all devices, see
        `parse_mesh`.
      videos: how many are made at the same time.
      devices: the number of devices for "auto"; None: those of this process.
      guided: whether there are two halves.

    Raises:
      ConfigError: the text is no mesh, or does not use all devices.
    """
    if text == "single":
        return MeshConfig()
    if text == "auto":
        devices = devices or jax.local_device_count()
        data = math.gcd(devices, 2 * videos if guided else videos)
        return MeshConfig(data=data, sequence=devices // data)
    config = parse_mesh(text)
    check_mesh(config, jax.device_count())
    return config


def check_mesh(config: MeshConfig, devices: int) -> None:
    """Check that a mesh uses exactly `devices` devices.

    Raises:
      ConfigError: it does not; the message names meshes that do.
    """
    if config.size != devices:
        used = [name for name, size in asdict(config).items() if size > 1] or [DATA]
        fitting = (
            ",".join(f"{name}={size}" for name, size in zip(used, sizes, strict=True))
            for sizes in _factorisations(devices, len(used))
        )
        raise ConfigError(
            f"mesh {config} takes {config.size} devices and there are {devices}; these fit: {' or '.join(fitting)}"
        )


def train_mesh(text: str, rows: int, devices: int) -> MeshConfig:
    """The mesh for training.

    Args:
      text: "auto" uses all devices: they split the batch as far as they divide it, and up to 16 of these also the
        parameters; the rest splits the tokens. "single" uses one device. Or a mesh of all devices, see `parse_mesh`.
      rows: samples that are computed at once: a batch, or a part of it when gradients are accumulated.
      devices: the number of devices of all processes.

    Raises:
      ConfigError: the text is no mesh, does not use all devices, or does not divide the rows.
    """
    if text == "single":
        if jax.process_count() != 1:
            raise ConfigError("mesh single is for one process; several share a mesh: auto, or such as data=2")
        return MeshConfig()
    if text == "auto":
        shares = math.gcd(devices, rows)
        fsdp = math.gcd(shares, FSDP_FIRST)
        return MeshConfig(data=shares // fsdp, fsdp=fsdp, sequence=devices // shares)
    config = parse_mesh(text)
    check_mesh(config, devices)
    check_rows(rows, config.data * config.fsdp)
    return config


def _factorisations(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            yield from ((first, *rest) for rest in _factorisations(number // first, parts - 1))


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a config.

    Args:
      config: the sizes.
      devices: those to use, which may belong to a topology description, for compiling only. None: the devices of this
        process if the config has as many, else those of all processes.

    Raises:
      ConfigError: the config does not use exactly these devices.
    """
    if devices is None:
        if config.size == 1:
            devices = jax.local_devices()[:1]
        else:
            devices = jax.local_devices() if config.size == jax.local_device_count() else jax.devices()
    check_mesh(config, len(devices))
    # Not by `jax.make_mesh`, which refuses GPUs of several hosts, and on most TPUs axes that share one of the torus.
    placed = create_device_mesh(mesh_sizes(config), devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def mesh_sizes(config: MeshConfig) -> tuple[int, ...]:
    """The sizes of the mesh along `MESH_AXES`."""
    first = math.gcd(config.fsdp, FSDP_FIRST)
    return config.data, first, config.fsdp // first, config.sequence


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Split the programs that are called in this context over the mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXES):
        yield


def check_rows(rows: int, shards: int) -> None:
    """Raise `ConfigError`, naming the nearest batches, unless `shards` devices divide a batch of `rows`."""
    if rows % shards != 0:
        fitting = " or ".join(str(n) for n in (rows // shards * shards, (rows // shards + 1) * shards) if n)
        raise ConfigError(f"a batch of {rows} does not divide over {shards} devices (data times fsdp); use {fitting}")
