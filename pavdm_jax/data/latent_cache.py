"""Latents and caption features on disk, computed once: a folder of shards, none of which is ever incomplete.

    cache.json                          what made it: the clips, the VAE, the text encoder
    shard-00003-of-00010.safetensors    some clips: latents/N, features/N/CAPTION; captions in its metadata
    index.json                          which clip is in which shard; written when all shards are there

An interrupted call continues with the first missing shard, and any number of processes share the shards. The folder may
be in a bucket: then each host copies the shards that it reads to its cache folder, where they stay.
"""

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
import safetensors
import safetensors.numpy
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.fingerprint import text_fingerprint, vae_fingerprint
from pavdm_jax.checkpoints.safetensors_header import Header, read_header
from pavdm_jax.data.clips import Clips
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.loader import ReadAhead
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import Model
from pavdm_jax.outputs import storage_error

FORMAT = 2
"""Of the files; 2 since fingerprints are made by one rule."""


@dataclass(frozen=True)
class CacheOptions:
    """How a cache is written."""

    caption_features: bool = False  # also the text encoder's features, for models whose text encoder is large
    shard_size: int = 64  # clips of a shard: what an interrupted call computes again at most
    batch_size: int = 1  # clips that are encoded at once
    workers: int = 0  # processes that read and decode; 0: threads

    def __post_init__(self) -> None:
        for name in ("shard_size", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, not {self.workers}")


def cache_identity(clips: Clips, model: Model, caption_features: bool = False) -> dict:
    """What the content of a cache depends on."""
    return {
        "format": FORMAT,
        "clips": clips.identity,
        "num_clips": len(clips),
        "vae": vae_fingerprint(model),
        "text": text_fingerprint(model) if caption_features else None,
    }


# --- writing ----------------------------------------------------------------------------------------------------------


def write_cache(
    clips: Clips,
    encoder: Encoder,
    folder: Path,
    options: CacheOptions,
    process_index: int = 0,
    process_count: int = 1,
) -> bool:
    """Write this process's missing shards, every `process_count`-th from number `process_index` on.

    Clips that cannot be read are left out; the index names them.

    Returns:
      whether the cache is complete now, other processes' shards included.

    Raises:
      ConfigError: the folder holds a cache of something else, cannot be written, or no clip can be read at all.
    """
    identity = cache_identity(clips, encoder.model, options.caption_features)
    precision = str(encoder.text_dtype) if options.caption_features else None
    if _claim(folder, identity | {"shard_size": options.shard_size, "text_dtype": precision}):
        return True
    shards = -(-len(clips) // options.shard_size)
    there = storage.names(folder)
    missing = [n for n in range(process_index, shards, process_count) if _shard(folder, n, shards).name not in there]
    # Within a shard, clips of one size follow one another, so that they can be encoded together.
    orders = {
        n: sorted(
            range(n * options.shard_size, min((n + 1) * options.shard_size, len(clips))),
            key=lambda i: (*clips.sizes[i], i),
        )
        for n in missing
    }
    numbers = [i for n in missing for i in orders[n]]
    dataset = grain.MapDataset.source(numbers).map(functools.partial(_read, clips))
    samples = ReadAhead(dataset, options.workers)
    try:
        with tqdm(total=len(numbers), desc="latents", unit="clip", smoothing=0.02, disable=not numbers) as bar:
            for n in missing:
                _write_shard(_shard(folder, n, shards), len(orders[n]), samples, clips, encoder, options, bar)
    finally:
        samples.close()
    return _write_index(folder, shards, clips.skipped)


def _claim(folder: Path, identity: dict) -> bool:
    """Make the folder, or check that it belongs to the same cache; whether that is complete."""
    record = folder / "cache.json"
    with storage.cloud_errors(folder):
        if record.exists():
            _check_identity(folder, _json(record), identity)
            return (folder / "index.json").exists()
    try:
        storage.make_folder(folder)
        if any(name.startswith("shard-") for name in storage.names(folder)) and not record.exists():
            raise ConfigError(f"{folder} holds shards of an unknown cache; choose another folder")
    except OSError as error:
        raise storage_error(error, folder) from None
    _write(record, json.dumps(identity, indent=1).encode())
    return False


def _check_identity(folder: Path, found: dict, identity: dict) -> None:
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


def _read(clips: Clips, index: int) -> dict:
    try:
        return {"index": index, "frames": clips.frames(index)}
    except ConfigError as error:
        return {"index": index, "error": str(error)}


def _write_shard(
    path: Path, count: int, samples: Iterator[dict], clips: Clips, encoder: Encoder, options: CacheOptions, bar: tqdm
) -> None:
    tensors: dict[str, np.ndarray] = {}
    about, skipped = {}, {}
    waiting: list[dict] = []

    def encode_waiting() -> None:
        if not waiting:
            return
        frames = [sample["frames"] for sample in waiting]
        frames += frames[-1:] * (options.batch_size - len(frames))  # one compiled program, whatever is left over
        latents = np.asarray(encoder.latents(np.stack(frames)))
        for sample, latent in zip(waiting, latents, strict=False):
            tensors[f"latents/{int(sample['index'])}"] = latent
        bar.update(len(waiting))
        waiting.clear()

    for _ in range(count):
        sample = next(samples)
        index = int(sample["index"])
        if "error" in sample:
            skipped[f"clip {index}, {clips.name(index)}"] = str(sample["error"])
            bar.write(f"skipped: {sample['error']}")
            bar.update()
            continue
        captions = clips.captions(index)
        about[index] = {"captions": captions, "fps": clips.fps(index)}
        if options.caption_features:
            features = encoder.features(captions)
            tensors.update({f"features/{index}/{n}": feature for n, feature in enumerate(features)})
        if waiting and waiting[0]["frames"].shape != sample["frames"].shape:
            encode_waiting()
        waiting.append(sample)
        if len(waiting) == options.batch_size:
            encode_waiting()
    encode_waiting()
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    # One entry of metadata: the order of several would differ from file to file.
    notes = {"clips": json.dumps({"about": about, "skipped": skipped})}
    _write(path, safetensors.numpy.save(contiguous, notes))


def _write_index(folder: Path, shards: int, left_out: dict[str, str]) -> bool:
    """Write the index, with `left_out` beside the clips that could not be read, unless shards are missing; whether it
    was written."""
    entries, skipped = [], {}
    paths = [_shard(folder, n, shards) for n in range(shards)]
    if not storage.names(folder).issuperset(path.name for path in paths):
        return False
    for path in paths:
        header = _header(path)
        notes = json.loads(header.metadata["clips"])
        clips = sorted(map(int, notes["about"]))
        shapes = [header.tensors[f"latents/{index}"].shape for index in clips]
        skipped |= notes["skipped"]
        entries.append({"file": path.name, "clips": clips, "shapes": shapes})
    if not any(entry["clips"] for entry in entries):
        raise ConfigError(f"none of the clips can be read; first: {next(iter(skipped.values()), '')}")
    _write(folder / "index.json", json.dumps({"shards": entries, "skipped": left_out | skipped}).encode())
    return True


def _shard(folder: Path, number: int, shards: int) -> Path:
    return folder / f"shard-{number:05}-of-{shards:05}.safetensors"


def _header(path: Path) -> Header:
    """The header of a shard, read without its tensors."""
    try:
        with storage.open_binary(path) as file:
            return read_header(file)
    except storage.StorageError:
        raise
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is damaged ({error}); delete it and index.json beside it, and write it again")


def _write(path: Path, content: bytes) -> None:
    try:
        storage.write(path, content)
    except OSError as error:
        raise storage_error(error, path) from None


# --- reading ----------------------------------------------------------------------------------------------------------


class LatentCache:
    """A complete cache, read by the number of the clip among those in the cache: clips that could not be read have no
    number.

    Attributes:
      shapes: latent frames, rows, columns and channels of each clip, int32 `[n, 4]`.
      identity: `cache_identity` of what made it.
      skipped: all that was left out, by name, and why: files that cannot be read, rows that are too short, clips that
        are damaged.

    Raises:
      ConfigError: the folder holds no cache, or one that is not complete.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = storage.as_path(folder)
        with storage.cloud_errors(folder):
            if not (self.folder / "cache.json").is_file():
                raise ConfigError(f"there are no latents in {folder}; `python -m pavdm_jax.precompute` writes them")
            if not (self.folder / "index.json").is_file():
                raise ConfigError(f"the latents in {folder} are not complete; run the command that writes them again")
        self.identity, index = _json(self.folder / "cache.json"), _json(self.folder / "index.json")
        self.skipped: dict[str, str] = index["skipped"]
        self._stamps = storage.stamps(str(self.folder / shard["file"]) for shard in index["shards"])
        gone = [name.rsplit("/", 1)[-1] for name, stamp in self._stamps.items() if stamp is None]
        if gone:
            raise ConfigError(f"{len(gone)} files of the latents in {folder} are missing, first {gone[0]}")
        self.places = [(shard["file"], number) for shard in index["shards"] for number in shard["clips"]]
        self.shapes = np.asarray([shape for shard in index["shards"] for shape in shard["shapes"]], np.int32)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def has_features(self) -> bool:
        return self.identity["text"] is not None

    def check(self, identity: dict) -> None:
        """Refuse a cache of another version, or that differs in one of the named respects (`ConfigError`)."""
        _check_identity(self.folder, self.identity, {"format": FORMAT, **identity})

    def latents(self, index: int, start: int, stop: int) -> np.ndarray:
        """Latent frames `start` to `stop` of a clip, float16 `[t, h, w, c]`."""
        shard, number = self._open(index)
        return shard.get_slice(f"latents/{number}")[start:stop]

    def features(self, index: int, caption: int) -> np.ndarray:
        """The features of one of the clip's captions, float16 `[l, d]`."""
        shard, number = self._open(index)
        return shard.get_tensor(f"features/{number}/{caption}")

    def about(self, index: int) -> dict:
        """The clip's `captions` (a list) and `fps`."""
        path, number = self._place(index)
        return _about(path, self._stamps[str(path)])[str(number)]

    def _open(self, index: int):
        path, number = self._place(index)
        return _opened(path, self._stamps[str(path)]), number

    def _place(self, index: int) -> tuple[Path, int]:
        file, number = self.places[index]
        return self.folder / file, number


@functools.lru_cache(64)
def _opened(path: Path, stamp: tuple):
    """Mapped into memory; each process has its own."""
    copy = storage.local_copy(path, stamp)
    try:
        return safetensors.safe_open(copy, "np")
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


@functools.lru_cache(256)
def _about(path: Path, stamp: tuple) -> dict:
    return json.loads(_opened(path, stamp).metadata()["clips"])["about"]


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
