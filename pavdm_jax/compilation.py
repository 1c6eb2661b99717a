"""The cache folder; and the persistent compilation cache in it: what one run compiled, the next one loads."""

import os
from pathlib import Path

import jax

from pavdm_jax.config import require


def cache_folder() -> Path:
    """`$PAVDM_CACHE`, or `pavdm_jax` in the user's cache folder (`~/.cache`)."""
    own = os.environ.get("PAVDM_CACHE")
    require("://" not in (own or ""), f"PAVDM_CACHE {own}: the cache must be on a disk; set it to a local folder")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pavdm_jax"


def enable_cache() -> None:
    """Keep compiled programs in the cache folder.

    Called by the command lines before anything is compiled; a program that imports the package decides for itself.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
