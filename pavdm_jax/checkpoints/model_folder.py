"""Model folders: `config.json`, `spiece.model`, and the parameters of each part in Orbax's format, `params/PART/`.

`parts.json` lists the parts (`parts_json.py`); what it does not list is ignored. On a disk, a folder is written under a
temporary name and renamed, so that it is never incomplete. In a bucket, `parts.json` is written last, and a folder
without it is ignored.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pavdm_jax import storage
from pavdm_jax.checkpoints.config_json import from_json, read_model_config, to_json
from pavdm_jax.checkpoints.parts_json import check_files, describe_files, read_parts
from pavdm_jax.errors import ConfigError, first_line, of_machine
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.models.model import PART_NAMES, Model, flatten, part_name
from pavdm_jax.models.tokenizer import Tokenizer
from pavdm_jax.outputs import lock_file

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

EMBEDDED = Path(__file__).parents[1] / "assets"
"""The folder of the models in the package: `load("demo")` reads `assets/demo`, `load("demo-distilled")` its student."""


def save_model(path: str | os.PathLike, model: Model, dtype: DTypeLike = jnp.float32) -> None:
    """Write a model folder, replacing an older one of the same name.

    Args:
      path: the folder, which may be gs://BUCKET/NAME; its parents are made.
      model: with the parameters to be written.
      dtype: of the stored parameters.

    Raises:
      OSError: it cannot be written.
    """
    with storage.new_folder(storage.as_path(path), last="parts.json") as partial:
        (partial / "config.json").write_text(to_json(model.config) + "\n")
        if model.tokenizer:
            (partial / "spiece.model").write_bytes(model.tokenizer.model_bytes)
        for part, params in model.params.items():
            _save_part(partial / "params" / part, jax.tree.map(lambda x: jnp.asarray(x, dtype), params))
        parts: dict[str, dict] = {part: describe_files(partial / "params" / part) for part in model.params}
        if model.trained_with and (transformer := model.config.transformer_part) in parts:
            parts[transformer]["trained_with"] = [dataclasses.asdict(pattern) for pattern in model.trained_with]
        (partial / "parts.json").write_text(json.dumps(parts, indent=1) + "\n")


def _checkpointer() -> "ocp.StandardCheckpointer":
    """Orbax's checkpointer for this process alone, which does not wait for other processes."""
    import orbax.checkpoint as ocp  # slow to import, and not wanted to find mistakes

    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(own, {own}, f"process-{own}") if jax.process_count() > 1 else None
    return ocp.StandardCheckpointer(multiprocessing_options=alone or ocp.options.MultiprocessingOptions())


def _save_part(folder: Path, params: dict) -> None:
    if jax.process_count() > 1:
        params = jax.device_get(params)  # Orbax takes arrays of one process only as values
    with _checkpointer() as checkpointer:
        checkpointer.save(storage.absolute(folder), params)
    # Orbax writes the path on this machine into it, which must not be published; only its presence is needed.
    (folder / "commit_success.txt").write_text("complete\n")


class ModelFiles(NamedTuple):
    """A model folder before its parameters are read; `parts` is the content of parts.json, by part."""

    folder: Path
    config: AnyModelConfig
    tokenizer: Tokenizer | None
    parts: dict[str, dict]
    trained_with: tuple[LevelPattern, ...]


