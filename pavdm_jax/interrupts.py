"""Ctrl-C while a command is still importing its modules, before `cli.exit_with` is at work."""

import os
import sys
from types import TracebackType


def interrupt_in_one_line() -> None:
    """Let an uncaught Ctrl-C end this process with a line and code 130, without a traceback."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            return usual(kind, error, trace)
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)  # where Python would end as by the signal

    sys.excepthook = hook
