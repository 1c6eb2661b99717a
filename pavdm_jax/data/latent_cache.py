"""A cache of latents and caption features on disk: a folder of shards, which are written atomically.

    cache.json                          fingerprints of the clips, the VAE and the text encoder that it was made from
    shard-00003-of-00010.safetensors    some clips: latents/N, features/N/CAPTION; captions, checksums in its metadata
    index.json                          which clip is in which shard; written when all shards are complete

`latent_writer.py` writes it. If the folder is in a bucket, each host copies the shards that it reads to its cache
folder, and keeps them there.
"""

import functools
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from pavdm_jax import storage
from pavdm_jax.checkpoints.fingerprint import text_fingerprint, vae_fingerprint
from pavdm_jax.data.clips import Clips
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.models.model import Model

FORMAT = 3
"""The version of the format; 2 since all fingerprints follow one rule, 3 since tensors have checksums."""

WRITE_AGAIN = "run the command that writes the latents again"
"""The remedy for a cache that lacks something: what is there is kept."""


def cache_identity(clips: Clips, model: Model, caption_features: bool = False) -> dict:
    """Everything that the content of a cache depends on, as JSON values."""
    return {
        "format": FORMAT,
        "clips": clips.identity,
        "num_clips": len(clips),
        "vae": vae_fingerprint(model),
        "text": text_fingerprint(model) if caption_features else None,
    }


def check_identity(folder: Path, found: dict, identity: dict) -> None:
    """Raise `ConfigError`, with the reason, unless a cache's identity `found` agrees with the values of `identity`."""
    reasons = {
        "format": "was written by another version",
        "clips": "holds other clips",
        "num_clips": "holds another number of clips",
        "vae": "was made by another VAE",
        "text": "was made with another text encoder, or without caption features",
        "shard_size": "has shards of another size",
        "text_dtype": "has caption features of another precision",
    }
    for name, reason in reasons.items():
        if name in identity and found.get(name) != identity[name]:
            raise ConfigError(
                f"the latents in {folder} cannot be used: the cache {reason}; choose another folder, or delete this one"
            )


class LatentCache:
    """A complete cache, for reading; clips are numbered without those that were left out.

    Attributes:
      shapes: latent frames, rows, columns and channels of each clip, int32 `[n, 4]`.
      identity: the `cache_identity` that it was made with.
      skipped: name → reason of everything that was left out: files that cannot be read, rows that are too short, clips
        that are damaged.

    Raises:
      ConfigError: the folder holds no cache, or one that is not complete or is damaged.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = storage.as_path(folder)
        with storage.cloud_errors(folder):
            if not (self.folder / "cache.json").is_file():
                raise ConfigError(f"there are no latents in {folder}; `python -m pavdm_jax.precompute` writes them")
            if not (self.folder / "index.json").is_file():
                raise ConfigError(f"the latents in {folder} are not complete; {WRITE_AGAIN}")
        self.identity, index = read_json(self.folder / "cache.json"), read_json(self.folder / "index.json")
        try:
            self.skipped: dict[str, str] = dict(index["skipped"])
            # Of a file only its name: it is in this folder, whatever else is said.
            shards = [(Path(shard["file"]).name, shard) for shard in index["shards"]]
            self.places = [(name, number) for name, shard in shards for number in shard["clips"]]
            shapes = [shape for shard in index["shards"] for shape in shard["shapes"]]
            self.shapes = np.asarray(shapes, np.int32).reshape(len(self.places), 4)
            files = [str(self.folder / name) for name, _ in shards]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ConfigError(f"{self.folder / 'index.json'} is damaged; {WRITE_AGAIN}") from None
        self._stamps = storage.stamps(files)
        gone = [name.rsplit("/", 1)[-1] for name, stamp in self._stamps.items() if stamp is None]
        if gone:
            raise ConfigError(
                f"{len(gone)} files of the latents in {folder} are missing, first {gone[0]}; {WRITE_AGAIN}"
            )

    def __len__(self) -> int:
        return len(self.places)

    @property
    def has_features(self) -> bool:
        """Whether it has caption features."""
        return self.identity.get("text") is not None

    def check(self, identity: dict) -> None:
        """Raise `ConfigError` for a cache of another version, or that differs in a value of `identity`."""
        check_identity(self.folder, self.identity, {"format": FORMAT, **identity})

    def latents(self, index: int, start: int, stop: int) -> np.ndarray:
        """Latent frames `start` to `stop` of a clip, float16 `[t, h, w, c]`; `ConfigError` if the shard is damaged."""
        path, stamp, number = self._place(index)
        latents, shape = _intact(path, stamp, f"latents/{number}"), self.shapes[index].tolist()
        if list(latents.get_shape()) != shape:
            raise damaged(path, f"the latents of clip {number} are {list(latents.get_shape())}, not {shape} as indexed")
        return latents[start:stop]

    def features(self, index: int, caption: int) -> np.ndarray:
        """The features of one of the clip's captions, float16 `[l, d]`; `ConfigError` if the shard is damaged."""
        path, stamp, number = self._place(index)
        return _intact(path, stamp, f"features/{number}/{caption}")[:]

    def about(self, index: int) -> dict:
        """The clip's `captions` (a list) and `fps`."""
        path, stamp, number = self._place(index)
        notes = _notes(path, stamp)
        about = notes["about"].get(str(number))
        if about is None or checksum_of_json(about) != notes["crc32"].get(f"about/{number}"):
            raise damaged(path, f"what it says of clip {number} has changed since it was written")
        return about

    def _place(self, index: int) -> tuple[Path, tuple, int]:
        """The shard of a clip, its stamp, and the clip's number in it."""
        file, number = self.places[index]
        path = self.folder / file
        stamp = self._stamps[str(path)]
        assert stamp is not None  # as __init__ has checked
        return path, stamp, number


