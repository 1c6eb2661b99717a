"""Checks of a data config that need no model, so that mistakes are reported before one is loaded or compiled."""

import warnings

from pavdm_jax.data.config import Data, LatentData, ShapesData, VideoData
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.manifest import read_manifest
from pavdm_jax.data.shapes_world import canvas_size
from pavdm_jax.distributed.processes import is_first
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.geometry import latent_frames, latent_size, least_frames


def check_length(frames: int, clip_latents: int, model: AnyModelConfig) -> None:
    """Check that clips of `frames` pixel frames have `clip_latents` latent frames.

    Raises:
      ConfigError: they have fewer; the message tells how many pixel frames are needed.
    """
    if latent_frames(frames, model.vae) < clip_latents:
        raise ConfigError(
            f"clips of {frames} frames are too short: the stage trains on {clip_latents} latent frames; "
            f"give at least {least_frames(clip_latents, model.vae)} frames (data.frames)"
        )


def check_latents(cache: LatentCache, clip_latents: int, model: AnyModelConfig) -> None:
    """`ConfigError` unless every clip of a cache, images aside, has `clip_latents` latent frames."""
    lengths = cache.shapes[:, 0]
    shortest = int(min(lengths[lengths > 1], default=1))
    if shortest < clip_latents:
        raise ConfigError(
            f"{cache.folder}: a clip has {shortest} latent frames; {clip_latents} are needed: "
            f"precompute clips of at least {least_frames(clip_latents, model.vae)} frames (--frames)"
        )


def _warn_of_size(cache: LatentCache, model: AnyModelConfig) -> None:
    """Warn of latents none of which have the size of the model's videos: they decide what is trained on."""
    sizes = {(int(rows), int(columns)) for _, rows, columns, _ in cache.shapes}
    if sizes and latent_size(model.height, model.width, model.vae) not in sizes:
        cell = model.vae.downsample
        found = ", ".join(f"{rows * cell}x{columns * cell}" for rows, columns in sorted(sizes)[:5])
        warnings.warn(
            f"the latents in {cache.folder} are of {found} pixels, which is trained on, and not the model's "
            f"{model.height}x{model.width}",
            stacklevel=2,
        )


def check_data(data: Data, clip_latents: int | None, model: AnyModelConfig, files: bool = True) -> None:
    """Check the data of a stage.

    Args:
      data: of the stage.
      clip_latents: latent frames of a sample; None for a stage that works on pixels.
      model: the architecture and the size of its videos.
      files: also check that the files exist; TFDS data sets are checked when they are opened, which takes longer.

    Raises:
      ConfigError: clips are too short, the videos are not square but of the shapes world, or the data does not exist.
    """
    if isinstance(data, LatentData):
        if clip_latents is None:
            raise ConfigError("LatentData has no pixels; stages of the VAE need videos")
        if files:
            cache = LatentCache(data.folder)
            check_latents(cache, clip_latents, model)
            if is_first():
                _warn_of_size(cache, model)
        return
    if clip_latents is not None:
        check_length(data.frames, clip_latents, model)
    if isinstance(data, ShapesData):
        if model.width != model.height:
            raise ConfigError(
                f"videos of the shapes world are square: model.width must be model.height, {model.height}, not "
                f"{model.width}"
            )
        canvas_size(model.height)
    if isinstance(data, VideoData) and files:
        read_manifest(data.manifest)
