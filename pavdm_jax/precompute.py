"""Compute the latents, and the caption features, of videos once.

    pavdm precompute --manifest clips.csv --checkpoint MODEL --output latents/

The same command continues after an interruption. Several processes, also on several hosts, share the work when they
write to the same folder: give each its --process-index and the common --process-count, or --distributed on a pod or
cluster. Train on the result with `LatentData("latents/")`. Manifest, videos, model and latents may be in buckets,
gs://BUCKET/NAME.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pavdm_jax import storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.data.config import TfdsData, VideoData
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.latent_writer import CacheOptions, write_cache
from pavdm_jax.data.sources import agreed_clips
from pavdm_jax.distributed.placement import on_host
from pavdm_jax.distributed.processes import connect
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.geometry import window_frames
from pavdm_jax.models.model import DTYPES


@dataclass(frozen=True)
class PrecomputeConfig:
    """What to encode, with which model, and where to."""

    checkpoint: str
    """a model folder or training run, or demo"""
    output: str
    """the folder of latents, or gs://BUCKET/NAME"""
    manifest: str | None = None
    """CSV or JSON lines with path, caption and, where wanted, start, end, fps"""
    tfds: str | None = None
    """or a TFDS data set, such as tfds:shapes_world"""
    data_dir: str | None = None
    """of TFDS"""
    split: str = "train"
    """of TFDS"""
    frames: int | None = None
    """pixel frames of a clip; by default as many as the model's window holds"""
    fps: float | None = None
    """by default the model's"""
    resolution: str | None = None
    """a named one, for aspect buckets; by default the model's one size"""
    caption_features: bool = False
    """also the text encoder's features: for a large text encoder that is not trained"""
    text_dtype: str = "float32"
    """of the text encoder; bfloat16 takes half the memory: 9.5 GB instead of 19 for T5-XXL"""
    batch_size: int = 1
    """clips that are encoded at once"""
    shard_size: int = 64
    """clips of a file: what an interrupted run computes again at most"""
    workers: int = 0
    """processes that read and decode; 0: threads"""
    process_index: int = 0
    """of this process, from 0 to process_count - 1"""
    process_count: int = 1
    """processes that share the work"""
    distributed: bool = False
    """find the other processes by jax.distributed"""

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.tfds is None):
            raise ConfigError("give the videos by either --manifest or --tfds")
        if self.manifest is not None and (self.data_dir is not None or self.split != "train"):
            raise ConfigError("data_dir and split belong to --tfds")
        if self.text_dtype not in DTYPES:
            raise ConfigError(f"text_dtype {self.text_dtype} is not possible; use {' or '.join(DTYPES)}")
        if self.text_dtype != "float32" and not self.caption_features:
            raise ConfigError("text_dtype is that of --caption-features; ask for both")
        if self.tfds is not None and self.resolution is not None:
            raise ConfigError("aspect buckets, --resolution, are for a --manifest")
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"frames must be at least 1, not {self.frames}")
        if self.distributed and (self.process_index, self.process_count) != (0, 1):
            raise ConfigError("--distributed finds the processes itself; leave out --process-index and --process-count")
        if not 0 <= self.process_index < self.process_count:
            raise ConfigError(
                f"process_index {self.process_index} must be from 0 to process_count - 1, {self.process_count - 1}"
            )


def precompute(config: PrecomputeConfig) -> int:
    """Write this process's part of the latents, and print a summary; returns the exit code.

    Raises:
      ConfigError: the model, the videos or the folder of latents cannot be used.
    """
    enable_cache()
    options = CacheOptions(config.caption_features, config.shard_size, config.batch_size, config.workers)
    share = config.process_index, config.process_count
    if config.distributed:
        connect()
        share = jax.process_index(), jax.process_count()
    known = load(config.checkpoint, parts=()).config  # mistakes of the data are told before the networks are read
    frames = window_frames(known) if config.frames is None else config.frames
    if config.manifest is not None:
        data = VideoData(config.manifest, frames, config.fps, config.resolution)
    else:
        assert config.tfds is not None  # see __post_init__
        data = TfdsData(config.tfds, config.data_dir, config.split, frames=frames, fps=config.fps)
    clips = agreed_clips(data, known)
    model = load(config.checkpoint, ["vae"], {"vae": on_host()})
    if config.caption_features:
        text = load(config.checkpoint, ["t5"], {"t5": on_host()}, config.text_dtype)
        model = model.replace(params=model.params | text.params)
    if not write_cache(
        clips, Encoder(model, jnp.dtype(config.text_dtype)), storage.as_path(config.output), options, *share
    ):
        print(printable(f"the part of process {share[0]} is done; the latents in {config.output} wait for others"))
        return 0
    cache = LatentCache(config.output)
    said = f"{len(cache)} clips in {config.output}; {len(cache.skipped)} files, rows or clips were left out"
    print(printable(said))
    for reason in cache.skipped.values():
        print(f"  {printable(reason)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    exit_with(
        lambda: precompute(read_command(PrecomputeConfig, given, "pavdm precompute", __doc__)),
        interrupted="\ninterrupted; the same command continues",
    )


if __name__ == "__main__":
    main()
