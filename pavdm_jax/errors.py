"""The errors that end a command: one line that names the value and the remedy."""

import errno


class ConfigError(ValueError):
    """A setting that cannot work; the message is one line that names the value and the remedy.

    Attributes:
      code: with which a command ends: 2 for mistakes of the user, 1 for faults of the machine.
    """

    code = 2


class MachineError(ConfigError):
    """Nothing is wrong with the settings, but the disk is full, or fails."""

    code = 1


class ListError(ConfigError):
    """A `ConfigError` whose message has a line for each of several problems."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of the `OSError`s of a disk that takes no more."""

FAULTS = (*FULL, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""The numbers of the `OSError`s that are faults of the machine."""


def of_machine(error: OSError, message: str) -> ConfigError:
    """The error with this message: a `MachineError` if the disk is full, or fails."""
    return (MachineError if error.errno in FAULTS else ConfigError)(message)


LONGEST_LINE = 1000


def printable(text: str, lines: bool = False) -> str:
    """A message as it may be shown on a terminal: without control characters, and long lines without their middle.

    Args:
      text: the message, perhaps with values of the user.
      lines: whether it has several lines; else an end of a line is of a value, and is shown as such.
    """
    parts = text.split("\n") if lines else [text]
    parts = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in part) for part in parts]
    half = LONGEST_LINE // 2
    return "\n".join(part if len(part) <= LONGEST_LINE else f"{part[:half]} ... {part[-half:]}" for part in parts)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or else its type, cut to 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
