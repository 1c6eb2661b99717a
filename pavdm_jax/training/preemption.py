"""Preemption: schedulers send SIGTERM some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp

MESSAGE = "stopped by SIGTERM; the same command goes on from the last checkpoint"


class Preempted(BaseException):
    """The run was stopped by SIGTERM, and its state is saved.

    Like `KeyboardInterrupt` it is no `Exception`: it may come anywhere, and must not be taken for a fault of what was
    being read or written.
    """


class Preemption:
    """A context manager in which SIGTERM does not end the process at once.

    During training steps (inside `with steps()`) `requested` becomes True, and the loop saves and stops. While samples
    are made between two steps (`with at_once()`), `Preempted` is raised, and the loop saves before it ends. At other
    times, when nothing would be lost, `Preempted` is raised at once. With several processes, JAX's preemption service
    receives the signal instead, and agrees on a step at which all of them stop.
    """

    def __init__(self) -> None:
        self._noted, self._in_steps, self._before = False, False, None

    def __enter__(self) -> "Preemption":
        # Only the main thread of a process may handle signals; whoever calls `fit` in another one handles them.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """The context of the loop that calls `requested`.

        Raises:
          Preempted: the signal came after the last call of `requested`.
        """
        self._in_steps = True
        try:
            yield
        finally:
            self._in_steps = False
        if self._noted:  # after the last call of `requested`
            raise Preempted(MESSAGE)

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
                raise Preempted(MESSAGE)
            yield
        finally:
            self._in_steps = True

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`, counted over the whole run."""
        return self._noted or (jax.process_count() > 1 and ocp.utils.reached_preemption(step))

    def _handle(self, *_) -> None:
        self._noted = True
        if not self._in_steps:
            raise Preempted(MESSAGE)
