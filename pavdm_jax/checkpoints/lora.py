"""LoRA (arXiv 2106.09685): a finetune as small low-rank factors of frozen weights, in a file of its own.

Adapters are a flat dict: "PATH/kernel/a" `[..., in, rank]` and "PATH/kernel/b" `[..., rank, out]` for a kernel
`[..., in, out]` of the model (stacked blocks keep their leading axis), which becomes kernel + alpha / rank · a @ b. The
networks have no code for them: they are merged into the parameters when a model is loaded and, differentiably, in every
training step. A file of adapters says where its base is, so that it can be given in place of a model.
"""

import json
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.typing import DTypeLike

from pavdm_jax import storage
from pavdm_jax.checkpoints.config_json import from_json, read_model_config, to_json
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.model_folder import EMBEDDED, is_embedded
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import TRANSFORMER_PARTS, AnyModelConfig, networks_of
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.models.model import Model, flatten, unflatten

SUFFIX = ".safetensors"

FILE = f"lora{SUFFIX}"
"""The name of the file of adapters in the folder of a training run."""


class Adapters(NamedTuple):
    """What a file of adapters holds.

    Attributes:
      factors: the adapters, as described above.
      alpha: their strength, see above.
      fingerprint: of the base's transformer.
      base: where the base is, a model in the package by its name, or a path as `storage.reference` writes it; None in
        files of earlier versions.
      config: of the model that they make of the base, with its defaults of sampling; None in files of earlier versions.
      trained_with: see `Model`.
    """

    factors: dict[str, jax.Array]
    alpha: float
    fingerprint: str
    base: str | None = None
    config: AnyModelConfig | None = None
    trained_with: tuple[LevelPattern, ...] = ()


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


def merge(
    params: dict,
    factors: dict[str, jax.Array],
    alpha: float,
    product: Callable[[jax.Array, jax.Array], jax.Array | np.ndarray] = jnp.matmul,
) -> dict:
    """The parameter tree with the adapters merged into its kernels; differentiable, with the default `product`.

    Raises:
      ConfigError: an adapter has no kernel of its size.
    """
    flat = flatten(params)
    for name in sorted({name.removesuffix("/a").removesuffix("/b") for name in factors}):
        a, b = factors[f"{name}/a"], factors[f"{name}/b"]
        shape = (*a.shape[:-1], b.shape[-1])
        if name not in flat or flat[name].shape != shape:
            raise ConfigError(
                f"the LoRA adapters are for another architecture: {name} {list(shape)} is not in this model"
            )
        flat[name] = (flat[name] + alpha / a.shape[-1] * product(a, b)).astype(flat[name].dtype)
    return unflatten(flat)


def exact_product(a: jax.Array, b: jax.Array) -> np.ndarray:
    """a @ b in float32, the same on every machine, so that a merged model has one fingerprint."""
    result = np.empty((*a.shape[:-1], b.shape[-1]), np.float32)
    left, right = np.asarray(a), np.asarray(b)
    for layer in np.ndindex(a.shape[:-2]):  # one by one, as float64 takes twice the memory
        result[layer] = left[layer].astype(np.float64) @ right[layer].astype(np.float64)
    return result


def save(path: Path, adapters: Adapters, dtype: DTypeLike = jnp.float32) -> None:
    """Write a file of adapters, atomically; `dtype` is that of the stored factors.

    Raises:
      OSError: it cannot be written.
    """
    factors = {name: np.asarray(jax.device_get(x)).astype(dtype) for name, x in adapters.factors.items()}
    metadata = {"alpha": repr(float(adapters.alpha)), "base_fingerprint": adapters.fingerprint}
    metadata["trained_with"] = to_json(adapters.trained_with)
    if adapters.base is not None:
        metadata["base"] = adapters.base
    if adapters.config is not None:
        metadata["model"] = to_json(adapters.config)
    storage.write(path, safetensors.numpy.save(factors, metadata | {"crc32": _checksum(factors, metadata)}))


