"""Ctrl-C while a command is still importing its modules, before `cli.exit_with` is at work."""

import os
import signal
import sys
import threading
from types import TracebackType


def interrupt_in_one_line() -> None:
    """Let an uncaught Ctrl-C, or SIGTERM, end this process with a line and code 130, without a traceback.

    So does one that falls into a callback of the import system, where Python would report it and go on.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    usual, usual_unraisable = sys.excepthook, sys.unraisablehook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            return usual(kind, error, trace)
        _end()

    def unraisable_hook(found) -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            return usual_unraisable(found)
        _end()

    sys.excepthook, sys.unraisablehook = hook, unraisable_hook


def _end() -> None:
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(130)  # where Python would end as by the signal
