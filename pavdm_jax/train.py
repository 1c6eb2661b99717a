"""Train a model: `pavdm train --config demo_vae [--field.name value ...]`.

The config is a Python file that defines `config = TrainConfig(...)`, or the name of a shipped one; each of its fields
is an option by its dotted name (without `stages.0.` for a run of one stage). An interrupted run continues when the same
command is given again. With --distributed a run has several processes: TPU pods and SLURM are recognised; elsewhere set
JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import tyro

from pavdm_jax.cli import enable_cache, exit_with
from pavdm_jax.distributed.processes import connect, exit_if_peer_lost
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.check import check
from pavdm_jax.training.config import TrainConfig
from pavdm_jax.training.config_files import ConfigCommand, read_command_and_config


@dataclass(frozen=True)
class TrainCommand(ConfigCommand):
    """What to do with a config."""

    compile_only: Annotated[str | None, tyro.conf.arg(metavar="TOPOLOGY")] = None
    """train nothing: print the memory of steps compiled for v4:4x4x8, h100:8, h100:4x8 (hosts x GPUs), without any"""
    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """one of several processes: of a TPU pod, a SLURM job, or as the environment says"""

    def __post_init__(self) -> None:
        if self.distributed and self.compile_only is not None:
            raise ConfigError("--compile-only trains nothing; leave out --distributed")


def read(arguments: Sequence[str]) -> tuple[TrainCommand, TrainConfig]:
    """The command and its config; see `read_command_and_config`."""
    return read_command_and_config(TrainCommand, arguments, "pavdm train", __doc__)


def run(command: TrainCommand, config: TrainConfig) -> int:
    """Train, or compile only; returns the exit code."""
    if command.compile_only is not None:
        from pavdm_jax.ahead_of_time.training import compile_train

        jax.config.update("jax_platforms", "cpu")  # there may be a compiler for TPUs or GPUs without any
        compile_train(config, command.compile_only)
        return 0
    if command.distributed:
        connect()
    enable_cache()
    with exit_if_peer_lost():
        check(config)
    # Imported after the checks: this takes seconds, and mistakes are reported before.
    from pavdm_jax.training.loop import train
    from pavdm_jax.training.preemption import Preempted

    try:
        with exit_if_peer_lost():
            train(config)
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    exit_with(
        lambda: run(*read(given)), interrupted="\ninterrupted; the same command continues from the last checkpoint"
    )


if __name__ == "__main__":
    main()
