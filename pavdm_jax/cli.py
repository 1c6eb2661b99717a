"""What the commands share: options from frozen dataclasses, by tyro; mistakes as one line with a suggestion, code 2."""

import contextlib
import dataclasses
import difflib
import functools
import io
import os
import re
import select
import signal
import sys
import tempfile
import threading
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import tyro
from jax.experimental.compilation_cache import compilation_cache

from pavdm_jax.distributed.processes import end
from pavdm_jax.errors import FAULTS, ConfigError, ListError, first_line, printable
from pavdm_jax.storage import cache_folder

T = TypeVar("T")

FLAT = tyro.conf.arg(name="")
"""`Annotated[Kind, FLAT]` of a field that is a dataclass: the options of its fields have no prefix."""


def exit_with(work: Callable[[], int], interrupted: str) -> NoReturn:
    """Run `work`, a command, and end the process with the exit code that it returns.

    `ConfigError` and `OSError` end it with one line and code 2, or 1 where the machine is at fault: a full disk, a lack
    of memory, a device. Ctrl-C and SIGTERM end it with the line `interrupted` and code 130, and a reader of the output
    that has left (`| head`) with no line and code 141, as the signal SIGPIPE does. Warnings are one line each.
    """
    warnings.showwarning = _show_warning
    if threading.current_thread() is threading.main_thread():
        INTERRUPTED.clear()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
    try:
        try:
            code = work()
        except SystemExit as ended:  # --help
            code = ended.code
        sys.stdout.flush()  # not at the end of the interpreter, which would show a traceback
        sys.exit(code)
    except ConfigError as error:
        code, said = error.code, printable(f"error: {error}", lines=isinstance(error, ListError))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            sys.exit(141)
        code, said = 1 if error.errno in FAULTS else 2, printable(f"error: {error}")
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        code, said = 1, printable(f"error: out of memory, or a fault of the device: {first_line(error)}")
    except KeyboardInterrupt:
        code, said = 130, printable(interrupted)
    end(code, said)


INTERRUPTED = threading.Event()
"""Whether Ctrl-C or SIGTERM has come. Python drops the exception if it arrives in a callback (JAX has one for garbage
collection), so long loops look here, too."""


def check_interrupted() -> None:
    """Raises `KeyboardInterrupt` if Ctrl-C or SIGTERM has come since this was asked last."""
    if INTERRUPTED.is_set():
        INTERRUPTED.clear()
        raise KeyboardInterrupt


def _interrupt(*_: Any) -> NoReturn:
    INTERRUPTED.set()
    raise KeyboardInterrupt


