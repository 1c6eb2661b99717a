"""The transformer back in the published layout: one safetensors file under PyTorch's names, for Open-Sora."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from flax import traverse_util

from pavdm_jax.checkpoints.layers import PartReader
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.conversion.open_sora import stdit3_rules
from pavdm_jax.conversion.rules import names_of
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import abstract_params

NAMES = {"float32": ("F32", np.float32), "bfloat16": ("BF16", ml_dtypes.bfloat16)}


def export_stdit(
    path: str | os.PathLike,
    output: Path,
    dtype: str = "float32",
    progress: Callable[[int], None] = lambda nbytes: None,
    begin: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write the transformer of a model folder as a file that Open-Sora loads; it is written tensor by tensor, and appears when it is whole.

    Args:
      path: "demo", a model folder, or the folder of a finished training run.
      output: the file to write, `*.safetensors`; replaced if it exists.
      dtype: of all tensors in it, "float32" as published, or "bfloat16".
      progress: called with the bytes of every tensor that has been written.
      begin: called once with the bytes of all of them.

    Raises:
      ConfigError: no such model, a model without transformer, or an output that cannot be written.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output.name} must end in .safetensors")
    model = open_model(path, parts=["stdit3"])
    rules, expected = stdit3_rules(model.config.stdit3), abstract_params(model.config)["stdit3"]
    flat = traverse_util.flatten_dict(expected, sep="/")
    kind, numpy_type = NAMES[dtype]

    places = {name: (rule, layer if rule.stacked else None) for name, rule, layer in names_of(rules, expected)}
    shapes = {name: rule.shape_there(flat[rule.target].shape) for name, (rule, _) in places.items()}
    constants = {rule.source: np.asarray(rule.constant, numpy_type) for rule in rules if rule.constant}
    shapes |= {name: values.shape for name, values in constants.items()}

    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, size in shapes.items():
        start, end = end, end + int(np.prod(size)) * np.dtype(numpy_type).itemsize
        header[name] = {"dtype": kind, "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    reader = PartReader(model.folder / "params" / "stdit3")
    partial = output.with_name(f".{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output.parent).free
        if end >= free:
            raise ConfigError(f"{end / 1e9:.1f} GB are needed for {output.name}, {free / 1e9:.1f} GB are free")
        begin(end)
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in shapes:
                values = constants.get(name)
                if values is None:
                    rule, layer = places[name]
                    values = rule.to_pytorch(reader.read(rule.target, layer))
                values = np.ascontiguousarray(values, numpy_type)
                file.write(values.view(np.uint8))
                progress(values.nbytes)
        os.replace(partial, output)
    except OSError as error:
        raise ConfigError(f"{output.name} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
