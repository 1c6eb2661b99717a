"""Export of the transformer in the published layout: one safetensors file with PyTorch's names."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from pavdm_jax import storage
from pavdm_jax.checkpoints.layers import PartReader
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.lora import find_base
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.checkpoints.safetensors_header import header_bytes
from pavdm_jax.config import ModelConfig, STDiT3Config
from pavdm_jax.conversion.architecture import part_kind
from pavdm_jax.conversion.rules import Rule, names_of
from pavdm_jax.conversion.wan import PUBLISHED_HEAD_WIDTH
from pavdm_jax.errors import ConfigError, of_machine
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.model import abstract_params, flatten

NAMES = {"float32": ("F32", np.float32), "bfloat16": ("BF16", ml_dtypes.bfloat16)}
"""The dtypes that can be written: safetensors' name and NumPy's dtype."""


def export_transformer(
    path: str | os.PathLike,
    output: Path,
    dtype: str = "float32",
    progress: Callable[[int], None] = lambda nbytes: None,
    begin: Callable[[int], None] = lambda nbytes: None,
) -> dict[str, int]:
    """Write the transformer of a model folder as a file that Open-Sora loads, or SkyReels-V2 in its original layout.

    LoRA adapters are written merged into their base. The file is written tensor by tensor, and appears when it is
    complete. Weights that were converted and are exported in float32 are bit for bit the published ones, except the
    constant `rope.freqs`: it is not stored in model folders but computed as upstream does, and may differ from
    PyTorch's in the last bit (for XL/2 one value of 36 does, by 2e-9).

    Args:
      path: "demo", a model folder, or the folder of a finished training run, perhaps with adapters.
      output: the file to write, `*.safetensors`; replaced if it exists.
      dtype: of all tensors in it, "float32" as published, or "bfloat16".
      progress: called after each tensor with the number of its bytes.
      begin: called once with the number of bytes of all tensors.

    Returns:
      Sizes that the file does not say, see `unsaid_sizes`.

    Raises:
      ConfigError: no such model, a model without transformer, or an output that cannot be written.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output.name} must end in .safetensors")
    config, read = _open_transformer(path)
    tensors = _list_tensors(config, read)
    kind, numpy_type = NAMES[dtype]
    sizes = {name: int(np.prod(tensor.shape)) * np.dtype(numpy_type).itemsize for name, tensor in tensors.items()}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _check_space(output, sum(sizes.values()))
        begin(sum(sizes.values()))
        entries = {name: (kind, tensor.shape, sizes[name]) for name, tensor in tensors.items()}
        with storage.atomic_file(output) as partial, partial.open("wb") as file:
            file.write(header_bytes(entries, {"format": "pt"}))
            for tensor in tensors.values():
                values = np.ascontiguousarray(tensor.read(), numpy_type)
                file.write(values.view(np.uint8).data)
                progress(values.nbytes)
    except OSError as error:
        raise of_machine(error, f"{output.name} cannot be written: {error.strerror}") from None
    return unsaid_sizes(config)


def unsaid_sizes(config: AnyModelConfig) -> dict[str, int]:
    """What no tensor of a transformer says, by its name in a config.json, where it is not what is taken for granted."""
    if isinstance(config, ModelConfig):
        unsaid, usual = {"input_sq_size": config.stdit3.base_size}, STDiT3Config().base_size
    else:
        unsaid, usual = {"num_heads": config.wan.num_heads}, max(1, config.wan.hidden_size // PUBLISHED_HEAD_WIDTH)
    return {name: value for name, value in unsaid.items() if value != usual}


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written: its PyTorch shape, and a function that reads its values."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def _open_transformer(path: str | os.PathLike) -> tuple[AnyModelConfig, Callable[[str, int | None], np.ndarray]]:
    """A model's config, and a function that reads a parameter, or one layer of it, as `PartReader.read` does."""
    base, adapters = find_base(path)
    if not adapters:
        files = open_model(base, parts=["transformer"])
        return files.config, PartReader(files.folder / "params" / files.config.transformer_part).read
    model = load(path, parts=["transformer"], dtype="float32")  # they are merged here, so the whole is in memory
    merged = flatten(model.transformer)
    return model.config, lambda name, layer: np.asarray(merged[name] if layer is None else merged[name][layer])


def _list_tensors(config: AnyModelConfig, read: Callable[[str, int | None], np.ndarray]) -> dict[str, _Tensor]:
    """All tensors of a transformer by PyTorch name, in the order of writing; their values are not read yet."""
    part = config.transformer_part
    rules, expected = part_kind(part, type(config)).rules(config.transformer, {}), abstract_params(config)[part]
    flat = flatten(expected)

    def stored(rule: Rule, layer: int) -> _Tensor:
        shape = rule.shape_there(flat[rule.target].shape)
        return _Tensor(shape, lambda: rule.to_pytorch(read(rule.target, layer if rule.stacked else None)))

    def constant(rule: Rule) -> _Tensor:
        return _Tensor((len(rule.constant),), lambda: np.asarray(rule.constant))

    tensors = {name: stored(rule, layer) for name, rule, layer in names_of(rules, expected)}
    return tensors | {rule.source: constant(rule) for rule in rules if rule.constant}


def _check_space(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if needed >= free:
        raise ConfigError(f"{needed / 1e9:.1f} GB are needed for {output.name}, {free / 1e9:.1f} GB are free")
