"""Preemption: schedulers send SIGTERM some seconds before they take a machine away, and people press Ctrl-C."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
"""The signals that end a run, as they are called in messages."""

CODES = {"SIGTERM": 0, "Ctrl-C": 130}
"""With which a command ends whose run was stopped and is saved."""


class Preempted(BaseException):
    """The run was stopped by a signal, and its state is saved.

    Like `KeyboardInterrupt` it is no `Exception`: it may come anywhere, and must not be taken for a fault of what was
    being read or written.

    Attributes:
      code: with which a command ends.
    """

    def __init__(self, by: str, saved: str = "; the same command goes on from the last checkpoint"):
        super().__init__(f"stopped by {by}{saved}")
        self.code = CODES[by]


class Preemption:
    """A context manager in which SIGTERM and Ctrl-C do not end the process at once.

    During training steps (inside `with steps()`) `requested` becomes True, and the loop saves and stops. While samples
    are made between two steps (`with at_once()`), `Preempted` is raised, and the loop saves before it ends. At other
    times, when nothing would be lost, SIGTERM raises `Preempted` at once, and Ctrl-C does what it did before; so does a
    second Ctrl-C at any time. With several processes, JAX's preemption service receives SIGTERM instead, and agrees on
    a step at which all of them stop; Ctrl-C ends them.

    Attributes:
      by: the name of the signal that has come; "SIGTERM" before.
    """

    def __init__(self) -> None:
        self.by, self._noted, self._in_stage, self._in_steps = "SIGTERM", False, False, False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        # Only the main thread of a process may handle signals; whoever calls `fit` in another one handles them.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            handled = [number for number in NAMES if number is signal.SIGTERM or callable(signal.getsignal(number))]
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # set in C, by a program that Python is a part of
                signal.signal(number, handler)

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """The context of the loop that calls `requested`.

        Raises:
          Preempted: the signal came after the last call of `requested`.
        """
        self._in_stage = self._in_steps = True
        try:
            yield
        finally:
            self._in_stage = self._in_steps = False
        if self._noted:  # after the last call of `requested`
            raise Preempted(self.by)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context within `steps` for what may take minutes and may be given up, such as sample videos; it is not
        made up for when the run goes on.

        Raises:
          Preempted: the signal came before it, or within it.
        """
        try:
            self._in_steps = False
            if self._noted:
                raise Preempted(self.by)
            yield
        finally:
            self._in_steps = True

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`, counted over the whole run."""
        return self._noted or (jax.process_count() > 1 and ocp.utils.reached_preemption(step))

    def _handle(self, number: int, frame: Any) -> None:
        number = signal.Signals(number)
        if number is signal.SIGINT and (self._noted or not self._in_stage):
            return self._before[number](number, frame)
        if not self._noted:
            self.by, self._noted = NAMES[number], True
        if number is signal.SIGINT:  # not by `print`, within which the signal may have come
            with contextlib.suppress(OSError):  # `| tee` has got the signal, too, and is gone
                os.write(2, b"\nCtrl-C: this step is saved; once more gives that up\n")
        if not self._in_steps:
            raise Preempted(self.by)
