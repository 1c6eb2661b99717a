"""Compiling in less time, for tests that compare our programs with each other: code that is hardly optimised.

JAX before 0.11 has two ways to make machine code for CPUs; the older one takes less than half the time.
"""

import jax
import pytest
from jax._src import compiler

HAS_TWO_WAYS = jax.__version_info__ < (0, 11)
OF_PROCESSES = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Environment variables of processes that compile quickly."""

if HAS_TWO_WAYS:
    OF_PROCESSES["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"


def compile_quickly(patch: pytest.MonkeyPatch) -> None:
    """This process, and those that it starts, compile quickly, so that their results are equal bit for bit."""
    for name, value in OF_PROCESSES.items():
        patch.setenv(name, value)
    jax.config.update("jax_disable_most_optimizations", True)
    if HAS_TWO_WAYS:  # of a process that has begun, XLA reads no flags
        usual = compiler.get_compile_options

        def options(*arguments, env_options_overrides: dict | None = None, **named):
            overrides = {**(env_options_overrides or {}), "xla_cpu_use_fusion_emitters": False}
            return usual(*arguments, env_options_overrides=overrides, **named)

        patch.setattr(compiler, "get_compile_options", options)
