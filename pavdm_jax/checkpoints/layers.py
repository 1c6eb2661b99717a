"""One part of a model folder in Orbax's format, written and read a layer at a time.

Orbax itself needs whole arrays, and takes four times the memory of the largest one (measured): 8 GB for a stacked layer
of T5-XXL. Its format is public: zarr arrays in an OCDBT database, beside JSON files. So here Orbax writes the JSON
files, for arrays of one element, and the values are written with TensorStore, as Orbax does, too.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError, MachineError, first_line
from pavdm_jax.models.model import flatten

PENDING = 2**27
"""How many bytes of small arrays are written together; each write makes two files."""

TEMPORARY = "outline"


class PartWriter:
    """Writes the arrays of one part into `folder`, which is a valid checkpoint only after `close`.

    Args:
      folder: does not exist yet, but its parent does.
      shapes: the tree of `jax.ShapeDtypeStruct` to be written.
      stacked: the slash-separated names of parameters that are written layer by layer, along their first axis.
    """

    def __init__(self, folder: Path, shapes: Any, stacked: set[str]):
        self.folder, self.shapes = folder, shapes
        self._flat = flatten(shapes)
        self._stacked = stacked
        self._context = tensorstore.Context()  # one database behind all arrays, so that their writes go together
        folder.mkdir()
        self._begin()

    def _begin(self) -> None:
        self._transaction, self._pending = tensorstore.Transaction(), 0
        self._arrays: dict[str, Any] = {}  # those open in this transaction

    def write(self, name: str, layer: int, values: np.ndarray) -> None:
        """Write a parameter, or one layer of a stacked one, in the shape and dtype that `shapes` has for it.

        Raises:
          ConfigError: the disk is full or fails.
        """
        shape, stacked = self._flat[name], name in self._stacked
        try:
            if name not in self._arrays:
                self._arrays[name] = self._open(name, shape, stacked)
            array = self._arrays[name]
            (array[layer] if stacked else array).write(np.asarray(values, shape.dtype)).result()
            self._pending += values.nbytes
            if self._pending > PENDING:
                self._transaction.commit_async().result()
                self._begin()
        except ValueError as error:  # TensorStore's only kind
            raise _cannot_write(self.folder, error) from None

    def _open(self, name: str, shape: jax.ShapeDtypeStruct, stacked: bool) -> Any:
        """An array with Orbax's settings, and a chunk for each layer."""
        metadata = {
            "shape": shape.shape,
            "chunks": [1, *shape.shape[1:]] if stacked else shape.shape,
            "dtype": "bfloat16" if shape.dtype == jnp.bfloat16 else np.dtype(shape.dtype).str,
            "compressor": {"id": "zstd", "level": 1},
        }
        spec = {"driver": "zarr", "kvstore": _store(self.folder, name), "metadata": metadata}
        spec["store_data_equal_to_fill_value"] = True
        return tensorstore.open(
            spec, open=True, create=True, context=self._context, transaction=self._transaction
        ).result()

    def close(self) -> None:
        """Write the pending values, and Orbax's description of the arrays.

        Raises:
          ConfigError: the disk is full or fails.
        """
        outline = self.folder / TEMPORARY
        try:
            self._transaction.commit_async().result()
            ones = jax.tree.map(lambda x: jnp.zeros((1,) * len(x.shape), x.dtype), self.shapes)
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(outline.absolute(), ones)
            (outline / "_CHECKPOINT_METADATA").rename(self.folder / "_CHECKPOINT_METADATA")
            (outline / "_sharding").rename(self.folder / "_sharding")
            description = json.loads((outline / "_METADATA").read_text())
            for entry in description["tree_metadata"].values():
                name = "/".join(key["key"] for key in entry["key_metadata"])
                entry["value_metadata"]["write_shape"] = list(self._flat[name].shape)
            (self.folder / "_METADATA").write_text(json.dumps(description))
            shutil.rmtree(outline)
            (self.folder / "commit_success.txt").write_text("complete\n")
        except (ValueError, OSError) as error:
            raise _cannot_write(self.folder, error) from None


class PartReader:
    """Reads a part's arrays one by one, without restoring the others."""

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """A parameter by its slash-separated name, or one layer of a stacked one; `ConfigError` if it is damaged."""
        try:
            array = tensorstore.open({"driver": "zarr", "kvstore": _store(self.folder, name)}, read=True).result()
            return (array if layer is None else array[layer]).read().result()
        except ValueError as error:
            raise ConfigError(f"{self.folder} is damaged and cannot be read: {str(error)[:200]}") from None


def stored_arrays(folder: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every array of a part, by slash-separated name; no values are read.

    Raises:
      ConfigError: the folder is no checkpoint of Orbax.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            tree = checkpointer.metadata(storage.absolute(folder)).item_metadata
            flat = flatten(dict(tree))
            return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}
        except Exception as error:  # Orbax reports damage by exceptions of many kinds
            raise ConfigError(f"{folder} is not a complete checkpoint: {first_line(error)}") from None


def _store(folder: Path, name: str) -> dict:
    return {
        "driver": "ocdbt",
        "base": storage.kvstore(folder),
        "path": name.replace("/", ".") + "/",
    }


def _cannot_write(folder: Path, error: Exception) -> ConfigError:
    text = str(error)
    full = "No space left" in text or "quota" in text
    what = "the disk is full; free some space" if full else first_line(error)
    return MachineError(f"{folder.name} cannot be written: {what}, and run the same command again")
