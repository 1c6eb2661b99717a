"""Config files on the command line: found by path, or by the name of a shipped one, and changed by options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pavdm_jax.cli import FLAT, read_command, read_known
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import Stage, TrainConfig, read_config

PACKAGE = Path(__file__).parents[1]

SHIPPED = next((folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()), PACKAGE)
"""The folder of the shipped configs: in the installed package, or in a clone beside it."""

STAGE = "stages.0."
"""The prefix that may be left out for the only stage of a run."""


@dataclass(frozen=True)
class ConfigCommand:
    """The option of all commands that read a config."""

    config: str | None = None
    """a config file, or the name of a shipped one, such as tpu_v4"""


C = TypeVar("C", bound=ConfigCommand)


@dataclass(frozen=True)
class _Changed(Generic[C]):
    command: Annotated[C, FLAT]
    settings: Annotated[TrainConfig, FLAT]
    """the config's fields and their values"""


def shipped_names() -> list[str]:
    """The names of the shipped configs; definitions of comparisons lie beside them."""
    return sorted(path.stem for path in SHIPPED.glob("*.py") if not path.stem.startswith(("__", "comparison_")))


def find_config(name: str) -> str:
    """The path of a config.

    Args:
      name: the path of a file, or the name of a shipped config, without folder and suffix.

    Raises:
      ConfigError: there is no shipped config of that name.
    """
    if Path(name).is_file() or Path(name).suffix or Path(name).name != name:
        return name
    if name not in shipped_names():
        raise ConfigError(f"there is no config {name}; give a file, or one of the shipped {', '.join(shipped_names())}")
    return str(SHIPPED / f"{name}.py")


def read_command_and_config(
    kind: type[C], arguments: Sequence[str], program: str, description: str | None
) -> tuple[C, TrainConfig]:
    """A command with `--config`, and that config as the other arguments change it.

    Options are dotted names of fields; those of the only stage of a run do not need `stages.0.`, as in
    --optimizer.learning-rate.

    Args:
      kind: the class of the command.
      arguments: of the command line.
      program, description: see `cli.read_command`.

    Raises:
      ConfigError: there is no config, or an option does not exist or has an impossible value.
    """
    found, _ = read_known(ConfigCommand, arguments, add_help=False)
    if found.config is None:
        if {"--help", "-h"} & set(arguments):
            read_command(
                kind, ["--help"], program, description, "\nWith --config, --help shows the config's fields, too.\n"
            )
        raise ConfigError("no config given; add --config, a file or a shipped one: " + ", ".join(shipped_names()))
    config = read_config(find_config(found.config))
    short = len(config.stages) == 1
    changed = read_command(
        _Changed[kind],
        [_in_stage(argument) for argument in arguments] if short else arguments,
        program,
        description,
        default=_Changed(kind(config=found.config), config),
        shown=(lambda name: name.removeprefix(STAGE)) if short else str,
    )
    return changed.command, changed.settings


def _in_stage(argument: str) -> str:
    """The full name of a field of the only stage: --optimizer.learning-rate for --stages.0.optimizer.learning-rate."""
    name = argument.removeprefix("--").split("=")[0].split(".")[0].replace("-", "_")
    of_stage = argument.startswith("--") and name in Stage.__dataclass_fields__
    return f"--{STAGE}{argument[2:]}" if of_stage else argument