def find(path: str | os.PathLike) -> Path:
    """The file of adapters: `path`, or in the folder `path` of a training run.

    Raises:
      ConfigError: there is none.
    """
    path = _folder(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there are no LoRA adapters {file}; a training run writes them when it is finished")
    return file


def read(file: Path) -> Adapters:
    """Read a file of adapters.

    Raises:
      ConfigError: it is none, is damaged, or its adapters would do nothing, or harm.
    """
    try:
        with safetensors.safe_open(storage.local_copy(file), "np") as opened:
            said = opened.metadata() or {}
            factors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        patterns = from_json(tuple[LevelPattern, ...], said.get("trained_with", "[]"))
        config = read_model_config(said["model"]) if "model" in said else None
        fingerprint, alpha = said.get("base_fingerprint"), float(said["alpha"])
    except (
        safetensors.SafetensorError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,  # of a dtype that NumPy does not have
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ConfigError(f"{file} is not a file of LoRA adapters: {type(error).__name__}: {error}") from None
    checksum = _checksum(factors, {name: text for name, text in said.items() if name != "crc32"})
    if said.get("crc32", checksum) != checksum:
        raise ConfigError(f"the LoRA adapters {file} are damaged: their checksum is {checksum}, not {said['crc32']}")
    _check(file, factors, alpha)
    if fingerprint is None:
        raise ConfigError(f"the LoRA adapters {file} do not say which model they are for; train them again")
    return Adapters(
        {n: jnp.asarray(x) for n, x in factors.items()}, alpha, fingerprint, said.get("base"), config, patterns
    )


def in_place_of_model(path: str | os.PathLike) -> Path | None:
    """The file of adapters, if `path` is one, or a folder with one and without a model; else None."""
    folder = _folder(path)
    with storage.cloud_errors(folder):
        if not folder.is_dir():
            return folder if folder.suffix == SUFFIX and folder.exists() else None
        models = (folder / "config.json", folder / "model" / "config.json")
        return folder / FILE if (folder / FILE).exists() and not any(model.exists() for model in models) else None


def _folder(path: str | os.PathLike) -> Path:
    return EMBEDDED / path if is_embedded(path) else storage.as_path(path)


def find_base(path: str | os.PathLike) -> tuple[str | os.PathLike, tuple[Path, ...]]:
    """A model, and the files of adapters that make it the model `path`, in the order in which they are merged.

    Raises:
      ConfigError: `path` holds adapters that do not say what they change, are damaged, or lead to no model.
    """
    files: list[Path] = []
    while (file := in_place_of_model(path)) is not None:
        if os.path.normpath(file) in map(os.path.normpath, files):
            raise ConfigError(f"the LoRA adapters {file} name themselves as the model that they change")
        base = read(file).base
        if base is not None and not is_embedded(base):
            base = storage.resolve(file.parent, base)
        if base is None or (isinstance(base, Path) and not base.exists()):
            missing = "" if base is None else f", and their base {base} is not there"
            raise ConfigError(
                f"{path} holds LoRA adapters, no model{missing}; give the model that they change, too: --checkpoint "
                f"BASE --lora {path}"
            )
        files.append(file)
        path = base
    return path, tuple(reversed(files))


def apply(model: Model, path: str | os.PathLike) -> Model:
    """`model` with the adapters of a file, or of the folder of a training run, merged into its transformer.

    Its config becomes that of the training, so that it is sampled as it was trained; a transformer that is not among
    its parameters is left out.

    Raises:
      ConfigError: no such file, it is damaged, or its adapters belong to another model.
    """
    file = find(path)
    found = read(file)
    if found.config is not None:
        if networks_of(found.config) != networks_of(model.config):
            raise ConfigError(f"the LoRA adapters {file} are of another architecture than this {model.config.name}")
        model = model.replace(config=found.config)
    if model.config.transformer_part in model.params:
        if found.fingerprint != params_fingerprint(model.transformer):
            raise ConfigError(
                f"the LoRA adapters {file} were trained on another model than this {model.config.name}; give "
                "--checkpoint their base"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # it is told below, by the file's name
            params = merge(model.params, found.factors, found.alpha, exact_product)
        merged = flatten(params)
        for name in sorted({factor.rsplit("/", 1)[0] for factor in found.factors}):
            if not bool(jnp.isfinite(merged[name]).all()):
                raise ConfigError(f"the LoRA adapters {file} are too large: {name} is not finite with them")
        model = model.replace(params=params)
    return model.replace(trained_with=found.trained_with)


def _checksum(factors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """Of the values of all factors and of all texts beside them, which safetensors does not check."""
    value = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(factors):
        value = zlib.crc32(np.ascontiguousarray(factors[name]).view(np.uint8).data, value)
    return f"{value:08x}"


def _fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two factors, or stacks of as many, have one rank."""
    return len(a) == len(b) >= 2 and a[:-2] == b[:-2] and 0 < a[-1] == b[-2]


def _check(file: Path, factors: dict[str, np.ndarray], alpha: float) -> None:
    """Refuse a file whose adapters would do nothing, or harm."""
    if not factors:
        raise ConfigError(f"the LoRA adapters {file} are none: the file is empty; train them again")
    if not math.isfinite(alpha) or alpha == 0:
        raise ConfigError(f"the LoRA adapters {file} have alpha {alpha}; they are damaged, or do nothing")
    for name, factor in factors.items():
        kernel = name.removesuffix("/a").removesuffix("/b")
        a, b = factors.get(f"{kernel}/a"), factors.get(f"{kernel}/b")
        if a is None or b is None or not _fit(a.shape, b.shape):
            raise ConfigError(
                f"the LoRA adapters {file} have no two factors of one rank for {kernel}; train them again"
            )
        if not np.isfinite(factor).all():
            raise ConfigError(f"the LoRA adapters {file} are not finite: {name}; the training that made them diverged")
