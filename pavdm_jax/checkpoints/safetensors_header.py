"""The header of a safetensors file, for what the safetensors library does not offer.

This is reading the header from a bucket without the tensors, and writing a file tensor by tensor, in little memory.

A file is the header's length (8 bytes, little-endian), the header (JSON: dtype, shape and offsets of every tensor, and
texts under `__metadata__`), and the tensors' bytes. Format: https://huggingface.co/docs/safetensors
"""

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

MAX_LENGTH = 100_000_000
"""The most bytes of a header, as in the library; more means a damaged file."""


class Entry(NamedTuple):
    """A tensor in a file: its dtype by safetensors' name ("F32"), its shape, and the place of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class Header(NamedTuple):
    """All tensors of a file by name, in the order of their bytes, and its texts."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(file: BinaryIO) -> Header:
    """Read the header from the beginning of an open file.

    Raises:
      ValueError: the file does not begin with a safetensors header.
      OSError: the file cannot be read.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= MAX_LENGTH:
        raise ValueError(f"its header would have {length} bytes")
    content = file.read(length)
    if len(content) < length:
        raise ValueError(f"it ends within its header of {length} bytes")
    try:
        entries = json.loads(content)
        metadata = entries.pop("__metadata__", {})
        tensors = {name: _entry(entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is malformed: {type(error).__name__}: {error}") from None
    return Header(dict(sorted(tensors.items(), key=lambda item: item[1].start)), metadata)


def _entry(entry: dict[str, Any], data: int) -> Entry:
    start, end = entry["data_offsets"]
    return Entry(entry["dtype"], tuple(entry["shape"]), data + start, end - start)


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file; the bytes of its tensors must follow in the same order.

    Args:
      tensors: name → dtype by safetensors' name, shape, and number of bytes.
      metadata: the texts of the file.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        start, end = end, end + nbytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
