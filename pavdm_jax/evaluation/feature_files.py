"""What networks say of a video, in a file beside it: `clip.mp4.features.npz`, so that they may run elsewhere.

The file holds an array for each network, by its name (`vbench_long.NETWORKS`, or any other name for features of a
Fréchet distance), whose first axis is the video's two-second clips (`two_second_clips`): `dino_vitb16` of a minute at
24 frames a second is `[30, 48, 768]`. `video_bytes`, if there, is the size of the video file; features of a video that
was made anew are noticed by it.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.outputs import new_file

SIZE = "video_bytes"

OF_ZIP = (zipfile.BadZipFile, zlib.error)


def features_path(video: Path) -> Path:
    """Where the features of a video file are."""
    return video.with_name(f"{video.name}.features.npz")


def read_features(video: Path) -> dict[str, np.ndarray]:
    """By network, an array with an entry for each clip; empty if there is no file.

    Raises:
      ConfigError: the file is damaged, holds pickled objects or numbers that are not finite, or is of another video.
    """
    path = features_path(video)
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise ValueError("it holds more than arrays")
        size = found.pop(SIZE, None)
        size = None if size is None else int(size)
    except (OSError, ValueError, TypeError, ArithmeticError, EOFError, RuntimeError, MemoryError, *OF_ZIP) as error:
        raise ConfigError(f"{path} cannot be read as features ({first_line(error)}); make it again") from None
    if size is not None and size != video.stat().st_size:
        raise ConfigError(f"{path} was made from another {video.name}; remove it, or make it again")
    for name, array in found.items():
        if array.ndim < 2 or not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ConfigError(
                f"{path}: {name} is no array of finite numbers with an entry for each clip, but {array.dtype} "
                f"{list(array.shape)}"
            )
    return found


def check_clips(video: Path, features: Mapping[str, np.ndarray], clips: int) -> None:
    """`ConfigError` if features are not of so many clips."""
    for name, array in features.items():
        if len(array) != clips:
            raise ConfigError(
                f"{features_path(video)}: {name} is of {len(array)} clips, but the video has {clips}; make it again"
            )


def write_features(video: Path, features: Mapping[str, np.ndarray]) -> None:
    """Keep what networks said of the clips of a video file, beside it."""
    with new_file(features_path(video)) as partial, partial.open("wb") as file:
        arrays: dict[str, Any] = {SIZE: np.int64(video.stat().st_size), **features}
        np.savez(file, **arrays)
