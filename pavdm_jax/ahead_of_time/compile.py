"""Compiling for devices of other machines, to know whether a program fits their memory.

It needs `pip install pavdm_jax[tpu-compile]`, or `pavdm_jax[cuda]` for GPUs. Only shapes are needed, so a model of any
size is compiled on a laptop. Nothing is run: memory is what XLA plans to use, and times are estimates.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from pavdm_jax.ahead_of_time.chips import GIB, Chip

COMPILER_OPTIONS = {"gpu": {"xla_gpu_enable_triton_gemm": False}}
"""By platform. The sizes of Triton's matrix products are tuned on the GPU, without which some products fail."""


@dataclass(frozen=True)
class Report:
    """The result of compiling a program, for each device.

    Attributes:
      arguments, outputs, temporaries, aliased: bytes of memory; aliased are arguments whose memory outputs reuse.
      collectives: the number of collective operations of each kind in the program's text; those in the loop over layers
        run once for each layer, but count once.
      compile_seconds: on this machine.
      problem: why the program cannot be used, or ""; if it cannot be compiled, the numbers are 0.
    """

    arguments: int = 0
    outputs: int = 0
    temporaries: int = 0
    aliased: int = 0
    collectives: dict[str, int] = field(default_factory=dict)
    compile_seconds: float = 0.0
    problem: str = ""

    @property
    def total(self) -> int:
        """Bytes of memory that the program needs."""
        return self.arguments + self.outputs + self.temporaries - self.aliased

    def within(self, chip: Chip) -> "Report":
        """This report, with a problem if the program needs more memory than a chip has.

        The compiler for TPUs refuses such programs itself, the one for GPUs does not.
        """
        if self.total <= chip.memory_gib * GIB:
            return self
        return replace(self, problem=f"does not fit: {self.total / GIB:.2f}G of {chip.memory_gib:.2f}G")


def place(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """The shapes of a tree of arrays or shapes, all with the same sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_program(program: Any, *arguments, **named) -> Report:
    """Compile a `jax.jit` function for the devices of its arguments' shardings.

    Args:
      program: the function.
      arguments, named: trees of `jax.ShapeDtypeStruct` with shardings, and static arguments.
    """
    shapes = (leaf for leaf in jax.tree.leaves((arguments, named)) if isinstance(leaf, jax.ShapeDtypeStruct))
    placed = [device for shape in shapes if shape.sharding is not None for device in shape.sharding.device_set]
    device = (placed or jax.local_devices())[0]
    started = time.perf_counter()
    try:
        with _afresh(device):
            compiled = program.lower(*arguments, **named).compile(COMPILER_OPTIONS.get(device.platform))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used (\S+) of (\S+) hbm", str(error))
        problem = f"does not fit: {used[1]} of {used[2]}" if used else "does not fit"
        return Report(compile_seconds=time.perf_counter() - started, problem=problem)
    memory = compiled.memory_analysis()
    return Report(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        collectives=_collectives(compiled.as_text()),
        compile_seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _afresh(device: jax.Device) -> Iterator[None]:
    """Without the cache of compiled programs, from which none can be read for a device that is not there."""
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    if not before or device.client is jax.local_devices()[0].client:
        yield
        return
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # which remembers that it is used
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def _collectives(text: str) -> dict[str, int]:
    """The number of collectives of each kind in the text of a program; a pair of start and done counts once."""
    found = {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in COLLECTIVES}
    return {kind: count for kind, count in found.items() if count}