def _output_is_closed() -> bool:
    """Whether nobody reads the standard output any more; what is left of it is dropped then."""
    output, watch = sys.stdout.fileno(), select.poll()
    watch.register(output, 0)
    closed = any(event & select.POLLERR for _, event in watch.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return closed


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """Print a warning in one line, without the line of code that caused it."""
    kind = "warning" if category is UserWarning else f"warning ({category.__name__})"
    print(f"{kind}: {printable(first_line(Warning(message)))}", file=sys.stderr)


def _mend_cache(show: Callable[..., None]) -> Callable[..., None]:
    """`warnings.showwarning` that acts on JAX's warnings of the cache folder, and says what it did."""

    @functools.wraps(show)
    def shown(message: Warning | str, *where: Any) -> None:
        if str(message).startswith(UNREADABLE_PROGRAM) and _cache_is_ours():
            _empty_cache()
            said = f"a compiled program in {cache_folder()} was damaged; all are removed and will be compiled again"
            message = UserWarning(said)
        elif str(message).startswith(UNWRITABLE_PROGRAM) and _cache_is_ours():
            _stop_caching()
            said = f"compiled programs are not kept: {cache_folder()} cannot be written; is the disk full?"
            message = UserWarning(said)
        show(message, *where)

    return shown


UNREADABLE_PROGRAM = "Error reading persistent compilation cache entry"
"""How JAX's warning begins. JAX keeps the entry, so that it would warn for ever."""

UNWRITABLE_PROGRAM = "Error writing persistent compilation cache entry"
"""How JAX's warning begins, of which there would be one for every program."""


def _stop_caching() -> None:
    """Keep no more programs, nor the one that was being written: it would be taken for a damaged one the next time."""
    with contextlib.suppress(OSError):  # other processes remove some, too
        torn = max(cache_folder().glob("*-cache"), key=lambda path: path.stat().st_mtime, default=None)
        if torn is not None:
            torn.unlink()
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which remembers that it is used


def _cache_is_ours() -> bool:
    return jax.config.jax_compilation_cache_dir == str(cache_folder())  # pyright: ignore[reportAttributeAccessIssue]


def _empty_cache() -> None:
    """Remove all compiled programs from the cache folder, before JAX writes the one that it compiles now."""
    for path in cache_folder().glob("*-cache"):
        path.unlink(missing_ok=True)


def read_command(
    kind: type[T],
    arguments: Sequence[str],
    program: str,
    description: str | None,
    examples: str = "",
    default: T | None = None,
    shown: Callable[[str], str] = str,
) -> T:
    """Read a command line into a dataclass; the fields of nested dataclasses are options with dotted names.

    Args:
      kind: the dataclass; the docstrings of its fields explain the options in `--help`.
      arguments: of the command line.
      program: the name of the command, such as "pavdm evaluate".
      description: the beginning of `--help`.
      examples: the end of `--help`.
      default: the values that the arguments change; None: the defaults of the dataclass.
      shown: dotted name → its form in messages.

    Raises:
      ConfigError: an option does not exist, or its value is impossible.
    """
    # Of a given default, None is a value and each field keeps its kind (a stage's data may be of several).
    markers = (
        (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff) if default is None else (tyro.conf.AvoidSubcommands,)
    )
    given = {} if default is None else {"default": default}
    try:
        command, unknown = read_known(kind, arguments, prog=program, description=description, config=markers, **given)
    except SystemExit:  # --help was asked for
        print(examples, end="")
        raise
    if unknown:
        raise ConfigError(_no_such_option(unknown[0], [shown(name) for name in _names(command)], shown))
    return command


def read_known(kind: type[T], arguments: Sequence[str], **options: Any) -> tuple[T, list[str]]:
    """As `read_command`, but unknown arguments are returned, too; `options` are those of `tyro.cli`.

    Raises:
      ConfigError: the value of an option is impossible.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(arguments), return_unknown_args=True, **options)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise ConfigError(_reason(stopped, said.getvalue())) from None


ALSO_CALLED = {"cfg": "guidance-scale", "cfg-scale": "guidance-scale", "model": "checkpoint", "num-frames": "frames"}
"""Names that other programs have for options; they resemble others of ours."""


def _no_such_option(argument: str, known: list[str], shown: Callable[[str], str]) -> str:
    """The message for an unknown argument, with the option that may have been meant."""
    if not argument.startswith("-"):
        return f"'{argument}' belongs to no option; --help lists all options"
    name = shown(argument.lstrip("-"))
    words = name.replace("_", "-").split("=")[0].split(".")
    above = [field for n in range(len(words)) if (field := ".".join(words[: n + 1])) in known]
    if above:
        return f"--{name} cannot be given here, because {above[0]} is None; set it in the file"
    ends = [name.split(".")[-1] for name in known]
    near = [also for also in [ALSO_CALLED.get(words[-1])] if also in known]
    near = near or difflib.get_close_matches(".".join(words), [*known, *ends], 1)
    meant = [f"--{field}" for field, end in zip(known, ends, strict=True) if near and near[0] in (field, end)]
    hint = f"did you mean {' or '.join(meant)}?" if meant else "--help lists all options"
    dashes = argument[: len(argument) - len(argument.lstrip("-"))]
    return f"there is no option {dashes}{name}; {hint}"


def _names(command: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of the options that a command, a dataclass, has."""
    if dataclasses.is_dataclass(command):
        hints = typing.get_type_hints(type(command), include_extras=True)
        for field in dataclasses.fields(command):
            markers = getattr(hints[field.name], "__metadata__", ())
            if tyro.conf.Positional not in markers:
                name = (
                    ""
                    if FLAT in markers or tyro.conf.OmitArgPrefixes in markers
                    else f".{field.name.replace('_', '-')}"
                )
                yield from _names(getattr(command, field.name), prefix + name)
    elif isinstance(command, tuple) and any(map(dataclasses.is_dataclass, command)):
        for number, value in enumerate(command):
            yield from _names(value, f"{prefix}.{number}")
    else:
        yield prefix.removeprefix(".")


def _reason(stopped: SystemExit, box: str) -> str:
    """Why tyro stopped, in one line: the message of a `ConfigError`, or else the first sentence in tyro's box.

    Where the terminal's encoding is not UTF-8, a box's frame is of blanks and dashes. The box is all that tyro 1.0.17
    makes public: its hook for errors, `tyro._errors.on_parse_error`, is declared private and unstable.
    """
    error: BaseException | None = stopped
    while error is not None:
        if isinstance(error, ConfigError):
            return str(error)
        error = error.__context__
    title, *lines = [line for line in (line.strip("│╭╮╰╯ ") for line in box.splitlines()) if line] or [""]
    rule = "\n"
    blocks = " ".join(rule if set(line) <= set("─-") else line for line in lines).split(rule)
    reason = next((block.strip() for block in blocks if block.strip()), title)
    reason = re.sub(r"\.? Got errors:.*", "", re.sub(r"^Error parsing ", "", reason))
    return reason or "the arguments cannot be read; see --help"


def enable_cache() -> None:
    """Keep compiled programs in the cache folder, unless JAX has another one (`JAX_COMPILATION_CACHE_DIR`).

    It must be called before anything is compiled.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:  # JAX itself would warn of every program
        reason = error.strerror or error
        warnings.warn(f"compiled programs are not kept: {folder} cannot be written ({reason})", stacklevel=2)
        return
    warnings.showwarning = _mend_cache(warnings.showwarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
