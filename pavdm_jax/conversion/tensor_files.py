"""Files of tensors: names, shapes and dtypes without reading values, and values one tensor at a time.

Files are not trusted: header lengths, offsets and sizes are checked against the file before anything is allocated.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import ml_dtypes
import numpy as np
import safetensors

from pavdm_jax.checkpoints.safetensors_header import read_header
from pavdm_jax.errors import ConfigError, first_line

TENSOR_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""The dtypes that weights may have in a file, by safetensors' names."""


class TensorInfo(NamedTuple):
    """Shape, dtype and size of a tensor; a `dtype` that is no key of `TENSOR_DTYPES` cannot be converted."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class TensorFile(Protocol):
    """One open file of weights."""

    path: Path
    tensors: dict[str, TensorInfo]
    """All tensors in it, in the order of their bytes, in which they are read fastest."""

    def read(self, name: str) -> np.ndarray:
        """The values of a tensor, in a new array."""
        ...


class SafetensorsFile:
    """A `.safetensors` file; see `TensorFile`.

    The safetensors library validates its header. Values are read instead of mapped, to keep memory small.

    Raises:
      ConfigError: the file is damaged or cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with safetensors.safe_open(path, "np"):
                pass
        except safetensors.SafetensorError as error:
            raise ConfigError(
                f"{path.name} is cut off or damaged ({first_line(error)}); download or copy it again"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path.name} cannot be read: {error.strerror or first_line(error)}") from None
        with path.open("rb") as file:
            self._entries = read_header(file).tensors
        self.tensors = {
            name: TensorInfo(entry.shape, entry.dtype, entry.nbytes) for name, entry in self._entries.items()
        }

    def read(self, name: str) -> np.ndarray:
        info = self.tensors[name]
        dtype = np.dtype(TENSOR_DTYPES[info.dtype])
        with self.path.open("rb") as file:
            file.seek(self._entries[name].start)
            values = np.fromfile(file, dtype, info.nbytes // dtype.itemsize)
        if values.nbytes != info.nbytes:
            raise ConfigError(f"{self.path.name} became shorter while it was read")
        return values.reshape(info.shape)