def open_model(path: str | os.PathLike, parts: Sequence[str] = ()) -> ModelFiles:
    """Find a model, and check that the files of `parts` are complete.

    Args:
      path: see `load.load`.
      parts: those that are needed; "transformer" is that of any family.

    Raises:
      ConfigError: the folder is missing, incomplete or damaged, or lacks a part.
    """
    if not str(path):
        raise ConfigError("the name of the checkpoint is empty; the embedded models are called demo and demo-distilled")
    folder = EMBEDDED / path if is_embedded(path) else storage.as_path(path)
    with storage.cloud_errors(folder):
        if is_model(folder / "model"):
            folder = folder / "model"
        if not folder.is_dir():
            raise ConfigError(f"there is no checkpoint folder {path}; the embedded ones are demo and demo-distilled")
        for name in ("config.json", "parts.json", "params"):
            if not (folder / name).exists():
                raise ConfigError(f"{path} is not a complete checkpoint: {name} is missing from it")
        try:
            config = read_model_config((folder / "config.json").read_text())
            words = folder / "spiece.model"
            tokenizer = Tokenizer(words.read_bytes()) if words.exists() else None
            stored = read_parts(folder / "parts.json")
            patterns = json.dumps(stored.get(config.transformer_part, {}).get("trained_with", []))
            trained_with = from_json(tuple[LevelPattern, ...], patterns)
        except (OSError, ValueError, ArithmeticError, RecursionError) as error:  # ConfigErrors are ValueErrors
            raise ConfigError(f"the checkpoint {path} cannot be read: {first_line(error)}") from None
    parts = [part_name(part, config) for part in parts]
    for part in parts:
        held = f"it holds {', '.join(stored) or 'nothing'}"
        if part not in stored:
            raise ConfigError(f"the checkpoint {path} has no {part}; {held}; pavdm_jax.convert_weights adds parts")
    if "t5" in stored and not tokenizer:
        raise ConfigError(f"{path} is not a complete checkpoint: spiece.model is missing from it")
    if tokenizer is not None and tokenizer.vocab_size > config.t5.vocab_size:
        raise ConfigError(
            f"the tokenizer of {path} has {tokenizer.vocab_size} ids; its text encoder knows {config.t5.vocab_size}"
        )
    for part in parts:
        check_files(folder / "params" / part, stored[part])
    return ModelFiles(folder, config, tokenizer, stored, trained_with)


def is_embedded(path: str | os.PathLike | None) -> bool:
    """Whether `path` is the name of a model in the package."""
    return isinstance(path, str) and path in os.listdir(EMBEDDED)


def check_not_embedded(output: str) -> None:
    """Raise `ConfigError` for an output that would be taken for the model in the package when it is loaded."""
    if is_embedded(os.path.normpath(output)):
        raise ConfigError(f"output {output} is the name of a model in the package, which it would hide; choose another")


def is_model(folder: Path) -> bool:
    """Whether a folder holds a complete model."""
    return (folder / "parts.json").exists()


def restore_part(folder: Path, expected: dict, shardings: Any) -> dict:
    """Read the parameters of a part.

    Args:
      folder: of the part.
      expected: the tree of `jax.ShapeDtypeStruct` to be read.
      shardings: one for all parameters, or a tree like `expected`.

    Raises:
      ConfigError: the part is damaged, or of another architecture.
    """
    with _checkpointer() as checkpointer:
        try:
            stored = checkpointer.metadata(storage.absolute(folder)).item_metadata
            stored = flatten(dict(stored))
        except Exception as error:  # Orbax reports damage by exceptions of many kinds
            raise ConfigError(f"{folder} is not a complete checkpoint: {first_line(error)}") from None
        check_architecture(folder, stored, expected)
        try:
            # Without explicit shardings, Orbax looks for the devices that the parameters were saved from.
            places = jax.tree.broadcast(shardings, expected)
            target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), expected, places)
            return checkpointer.restore(storage.absolute(folder), target)
        except Exception as error:
            raise ConfigError(f"{folder} is damaged and cannot be read: {first_line(error)}") from None


def check_architecture(folder: Path, stored: Mapping[str, Any], expected: dict) -> None:
    """Raise `ConfigError` unless the arrays `stored` in a part, by name, have the shapes of the tree `expected`."""
    shapes = flatten(expected)
    wrong = [name for name in shapes if name in stored and tuple(stored[name].shape) != shapes[name].shape]
    wrong += sorted(set(stored) ^ set(shapes))
    if wrong:
        raise ConfigError(
            f"{folder} holds another architecture than the config.json says: {len(wrong)} parameters differ, "
            f"first {wrong[0]}"
        )


FILES = ("config.json", "parts.json")


