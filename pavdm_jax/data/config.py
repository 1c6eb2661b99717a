"""Settings of training data: the shapes world, real videos in a manifest, TFDS data sets, and precomputed latents."""

from dataclasses import dataclass
from typing import ClassVar

from pavdm_jax.data.shapes_world.world import SIMPLE, World
from pavdm_jax.errors import ConfigError
from pavdm_jax.resolutions import RESOLUTIONS

MAX_FPS = 1000
"""The highest rate at which videos are sampled."""


@dataclass(frozen=True)
class ShapesData:
    """The procedural shapes world; each sample depends on the seed and its number only."""

    frames: int = 1  # pixel frames of a sample
    samples: int = 1_000_000  # distinct scenes; the same number is always the same scene
    seed: int = 0  # another one gives other scenes
    world: World = SIMPLE  # what scenes are drawn from: SIMPLE or HIDDEN of data/shapes_world, or one's own

    cache: ClassVar[bool] = True
    workers: ClassVar[int] = 0
    image_share: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("samples", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name} of the shapes world must be at least {least}, not {value}")


@dataclass(frozen=True)
class VideoData:
    """Real videos, listed in a manifest: CSV or JSON lines with `path`, `caption`, and optionally others.

    These are `start` and `end` in seconds, and `fps`. Each row is cut into consecutive clips of `frames` frames. Rows
    that are too short and files that cannot be read are skipped, and reported. Size and length of the files are stored
    beside the manifest, in `NAME.index.json`.

    Rows may also name images (.jpg, .png, .webp, .bmp, .tiff; a GIF counts as a video): clips of one latent frame, with
    120 as their fps (as in Open-Sora). They come in batches of their own, `image_share` of all batches. The loss of
    such a batch is that of `UniformDiffusion`, whatever the objective; the log shows it apart, as `loss_images` beside
    `loss_videos`.
    """

    manifest: str  # a file, or gs://BUCKET/NAME
    frames: int = 17  # pixel frames of a clip
    fps: float | None = None  # at which the videos are sampled, where a row does not say; None: the model's
    resolution: str | None = None  # a named one: each clip gets its nearest aspect ratio; None: the model's one size
    cache: bool = True  # keep the latents of the transformer's stages on disk; False: encode them for every batch
    workers: int = 0  # processes that read and decode; 0: threads of this one
    image_share: float = 0.0  # share of the batches that are of images, spread evenly; 0: images are left out

    def __post_init__(self) -> None:
        _check(self)
        _check_share(self.image_share)


@dataclass(frozen=True)
class TfdsData:
    """A TFDS data set in a format with random access (`array_record`).

    The first `frames` frames of each example are a clip.
    """

    name: str  # such as tfds:shapes_world or tfds:ucf101:2.0.0
    data_dir: str | None = None  # None: TFDS's own folder
    split: str = "train"
    video: str = "video"  # the feature with uint8 frames [f, h, w, 3] or the bytes of a video file
    caption: str = "caption"  # the feature with a text or a class label
    frames: int = 17  # pixel frames of a clip
    fps: float | None = None  # of the videos, which are not resampled unless they are files; None: the model's
    cache: bool = True  # as for VideoData
    workers: int = 0  # as for VideoData

    image_share: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not self.name.startswith("tfds:") or len(self.name) <= 5:
            raise ConfigError(f"the TFDS data set {self.name!r} must be named tfds:NAME, such as tfds:ucf101")
        _check(self)


@dataclass(frozen=True)
class LatentData:
    """Latents, with or without caption features, from `pavdm precompute`."""

    folder: str  # or gs://BUCKET/NAME
    image_share: float = 0.0  # as for VideoData

    cache: ClassVar[bool] = True
    workers: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check_share(self.image_share)


Data = ShapesData | VideoData | TfdsData | LatentData


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(f"image_share is the share of batches that are of images, from 0 to below 1, not {share}")


def _check(data: VideoData | TfdsData) -> None:
    if data.frames < 1:
        raise ConfigError(f"frames must be at least 1, not {data.frames}")
    if data.fps is not None and not 0 < data.fps <= MAX_FPS:
        raise ConfigError(f"fps must be above 0 and at most {MAX_FPS}, not {data.fps}")
    if data.workers < 0:
        raise ConfigError(f"workers must be 0 or more, not {data.workers}")
    resolution = getattr(data, "resolution", None)
    if resolution is not None and resolution not in RESOLUTIONS:
        raise ConfigError(f"unknown resolution {resolution!r}; known are {', '.join(RESOLUTIONS)}")
