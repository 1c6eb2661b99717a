"""Train a model: `python -m pavdm_jax.train --config configs/demo_vae.py [--field.name value ...]`.

The config is a Python file that defines `config = TrainConfig(...)`; any of its fields can be given on the command line by its dotted
name (of a run of one stage without `stages.0.`). A run that was interrupted goes on when the same command is given again.

    --distributed              one of several processes: TPU pods and SLURM tell which, elsewhere JAX_COORDINATOR_ADDRESS=HOST:PORT,
                               JAX_NUM_PROCESSES and JAX_PROCESS_ID do
    --compile-only TOPOLOGY    train nothing: compile the steps for TPUs such as v4:4x4x8 or v5e:16x16, or GPUs such as h100:8 or
                               h100:4x8 (hosts x GPUs of each), without any, and print memory
"""

import argparse
import sys

import jax

from pavdm_jax.ahead_of_time.training import compile_train
from pavdm_jax.cli import enable_cache, read_fields
from pavdm_jax.distributed.processes import connect, end, exit_if_peer_lost
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import Stage, TrainConfig, read_config
from pavdm_jax.training.loop import fit
from pavdm_jax.training.preemption import Preempted

STAGE = "stages.0."

COMMAND = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
"""What is no field of the config; the module's docstring explains it in --help."""

COMMAND.add_argument("--config")

COMMAND.add_argument("--compile-only", metavar="TOPOLOGY")

COMMAND.add_argument("--distributed", action="store_true")


def parse(arguments: list[str]) -> TrainConfig:
    """The config file's values, changed by the other arguments.

    Raises:
      ConfigError: a field that does not exist, or a value that it cannot have.
    """
    return parse_command(arguments)[1]


def parse_command(arguments: list[str]) -> tuple[argparse.Namespace, TrainConfig]:
    """What is to be done, and with which config; see `parse`."""
    command, rest = COMMAND.parse_known_args(arguments)
    path = command.config
    if path is None and {"--help", "-h"} & set(rest):
        print(f"{__doc__}\nWith --config FILE, --help shows every field and its value.")
        raise SystemExit(0)
    if path is None:
        raise ConfigError("no config given; add --config FILE, for instance --config configs/demo_base.py")
    file = read_config(path)
    short = len(file.stages) == 1
    rest = [_in_stage(argument) for argument in rest] if short else rest
    shown = (lambda name: name.removeprefix(STAGE)) if short else str
    config = read_fields(TrainConfig, rest, "train", __doc__, file, shown)
    return command, config


def _in_stage(argument: str) -> str:
    """The full name of a field of the only stage: --optimizer.learning-rate for --stages.0.optimizer.learning-rate."""
    name = argument.removeprefix("--").split("=")[0].split(".")[0].replace("-", "_")
    of_stage = argument.startswith("--") and name in Stage.__dataclass_fields__
    return f"--{STAGE}{argument[2:]}" if of_stage else argument


def main() -> None:
    """The command line; user mistakes print one line and exit with 2."""
    try:
        command, config = parse_command(sys.argv[1:])
        if command.compile_only is not None:
            jax.config.update("jax_platforms", "cpu")  # an installed compiler for TPUs or GPUs is no TPU or GPU
            compile_train(config, command.compile_only)
            return
        if command.distributed:
            connect()
        enable_cache()
        with exit_if_peer_lost():
            fit(config)
    except (ConfigError, OSError) as error:
        end(2, f"error: {error}")
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
    except KeyboardInterrupt:
        end(130, "\ninterrupted; the same command continues from the last checkpoint")


if __name__ == "__main__":
    main()
