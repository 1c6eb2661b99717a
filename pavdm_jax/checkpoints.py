"""Models on disk: a folder with `config.json`, `spiece.model` and the parameters in Orbax's format under `params/`.

A folder is written beside its final name and renamed, so that it is whole or absent.
"""

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
        partial.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
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
    for name in ("config.json", "spiece.model", "params"):
        require((folder / name).exists(), f"{path} is not a complete checkpoint: {name} is missing from it")
    config = from_json(ModelConfig, (folder / "config.json").read_text())
    return Model(
        params=_restore(folder / "params", config),
        config=config,
        tokenizer=Tokenizer((folder / "spiece.model").read_bytes()),
    )


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
            return checkpointer.restore(folder.absolute(), abstract_params(config))
        except Exception as error:
            raise ConfigError(f"{folder} is damaged and cannot be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def count_parameters(params: dict) -> int:
    """The number of values in a parameter tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
