"""PyTorch's own files, read without executing code in them. The only file that imports torch, an optional extra."""

import collections
import ctypes
import mmap
import pickle
import re
import zipfile
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np

from pavdm_jax.conversion.tensor_files import TensorInfo
from pavdm_jax.errors import ConfigError, first_line

STATES = ("ema", "state_dict", "model", "module")
"""Keys under which trainers keep the weights, in order of preference: the averaged ones come first."""

MAX_RECORD = 200_000_000  # bytes of the pickle itself; it holds names and shapes only


def import_torch(wanted_by: str) -> ModuleType:
    """PyTorch; `ConfigError`, which says what wants to be read, if it is not installed."""
    try:
        import torch
    except ImportError:
        raise ConfigError(f"reading {wanted_by} needs PyTorch: pip install 'pavdm_jax[torch]'") from None
    return torch


class PickleFile:
    """A `.bin`, `.pt` or `.pth` file, mapped into memory; see `tensor_files.TensorFile`.

    `torch.load` reads names and shapes only, and does not run code from the file.

    Raises:
      ConfigError: PyTorch is not installed, or the file is damaged or holds more than tensors.
    """

    def __init__(self, path: Path):
        self.path = path
        torch = import_torch(path.name)
        _check_archive(path)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            code = re.search(r"GLOBAL ([\w.]+)", str(error))
            wants = f"it wants to run {code[1]}" if code else "it holds more than tensors"
            raise ConfigError(
                f"{path.name} is refused: {wants}; ask for safetensors, or for the tensors alone"
            ) from None
        except Exception as error:  # torch and zip errors of many kinds
            raise ConfigError(f"{path.name} is damaged: {first_line(error)}") from None
        self._torch = torch
        tensors = {
            name: tensor for name, tensor in _state(path, loaded, torch).items() if isinstance(tensor, torch.Tensor)
        }
        size = path.stat().st_size
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise ConfigError(f"{path.name} has a tensor whose name is not text")
            if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > size:
                raise ConfigError(
                    f"{path.name}: the tensor {name} {list(tensor.shape)} claims more than the file holds"
                )
        kinds = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
        self._tensors = dict(sorted(tensors.items(), key=lambda item: item[1].data_ptr()))
        self.tensors = {
            name: TensorInfo(tuple(t.shape), kinds.get(t.dtype, str(t.dtype)), t.numel() * t.element_size())
            for name, t in self._tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        torch, tensor = self._torch, self._tensors[name].detach()
        if tensor.dtype == torch.bfloat16:
            values = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
        else:
            values = tensor.numpy().copy()
        if tensor.is_contiguous():
            _forget_pages(tensor.data_ptr(), values.nbytes)
        return values


def _check_archive(path: Path) -> None:
    """PyTorch's files are zip archives of uncompressed entries; a truncated file lacks the list at the end."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ConfigError(
            f"{path.name} is cut off, damaged, or written by PyTorch before 1.6 ({str(error)[:100]}); download it again"
        ) from None
    size = path.stat().st_size
    packed = any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in entries)
    if packed:
        raise ConfigError(f"{path.name} is refused: its entries are compressed, or larger than the file")
    for entry in entries:
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_RECORD:
            raise ConfigError(f"{path.name} is refused: its table of names has {entry.file_size} bytes")


def _state(path: Path, loaded: object, torch) -> dict:
    """The dictionary of tensors in a loaded object, where trainers may nest it in others."""
    for _ in range(4):
        if not isinstance(loaded, (dict, collections.OrderedDict)):
            raise ConfigError(f"{path.name} holds no dictionary of tensors")
        if any(isinstance(value, torch.Tensor) for value in loaded.values()):
            return loaded
        inner = next((loaded[name] for name in STATES if isinstance(loaded.get(name), dict)), None)
        if inner is None:
            raise ConfigError(f"{path.name} holds no tensors; its entries are {', '.join(map(str, list(loaded)[:5]))}")
        loaded = inner
    raise ConfigError(f"{path.name} holds no tensors")


def _forget_pages(address: int, size: int) -> None:
    """Release the pages of a mapped file after reading; by itself the kernel does so only when memory is short."""
    advise = getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_DONTNEED") else None
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if advise and length > 0:
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_int(mmap.MADV_DONTNEED))
