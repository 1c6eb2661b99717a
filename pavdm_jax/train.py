"""Train a model: `python -m pavdm_jax.train --config configs/demo_vae.py [--field.name value ...]`.

The config is a Python file that defines `config = TrainConfig(...)`; any of its fields can be given on the command line by its dotted
name. A run that was interrupted goes on when the same command is given again.
"""

import runpy
import sys
from pathlib import Path

import tyro

from pavdm_jax.compilation import enable_cache
from pavdm_jax.config import ConfigError, require
from pavdm_jax.train_config import TrainConfig
from pavdm_jax.training.loop import fit

FLAT = (tyro.conf.AvoidSubcommands,)
"""The kinds of objectives and data are those of the config file; their fields are named like all others."""


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
    """The config file's values, changed by the other arguments; unknown names end the program with a suggestion."""
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
    description = __doc__ or ""
    if path is None:
        return tyro.cli(TrainConfig, args=rest, description=description)
    return tyro.cli(TrainConfig, default=read_config(path), args=rest, description=description, config=FLAT)


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
        print(f"error: {error}; the last checkpoint is whole", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