@functools.lru_cache(64)
def _opened(path: Path, stamp: tuple):
    """An open shard, mapped into memory; it is kept open, in each process for itself."""
    copy = storage.local_copy(path, stamp)
    try:
        return safetensors.safe_open(copy, "np")
    except (OSError, safetensors.SafetensorError) as error:
        raise damaged(path, error) from None


@functools.lru_cache(256)
def _notes(path: Path, stamp: tuple) -> dict:
    return read_notes(path, _opened(path, stamp).metadata())


def read_notes(path: Path, metadata: dict[str, str] | None) -> dict:
    """What a shard's metadata notes about its clips: `about`, `skipped` and `crc32`; `ConfigError` if it is damaged."""
    try:
        notes = json.loads((metadata or {})["clips"])
        return {name: dict(notes[name]) for name in ("about", "skipped", "crc32")}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise damaged(path, "its list of clips cannot be read") from None


def _intact(path: Path, stamp: tuple, name: str) -> Any:
    """A tensor of a shard as a slice, of which no values are read yet."""
    shard = _opened(path, stamp)
    try:
        _check_values(path, stamp, name)
        return shard.get_slice(name)
    except safetensors.SafetensorError as error:
        raise damaged(path, first_line(error)) from None


def _check_values(path: Path, stamp: tuple, name: str) -> None:
    """Compare a tensor's values with their checksum, as long as its shard is open once."""
    checked = _checked(path, stamp)
    if name not in checked:
        if checksum(_opened(path, stamp).get_tensor(name)) != _notes(path, stamp)["crc32"].get(name):
            raise damaged(path, f"{name} has changed since it was written")
        checked.add(name)


@functools.lru_cache(64)
def _checked(path: Path, stamp: tuple) -> set[str]:
    """The names of the tensors of a shard that have been compared."""
    return set()


def checksum(values: np.ndarray) -> int:
    """The CRC-32 of an array's values."""
    return zlib.crc32(values.tobytes())


def checksum_of_json(value: Any) -> int:
    """The CRC-32 of JSON values."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def damaged(path: Path, reason: object) -> ConfigError:
    """The error for a damaged shard."""
    return ConfigError(f"{path} is damaged ({reason}); delete it and index.json beside it, and write it again")


def read_json(path: Path) -> dict:
    """The object in a JSON file; `ConfigError` if it cannot be read."""
    try:
        with storage.cloud_errors(path):
            found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} cannot be read: it holds no object")
    return found
