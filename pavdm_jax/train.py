"""Train a model: `python -m pavdm_jax.train --config configs/demo_vae.py [--field.name value ...]`.

The config is a Python file that defines `config = TrainConfig(...)`; any of its fields can be given on the command line by its dotted
name. A run that was interrupted goes on when the same command is given again.
"""

import contextlib
import dataclasses
import difflib
import io
import runpy
import sys
from pathlib import Path
from typing import Any

import tyro

from pavdm_jax.compilation import enable_cache
from pavdm_jax.config import ConfigError, require
from pavdm_jax.train_config import TrainConfig
from pavdm_jax.training.loop import fit
from pavdm_jax.training.preemption import Preempted


def read_config(path: str) -> TrainConfig:
    """The `config` of a Python file.

    Raises:
      ConfigError: no such file, or it does not define a TrainConfig named `config`.
    """
    if not Path(path).is_file():
        others = ", ".join(sorted(str(p) for p in Path(path).parent.glob("*.py"))) or "none in that folder"
        raise ConfigError(f"there is no config file {path}; config files there: {others}")
    try:
        config = runpy.run_path(path).get("config")
    except ConfigError:
        raise
    except Exception as error:  # the file is a program of the user's: it may fail in any way
        raise ConfigError(f"the config file {path} fails: {type(error).__name__}: {error}") from None
    require(isinstance(config, TrainConfig), f"{path} does not define `config = TrainConfig(...)`")
    return config


def parse(arguments: list[str]) -> TrainConfig:
    """The config file's values, changed by the other arguments.

    Raises:
      ConfigError: a field that does not exist, or a value that it cannot have.
    """
    path, rest = None, []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            path = next(remaining, None)
        elif argument.startswith("--config="):
            path = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    if path is None and "--help" not in rest and "-h" not in rest:
        raise ConfigError("no config given; add --config FILE, for instance --config configs/demo_base.py")
    default = {} if path is None else {"default": read_config(path)}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config, unknown = tyro.cli(
                TrainConfig,
                args=rest,
                description=__doc__,
                config=(tyro.conf.AvoidSubcommands,),  # the objective and the data are chosen in the file
                return_unknown_args=True,
                **default,
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise ConfigError(_plain(said.getvalue())) from None
    known = _fields(config)
    ends = [name.split(".")[-1] for name in known]
    for name in unknown:
        near = difflib.get_close_matches(name.lstrip("-").replace("_", "-"), [*known, *ends], 1)
        meant = [f"--{field}" for field, end in zip(known, ends, strict=True) if near and near[0] in (field, end)]
        hint = f"did you mean {' or '.join(meant)}?" if meant else "--help lists all fields"
        raise ConfigError(f"there is no config field {name}; {hint}")
    return config


def _fields(config: Any, prefix: str = "") -> list[str]:
    """The dotted names of the values in a config."""
    if dataclasses.is_dataclass(config):
        below = [(field.name.replace("_", "-"), getattr(config, field.name)) for field in dataclasses.fields(config)]
    elif isinstance(config, tuple) and any(map(dataclasses.is_dataclass, config)):
        below = [(str(number), value) for number, value in enumerate(config)]
    else:
        return [prefix]
    return [name for key, value in below for name in _fields(value, f"{prefix}.{key}" if prefix else key)]


def _plain(box: str) -> str:
    """What a box of tyro's says first, in one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    body = [line for line in lines if line and not line.startswith("─")]
    rule = next((n for n, line in enumerate(lines) if n and line.startswith("─")), len(lines))
    return " ".join(line for line in lines[:rule] if line in body) or "the arguments cannot be read; see --help"


def main() -> None:
    """The command line; user mistakes print one line and exit with 2."""
    try:
        config = parse(sys.argv[1:])
        enable_cache()
        fit(config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
