"""Runs of several processes: they connect, report errors together, and end together."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from pavdm_jax.errors import ConfigError, first_line

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables for machines without SLURM or TPU pods.

They are HOST:PORT of process 0, the number of processes, and the number of this process, from 0.
"""

HEARTBEAT_SECONDS = 60
"""Without a sign of life for so long, a process counts as dead, and JAX ends the others."""

SHUTDOWN_SECONDS = 30 * 24 * 3600
"""How long a process that is done waits for the others, whose shares of the work may take longer; then JAX ends all."""

LOST_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED")
"""The codes of JAX's errors when another process is gone."""

LOST_WORDS = ("gloo", "nccl", "barrier", "heartbeat", "coordination")
"""Words in the errors of other codes when another process is gone.

The libraries of collectives report a closed connection as INTERNAL or UNKNOWN, and Orbax without a code.
"""

CLOSING_SECONDS = 2
"""How long process 0, to which the others are connected, stays after an error, so that they can end by themselves."""


ORDERED = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
"""An option of XLA for CPUs. Without it, exchanges of a step that do not depend on each other have no fixed order; with
`fsdp`, where there are many, Gloo has failed twice."""


def _keep_order() -> None:
    """Let XLA begin the exchanges of a program in the same order in all processes, unless the user has decided.

    XLA ends a process that names an option which it does not know; tried with the first and the last JAX that
    `pyproject.toml` allows.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if ORDERED.partition("=")[0] not in given:
        os.environ["XLA_FLAGS"] = f"{given} {ORDERED}".strip()


def connect() -> None:
    """Connect to the other processes, before any device is used.

    TPU pods and SLURM are recognised; elsewhere `VARIABLES` are needed.

    Raises:
      ConfigError: only some variables are set, they are malformed, or the other processes are not found.
    """
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if len(given) < len(VARIABLES) and "JAX_NUM_PROCESSES" in given:
        missing = [name for name in VARIABLES if name not in given]
        raise ConfigError(f"{' and '.join(missing)} must be set with {', '.join(given)}")
    explicit = {}
    if len(given) == len(VARIABLES):
        address, count, number = given.values()
        if not count.isdecimal() or not number.isdecimal() or int(number) >= int(count) or ":" not in address:
            raise ConfigError(
                f"{', '.join(f'{name}={value}' for name, value in given.items())}: an address is HOST:PORT, and "
                "processes are numbered from 0 to their number - 1"
            )
        explicit = {"coordinator_address": address, "num_processes": int(count), "process_id": int(number)}
    _keep_order()
    try:
        jax.distributed.initialize(
            **explicit,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the other processes are not found ({first_line(error)}); on hosts without SLURM or TPU pods set "
            f"{', '.join(VARIABLES)}"
        ) from None


def is_first() -> bool:
    """Whether this is process 0, which writes logs, samples and models."""
    return jax.process_index() == 0


def on_first(action: Callable[[], object]) -> None:
    """Run `action` in process 0 while the others wait; all processes must call it.

    Raises:
      ConfigError, OSError: those of the action; in the other processes a `ConfigError` that refers to process 0.
    """
    if jax.process_count() == 1:
        action()
        return
    problem = None
    if is_first():
        try:
            action()
        except (ConfigError, OSError) as error:
            problem = error
    failed = bool(multihost_utils.broadcast_one_to_all(np.array(problem is not None)))
    if problem is not None:
        raise problem
    if failed:
        raise ConfigError("process 0 cannot go on, and says why")


@contextlib.contextmanager
def exit_if_peer_lost() -> Iterator[None]:
    """A context for work of all processes: when one of them is gone, this one prints a line and exits.

    It exits at once, because closing anything in order would wait for the process that is gone.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, OSError, ValueError) as error:
        # The words of a `ConfigError` are the user's, such as a path; it may have been made of the error of a lost one.
        cause = error.__context__ if isinstance(error, ConfigError) else error
        if jax.process_count() == 1 or cause is None or not _is_lost(cause):
            raise
        end(
            1,
            f"error: process {jax.process_index()} of {jax.process_count()} stops, because another one is gone, or "
            f"cannot be reached ({first_line(error)}); start all of them again: the run goes on from its last "
            "checkpoint",
        )


def check_agreed(what: str, value: str) -> None:
    """Check that every process has found the same; all processes must call it.

    Raises:
      ConfigError: they have not.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.int32)
    if (multihost_utils.process_allgather(digest) != digest).any():
        raise ConfigError(
            f"the processes have found different {what}; see that all hosts read the same files, and give the same "
            "command again"
        )


def end(code: int, said: str) -> NoReturn:
    """Print a line to standard error and end the program with an exit code.

    Of several processes, each exits without JAX's shutdown, which would wait for processes that are gone.
    """
    print(said, file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        if code and is_first():
            time.sleep(CLOSING_SECONDS)
        os._exit(code)
    sys.exit(code)


def _is_lost(error: BaseException) -> bool:
    """Whether an error of a collective, or of a barrier of a checkpoint, means that another process is gone."""
    if getattr(error, "error_code_string", None) in LOST_CODES:  # JAX's errors have one
        return True
    return any(word in str(error).lower() for word in LOST_WORDS)
