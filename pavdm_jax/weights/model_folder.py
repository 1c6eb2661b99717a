"""Adding parts to a model folder so that it is whole at every moment, whenever the process is killed."""

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

from pavdm_jax import storage
from pavdm_jax.config import ConfigError, ModelConfig, from_json, require, to_json

FILES = ("config.json", "parts.json")


class ModelFolder:
    """A model folder that parts are being added to; a context. Parts grow in `stage`, beside it, and come in with `commit`.

    Attributes:
      config: of the model that is there, or None.
      parts: what parts.json says about the parts that are there.
      stage: the hidden folder beside it; leaving the context deletes it, and so does the next run after a kill.

    Raises:
      ConfigError: `path` is something else than a model folder, or another process is adding to it.
    """

    def __init__(self, path: Path):
        self.path = path.absolute()
        self.stage = self.path.with_name(f".{self.path.name}.converting")

    def __enter__(self) -> "ModelFolder":
        self.config, self.parts = self._read()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.stage.with_name(self.stage.name + ".lock"), "w")
        except OSError as error:
            raise ConfigError(f"{self.path.parent} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ConfigError(f"another process is converting weights into {self.path.name}; wait for it") from None
        shutil.rmtree(self.stage, ignore_errors=True)
        self.stage.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self._lock.name)
        self._lock.close()

    def _read(self) -> tuple[ModelConfig | None, dict]:
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return None, {}
        is_model = all((self.path / name).is_file() for name in FILES)
        require(is_model, f"--output {self.path.name} exists and is not a model folder; choose another name")
        try:
            config = from_json(ModelConfig, (self.path / "config.json").read_text())
            parts = json.loads((self.path / "parts.json").read_text())
        except ValueError as error:
            raise ConfigError(f"--output {self.path.name} is a damaged model folder: {str(error)[:200]}") from None
        return config, parts

    def check_space(self, needed: int) -> None:
        """Refuse to begin what the disk cannot hold; `needed` is in bytes.

        Raises:
          ConfigError: too little space.
        """
        free = shutil.disk_usage(self.stage).free
        require(
            needed < free,
            f"{needed / 1e9:.1f} GB are needed in {self.path.parent}, {free / 1e9:.1f} GB are free; "
            "free some space, or choose another --output or --dtype bfloat16",
        )

    def commit(self, config: ModelConfig, records: dict[str, dict], tokenizer: bytes | None) -> None:
        """Take the staged parts in.

        Args:
          config: of the whole model.
          records: what to note about each staged part in parts.json.
          tokenizer: the content of spiece.model, or None to leave it as it is.
        """
        records = {part: {"files": storage.file_sizes(self.stage / part), **record} for part, record in records.items()}
        try:
            if self.config is None:
                self._create(config, records, tokenizer)
            else:
                self._add(config, records, tokenizer)
        except OSError as error:
            raise ConfigError(
                f"{self.path.name} cannot be written: {error.strerror}; run the same command again"
            ) from None

    def _create(self, config: ModelConfig, records: dict[str, dict], tokenizer: bytes | None) -> None:
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

    def _add(self, config: ModelConfig, records: dict[str, dict], tokenizer: bytes | None) -> None:
        """Old parts of the same names leave the list first, new ones enter it last: what is listed is whole at every moment."""
        kept = {part: record for part, record in self.parts.items() if part not in records}
        if len(kept) < len(self.parts):
            self._replace("parts.json", json.dumps(kept, indent=1).encode())
        for part in records:
            target = self.path / "params" / part
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (self.stage / part).rename(target)
        if tokenizer is not None:
            self._replace("spiece.model", tokenizer)
        self._replace("config.json", to_json(config).encode() + b"\n")
        self._replace("parts.json", json.dumps(kept | records, indent=1).encode() + b"\n")

    def _replace(self, name: str, content: bytes) -> None:
        """Rewrite a file, whole or not at all."""
        (self.stage / name).write_bytes(content)
        os.replace(self.stage / name, self.path / name)
