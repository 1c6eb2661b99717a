"""Files on disks, or in a bucket of Google Cloud Storage, `gs://BUCKET/NAME`.

`as_path` makes a path from the user's text: a `pathlib.Path`, or an `epath.Path` for a bucket. The methods that both
share are used as they are (`/`, `exists`, `is_dir`, `iterdir`, `read_text`, `read_bytes`); the differences between
disks and buckets are handled here. A bucket has no folders, and can neither append nor rename; but objects are written
and replaced atomically. So, in a bucket,

    a file is one object, written by `write`;
    a folder is complete when it has the file that is written last (`new_folder`), and is ignored without it;
    growing files, such as logs, are on a disk, and are copied to the bucket now and then (`training/log.py`);
    files that are mapped into memory are read from a copy in the cache folder (`local_copy`).
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import os
import posixpath
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import fsspec.config
from etils import epath

from pavdm_jax.errors import ConfigError, of_machine

PREFIX = "gs://"


class StorageError(OSError):
    """A bucket cannot be reached or used; its files may be in order."""


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith(PREFIX)


def as_path(path: str | os.PathLike) -> Path:
    """The path of a text. The first time that a bucket is named, it is checked that it can be used.

    Raises:
      ConfigError: it is no text or another kind of URL, gcsfs is not installed, or the bucket cannot be read.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ConfigError(f"a path is text, not {path!r}")
    if "://" not in text:
        return Path(text)
    if not is_remote(text):
        raise ConfigError(f"{text}: of URLs only {PREFIX}BUCKET/NAME is understood; copy or mount what is elsewhere")
    bucket, _, name = text.removeprefix(PREFIX).partition("/")
    if not bucket or not name.strip("/"):
        raise ConfigError(f"{text} names no file or folder of a bucket; write {PREFIX}BUCKET/NAME")
    _connect(bucket)
    return cast(Path, epath.Path(text))


def local_path(path: str | os.PathLike, option: str) -> Path:
    """The local path of an option; `ConfigError`, which names the option, for a bucket."""
    if "://" in os.fspath(path):
        raise ConfigError(
            f"{option} {path}: this must be on a disk; name a local file or folder, and copy it by `gcloud storage cp`"
        )
    return Path(path)


def absolute(path: Path) -> Path:
    """`path.absolute()`, which is wrong for epath's paths in a bucket."""
    return path if is_remote(path) else path.absolute()


