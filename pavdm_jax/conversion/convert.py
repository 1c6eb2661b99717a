"""Conversion of opened weights to a model folder.

Everything is checked before anything is written, tensors are converted one by one, and an interrupted conversion leaves
no model folder behind.
"""

import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pavdm_jax.checkpoints.layers import PartWriter
from pavdm_jax.checkpoints.model_folder import ModelFolder
from pavdm_jax.config import ModelConfig, T5Config
from pavdm_jax.conversion.architecture import check_part, family_of, model_config, part_kind
from pavdm_jax.conversion.rules import Assignment, WeightsError, assign
from pavdm_jax.conversion.sources import Weights
from pavdm_jax.conversion.tensor_files import TENSOR_DTYPES
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.geometry import latent_frames
from pavdm_jax.models.level_pattern import PRETRAINED, LevelPattern, diffusion_forcing
from pavdm_jax.models.model import abstract_params, flatten, in_dtype
from pavdm_jax.models.tokenizer import Tokenizer


@dataclass
class PartPlan:
    """What is to be written for one part.

    Attributes:
      weights: the opened files.
      places: name in the files → its place in the parameter tree.
      shapes: the tree of `jax.ShapeDtypeStruct` to be written.
    """

    weights: Weights
    places: dict[str, Assignment]
    shapes: Any

    @property
    def stored_bytes(self) -> int:
        """Bytes to be written."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes))

    @property
    def source_bytes(self) -> int:
        """Bytes to be read."""
        return sum(self.weights.info(name).nbytes for name in self.places)


def convert(
    sources: Mapping[str, Weights],
    output: Path,
    dtype: str = "float32",
    progress: Callable[[int], None] = lambda nbytes: None,
    begin: Callable[[int], None] = lambda nbytes: None,
    base: AnyModelConfig | None = None,
) -> AnyModelConfig:
    """Write the parts `sources` into the model folder `output`, which keeps its other parts.

    Args:
      sources: "transformer" (or its name in its family), "vae" or "t5" → its weights.
      output: a model folder, or a name that does not exist yet.
      dtype: of the stored matrices, "float32" or "bfloat16"; see `models.model.in_dtype` for what stays float32.
      progress: called after each tensor with the number of its bytes.
      begin: called once, after all checks, with the number of bytes of all tensors.
      base: the published model whose defaults a new folder takes; None: as its weights are recognised.

    Returns:
      The config of the whole model.

    Raises:
      ConfigError: the weights or the output cannot be used; nothing has been written.
      WeightsError: tensors do not fit; the message lists them all, of all parts.
    """
    with ModelFolder(output) as folder:
        config, plans = plan(sources, folder, dtype, base)
        folder.check_space(sum(part.stored_bytes for part in plans.values()))
        begin(sum(part.source_bytes for part in plans.values()))
        records = {}
        for part, planned in plans.items():
            digests = _write_part(folder.stage / part, planned, progress)
            arrays = jax.tree.leaves(planned.shapes)
            records[part] = {
                "source": planned.weights.label,
                "source_files": digests,
                "dtype": dtype,
                "parameters": sum(leaf.size for leaf in arrays),
            }
            if planned.weights.commit:
                records[part]["commit"] = planned.weights.commit
            if part == config.transformer_part and planned.weights.config:  # a training run's have no config.json
                records[part]["trained_with"] = [dataclasses.asdict(_pretrained_with(config))]
        words = sources["t5"].tokenizer if "t5" in sources else None
        tokenizer = words.read_bytes() if words else None
        folder.commit(config, records, tokenizer)
    return config


def _pretrained_with(config: AnyModelConfig) -> LevelPattern:
    if isinstance(config, ModelConfig):
        return PRETRAINED
    return diffusion_forcing(latent_frames(config.clip_frames, config.vae))


def _base(folder: ModelFolder, named: AnyModelConfig | None) -> AnyModelConfig | None:
    """The config to which parts are added: that of the folder, or the named family's with the folder's parts."""
    there = folder.config
    if there is None or named is None:
        return there or named
    if type(there) is not type(named) or (
        named.transformer_part in folder.parts and there.transformer != named.transformer
    ):
        raise ConfigError(
            f"{folder.path.name} holds parts of {there.name}, and not of {named.name}; give another --output, or leave "
            "out --family"
        )
    return dataclasses.replace(named, **{part: getattr(there, part) for part in folder.parts})


def plan(
    sources: Mapping[str, Weights], folder: ModelFolder, dtype: str, base: AnyModelConfig | None = None
) -> tuple[AnyModelConfig, dict[str, PartPlan]]:
    """Check everything that can be checked without reading a tensor; see `convert`."""
    base = _base(folder, base)
    family = family_of({part: weights.shapes for part, weights in sources.items()}, base)
    configs: dict[str, Any] = {}
    for given, weights in sources.items():
        shapes, kind = weights.shapes, part_kind(given, family)
        check_part(given, weights.label, shapes, family)
        configs[kind.part] = found = kind.config(shapes, weights.config)
        if isinstance(found, T5Config):
            _check_tokenizer(weights, found.vocab_size)
    sources = {part_kind(given, family).part: weights for given, weights in sources.items()}
    config = model_config(base, set(folder.parts), configs)
    abstract = in_dtype(abstract_params(config), dtype)
    plans, problems = {}, []
    for part, weights in sources.items():
        try:
            plans[part] = PartPlan(
                weights,
                assign(part_kind(part, family).rules(configs[part], weights.shapes), weights.shapes, abstract[part]),
                abstract[part],
            )
        except WeightsError as error:
            problems.append(f"{weights.label}: {error}")
            continue
        odd = [
            f"  {name} is {weights.info(name).dtype}"
            for name in plans[part].places
            if weights.info(name).dtype not in TENSOR_DTYPES
        ]
        if odd:
            problems.append(f"{weights.label}: only {', '.join(TENSOR_DTYPES)} can be converted:\n" + "\n".join(odd))
    if problems:
        raise WeightsError("\n".join(problems))
    return config, plans


def _check_tokenizer(weights: Weights, vocab_size: int) -> None:
    if weights.tokenizer is None:
        raise ConfigError(
            f"--text-encoder: spiece.model, the tokenizer, is missing beside the weights of {weights.label}; "
            "copy it there from the repository that they are from"
        )
    if weights.tokenizer.stat().st_size >= 2**27:
        raise ConfigError(f"the spiece.model of {weights.label} is too large to be one")
    known = Tokenizer(weights.tokenizer.read_bytes()).vocab_size
    if known > vocab_size:
        raise ConfigError(f"the spiece.model of {weights.label} has {known} ids; its text encoder knows {vocab_size}")


def _write_part(folder: Path, part: PartPlan, progress: Callable[[int], None]) -> dict[str, dict]:
    """Stream all tensors of a part into `folder`; returns size and sha256 of every source file."""
    flat = flatten(part.shapes)
    stacked = {place.rule.target for place in part.places.values() if place.rule.stacked}
    writer, digests = PartWriter(folder, part.shapes, stacked), {}
    names = {(file.path, raw): name for name, (file, raw) in part.weights.places.items()}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for file in part.weights.files:
            stop: list[bool] = []
            digest = pool.submit(_digest, file.path, stop)  # while the tensors are read, so that the disk is read once
            try:
                for raw in file.tensors:
                    name = names[file.path, raw]
                    if name in part.places:
                        _write_tensor(writer, flat, part.places[name], name, file.read(raw))
                        progress(part.weights.info(name).nbytes)
            except BaseException:
                stop.append(True)
                raise
            digests[file.path.name] = {"bytes": file.path.stat().st_size, "sha256": digest.result()}
    writer.close()
    return digests


def _write_tensor(writer: PartWriter, flat: Mapping, place: Assignment, name: str, tensor: np.ndarray) -> None:
    # In float32, because NumPy tests bfloat16 for infinity one number at a time.
    finite = np.isfinite(tensor.astype(np.float32, copy=False)).all()
    if not finite:
        raise ConfigError(f"the tensor {name} holds NaNs or infinities; these weights are broken")
    rule = place.rule
    if rule.target:
        values = rule.to_ours(tensor).astype(flat[rule.target].dtype, order="C")
        writer.write(rule.target, place.layer, values)
    else:
        rule.check_constant(name, tensor)


def _digest(path: Path, stop: list[bool]) -> str:
    """The SHA-256 of a file; `stop` ends it early."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while not stop and (block := file.read(2**22)):
            digest.update(block)
    return digest.hexdigest()
