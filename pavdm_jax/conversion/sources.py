"""Opens weights in all published layouts: finds their files, and the names of their tensors."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pavdm_jax.conversion.tensor_files import SafetensorsFile, TensorFile, TensorInfo
from pavdm_jax.errors import ConfigError, first_line

PICKLES = (".bin", ".pt", ".pth", ".ckpt")

SHARD = re.compile(r"(?P<stem>.*)-(?P<k>\d{5})-of-(?P<n>\d{5})(?P<ending>\.safetensors|\.bin)")

PREFIXES = ("module.", "_orig_mod.", "state_dict.", "model.", "ema.")
"""Prefixes that trainers add to all names."""

TOKENIZERS = ("spiece.model", "google/umt5-xxl/spiece.model", "../tokenizer/spiece.model")
"""Where a tokenizer may be, from the folder of a text encoder: beside it, or as in both layouts of SkyReels-V2."""

IN_ORIGINAL = {"vae": "Wan2.1_VAE.pth", "t5": "models_t5_umt5-xxl-enc-bf16.pth"}
IN_DIFFUSERS = {"transformer": "transformer", "vae": "vae", "t5": "text_encoder"}
"""The parts of a repository of SkyReels-V2 in its two layouts, in which all are in one folder."""

MAX_JSON = 50_000_000  # bytes; the index of a published checkpoint has some hundred thousand


@dataclass
class Weights:
    """All files of one network.

    Attributes:
      label: for messages and records: the name of the repository, folder or file; never a path of this machine.
      files: the open files.
      config: the content of the config.json in their folder, or empty.
      tokenizer: the spiece.model in their folder, or None.
      places: name without a trainer's prefix → its file and the name in it, in the order of the files.
      commit: of the repository, where the files were downloaded.
    """

    label: str
    files: list[TensorFile]
    config: Mapping[str, Any]
    tokenizer: Path | None
    places: dict[str, tuple[TensorFile, str]]
    commit: str | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by name."""
        return {name: file.tensors[raw].shape for name, (file, raw) in self.places.items()}

    def info(self, name: str) -> TensorInfo:
        """Shape, dtype and size of a tensor."""
        file, raw = self.places[name]
        return file.tensors[raw]


def open_weights(path: Path, label: str = "", commit: str | None = None) -> Weights:
    """Open weights in any of the known layouts.

    Args:
      path: a file, or a folder: of a published repository, of an Open-Sora training run's checkpoint, or with one file
        of weights.
      label: see `Weights`; by default the name of the folder or file.
      commit: see `Weights`.

    Raises:
      ConfigError: there are no weights or several ones, shards are missing, or files are damaged or unsafe.
    """
    if not path.exists():
        raise ConfigError(f"there is no file or folder {path}")
    paths = find_files(path)
    files = [_open_file(file) for file in paths]
    places: dict[str, tuple[TensorFile, str]] = {}
    for file in files:
        for raw in file.tensors:
            if raw in places:
                raise ConfigError(f"the tensor {raw} is in two files, {file.path.name} and another")
            places[raw] = file, raw
    if not places:
        raise ConfigError(f"{path.name} holds no tensors")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in places)), ""):
        places = {name.removeprefix(prefix): place for name, place in places.items()}
    folder = paths[0].parent
    words = (folder / place for place in TOKENIZERS)
    tokenizer = next((file for file in words if file.is_file()), folder / TOKENIZERS[0])
    return Weights(
        label=label or path.resolve().name,
        files=files,
        config=_read_json(folder / "config.json") if (folder / "config.json").is_file() else {},
        tokenizer=tokenizer if tokenizer.is_file() else None,
        places=places,
        commit=commit,
    )


def part_of(folder: Path, part: str) -> Path:
    """The weights of a part ("transformer", "vae" or "t5") in a folder with all parts of SkyReels-V2; else the path."""
    if (folder / "model_index.json").is_file():
        return folder / IN_DIFFUSERS[part]
    whole = folder / IN_ORIGINAL.get(part, "")
    return whole if whole.is_file() else folder


def find_files(path: Path) -> list[Path]:
    """The weight files of a path, in order; arguments and errors are those of `open_weights`."""
    if path.is_file():
        return _indexed(path) if path.name.endswith(".index.json") else [path]
    names = sorted(entry.name for entry in path.iterdir())
    for kind in (("safetensors",), tuple(ending[1:] for ending in PICKLES)):
        index = [name for name in names if name.endswith(tuple(f".{ending}.index.json" for ending in kind))]
        if index:
            return _indexed(path / _only(path, index))
        found = [name for name in names if name.endswith(tuple(f".{ending}" for ending in kind))]
        if "ema.pt" in found:  # of an Open-Sora training run: the averaged weights, which are the ones to use
            return [path / "ema.pt"]
        shards = [match for name in found if (match := SHARD.fullmatch(name))]
        if shards and len(shards) == len(found):
            wanted = [
                f"{shards[0]['stem']}-{k:05}-of-{shards[0]['n']}{shards[0]['ending']}"
                for k in range(1, int(shards[0]["n"]) + 1)
            ]
            missing = [name for name in wanted if name not in found]
            if missing:
                raise ConfigError(f"{path.name} lacks {len(missing)} of {len(wanted)} shards, first {missing[0]}")
            return [path / name for name in wanted]
        if found:
            return [path / _only(path, found)]
    if (path / "model").is_dir():
        return find_files(path / "model")
    runs = [name for name in names if re.fullmatch(r"epoch\d+-global_step\d+", name)]
    latest = max(runs, key=lambda name: int(name.rpartition("step")[2]), default="")
    if runs:
        raise ConfigError(
            f"{path.name} holds {len(runs)} checkpoints of a training run; give one, for instance {path / latest}"
        )
    raise ConfigError(
        f"there are no weights in {path}; expected *.safetensors, or pytorch_model*.bin, or an Open-Sora checkpoint's "
        "ema.pt"
    )


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1:
        raise ConfigError(f"{path} holds several sets of weights ({', '.join(names[:4])}); give one of these files")
    return names[0]


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names, which must be in the same folder."""
    table = _read_json(index).get("weight_map")
    names = list(dict.fromkeys(table.values())) if isinstance(table, dict) else []
    plain = all(isinstance(name, str) and Path(name).name == name for name in names)
    if not names or not plain:
        raise ConfigError(f"{index.name} is not an index of weight files: weight_map is missing or malformed")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ConfigError(
            f"{index.name} names {len(names)} shards; missing: {', '.join(missing[:4])}; download it again"
        )
    return [index.parent / name for name in names]


def _open_file(path: Path) -> TensorFile:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix not in PICKLES:
        raise ConfigError(f"{path.name} is no file of weights; known are .safetensors, {', '.join(PICKLES)}")
    from pavdm_jax.conversion.pickles import PickleFile

    return PickleFile(path)


def _read_json(path: Path) -> dict:
    if path.stat().st_size > MAX_JSON:
        raise ConfigError(f"{path.name} is too large to be a JSON description of weights")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path.name} is not JSON: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} is not a JSON object")
    return value