def reference(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """How a file in `folder` refers to `path`.

    It is relative to the folder if both are on disks or both in buckets, so that they can be moved together; else it is
    absolute.
    """
    if is_remote(path) != is_remote(folder):
        return str(absolute(as_path(path)))
    if is_remote(folder):
        return os.path.relpath(path, folder)
    return os.path.relpath(os.path.abspath(path), os.path.realpath(folder))  # ".." leaves the folder behind a link


def resolve(folder: Path, named: str) -> Path:
    """The inverse of `reference`: the path that a file in `folder` refers to as `named`."""
    if is_remote(named):
        return as_path(named)
    if not is_remote(folder):
        return folder / named
    if named.startswith("/"):
        return Path(named)
    return as_path(PREFIX + posixpath.normpath(f"{folder}/{named}".removeprefix(PREFIX)))


def kvstore(folder: Path) -> dict:
    """The specification of a folder as a key-value store of TensorStore."""
    if is_remote(folder):
        bucket, _, name = str(folder).removeprefix(PREFIX).partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{name}/"}
    return {"driver": "file", "path": f"{folder.absolute()}/"}


# --- reading ----------------------------------------------------------------------------------------------------------


def open_binary(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading and seeking; of an object in a bucket, only the parts that are read are fetched."""
    return cast(BinaryIO, _Object(str(path))) if is_remote(path) else open(path, "rb")


class _Object(io.RawIOBase):
    """An object in a bucket, for reading; errors of the network become `StorageError`s."""

    def __init__(self, path: str):
        self._path = path
        with cloud_errors(path):
            self._file = _bucket_files().open(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer) -> int:
        with cloud_errors(self._path):
            found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def names(folder: Path) -> set[str]:
    """The names of the files and folders in a folder; empty if the folder does not exist."""
    with cloud_errors(folder):
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def file_sizes(folder: Path) -> dict[str, int]:
    """The size in bytes of every file below a folder, by its path relative to the folder."""
    if is_remote(folder):
        with cloud_errors(folder):
            found = _bucket_files().find(str(folder), detail=True).items()
        start = len(str(folder).removeprefix(PREFIX)) + 1
        return {name[start:]: entry["size"] for name, entry in sorted(found)}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def stamps(paths: Iterable[str]) -> dict[str, tuple | None]:
    """For each file a value that changes with its content, or None if the file does not exist.

    In a bucket, whole folders are listed, with one request for a thousand files.
    """
    found: dict[str, tuple | None] = {}
    listed: dict[str, dict[str, tuple]] = {}
    for path in map(str, paths):
        if is_remote(path):
            folder, _, name = path.rpartition("/")
            if folder not in listed:
                files = [entry for entry in _listing(folder) if entry["type"] == "file"]
                listed[folder] = {e["name"].split("/")[-1]: (e["size"], e["generation"]) for e in files}
            found[path] = listed[folder].get(name)
        else:
            try:
                status = os.stat(path)
                found[path] = (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
            except OSError:
                found[path] = None
    return found


def local_copy(path: Path, stamp: tuple | None = None) -> Path:
    """The file itself or, for an object in a bucket, a copy in the cache folder, which is kept for the next time.

    fsspec's `simplecache` is not used, because it writes a copy under its final name, where other processes find it
    incomplete, and does not notice that an object was replaced.

    Args:
      path: of the file.
      stamp: of the object, see `stamps`; None: it is looked up.

    Raises:
      StorageError: the object does not exist, or cannot be copied.
    """
    if not is_remote(path):
        return path
    stamp = stamp or stamps([str(path)])[str(path)]
    if stamp is None:
        raise StorageError(f"{path} does not exist")
    name = hashlib.sha256(f"{path} {stamp}".encode()).hexdigest()[:32]
    copy = cache_folder() / "objects" / (name + path.suffix)
    with _lock(copy):
        if not copy.exists():
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(copy) as partial, cloud_errors(path):
                    _bucket_files().get_file(str(path), str(partial))
            except OSError as error:
                raise StorageError(
                    f"{error}; it is copied to {copy.parent}; PAVDM_CACHE names another folder"
                ) from None
    return copy


# --- writing ----------------------------------------------------------------------------------------------------------


def write(path: Path, content: bytes) -> None:
    """Write a file atomically, even if another process writes the same one.

    Raises:
      OSError: it cannot be written.
    """
    if is_remote(path):
        with cloud_errors(path):
            path.write_bytes(content)
    else:
        with atomic_file(path) as partial:
            partial.write_bytes(content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A context for writing a local file: yields a temporary file beside `path`, with the same extension.

    When the block ends without an error, the file is flushed to the disk and replaces `path`; else it is removed.

    Raises:
      OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def upload(file: Path, path: Path) -> None:
    """Copy a local file to a bucket, atomically.

    Raises:
      OSError: it cannot be copied.
    """
    with cloud_errors(path):
        _bucket_files().put_file(str(file), str(path))


def remove(path: Path) -> None:
    """Remove a file."""
    with cloud_errors(path):
        path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents if they do not exist. For a bucket, which has no folders, this does nothing.

    Raises:
      ConfigError: it is a file, or cannot be made.
    """
    try:
        with cloud_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except StorageError:
        raise
    except FileExistsError:
        raise ConfigError(f"{folder} is a file; name a folder") from None
    except OSError as error:
        raise of_machine(error, f"the folder {folder} cannot be made: {error.strerror or error}") from None


@contextlib.contextmanager
def new_folder(path: Path, last: str) -> Iterator[Path]:
    """A context for writing a folder: yields a folder, which replaces `path` when the block ends without an error.

    On a disk it is a temporary folder beside `path`, which is removed after an error. In a bucket it is `path` itself,
    which is cleared first.

    Args:
      path: the folder to be written.
      last: the name of the file that the caller writes last; a folder without it is ignored. It is cleared first.
    """
    if is_remote(path):
        files = _bucket_files()
        with cloud_errors(path):
            for old in (path / last, path):
                if files.exists(str(old)):
                    files.rm(str(old), recursive=True)
            yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    older = partial.with_name(partial.name + ".older")
    try:
        yield partial
        partial.chmod(0o755)
        if path.exists():
            path.rename(older)
        partial.rename(path)
        shutil.rmtree(older, ignore_errors=True)
    except BaseException:
        if older.exists() and not path.exists():  # between the two
            older.rename(path)
        shutil.rmtree(partial, ignore_errors=True)
        raise


@functools.cache
def _lock(copy: Path) -> threading.Lock:
    """The lock of a copy, so that only one thread makes it."""
    return threading.Lock()


# --- buckets ----------------------------------------------------------------------------------------------------------


@functools.cache
def _bucket_files() -> Any:
    """The file system of buckets, which epath uses, too.

    It has no cache of listings, because other processes and TensorStore write to the bucket as well.
    """
    os.environ.setdefault("EPATH_USE_TF", "false")  # one library for all, whether TensorFlow is installed or not
    for name in ("gs", "gcs"):
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs", finalize_on_close=True)


@functools.cache
def _connect(bucket: str) -> None:
    """Raise `ConfigError` unless the bucket can be listed."""
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(
            f"{PREFIX}{bucket} is in a bucket, for which gcsfs is needed; install it: pip install 'pavdm_jax[gcs]'"
        )
    try:
        with cloud_errors(f"{PREFIX}{bucket}"):
            _bucket_files().ls(bucket, max_results=1)
    except FileNotFoundError:
        raise ConfigError(f"there is no bucket {PREFIX}{bucket}; check its name, or make it") from None
    except OSError as error:
        raise ConfigError(
            f"{error}; check the permissions, and log in: gcloud auth application-default login"
        ) from None


def _listing(folder: str) -> list[dict]:
    """The entries of a folder in a bucket; empty if the folder does not exist."""
    try:
        with cloud_errors(folder):
            return _bucket_files().ls(folder, detail=True)
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def cloud_errors(what: str | os.PathLike) -> Iterator[None]:
    """A context that turns the errors of the cloud libraries, of many kinds, into `StorageError`s of one line.

    Errors of local files are raised unchanged.
    """
    try:
        yield
    except (ConfigError, FileNotFoundError, StorageError):
        raise
    except Exception as error:
        if not is_remote(what):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StorageError(f"{what} cannot be used: {reason}") from error


def cache_folder() -> Path:
    """`$PAVDM_CACHE`, or `pavdm_jax` in the user's cache folder (`~/.cache`); `ConfigError` if it is in a bucket."""
    own = os.environ.get("PAVDM_CACHE")
    if "://" in (own or ""):
        raise ConfigError(f"PAVDM_CACHE {own}: the cache must be on a disk; set it to a local folder")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pavdm_jax"
