"""Numbered clips with captions: the interface of all kinds of pixel data, and the shapes world's implementation."""

from typing import Protocol

import numpy as np

from pavdm_jax.checkpoints.fingerprint import fingerprint
from pavdm_jax.data import shapes_world
from pavdm_jax.data.config import Data, ShapesData, TfdsData, VideoData
from pavdm_jax.data.manifest import ManifestClips
from pavdm_jax.data.tfds_clips import TfdsClips
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig

CAPTIONS_OF_A_CLIP = 4
"""The number of captions of a scene of the shapes world; each visit of the clip reads one of them."""


class Clips(Protocol):
    """Numbered clips, all of the same number of frames, and images, which are clips of one frame.

    Attributes:
      shapes: pixel frames, height and width in pixels of each, int32 `[n, 3]`.
      frames_of_a_clip: pixel frames, but of images.
      starts: training on pixels may begin at any of the first `starts` frames; more than 1 only for endless clips.
      identity: a text that changes when any clip changes.
      skipped: name → reason of files and rows without clips.
    """

    shapes: np.ndarray
    frames_of_a_clip: int
    starts: int
    identity: str
    skipped: dict[str, str]

    def __len__(self) -> int: ...

    def frames(self, index: int, first: int = 0, count: int | None = None) -> np.ndarray:
        """uint8 `[f, h, w, 3]`: `count` frames from `first` on (None: to the clip's end); `ConfigError` where they
        cannot be read."""
        ...

    def captions(self, index: int) -> list[str]:
        """The captions of a clip, at least one, before they are completed (see `text.captions.complete`)."""
        ...

    def fps(self, index: int) -> float:
        """Frames per second of a clip."""
        ...

    def name(self, index: int) -> str:
        """The name of a clip in messages."""
        ...


class ShapesClips:
    """The scenes of the shapes world as endless clips; see `Clips`."""

    starts = 240  # the first ten seconds

    def __init__(self, data: ShapesData, canvas: int):
        self.data, self.canvas = data, canvas
        self.frames_of_a_clip = data.frames
        self.shapes = np.broadcast_to(np.asarray([data.frames, canvas, canvas], np.int32), (data.samples, 3))
        self.identity = fingerprint(data, canvas)
        self.skipped = {}

    def __len__(self) -> int:
        return self.data.samples

    def scene(self, index: int) -> shapes_world.Scene:
        """Scene number `index`, which depends on the seed and the number only."""
        rng = np.random.default_rng([self.data.seed, index])
        return shapes_world.sample_scene(rng, self.canvas, split="train", world=self.data.world)

    def frames(self, index: int, first: int = 0, count: int | None = None) -> np.ndarray:
        count = self.data.frames if count is None else count
        return shapes_world.render(self.scene(index), count, self.canvas, first_frame=first)

    def captions(self, index: int) -> list[str]:
        rng = np.random.default_rng([self.data.seed, index, 1])
        scene = self.scene(index)
        return [shapes_world.caption(scene, rng, world=self.data.world) for _ in range(CAPTIONS_OF_A_CLIP)]

    def fps(self, index: int) -> float:
        return 24.0

    def name(self, index: int) -> str:
        return f"scene {index} of the shapes world"


def open_clips(data: Data, model: AnyModelConfig) -> Clips:
    """The clips of a data config, at the size and frame rate of a model.

    Raises:
      ConfigError: the data has no pixels, or cannot be read.
    """
    match data:
        case ShapesData():
            return ShapesClips(data, model.height)
        case VideoData():
            return ManifestClips(data, model)
        case TfdsData():
            return TfdsClips(data, model)
    raise ConfigError(f"{type(data).__name__} has no pixels; stages of the VAE need videos")
