"""Configs that are variables of Python files of the user's: trainings and comparisons."""

import runpy
from pathlib import Path
from typing import TypeVar

from pavdm_jax.checkpoints.config_json import check_kinds
from pavdm_jax.errors import ConfigError, first_line

T = TypeVar("T")


def read_python(path: str, name: str, kind: type[T]) -> T:
    """The variable `name` of a Python file, a config of class `kind`.

    Raises:
      ConfigError: there is no such file, it fails, it has no such variable, or a field of it is of another kind.
    """
    wanted = f"`{name} = {kind.__name__}(...)`"
    if not Path(path).is_file():
        others = ", ".join(sorted(str(p) for p in Path(path).parent.glob("*.py"))) or "none"
        raise ConfigError(f"there is no file {path} with {wanted}; Python files in that folder: {others}")
    try:
        found = runpy.run_path(path).get(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # the file is a program of the user's: it may fail in any way
        raise ConfigError(f"{path} fails: {type(error).__name__}: {first_line(error)}") from None
    if not isinstance(found, kind):
        raise ConfigError(f"{path} does not define {wanted}")
    try:
        check_kinds(found, kind, "")
    except ConfigError as error:
        raise ConfigError(f"{path} is wrong: {error}") from None
    return found
