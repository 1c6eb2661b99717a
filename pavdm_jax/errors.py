"""The error for mistakes of the user: one line that names the value and the remedy."""


class ConfigError(ValueError):
    """A setting that cannot work; the message is one line that names the value and the remedy."""


LONGEST_LINE = 1000


def printable(text: str) -> str:
    """A message as it may be shown on a terminal: without control characters, and long lines without their middle."""
    lines = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in text.split("\n")]
    half = LONGEST_LINE // 2
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}" for line in lines)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or else its type, cut to 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
