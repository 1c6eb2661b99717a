"""Fingerprints of models and data, by one rule for records of runs, caches, adapters and unfinished videos.

A fingerprint is the beginning of the SHA-256 of everything that its subject depends on. Configs, texts and numbers
enter whole, as JSON. Parameters enter with their names, their shapes, and a grid of at most 4096 values over the whole
of each array, rounded to bfloat16: enough to notice training of any part, quick for the largest models, and the same
for every dtype in which the parameters are loaded. Where the text encoder is not in memory, the record of its files in
the model folder stands for its parameters.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.checkpoints.config_json import plain
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.models.model import Model
from pavdm_jax.models.vae import makes_latents

DIGITS = 16
"""Hexadecimal digits of a fingerprint."""

GRID = 4096
"""The most values of a parameter that enter."""


def fingerprint(*content: Any) -> str:
    """The fingerprint of bytes, JSON values and configs (dataclasses), in this order."""
    made = hashlib.sha256()
    for item in content:
        data = item if isinstance(item, bytes) else json.dumps(item, sort_keys=True, default=plain).encode()
        made.update(f"{len(data)}:".encode() + data)
    return made.hexdigest()[:DIGITS]


def params_fingerprint(params: dict) -> str:
    """The fingerprint of a tree of parameters, whatever their dtype."""
    return _of_parameters(jax.tree.leaves_with_path(params))


def vae_fingerprint(model: Model) -> str:
    """Of the half of a model's VAE that makes latents; its decoder may be trained on without making them again."""
    leaves = jax.tree.leaves_with_path(model.params["vae"])
    encoder = [(path, leaf) for path, leaf in leaves if makes_latents(jax.tree_util.keystr(path))]
    return fingerprint(model.config.vae, _of_parameters(encoder))


def text_fingerprint(model: Model) -> str | None:
    """The fingerprint of a model's text encoder and tokenizer, in memory or in its folder; None if it has neither.

    Raises:
      ConfigError: the model's folder does not exist any more.
    """
    settings = model.config.t5, model.config.text, model.tokenizer.model_bytes if model.tokenizer else b""
    if "t5" in model.params:
        return fingerprint(*settings, params_fingerprint(model.params["t5"]))
    record = open_model(model.folder).parts.get("t5") if model.folder else None
    if record is None:
        return None
    # Converted weights are identified by their source files, because Orbax names its files differently each time.
    source = {name: file["sha256"] for name, file in record.get("source_files", {}).items()}
    return fingerprint(*settings, [source, record["dtype"]] if source else record["files"])


def model_fingerprint(model: Model) -> str:
    """The fingerprint of everything that a model's videos depend on.

    This is its config, its parameters with the dtypes that they have in memory, and its text encoder.
    """
    parts = {part: params for part, params in model.params.items() if part != "t5"}
    dtypes = {part: sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)}) for part, params in parts.items()}
    networks = {part: params_fingerprint(params) for part, params in parts.items()}
    return fingerprint(model.config, networks, dtypes, text_fingerprint(model))


def _of_parameters(leaves: list[tuple[Any, jax.Array]]) -> str:
    names = [(jax.tree_util.keystr(path), list(leaf.shape)) for path, leaf in leaves]
    values = jax.device_get(_grids([leaf for _, leaf in leaves]))
    return fingerprint(names, *(value.astype(np.float32).tobytes() for value in values))


@jax.jit
def _grids(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_grid(leaf).astype(jnp.bfloat16) for leaf in leaves]


def _grid(leaf: jax.Array) -> jax.Array:
    """At most `GRID` values, evenly spaced along every axis; slicing needs no copy of a sharded array."""
    along = int(GRID ** (1 / max(leaf.ndim, 1)) + 1e-9)
    strides = [-(-size // along) for size in leaf.shape]
    return jax.lax.slice(leaf, [0] * leaf.ndim, leaf.shape, strides)