class ModelFolder:
    """A model folder that parts are being added to; a context. Parts grow in `stage`, beside it, and come in with
    `commit`.

    Attributes:
      config: of the model that is there, or None.
      parts: what parts.json says about the parts that are there.
      stage: the hidden folder beside it; leaving the context deletes it, and so does the next run after a kill.

    Raises:
      ConfigError: `path` is something else than a model folder, or another process is adding to it.
    """

    def __init__(self, path: Path):
        self.path = path.absolute()
        if not self.path.name:
            raise ConfigError(f"{path} has no name of its own; give a folder in it")
        self.stage = self.path.with_name(f".{self.path.name}.converting")
        self._lock_path = self.stage.with_name(self.stage.name + ".lock")

    def __enter__(self) -> "ModelFolder":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(self._lock_path)
        except BlockingIOError:
            raise ConfigError(f"another process is converting weights into {self.path.name}; wait for it") from None
        except OSError as error:
            raise of_machine(error, f"{self.path.parent} cannot be written: {error.strerror}") from None
        try:
            self.config, self.parts = self._read()  # only now, when no other process adds parts any more
            shutil.rmtree(self.stage, ignore_errors=True)
            self.stage.mkdir()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._lock_path.unlink()  # before the lock is given up: `lock_file` sees that it has lost its name
        self._lock.close()

    def _read(self) -> tuple[AnyModelConfig | None, dict]:
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return None, {}
        is_model = all((self.path / name).is_file() for name in FILES)
        if not is_model:
            raise ConfigError(f"--output {self.path.name} exists and is not a model folder; choose another name")
        links = [
            name for name in ("params", *(f"params/{part}" for part in PART_NAMES)) if (self.path / name).is_symlink()
        ]
        if links:
            raise ConfigError(
                f"--output {self.path.name} has a symbolic link, {links[0]}, through which another model would be "
                "changed; copy the folder, or choose another name"
            )
        try:
            config = read_model_config((self.path / "config.json").read_text())
            parts = read_parts(self.path / "parts.json")
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise ConfigError(f"--output {self.path.name} is a damaged model folder: {str(error)[:200]}") from None
        return config, parts

    def check_space(self, needed: int) -> None:
        """Refuse to begin what the disk cannot hold; `needed` is in bytes.

        Raises:
          ConfigError: too little space.
        """
        free = shutil.disk_usage(self.stage).free
        if needed >= free:
            raise ConfigError(
                f"{needed / 1e9:.1f} GB are needed in {self.path.parent}, {free / 1e9:.1f} GB are free; "
                "free some space, or choose another --output or --dtype bfloat16"
            )

    def commit(self, config: AnyModelConfig, records: dict[str, dict], tokenizer: bytes | None) -> None:
        """Take the staged parts in.

        Args:
          config: of the whole model.
          records: what to note about each staged part in parts.json.
          tokenizer: the content of spiece.model, or None to leave it as it is.
        """
        records = {part: describe_files(self.stage / part) | record for part, record in records.items()}
        try:
            if self.config is None:
                self._create(config, records, tokenizer)
            else:
                self._add(config, records, tokenizer)
        except OSError as error:
            problem = f"{self.path.name} cannot be written: {error.strerror}"
            raise of_machine(error, f"{problem}; run the same command again") from None

    def _create(self, config: AnyModelConfig, records: dict[str, dict], tokenizer: bytes | None) -> None:
        """A new folder appears with one rename."""
        whole = self.stage / "whole"
        (whole / "params").mkdir(parents=True)
        for part in records:
            (self.stage / part).rename(whole / "params" / part)
        (whole / "config.json").write_text(to_json(config) + "\n")
        (whole / "parts.json").write_text(json.dumps(records, indent=1) + "\n")
        if tokenizer is not None:
            (whole / "spiece.model").write_bytes(tokenizer)
        whole.rename(self.path)

    def _add(self, config: AnyModelConfig, records: dict[str, dict], tokenizer: bytes | None) -> None:
        """Replaced parts leave parts.json first, and new ones enter it last: the listed parts are always complete.

        Between the two are renames only; the old parts are deleted with the stage.
        """
        kept = {part: record for part, record in self.parts.items() if part not in records}
        if len(kept) < len(self.parts):
            storage.write(self.path / "parts.json", json.dumps(kept, indent=1).encode())
        replaced = self.stage / "replaced"
        replaced.mkdir()
        for part in records:
            target = self.path / "params" / part
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target.rename(replaced / part)
            (self.stage / part).rename(target)
        if tokenizer is not None:
            storage.write(self.path / "spiece.model", tokenizer)
        storage.write(self.path / "config.json", to_json(config).encode() + b"\n")
        storage.write(self.path / "parts.json", json.dumps(kept | records, indent=1).encode() + b"\n")
