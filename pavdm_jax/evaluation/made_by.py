"""Which version of this package makes a video, and on what."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]


@functools.cache
def made_by() -> dict[str, str | None]:
    """The package's version and commit, the version of JAX and the devices.

    The version is None where the package is not installed. The commit is None where it is not run from a clone of its
    repository, and ends in -dirty where the clone was changed.
    """
    devices = jax.devices()
    cores = f" of {os.cpu_count()} cores ({platform.machine()})" if devices[0].platform == "cpu" else ""
    return {
        "version": _version(),
        "commit": _commit(ROOT),
        "jax": jax.__version__,
        "devices": f"{len(devices)} {devices[0].device_kind}{cores}",
    }


def _version() -> str | None:
    try:
        return version("pavdm_jax")
    except PackageNotFoundError:
        return None


def _commit(clone: Path) -> str | None:
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
