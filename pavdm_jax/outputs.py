"""Output files: checking early that they can be written, and one-line errors when writing fails."""

import contextlib
import errno
import fcntl
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from pavdm_jax import storage
from pavdm_jax.errors import FULL, ConfigError, MachineError, of_machine

MAX_NAME = 220
"""Bytes of an output's name. File systems take 255; files beside it, such as the unfinished one, have longer names."""


UNFINISHED = ".partial"
"""The end of an unfinished video's name, before its extension."""


def check_output(path: str | Path, extensions: tuple[str, ...] = (".mp4",)) -> Path:
    """Check before a long run that `path` can be written, and make its folder.

    Args:
      path: a local file.
      extensions: those allowed, in lower case.

    Returns:
      The local path.

    Raises:
      ConfigError: another extension, a folder, or a place that cannot be written.
    """
    path = storage.local_path(path, "output")
    if path.suffix not in extensions:
        raise ConfigError(f"output {path}: the name must end in {' or '.join(extensions)}")
    if path.stem.endswith(UNFINISHED):
        raise ConfigError(f"output {path}: names that end in {UNFINISHED} are those of unfinished videos; give another")
    if len(os.fsencode(path.name)) > MAX_NAME:
        raise ConfigError(f"output {path.name[:40]}...: the name is longer than {MAX_NAME} bytes; choose a shorter one")
    try:
        if path.is_dir():
            raise ConfigError(f"output {path} is a folder; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise storage_error(error, path) from None
    return path


def warn_of_replaced(paths: Sequence[Path]) -> None:
    """Warn, in one line, of files that are there and will be replaced."""
    there = [path for path in paths if path.exists()]
    if there:
        others = "" if len(there) == 1 else f" (and {len(there) - 1} more)"
        warnings.warn(f"{there[0]}{others} exists and is replaced when the new video is whole", stacklevel=3)


def storage_error(error: OSError, path: Path) -> ConfigError:
    """The `ConfigError` for a failed write to `path`."""
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free / 2**20
        return MachineError(
            f"output {path}: the disk is full ({free:.0f} MiB free); make room and resume, or write elsewhere"
        )
    return of_machine(error, f"output {path} cannot be written: {error.strerror or error}; choose another place")


def partial_path(path: str | Path) -> Path:
    """The path of an unfinished video: `video.partial.mp4` beside `video.mp4`."""
    path = Path(path)
    return path.with_name(f"{path.stem}{UNFINISHED}{path.suffix}")


def file_url(path: str | Path) -> str:
    """The name by which FFmpeg opens a file, even one like `pipe:1.mp4`."""
    return f"file:{path}"


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """`storage.atomic_file`, whose errors become `ConfigError`."""
    try:
        with storage.atomic_file(path) as partial:
            yield partial
    except OSError as error:
        raise storage_error(error, path) from None


def check_not_written(path: Path) -> None:
    """Raise `ConfigError` if another process is writing a file, and therefore holds its lock."""
    try:
        with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise being_written(path) from None
    except OSError:  # it is not there, or the file system has no locks
        pass


def being_written(path: Path) -> ConfigError:
    """The error for a file that another process holds."""
    return ConfigError(f"{path} is being written by another process; wait for it, or choose another output")


WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""The numbers of the errors of file systems that have no locks."""


def lock_file(path: Path) -> io.FileIO:
    """Open a file, which is made where it is missing, and lock it; the lock goes with the file, or with the process.

    Where the file system has no locks, it is only opened.

    Raises:
      BlockingIOError: another process has locked it.
      OSError: it cannot be opened, or is a symbolic link.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        file = io.FileIO(descriptor, "r+")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return file
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return file
            file.close()
            raise
        file.close()  # who held it has just finished, and removed its name
