"""Compiling for a TPU that is not there, to learn whether a program fits its memory: `pip install pavdm_jax[tpu-compile]`.

Only shapes enter, so a model of any size is compiled on a laptop. Nothing is run: memory is what XLA's TPU compiler has planned; times
are estimates.
"""

import os
import re
import time
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.experimental import topologies

from pavdm_jax.config import ConfigError, require

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      peak_tflops: bfloat16, of a chip, as Google publishes it.
      memory_gib: of a chip, that a program can use, as the compiler says.
      options: what makes one device of a chip; a v4 chip has two cores, which work as one ("megacore").
    """

    peak_tflops: float
    memory_gib: float
    options: tuple[tuple[str, str], ...] = ()


CHIPS = {
    "v4": Chip(275, 30.75, (("chip_config_name", "megacore"),)),
    "v5e": Chip(197, 15.75),
    "v5p": Chip(459, 95.73),
    "v6e": Chip(918, 31.24),
}


@dataclass(frozen=True)
class Report:
    """What compiling told of one program, for each device.

    Attributes:
      arguments, outputs, temporaries, aliased: bytes; aliased ones are arguments that outputs replace.
      collectives: how often the program's text has each kind of exchange between devices; those in a loop over layers run
        once a layer, and count once.
      compile_seconds: on this machine.
      problem: why it cannot be compiled, else "": the numbers are 0 then.
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
        """Bytes of memory that running the program takes."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


def parse_topology(name: str) -> tuple[str, Chip]:
    """The layout of a name such as "v4:2x2x4", chips along each axis, and the kind of chip.

    Raises:
      ConfigError: there is no such chip, or the name has another form.
    """
    match = re.fullmatch(r"(\w+):(\d+(x\d+){1,2})", name)
    require(
        match is not None,
        f"topology '{name}' is not understood; write a chip and a layout, such as v5e:1x1 or v4:2x2x4",
    )
    require(match[1] in CHIPS, f"there is no chip '{match[1]}'; known are {', '.join(CHIPS)}")
    return match[2], CHIPS[match[1]]


def topology_devices(name: str) -> list[jax.Device]:
    """The devices, one a chip, of a topology such as "v4:2x2x4"; programs can be compiled for them, and not run.

    Raises:
      ConfigError: the compiler is not installed, or knows no such layout.
    """
    _, chip = parse_topology(name)
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # else two compilations at a time, even of two users, fail
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no cloud machine to ask
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **dict(chip.options)).devices)
    except Exception as error:  # of many kinds: no libtpu, or the compiler's own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"cannot compile for {name} ({reason}); is libtpu installed (pip install libtpu)?") from None


def place(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """The shapes of a tree of arrays or shapes, all with this sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_program(program: Any, *arguments, **named) -> Report:
    """Compile `jax.jit`'s `program` for the devices that its abstract arguments lie on."""
    started = time.perf_counter()
    try:
        compiled = program.lower(*arguments, **named).compile()
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


COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def _collectives(text: str) -> dict[str, int]:
    """By kind, the operations in the text of a compiled program; one that begins and ends apart counts once."""
    found = {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in COLLECTIVES}
    return {kind: count for kind, count in found.items() if count}
