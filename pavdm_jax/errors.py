"""What a user is told: one line that names the value and the remedy."""


class ConfigError(ValueError):
    """A setting that cannot work; the message is one line that names the value and the remedy."""


def first_line(error: BaseException) -> str:
    """What an error says, or else its kind, in a line of at most 200 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
