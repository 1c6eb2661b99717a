"""Strict by default: implicit rank promotion raises here, warnings are errors (pyproject.toml).

Programs that several tests compile alike are compiled once: pytest's processes share a compilation cache while the run
lasts. JAX locks a cache only if its size is limited; without the lock, a process may read a half-written program.
"""

import gc
import os
import shutil
import sys
import tempfile

import jax
import pytest
from jax._src import lru_cache
from support import quick_compiling

SHARED = "PAVDM_TESTS_CACHE"  # tells the processes that pytest starts of the cache
IS_FIRST = SHARED not in os.environ
CACHE = tempfile.mkdtemp(prefix="pavdm-tests-") if IS_FIRST else os.environ[SHARED]
CACHE_BYTES = 2**34  # more than all tests write


def pytest_configure(config):
    gc.set_threshold(100_000, 50, 100)  # what JAX traces are many small objects, and looking through them takes a tenth
    if config.option.markexpr != "other_chips":  # their compilers refuse the flags
        quick_compiling.compile_quickly()  # compiling is most of the time of the tests
    os.environ[SHARED] = os.environ["PAVDM_CACHE"] = CACHE  # tests leave the user's cache alone
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", CACHE)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(CACHE_BYTES)  # for processes that tests start
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
        # Before it keeps a program, JAX looks at all that it has kept, in order to stay below the limit: of a
        # thousand that takes a tenth of a second, and the other processes wait meanwhile.
        lru_cache.LRUCache._evict_if_needed = lambda _, **__: None


LONGEST = (
    "distributed/test_mesh.py",
    "training/test_loop.py",
    "distributed/test_processes.py",
    "training/test_interrupted_runs.py",
)
"""Files that take minutes; they come first, so that no process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items):
    def place(item):
        return next((n for n, name in enumerate(LONGEST) if item.path.as_posix().endswith(name)), len(LONGEST))

    items.sort(key=place)


def pytest_unconfigure():
    if IS_FIRST:
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module")
def fully_optimised():
    """For tests that compare our programs with the reference: they are compiled as users compile them."""
    with quick_compiling.fully_optimised():
        yield


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run `python -m pavdm_jax.convert_weights` in this process: exit code, standard output, standard error."""
    from pavdm_jax import convert_weights

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_weights", "--quiet", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            convert_weights.main()
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return run


@pytest.fixture
def refused(convert, tmp_path):
    """A conversion that must be refused in `lines` lines (None: any number) and leave nothing; returns what it said."""

    def run(*arguments, lines=1):
        output = tmp_path / "result" / "model"
        code, _, shown = convert(*arguments, "--output", output)
        assert code == 2, shown
        assert shown.startswith("error: ")
        assert lines is None or shown.count("\n") == lines, shown
        assert not output.parent.exists() or list(output.parent.iterdir()) == []
        return shown

    return run
