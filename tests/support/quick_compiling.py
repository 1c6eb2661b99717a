"""Compiling in less time: code that is hardly optimised, for tests that compare our programs with each other.

JAX before 0.11 has two ways to make machine code for CPUs; the older one takes less than half the time.
"""

import contextlib
import os
from collections.abc import Iterator

import jax
from jax._src import compiler

HAS_TWO_WAYS = jax.__version_info__ < (0, 11)
NEWER_WAY = "xla_cpu_use_fusion_emitters"
ENVIRONMENT = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Environment variables of processes that compile quickly."""

if HAS_TWO_WAYS:
    ENVIRONMENT["XLA_FLAGS"] = f"--{NEWER_WAY}=false"


def compile_quickly() -> None:
    """This process, which has not compiled yet, and those that it starts: their results are equal bit for bit."""
    os.environ.update(ENVIRONMENT)
    jax.config.update("jax_disable_most_optimizations", True)


@contextlib.contextmanager
def fully_optimised() -> Iterator[None]:
    """As users compile, meanwhile, in this process and those that it starts."""
    usual = compiler.get_compile_options

    def options(*arguments, env_options_overrides: dict | None = None, **named):
        overrides = {**(env_options_overrides or {}), **({NEWER_WAY: True} if HAS_TWO_WAYS else {})}
        return usual(*arguments, env_options_overrides=overrides, **named)

    def switch(optimised: bool) -> None:
        compiler.get_compile_options = options if optimised else usual  # of a process that runs, XLA reads no flags
        jax.config.update("jax_disable_most_optimizations", not optimised)
        jax.clear_caches()  # or a program that was compiled otherwise would be used, and round otherwise

    for name in ENVIRONMENT:
        del os.environ[name]
    switch(True)
    yield
    switch(False)
    os.environ.update(ENVIRONMENT)
