"""LoRA (arXiv 2106.09685): a finetune as small low-rank factors of frozen weights, in a file of its own.

Adapters are a flat dict: "PATH/kernel/a" `[..., in, rank]` and "PATH/kernel/b" `[..., rank, out]` for a kernel
`[..., in, out]` of the model (stacked blocks keep their leading axis), which becomes kernel + alpha / rank · a @ b. The
networks have no code for them: they are merged into the parameters when a model is loaded and, differentiably, in every
training step.
"""

import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import safetensors.numpy

from pavdm_jax import storage
from pavdm_jax.checkpoints.config_json import from_json, to_json
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import TRANSFORMER_PARTS
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.models.model import Model, flatten, unflatten

SUFFIX = ".safetensors"

FILE = f"lora{SUFFIX}"
"""The name of the file of adapters in the folder of a training run."""


def init_adapters(key: jax.Array, params: dict, layers: tuple[str, ...], rank: int) -> dict[str, jax.Array]:
    """Adapters that do not change the model yet: a is random, b is zero.

    Args:
      key: one PRNG key.
      params: parameters by slash-separated path; the kernels of `layers` among them are adapted.
      layers: names of layers, such as "qkv".
      rank: of the factors.

    Raises:
      ConfigError: a layer does not exist, or is outside the transformer.
    """
    kernels = {name: x for name, x in params.items() if name.endswith("/kernel") and name.split("/")[-2] in layers}
    missing = sorted(set(layers) - {name.split("/")[-2] for name in kernels})
    present = sorted({name.split("/")[-2] for name in params if name.endswith("/kernel")})
    if missing:
        raise ConfigError(
            f"lora.layers names '{', '.join(missing)}', which train does not; it has {', '.join(present)}"
        )
    outside = [name for name in kernels if name.split("/")[0] not in TRANSFORMER_PARTS]
    if outside:
        raise ConfigError(
            f"LoRA adapts the transformer only; let train begin with {' or '.join(TRANSFORMER_PARTS)}, not "
            f"'{outside[0]}'"
        )
    adapters = {}
    for number, (name, kernel) in enumerate(sorted(kernels.items())):
        *stack, fan_in, fan_out = kernel.shape
        a = jax.random.normal(jax.random.fold_in(key, number), (*stack, fan_in, rank)) / jnp.sqrt(fan_in)
        adapters |= {f"{name}/a": a, f"{name}/b": jnp.zeros((*stack, rank, fan_out))}
    return adapters


def merge(params: dict, adapters: dict[str, jax.Array], alpha: float) -> dict:
    """The parameter tree with the adapters merged into its kernels.

    Raises:
      ConfigError: an adapter has no kernel of its size.
    """
    flat = flatten(params)
    for name in sorted({name.removesuffix("/a").removesuffix("/b") for name in adapters}):
        a, b = adapters[f"{name}/a"], adapters[f"{name}/b"]
        shape = (*a.shape[:-1], b.shape[-1])
        if name not in flat or flat[name].shape != shape:
            raise ConfigError(
                f"the LoRA adapters are for another architecture: {name} {list(shape)} is not in this model"
            )
        flat[name] = (flat[name] + alpha / a.shape[-1] * (a @ b)).astype(flat[name].dtype)
    return unflatten(flat)


def save(
    path: Path,
    adapters: dict[str, jax.Array],
    alpha: float,
    base: dict,
    trained_with: tuple[LevelPattern, ...] = (),
) -> None:
    """Write the adapters of a model with parameters `base` to a file, atomically.

    Raises:
      OSError: it cannot be written.
    """
    transformer = next(base[part] for part in TRANSFORMER_PARTS if part in base)
    metadata = {"alpha": repr(float(alpha)), "base_fingerprint": params_fingerprint(transformer)}
    metadata["trained_with"] = to_json(trained_with)
    storage.write(path, safetensors.numpy.save(jax.device_get(adapters), metadata))


def find(path: str | os.PathLike) -> Path:
    """The file of adapters: `path`, or in the folder `path` of a training run.

    Raises:
      ConfigError: there is none.
    """
    path = storage.as_path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there are no LoRA adapters {file}; a training run writes them when it is finished")
    return file


def apply(model: Model, path: str | os.PathLike) -> Model:
    """`model` with the adapters of a file, or of the folder of a training run, merged into it.

    Raises:
      ConfigError: no such file, it is damaged, or its adapters belong to another model.
    """
    file = find(path)
    try:
        with safetensors.safe_open(storage.local_copy(file), "np") as opened:
            metadata = opened.metadata() or {}
            adapters = {name: jnp.asarray(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
        alpha, base = float(metadata["alpha"]), metadata.get("base_fingerprint")
        trained_with = from_json(tuple[LevelPattern, ...], metadata.get("trained_with", "[]"))
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{file} is not a file of LoRA adapters: {type(error).__name__}: {error}") from None
    _check(file, adapters, alpha)
    if base is None:
        raise ConfigError(f"the LoRA adapters {file} do not say which model they are for; train them again")
    if base != params_fingerprint(model.transformer):
        raise ConfigError(
            f"the LoRA adapters {file} were trained on another model than this {model.config.name}; give --checkpoint "
            "their base"
        )
    return model.replace(params=merge(model.params, adapters, alpha), trained_with=trained_with)


def _check(file: Path, adapters: dict[str, jax.Array], alpha: float) -> None:
    """Refuse a file whose adapters would do nothing, or harm."""
    if not adapters:
        raise ConfigError(f"the LoRA adapters {file} are none: the file is empty; train them again")
    if not math.isfinite(alpha):
        raise ConfigError(f"the LoRA adapters {file} have alpha {alpha}; they are damaged")
    for name, factor in adapters.items():
        kernel = name.removesuffix("/a").removesuffix("/b")
        a, b = adapters.get(f"{kernel}/a"), adapters.get(f"{kernel}/b")
        if a is None or b is None or a.ndim < 2 or b.ndim != a.ndim or not 0 < a.shape[-1] == b.shape[-2]:
            raise ConfigError(
                f"the LoRA adapters {file} have no two factors of one rank for {kernel}; train them again"
            )
        if not bool(jnp.isfinite(factor).all()):
            raise ConfigError(f"the LoRA adapters {file} are not finite: {name}; the training that made them diverged")
