"""Meshes of devices, and which of their axes each logical axis lies on. The only file that names mesh axes.

The networks name *logical* axes (`LOGICAL_AXES`) and know nothing of devices; a program that is called inside
`use_mesh` is split by
this table, and its result is the same on every mesh but for rounding. Sequence parallelism is a change of place: tokens
are spread over `sequence` everywhere but in spatial attention, where frames are, and the compiler moves them by an
all-to-all. Sizes that a mesh axis does not divide are padded by the compiler; only a training batch has to divide.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh

from pavdm_jax.errors import ConfigError

T = TypeVar("T")

DATA, SEQUENCE = "data", "sequence"

FSDP = ("fsdp", "fsdp_rest")
"""Parameters are spread over these two. Two, since no axis of a 1872 by 5616 kernel divides by 64, but 5616 does by 16,
and 1872 by 4."""

FSDP_FIRST = 16

MESH_AXES = (DATA, *FSDP, SEQUENCE)

LOGICAL_AXES = (
    ("batch", (DATA, *FSDP)),  # videos; with guidance, the conditional and the unconditional half of them
    ("images", MESH_AXES),  # pixel frames of all videos, each coded by itself
    ("frames", SEQUENCE),  # latent frames of a window, in spatial attention
    ("tokens", SEQUENCE),  # tokens of a latent frame, everywhere else
)

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
            if size < 1:
                raise ConfigError(f"mesh axis {name} must be at least 1, not {size}")

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
        if name not in known or name in sizes or not size.isdecimal():
            raise ConfigError(
                f"mesh '{text}' is not understood at '{part.strip()}'; write for instance data=2,sequence=4 "
                f"(axes: {', '.join(known)}), auto or single"
            )
        sizes[name] = int(size)
    return MeshConfig(**sizes)


def generation_mesh(text: str, videos: int, devices: int | None = None) -> MeshConfig:
    """The mesh on which `videos` videos are made.

    Args:
      text: "auto" takes all devices of this process: the halves of guidance and the videos lie on `data` as far as they
        divide, and tokens on the rest; "single" takes one device; or a mesh of all devices, see `parse_mesh`.
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
    """The mesh on which a batch is trained.

    Args:
      text: "auto" takes all devices: they share the batch as far as it divides, up to 16 of them the parameters, too,
        and what remains shares the tokens; "single" takes one device; or a mesh of all devices, see `parse_mesh`.
      rows: samples that are worked on at once: a batch, or a part of one that is accumulated.
      devices: of all processes.

    Raises:
      ConfigError: not understood, it does not take all devices, or the rows do not divide over it.
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
    """The mesh of a config over `devices`: by default all of this process if these are enough, else all of all
    processes.

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
    return jax.make_mesh(mesh_sizes(config), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def mesh_sizes(config: MeshConfig) -> tuple[int, ...]:
    """The sizes of the mesh along `MESH_AXES`."""
    first = math.gcd(config.fsdp, FSDP_FIRST)
    return config.data, first, config.fsdp // first, config.sequence


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Programs that are called inside are split over the mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXES):
        yield


def check_rows(rows: int, shards: int) -> None:
    if rows % shards != 0:
        fitting = " or ".join(str(n) for n in (rows // shards * shards, (rows // shards + 1) * shards) if n)
        raise ConfigError(f"a batch of {rows} does not divide over {shards} devices (data times fsdp); use {fitting}")
