"""Strict by default: implicit rank promotion raises here, warnings are errors (pyproject.toml).

Programs that several tests compile alike are compiled once: a compilation cache lives as long as the session.
"""

import os
import shutil
import tempfile

import jax

CACHE = tempfile.mkdtemp(prefix="pavdm-tests-")


def pytest_configure():
    os.environ["PAVDM_CACHE"] = CACHE  # tests leave the user's cache alone
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", CACHE)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def pytest_unconfigure():
    shutil.rmtree(CACHE, ignore_errors=True)
