"""The clips and images that videos begin with, at the size of the videos."""

import os
import warnings

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.generation.options import Options
from pavdm_jax.geometry import first_frames
from pavdm_jax.video.clips import SAME_RATE, frame_rate, pad_start, read_video
from pavdm_jax.video.images import resize_crop


def read_starts(
    config: AnyModelConfig, asked: Options, prompts: int, frames: int | None, fps: float, height: int, width: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The start clips, and the images that are one latent frame, at the video's size: see `Request`.

    Of a file only as many frames are read as the video has, `frames`, and each is resized as it comes. Of a file with
    more frames a second than `fps`, as many are read as the video shows; one with fewer is played faster, with a
    warning. Deviation: upstream takes all frames whatever their rate.
    """
    if asked.start is None:
        if asked.image != "hold":
            raise ConfigError(f"image {asked.image} is of a start image; give one as start, or leave image out")
        return None, None
    if asked.image == "latent" and not first_frames(config.vae):
        raise ConfigError("image latent: this model's VAE has no latent frame that is a single image; leave it out")
    each = [asked.start] if isinstance(asked.start, str | os.PathLike | np.ndarray) else list(asked.start)
    if len(each) not in (1, prompts):
        raise ConfigError(f"{len(each)} start clips are given for {prompts} prompts; give one each, or a single one")
    clips = [_read_start(config, start, asked.image, frames, fps, height, width) for start in each]
    lengths = {len(clip) for clip in clips}
    if len(lengths) != 1:
        raise ConfigError(
            f"the start clips of a batch must have equal lengths, not {', '.join(map(str, sorted(lengths)))} frames"
        )
    if asked.image == "latent" and lengths != {1}:
        raise ConfigError(
            f"image latent is of a start image, and the start clip has {lengths.pop()} frames; leave it out"
        )
    repeats = 1 if len(each) == 1 else asked.samples
    clip = np.repeat(np.stack(clips), repeats, axis=0)
    return (None, clip) if asked.image == "latent" else (clip, None)


def _read_start(
    config: AnyModelConfig,
    start: str | os.PathLike | np.ndarray,
    image: str,
    at_most: int | None,
    fps: float,
    height: int,
    width: int,
) -> np.ndarray:
    frames = start if isinstance(start, np.ndarray) else _read_file(os.fspath(start), at_most, fps, height, width)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ConfigError(
            f"start frames must be uint8 [frames, height, width, 3], not {frames.dtype} {list(frames.shape)}"
        )
    vae = config.vae
    if len(frames) == 1 and image == "hold":
        frames = np.repeat(frames, vae.still_frames, axis=0)
    # The released start clips have 16 frames. What lacks a latent frame or more is refused, where it is too short.
    if vae.still_frames - vae.time_downsample < len(frames) < vae.still_frames:
        frames, note = pad_start(frames, vae.still_frames)
        warnings.warn(note, stacklevel=2)
    return resize_crop(frames, height, width)


def _read_file(path: str, at_most: int | None, fps: float, height: int, width: int) -> np.ndarray:
    frames = read_video(path, 0, at_most, (height, width), fps)
    rate = frame_rate(path) if len(frames) > 1 else None
    if rate is not None and rate < fps * (1 - SAME_RATE):
        warnings.warn(
            f"the start clip {path} has {rate:g} frames a second and is played at {fps:g}, which is faster; "
            "convert it, or give that fps",
            stacklevel=2,
        )
    return frames
