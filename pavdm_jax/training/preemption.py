"""Being told to stop: schedulers send SIGTERM some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp

MESSAGE = "stopped by SIGTERM; the same command goes on from the last checkpoint"


class Preempted(Exception):
    """The run was told to stop, and has kept what it had."""


class Preemption:
    """Inside `with`, SIGTERM does not end the process at once.

    While steps are made (inside `with steps()`) it is noted, and `requested` tells the loop, which saves and stops; at
    other times, when everything that is lost can be made again, it raises `Preempted` where the program is. Of several
    processes of one run JAX's own preemption service hears the signal and finds a step at which all of them stop.
    """

    def __init__(self) -> None:
        self._noted, self._in_steps, self._before = False, False, None

    def __enter__(self) -> "Preemption":
        # Only the main thread of a process may handle signals; who calls `fit` from another handles them.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """Around the loop that asks `requested`."""
        self._in_steps = True
        try:
            yield
        finally:
            self._in_steps = False
        if self._noted:  # after the last question
            raise Preempted(MESSAGE)

    def requested(self, step: int) -> bool:
        """Whether to stop after this step of the run."""
        return self._noted or (jax.process_count() > 1 and ocp.utils.reached_preemption(step))

    def _handle(self, *_) -> None:
        self._noted = True
        if not self._in_steps:
            raise Preempted(MESSAGE)
