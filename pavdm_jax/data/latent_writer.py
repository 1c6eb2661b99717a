"""Writes a cache of latents, shard by shard.

An interrupted call continues with the first missing shard, and several processes can share the shards.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
import safetensors.numpy
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.safetensors_header import Header, read_header
from pavdm_jax.cli import check_interrupted
from pavdm_jax.data.clips import Clips
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.latent_cache import (
    LatentCache,
    cache_identity,
    check_identity,
    checksum,
    checksum_of_json,
    damaged,
    read_json,
    read_notes,
)
from pavdm_jax.data.loader import ReadAhead
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.models.linear import default_precision
from pavdm_jax.outputs import storage_error


@dataclass(frozen=True)
class CacheOptions:
    """How a cache is written; an impossible value raises `ConfigError`."""

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


def write_cache(
    clips: Clips,
    encoder: Encoder,
    folder: Path,
    options: CacheOptions,
    process_index: int = 0,
    process_count: int = 1,
) -> bool:
    """Write the missing shards of this process: every `process_count`-th from number `process_index` on.

    Clips that cannot be read are left out, and named in the index.

    Args:
      clips: to be encoded.
      encoder: of the model.
      folder: of the cache, which may be in a bucket.
      options: how it is written.
      process_index, process_count: the number of this process, from 0, and of all processes that share the work.

    Returns:
      Whether the cache is complete, with the shards of all processes.

    Raises:
      ConfigError: the folder holds another cache or cannot be written, or no clip can be read.
    """
    identity = cache_identity(clips, encoder.model, options.caption_features)
    identity |= {"shard_size": options.shard_size, "text_dtype": _text_precision(encoder, options)}
    if _claim(folder, identity):
        return True
    shards = -(-len(clips) // options.shard_size)
    there = storage.names(folder)
    missing = [n for n in range(process_index, shards, process_count) if _shard(folder, n, shards).name not in there]
    # Within a shard, clips of one shape follow one another, so that they can be encoded together.
    orders = {
        n: sorted(
            range(n * options.shard_size, min((n + 1) * options.shard_size, len(clips))),
            key=lambda i: (*clips.shapes[i], i),
        )
        for n in missing
    }
    numbers = [i for n in missing for i in orders[n]]
    dataset = grain.MapDataset.source(numbers).map(functools.partial(_read, clips))
    samples = ReadAhead(dataset, options.workers)
    try:
        with tqdm(total=len(numbers), desc="latents", unit="clip", smoothing=0.02, disable=not numbers) as bar:
            for n in missing:
                check_interrupted()
                _write_shard(_shard(folder, n, shards), len(orders[n]), samples, clips, encoder, options, bar)
    finally:
        samples.close()
    return _write_index(folder, shards, clips.skipped)


def _text_precision(encoder: Encoder, options: CacheOptions) -> str | None:
    """What the rounding of caption features depends on; the precision of products is named where the user set one."""
    if not options.caption_features:
        return None
    products = default_precision()
    return str(encoder.text_dtype) + (f", products in {products}" if products else "")


def _claim(folder: Path, identity: dict) -> bool:
    """Make the folder, or check that its cache is the same; returns whether the cache is complete."""
    record = folder / "cache.json"
    with storage.cloud_errors(folder):
        if record.exists():
            check_identity(folder, read_json(record), identity)
            return _is_complete(folder)
    try:
        storage.make_folder(folder)
        if any(name.startswith("shard-") for name in storage.names(folder)) and not record.exists():
            raise ConfigError(f"{folder} holds shards of an unknown cache; choose another folder")
    except OSError as error:
        raise storage_error(error, folder) from None
    _write(record, json.dumps(identity, indent=1).encode())
    return False


def _is_complete(folder: Path) -> bool:
    """Whether a cache can be read; shards may have been lost since its index was written, or the index be damaged."""
    try:
        LatentCache(folder)
    except ConfigError:
        return False
    return True


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
            bar.write(f"skipped: {printable(str(sample['error']))}")
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
    sums = {name: checksum(tensor) for name, tensor in sorted(contiguous.items())}
    sums |= {f"about/{index}": checksum_of_json(said) for index, said in about.items()}
    notes = {"clips": json.dumps({"about": about, "skipped": skipped, "crc32": sums})}
    _write(path, safetensors.numpy.save(contiguous, notes))


def _write_index(folder: Path, shards: int, left_out: dict[str, str]) -> bool:
    """Write the index unless shards are missing, and return whether it was written.

    It names the clips that could not be read, and `left_out`, name → reason of others.
    """
    entries, skipped = [], {}
    paths = [_shard(folder, n, shards) for n in range(shards)]
    if not storage.names(folder).issuperset(path.name for path in paths):
        return False
    for path in paths:
        header = _header(path)
        notes = read_notes(path, header.metadata)
        clips = sorted(map(int, notes["about"]))
        shapes = [header.tensors[f"latents/{index}"].shape for index in clips]
        skipped |= notes["skipped"]
        entries.append({"file": path.name, "clips": clips, "shapes": shapes})
    if not any(entry["clips"] for entry in entries):
        first = next(iter(skipped.values()), "")
        raise ConfigError(f"none of the clips can be read; delete {folder} when they can be; the first: {first}")
    _write(folder / "index.json", json.dumps({"shards": entries, "skipped": left_out | skipped}).encode())
    return True


def _shard(folder: Path, number: int, shards: int) -> Path:
    return folder / f"shard-{number:05}-of-{shards:05}.safetensors"


def _header(path: Path) -> Header:
    """Read the header of a shard without its tensors."""
    try:
        with storage.open_binary(path) as file:
            return read_header(file)
    except storage.StorageError:
        raise
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def _write(path: Path, content: bytes) -> None:
    try:
        storage.write(path, content)
    except OSError as error:
        raise storage_error(error, path) from None
