"""Models on disk: a folder with `config.json`, `spiece.model`, the parameters in Orbax's format under `params/`, and the sizes of its
files in `files.json`.

A folder is written beside its final name and renamed, so that it is whole or absent.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from pavdm_jax.config import ConfigError, ModelConfig, from_json, require, to_json
from pavdm_jax.model import Model, abstract_params
from pavdm_jax.text import Tokenizer

EMBEDDED = Path(__file__).parent / "assets"
"""Models that come with the package; `load("demo")` finds `assets/demo`."""


def save_model(path: str | os.PathLike, model: Model, dtype: jnp.dtype = jnp.float32) -> None:
    """Write a model folder, replacing an older one of the same name.

    Args:
      path: the folder; its parents are made.
      dtype: how the parameters are stored; `load` gives float32 back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        (partial / "config.json").write_text(to_json(model.config) + "\n")
        (partial / "spiece.model").write_bytes(model.tokenizer.model_bytes)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(
                partial.absolute() / "params", jax.tree.map(lambda x: jnp.asarray(x, dtype), model.params)
            )
        # Orbax notes there where the folder was made, which is nobody's business; its presence is what counts.
        (partial / "params" / "commit_success.txt").write_text("complete\n")
        (partial / "files.json").write_text(json.dumps(_file_sizes(partial / "params"), indent=1) + "\n")
        partial.chmod(0o755)
        older = partial.with_name(partial.name + ".older")
        if path.exists():
            path.rename(older)
        partial.rename(path)
        shutil.rmtree(older, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load(path: str | os.PathLike) -> Model:
    """Read a model: "demo" for the embedded one, a folder written by `save_model`, or the folder of a finished training run.

    Raises:
      ConfigError: the folder is missing, incomplete, or holds parameters of another architecture than its config says.
    """
    folder = EMBEDDED / path if isinstance(path, str) and (EMBEDDED / path / "config.json").exists() else Path(path)
    if (folder / "model" / "config.json").exists():
        folder = folder / "model"
    require(folder.is_dir(), f"there is no checkpoint folder {path}; the embedded model is called 'demo'")
    for name in ("config.json", "spiece.model", "files.json", "params"):
        require((folder / name).exists(), f"{path} is not a complete checkpoint: {name} is missing from it")
    try:
        config = from_json(ModelConfig, (folder / "config.json").read_text())
        tokenizer = Tokenizer((folder / "spiece.model").read_bytes())
        sizes = json.loads((folder / "files.json").read_text())
    except (OSError, ValueError, ArithmeticError) as error:  # ConfigError and bad text are ValueErrors
        raise ConfigError(f"the checkpoint {path} cannot be read: {_first_line(error)}") from None
    # Checked here, because Orbax answers to a missing file with faults in its threads that outlive the call.
    found = _file_sizes(folder / "params")
    damaged = sorted(name for name in sizes if found.get(name) != sizes[name])
    require(
        not damaged,
        f"{path} is not a complete checkpoint: {len(damaged)} files are missing or cut off, first params/{damaged[0] if damaged else ''}",
    )
    require(
        tokenizer.vocab_size <= config.t5.vocab_size,
        f"the tokenizer of {path} has {tokenizer.vocab_size} ids; its text encoder knows {config.t5.vocab_size}",
    )
    return Model(params=_restore(folder / "params", config), config=config, tokenizer=tokenizer)


def _file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its name relative to it."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _restore(folder: Path, config: ModelConfig) -> dict:
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            stored = checkpointer.metadata(folder.absolute()).item_metadata
            stored = traverse_util.flatten_dict(dict(stored), sep="/")
        except Exception as error:  # Orbax reports damage by exceptions of many kinds
            raise ConfigError(f"{folder} is not a complete checkpoint: {_first_line(error)}") from None
        expected = traverse_util.flatten_dict(abstract_params(config), sep="/")
        wrong = [name for name in expected if name in stored and tuple(stored[name].shape) != expected[name].shape]
        wrong += sorted(set(stored) ^ set(expected))
        require(
            not wrong,
            f"{folder} holds another architecture than its config.json says: {len(wrong)} parameters differ, "
            f"first {wrong[0] if wrong else ''}",
        )
        try:
            # Where to put them is said here: else Orbax wants the devices that they were saved from.
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            target = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract_params(config)
            )
            return checkpointer.restore(folder.absolute(), target)
        except Exception as error:
            raise ConfigError(f"{folder} is damaged and cannot be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def fingerprint(model: Model) -> str:
    """Tells models apart: a digest of the config and of the first values of every parameter."""
    digest = hashlib.sha256(to_json(model.config).encode() + model.tokenizer.model_bytes)
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.asarray(leaf.ravel()[:64], np.float32).tobytes())
    return digest.hexdigest()[:16]
