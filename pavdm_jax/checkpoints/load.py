"""A model from its name: the embedded one, a model folder, or a training run."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.typing import DTypeLike

from pavdm_jax import storage
from pavdm_jax.checkpoints import lora as adapters
from pavdm_jax.checkpoints.config_json import from_json, read_model_config
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.model_folder import ModelFiles, is_embedded, is_model, open_model, restore_part
from pavdm_jax.checkpoints.run_folder import check_base, is_unfinished_run, newest_checkpoint, reason
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.models.model import (
    DTYPES,
    SAMPLING_PARTS,
    Model,
    abstract_params,
    flatten,
    in_dtype,
    part_name,
    unflatten,
)


def load(
    path: str | os.PathLike,
    parts: Sequence[str] = SAMPLING_PARTS,
    shardings: dict | None = None,
    dtype: DTypeLike = "float32",
    lora: str | os.PathLike | None = None,
) -> Model:
    """Load a model.

    Args:
      path: "demo" or "demo-distilled", the embedded models; a model folder, or a training run, perhaps in a bucket,
        gs://BUCKET/NAME. Of a training run it is the finished model, or, before the run is finished, the averaged
        weights of its newest checkpoint; a certain checkpoint is `RUN/stages/NUMBER-STAGE/STEP`.
      parts: which of "transformer", "vae" and "t5" to read; `params` of the result has only these, the transformer by
        the name of its family, "stdit3" or "wan". Generation reads the text encoder itself when it needs it.
      shardings: a tree like `params` of the sharding of each parameter; None, or for parts that it lacks: the first
        device.
      dtype: "float32" or "bfloat16", of the matrices in memory, whatever dtype is stored. See `models.model.in_dtype`
        for what is always float32.
      lora: a file of adapters, or the training run that made them; they are merged into the parameters. Those that are
        given as `path` are merged into the model that they were trained on.

    Raises:
      ConfigError: the folder is missing or incomplete, lacks a part, or its parameters do not fit its config; or the
        dtype is not possible.
    """
    if dtype not in (*DTYPES, *map(jnp.dtype, DTYPES)):
        raise ConfigError(f"dtype {dtype} is not possible; use {' or '.join(DTYPES)}")
    given = () if lora is None else (adapters.find(lora),)
    base, found = adapters.find_base(path)
    files = (*found, *given)
    several = len(files) > 1 or (len(files) == 1 and _is_merged(base))
    model = _load_base(base, parts, shardings, jnp.float32 if several else dtype)
    for file in files:
        model = adapters.apply(model, file)
    return _cast(model, dtype)


def _cast(model: Model, dtype: DTypeLike) -> Model:
    """A model in `dtype`, whose base was loaded in float32: what is merged in bfloat16 is no known base of others."""
    kinds = in_dtype({part: abstract_params(model.config)[part] for part in model.params}, dtype)
    return model.replace(params=jax.tree.map(lambda x, kind: x.astype(kind.dtype), model.params, kinds))


def _is_merged(path: str | os.PathLike) -> bool:
    """Whether a model is adapters and their base, or may be: a checkpoint of a run."""
    return bool(adapters.find_base(path)[1]) or is_unfinished_run(path)


def _load_base(path: str | os.PathLike, parts: Sequence[str], shardings: dict | None, dtype: DTypeLike) -> Model:
    """The model of a model folder or an unfinished run."""
    if is_unfinished_run(path):
        return load_run(storage.as_path(path), parts, shardings, dtype)
    files = open_model(path, parts)
    expected, params = in_dtype(_shapes(files), dtype), {}
    places = {part_name(part, files.config): place for part, place in (shardings or {}).items()}
    for part in (part_name(part, files.config) for part in parts):
        place = places.get(part, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
        params[part] = restore_part(files.folder / "params" / part, expected[part], place)
    folder = str(storage.absolute(files.folder))
    return Model(params, files.config, files.tokenizer, folder, files.trained_with)


def _described(about: dict) -> tuple[AnyModelConfig, float | None, tuple[LevelPattern, ...]]:
    """The config of a checkpoint's model, alpha of its adapters or None, and the levels that it was trained on."""
    config, alpha = read_model_config(about["model"]), about["lora_alpha"]
    patterns = from_json(tuple[LevelPattern, ...], about.get("trained_with", "[]"))
    return config, None if alpha is None else float(alpha), patterns


def _shapes(files: ModelFiles) -> dict:
    """The shapes of all parameters that a model folder's config asks for."""
    try:
        return abstract_params(files.config)
    except (ValueError, TypeError, ArithmeticError, MemoryError) as error:  # sizes that no array can have
        problem = first_line(error)
    raise ConfigError(f"{files.folder / 'config.json'} is damaged: no model has its sizes ({problem})")


def load_run(path: Path, parts: Sequence[str], shardings: dict | None, dtype: DTypeLike) -> Model:
    """The model with the averaged weights (EMA) of a checkpoint of a training run.

    Args:
      path: the run, for its newest checkpoint, or a checkpoint.
      parts, shardings, dtype: see `load`; a text encoder that the run trains is always read.

    Raises:
      ConfigError: there is no checkpoint yet, it is damaged, or the model that the run started from is missing or has
        changed.
    """
    step = path if (path / "ema").is_dir() else newest_checkpoint(path)
    if is_model(step):  # the result of a stage, and the next one has saved nothing yet
        return load(step, parts, shardings, dtype)
    run = storage.absolute(step).parents[2]
    try:
        about = json.loads((step / "about" / "metadata").read_text())
        config, alpha, trained_with = _described(about)
        with contextlib.closing(ocp.StandardCheckpointHandler()) as item:
            ema = epath.Path(storage.absolute(step / "ema"))
            stored = dict(cast(Mapping[str, Any], item.metadata(ema)))
            if any(name.startswith("t5/") for name in stored):  # else generation reads it from the base's folder
                parts = tuple(dict.fromkeys((*parts, "t5")))
            base_path = about["base"] if is_embedded(about["base"]) else storage.resolve(run, about["base"])
            base = load(base_path, parts, shardings, jnp.float32 if _is_merged(base_path) else dtype)
            flat = flatten(base.params)
            # Adapters, and parameters of parts that are not read, have no counterpart in the base.
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device) for name, x in stored.items()}
            like |= {name: ocp.utils.to_shape_dtype_struct(flat[name]) for name in stored if name in flat}
            trained = item.restore(ema, args=ocp.args.StandardRestore(like))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the checkpoint {step} cannot be read: {reason(error)}") from None
    check_base(about, {part: params_fingerprint(params) for part, params in base.params.items()}, step)
    if alpha is None:
        read = [part_name(part, config) for part in parts]
        flat |= {name: x for name, x in trained.items() if name.split("/")[0] in read}
        params = unflatten(flat)
    elif config.transformer_part in base.params:
        params = adapters.merge(base.params, trained, alpha, adapters.exact_product)
    else:
        params = base.params
    return _cast(base.replace(params=params, config=config, trained_with=trained_with), dtype)
