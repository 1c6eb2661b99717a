"""`parts.json` of a model folder: its parts, with the sizes and checksums of their files."""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError


def describe_files(folder: Path) -> dict[str, dict[str, int]]:
    """What parts.json notes about the files of a part."""
    return {"files": storage.file_sizes(folder), "crc32": checksums(folder)}


def check_files(folder: Path, record: dict) -> None:
    """Compare the files of a part with what parts.json notes: Orbax answers to files that are cut off with errors in
    its threads that outlive the call, and to changed ones not at all.

    In a bucket, which keeps checksums of its own, only sizes are compared.

    Raises:
      ConfigError: files are missing, cut off or changed.
    """
    sizes, found = record["files"], storage.file_sizes(folder)
    damaged = sorted(name for name in sizes if found.get(name) != sizes[name])
    if damaged:
        raise ConfigError(
            f"{folder} is not a complete checkpoint: {len(damaged)} files are missing or cut off, first {damaged[0]}"
        )
    sums = record.get("crc32", {})  # none in older folders
    if sums and not storage.is_remote(folder):
        found = checksums(folder)
        damaged = sorted(name for name in sums if found.get(name) != sums[name])
        if damaged:
            raise ConfigError(
                f"{folder} is damaged: {len(damaged)} files have changed since they were written, first {damaged[0]}; "
                "copy, download or convert it again"
            )


def read_parts(path: Path) -> dict[str, dict]:
    """What a parts.json says.

    Raises:
      ValueError: it is none.
    """
    parts = json.loads(path.read_text())
    if not isinstance(parts, dict):
        raise ValueError(f"{path.name} is no object of parts")
    for part, record in parts.items():
        lists = [record.get("files"), record.get("crc32", {})] if isinstance(record, dict) else [None]
        if not all(isinstance(one, dict) and all(type(x) is int for x in one.values()) for one in lists):
            raise ValueError(f"{path.name} does not say which files {part} has")
        sources, texts = record.get("source_files", {}), [record.get(name, "") for name in TEXTS]
        if not isinstance(sources, dict) or not all(map(_is_source, sources.values())):
            raise ValueError(f"{path.name} does not say which files {part} was converted from")
        if not all(isinstance(text, str) for text in texts) or (sources and "dtype" not in record):
            raise ValueError(f"{path.name} does not say how {part} was converted")
    return parts


TEXTS = ("source", "commit", "dtype")
"""What parts.json may say of a part, beside its files."""


def _is_source(record: object) -> bool:
    """Whether a record is of a file that weights were converted from."""
    return isinstance(record, dict) and type(record.get("bytes")) is int and isinstance(record.get("sha256"), str)


def checksums(folder: Path) -> dict[str, int]:
    """The CRC-32 of every file below a folder, by its name relative to it; of a bucket, which keeps its own, none."""
    if storage.is_remote(folder):
        return {}

    def checksum(name: str) -> int:
        value = 0
        with open(folder / name, "rb") as file:
            while piece := file.read(2**22):
                value = zlib.crc32(piece, value)
        return value

    names = list(storage.file_sizes(folder))
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(checksum, names), strict=True))
