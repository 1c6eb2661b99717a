"""What the command lines share: mistakes are one line, with a suggestion, and exit code 2."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import tyro

from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.storage import cache_folder

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Options that are named one by one."""

    def error(self, message: str):
        if message.startswith("unrecognized arguments:"):
            unknown = message.split(": ", 1)[1].split()[0]
            near = difflib.get_close_matches(unknown, self._option_string_actions, 1)
            message = f"there is no option {unknown}" + (f"; did you mean {near[0]}?" if near else "; see --help")
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)


def exit_with(work: Callable[[], int], interrupted: str) -> NoReturn:
    """Do the work of a command line and end the process with its exit code; mistakes are one line and 2, Ctrl-C is `interrupted` and 130."""
    try:
        code = work()
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        print(f"error: out of memory, or a fault of the device: {first_line(error)}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        code = 130
    sys.exit(code)


def read_fields(
    kind: type[T],
    arguments: Sequence[str],
    program: str,
    description: str | None,
    default: T | None = None,
    shown: Callable[[str], str] = str,
) -> T:
    """Options that are the fields of a dataclass, by dotted names.

    Args:
      kind: the dataclass.
      arguments: of the command line.
      program: which of the package's, such as "evaluate".
      description: for `--help`.
      default: the values that the arguments change; None: those of the dataclass.
      shown: dotted name → how people write it.

    Raises:
      ConfigError: a field that does not exist, or a value that it cannot have.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config, unknown = tyro.cli(
                kind,
                args=list(arguments),
                prog=f"python -m pavdm_jax.{program}",
                description=description,
                # Fields of several possible kinds, such as a stage's data, keep the kind that the default gives them.
                config=() if default is None else (tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
                **({} if default is None else {"default": default}),
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise ConfigError(_plain(said.getvalue())) from None
    known = [shown(name) for name in _names(config)]
    ends = [name.split(".")[-1] for name in known]
    for argument in unknown:
        dashes = "--" if argument.startswith("--") else ""
        name = shown(argument.removeprefix("--"))
        words = name.replace("_", "-").split("=")[0].split(".")
        above = [field for n in range(len(words)) if (field := ".".join(words[: n + 1])) in known]
        if above:
            raise ConfigError(f"--{name} cannot be given here, because {above[0]} is None; set it in the file")
        near = difflib.get_close_matches(".".join(words), [*known, *ends], 1)
        meant = [f"--{field}" for field, end in zip(known, ends, strict=True) if near and near[0] in (field, end)]
        hint = f"did you mean {' or '.join(meant)}?" if meant else "--help lists all fields"
        raise ConfigError(f"there is no config field {dashes}{name}; {hint}")
    return config


def _names(config: Any, prefix: str = "") -> list[str]:
    """The dotted names of the values in a config."""
    if dataclasses.is_dataclass(config):
        below = [(field.name.replace("_", "-"), getattr(config, field.name)) for field in dataclasses.fields(config)]
    elif isinstance(config, tuple) and any(map(dataclasses.is_dataclass, config)):
        below = [(str(number), value) for number, value in enumerate(config)]
    else:
        return [prefix]
    return [name for key, value in below for name in _names(value, f"{prefix}.{key}" if prefix else key)]


def _plain(box: str) -> str:
    """What a box of tyro's says first, in one line; where the terminal's encoding is not UTF-8, its frame is of blanks and dashes."""
    title, *lines = [line for line in (line.strip("│╭╮╰╯ ") for line in box.splitlines()) if line] or [""]
    rule = "\n"
    blocks = " ".join(rule if set(line) <= set("─-") else line for line in lines).split(rule)
    said = next((block.strip() for block in blocks if block.strip()), title)
    # Where a config's own checks failed tyro says before what they say, which is clear by itself.
    return re.sub(r"^Error parsing (?!--)\S+: ", "", said) or "the arguments cannot be read; see --help"


def enable_cache() -> None:
    """Keep compiled programs in the cache folder, unless JAX has been told of another one (`JAX_COMPILATION_CACHE_DIR`).

    To be called before anything is compiled.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
