"""The error for mistakes of the user: one line that names the value and the remedy."""


class ConfigError(ValueError):
    """A setting that cannot work; the message is one line that names the value and the remedy."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or else its type, cut to 200 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
