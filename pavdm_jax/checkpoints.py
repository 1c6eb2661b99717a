"""Models on disk: a folder with `config.json`, the parameters in Orbax's format, `params/PART/` for every part, and `spiece.model`.

`parts.json` lists the parts that are there, with the sizes of their files; what it does not list does not count. On a disk, a folder is
written beside its final name and renamed, so that it is whole or absent; in a bucket `parts.json` is written last, and a folder without
it does not count.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.typing import DTypeLike

from pavdm_jax import lora as adapters
from pavdm_jax import storage
from pavdm_jax.config import ConfigError, ModelConfig, first_line, from_json, require, to_json
from pavdm_jax.model import SAMPLING_PARTS, Model, abstract_params, in_dtype
from pavdm_jax.text import Tokenizer

EMBEDDED = Path(__file__).parent / "assets"
"""Models that come with the package; `load("demo")` finds `assets/demo`."""

DTYPES = ("float32", "bfloat16")
"""What parameters can be in memory."""


def save_model(path: str | os.PathLike, model: Model, dtype: jnp.dtype = jnp.float32) -> None:
    """Write a model folder, replacing an older one of the same name.

    Args:
      path: the folder, perhaps gs://BUCKET/NAME; its parents are made.
      dtype: how the parameters are stored; `load` gives float32 back.
    """
    with storage.new_folder(storage.as_path(path), last="parts.json") as partial:
        (partial / "config.json").write_text(to_json(model.config) + "\n")
        if model.tokenizer:
            (partial / "spiece.model").write_bytes(model.tokenizer.model_bytes)
        for part, params in model.params.items():
            _save_part(partial / "params" / part, jax.tree.map(lambda x: jnp.asarray(x, dtype), params))
        parts = {part: {"files": storage.file_sizes(partial / "params" / part)} for part in model.params}
        (partial / "parts.json").write_text(json.dumps(parts, indent=1) + "\n")


def _checkpointer() -> ocp.StandardCheckpointer:
    """Of this process alone: it never waits for others."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(own, {own}, f"process-{own}") if jax.process_count() > 1 else None
    return ocp.StandardCheckpointer(multiprocessing_options=alone or ocp.options.MultiprocessingOptions())


def _save_part(folder: Path, params: dict) -> None:
    if jax.process_count() > 1:
        params = jax.device_get(params)  # Orbax takes arrays of one process only as values
    with _checkpointer() as checkpointer:
        checkpointer.save(storage.absolute(folder), params)
    # Orbax notes there where the folder was made, which is nobody's business; its presence is what counts.
    (folder / "commit_success.txt").write_text("complete\n")


