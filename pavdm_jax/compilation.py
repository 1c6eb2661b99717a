"""The persistent compilation cache: what one run compiled, the next one loads."""

import os
from pathlib import Path

import jax


def enable_cache() -> None:
    """Keep compiled programs in `$PAVDM_CACHE`, or in the user's cache folder (`~/.cache/pavdm_jax`).

    Called by the command lines before anything is compiled; a program that imports the package decides for itself.
    """
    folder = (
        os.environ.get("PAVDM_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pavdm_jax"
    )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
