"""The chips for which programs can be compiled on other machines, and their devices for the compiler."""

import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from pavdm_jax.errors import ConfigError, first_line

GIB = 2**30

JAX_SHARE = 0.75
"""The share of a GPU's memory that JAX uses by default (XLA_PYTHON_CLIENT_MEM_FRACTION)."""


@dataclass(frozen=True)
class TPU:
    """A kind of TPU chip.

    Attributes:
      kind: as `jax.Device.device_kind`.
      memory_gib: of a chip that a program can use, as the compiler reports it.
      options: of the topology, so that a chip is one device; a v4 chip has two cores, which work as one ("megacore").
    """

    kind: str
    memory_gib: float
    options: tuple[tuple[str, str], ...] = ()

    def devices(self, name: str, layout: str) -> list[jax.Device]:
        """The devices of a topology; raises the errors of the compiler."""
        # Otherwise two compilations at the same time fail, even of two users; and no cloud machine can be queried.
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **dict(self.options)).devices)

    remedy = "is libtpu installed (pip install libtpu)?"


@dataclass(frozen=True)
class GPU:
    """A kind of NVIDIA GPU with the values that the compiler needs, from NVIDIA's data sheets and architecture papers.

    Attributes:
      kind: as `jax.Device.device_kind`.
      capability: compute capability.
      whole_memory_gib: of the GPU; see `memory_gib`.
      bandwidth: of the memory, in GB/s.
      processors: streaming multiprocessors.
      lanes, threads: float32 lanes and resident threads of a multiprocessor.
      shared_kib: memory that a multiprocessor shares; a block can take all but 1 KiB.
      l2_mib: second-level cache.
      clock_ghz: boost clock.
    """

    kind: str
    capability: tuple[int, int]
    whole_memory_gib: float
    bandwidth: int
    processors: int
    lanes: int
    threads: int
    shared_kib: int
    l2_mib: int
    clock_ghz: float

    @property
    def memory_gib(self) -> float:
        """That a program can use."""
        return round(JAX_SHARE * self.whole_memory_gib, 2)

    def devices(self, name: str, layout: str) -> list[jax.Device]:
        """Those of a topology: GPUs of a host, or hosts x GPUs of each; raises what the compiler raises."""
        hosts_and_gpus = layout if "x" in layout else f"1x{layout}"
        if hosts_and_gpus.count("x") != 1:
            raise ConfigError(f"topology '{name}' has one number too many; write hosts x GPUs of each")
        description = topologies.get_topology_desc(
            platform="cuda", topology_name=name, topology=f"1x{hosts_and_gpus}", target_config=self._description()
        )
        return list(description.devices)

    remedy = "is JAX's support of CUDA installed (pip install 'jax[cuda12]')?"

    def _description(self) -> str:
        """As text of XLA's GpuTargetConfigProto."""
        major, minor = self.capability
        return f"""
            platform_name: "CUDA"
            device_description_str: "{self.kind}"
            runtime_version {{ major: 12 minor: 9 }}
            dnn_version_info {{ major: 9 minor: 10 }}
            gpu_device_info {{
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              core_count: {self.processors}
              fpus_per_core: {self.lanes}
              threads_per_core_limit: {self.threads}
              shared_memory_per_core: {self.shared_kib * 1024}
              shared_memory_per_block_optin: {(self.shared_kib - 1) * 1024}
              l2_cache_size: {self.l2_mib * 2**20}
              clock_rate_ghz: {self.clock_ghz}
              memory_bandwidth: {self.bandwidth * 10**9}
              device_memory_size: {int(self.whole_memory_gib * GIB)}
              threads_per_warp: 32
              threads_per_block_limit: 1024
              shared_memory_per_block: 49152
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
            }}"""


Chip = TPU | GPU

CHIPS: dict[str, Chip] = {
    "v4": TPU("TPU v4", 30.75, (("chip_config_name", "megacore"),)),
    "v5e": TPU("TPU v5 lite", 15.75),
    "v5p": TPU("TPU v5", 95.73),
    "v6e": TPU("TPU v6 lite", 31.24),
    "a100": GPU("NVIDIA A100-SXM4-80GB", (8, 0), 79.25, 2039, 108, 64, 2048, 164, 40, 1.41),
    "h100": GPU("NVIDIA H100 80GB HBM3", (9, 0), 79.1, 3352, 132, 128, 2048, 228, 50, 1.98),
    "h200": GPU("NVIDIA H200", (9, 0), 139.8, 4800, 132, 128, 2048, 228, 50, 1.98),
    "rtx4090": GPU("NVIDIA GeForce RTX 4090", (8, 9), 23.5, 1008, 128, 128, 1536, 100, 72, 2.52),
}


def parse_topology(name: str) -> tuple[str, Chip]:
    """The layout and the chip of a topology's name.

    Args:
      name: such as "v4:2x2x4", with the chips along each axis, or "h100:4x8", with the hosts and the GPUs of each.

    Raises:
      ConfigError: there is no such chip, or the name has another form.
    """
    match = re.fullmatch(r"(\w+):(\d+(x\d+){0,2})", name)
    if match is None:
        raise ConfigError(
            f"topology '{name}' is not understood; write a chip and a layout, such as v5e:1x1, v4:2x2x4 or h100:8"
        )
    if match[1] not in CHIPS:
        raise ConfigError(f"there is no chip '{match[1]}'; known are {', '.join(CHIPS)}")
    return match[2], CHIPS[match[1]]


def topology_devices(name: str) -> list[jax.Device]:
    """The devices of a topology, one for each chip; programs can be compiled for them, but not run.

    Args:
      name: see `parse_topology`.

    Raises:
      ConfigError: the compiler is not installed, or does not know the layout.
    """
    layout, chip = parse_topology(name)
    try:
        return chip.devices(name, layout)
    except ConfigError:
        raise
    except Exception as error:  # of many kinds: no compiler, or the compiler's own
        raise ConfigError(f"cannot compile for {name} ({first_line(error)}); {chip.remedy}") from None