def load(
    path: str | os.PathLike,
    parts: Sequence[str] = SAMPLING_PARTS,
    shardings: dict | None = None,
    dtype: DTypeLike = "float32",
    lora: str | os.PathLike | None = None,
) -> Model:
    """Read a model: "demo" for the embedded one, a folder of converted weights, or a training run: its finished model or, while there is
    none, the averaged weights of its newest checkpoint (or of a certain one, `RUN/stages/STAGE/STEP`).

    Args:
      path: the model's folder, which may be in a bucket, gs://BUCKET/NAME.
      parts: which of "stdit3", "vae" and "t5" to read; `params` of the result has no others. Generation reads the text encoder
        itself, when it meets a new text.
      shardings: a tree like `params` of where to put each parameter; parts that it lacks, or None: on the first device.
      dtype: "float32" or "bfloat16", of the matrices in memory, whatever they are stored in; what `in_dtype` names stays float32.
      lora: a file of adapters, or the training run that made them, merged into the parameters.

    Raises:
      ConfigError: the folder is missing, incomplete, lacks a part, or holds parameters of another architecture than its config says;
        or another dtype.
    """
    if lora is not None:
        return adapters.apply(load(path, parts, shardings, dtype), lora)
    require(dtype in (*DTYPES, *map(jnp.dtype, DTYPES)), f"dtype {dtype} is not possible; use {' or '.join(DTYPES)}")
    folder = storage.as_path(path)
    if is_unfinished_run(folder):
        from pavdm_jax.training.run_folder import load_run  # not above: it loads the model that the run started from

        return load_run(folder, parts, shardings, dtype)
    files = open_model(path, parts)
    expected, params = in_dtype(abstract_params(files.config), dtype), {}
    for part in parts:
        place = (shardings or {}).get(part, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
        params[part] = _restore(files.folder / "params" / part, expected[part], place)
    return Model(
        params=params, config=files.config, tokenizer=files.tokenizer, folder=str(storage.absolute(files.folder))
    )


class ModelFiles(NamedTuple):
    """A model folder before its parameters are read; `parts` is what parts.json notes about each part that is there."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer | None
    parts: dict[str, dict]


def open_model(path: str | os.PathLike, parts: Sequence[str] = ()) -> ModelFiles:
    """Find a model, see `load`, and check that it has the files of `parts` in full length."""
    require(bool(str(path)), "the name of the checkpoint is empty; the embedded model is called 'demo'")
    folder = EMBEDDED / path if is_embedded(path) else storage.as_path(path)
    with storage.explained(folder):
        if is_model(folder / "model"):
            folder = folder / "model"
        require(folder.is_dir(), f"there is no checkpoint folder {path}; the embedded model is called 'demo'")
        for name in ("config.json", "parts.json", "params"):
            require((folder / name).exists(), f"{path} is not a complete checkpoint: {name} is missing from it")
        try:
            config = from_json(ModelConfig, (folder / "config.json").read_text())
            words = folder / "spiece.model"
            tokenizer = Tokenizer(words.read_bytes()) if words.exists() else None
            stored = json.loads((folder / "parts.json").read_text())
        except (OSError, ValueError, ArithmeticError) as error:  # ConfigError and bad text are ValueErrors
            raise ConfigError(f"the checkpoint {path} cannot be read: {first_line(error)}") from None
    for part in parts:
        held = f"it holds {', '.join(stored) or 'nothing'}"
        require(part in stored, f"the checkpoint {path} has no {part}; {held}; pavdm_jax.convert_weights adds parts")
    require(
        "t5" not in stored or bool(tokenizer), f"{path} is not a complete checkpoint: spiece.model is missing from it"
    )
    require(
        tokenizer is None or tokenizer.vocab_size <= config.t5.vocab_size,
        f"the tokenizer of {path} has {tokenizer and tokenizer.vocab_size} ids; its text encoder knows {config.t5.vocab_size}",
    )
    for part in parts:
        _check_files(folder / "params" / part, stored[part]["files"])
    return ModelFiles(folder, config, tokenizer, stored)


def is_embedded(path: str | os.PathLike) -> bool:
    """Whether it is the name of a model that comes with the package."""
    return isinstance(path, str) and Path(path).name == path and (EMBEDDED / path / "config.json").exists()


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model that was written to its end."""
    return (folder / "parts.json").exists()


def is_unfinished_run(folder: Path) -> bool:
    """Whether a folder is a training run without its finished model, or one of its checkpoints."""
    with storage.explained(folder):
        return not is_model(folder / "model") and any((folder / name).is_dir() for name in ("stages", "ema"))


def _check_files(folder: Path, sizes: dict[str, int]) -> None:
    """Refuse missing and cut files here, because Orbax answers to them with faults in its threads that outlive the call."""
    found = storage.file_sizes(folder)
    damaged = sorted(name for name in sizes if found.get(name) != sizes[name])
    first = damaged[0] if damaged else ""
    require(
        not damaged,
        f"{folder} is not a complete checkpoint: {len(damaged)} files are missing or cut off, first {first}",
    )


def _restore(folder: Path, expected: dict, shardings: Any) -> dict:
    """The parameters of a part; `shardings` is one for all, or a tree like `expected`."""
    with _checkpointer() as checkpointer:
        try:
            stored = checkpointer.metadata(storage.absolute(folder)).item_metadata
            stored = traverse_util.flatten_dict(dict(stored), sep="/")
        except Exception as error:  # Orbax reports damage by exceptions of many kinds
            raise ConfigError(f"{folder} is not a complete checkpoint: {first_line(error)}") from None
        shapes = traverse_util.flatten_dict(expected, sep="/")
        wrong = [name for name in shapes if name in stored and tuple(stored[name].shape) != shapes[name].shape]
        wrong += sorted(set(stored) ^ set(shapes))
        require(
            not wrong,
            f"{folder} holds another architecture than the config.json says: {len(wrong)} parameters differ, "
            f"first {wrong[0] if wrong else ''}",
        )
        try:
            # Where to put them is said here: else Orbax wants the devices that they were saved from.
            places = jax.tree.broadcast(shardings, expected)
            target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), expected, places)
            return checkpointer.restore(storage.absolute(folder), target)
        except Exception as error:
            raise ConfigError(f"{folder} is damaged and cannot be read: {first_line(error)}") from None


def fingerprint(model: Model) -> str:
    """Tells models apart: a digest of the config and of the first values of every parameter."""
    digest = hashlib.sha256(to_json(model.config).encode())
    digest.update(model.tokenizer.model_bytes if model.tokenizer else b"")
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.asarray(leaf.ravel()[:64], np.float32).tobytes())
    return digest.hexdigest()[:16]
