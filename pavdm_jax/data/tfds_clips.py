"""Clips of TFDS data sets, which are read without TensorFlow if the features of the data set allow it."""

import io
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from pavdm_jax.checkpoints.fingerprint import fingerprint
from pavdm_jax.data.config import TfdsData
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.geometry import decoded_size
from pavdm_jax.text.captions import clean
from pavdm_jax.video.clips import read_clip
from pavdm_jax.video.images import resize_crop


class TfdsClips:
    """The first frames of each example, resized to the model's size; see `clips.Clips`.

    The data set must have been prepared with `file_format="array_record"`, which has random access.

    Raises:
      ConfigError: the data set cannot be opened, has no examples, or lacks a feature.
    """

    starts = 1

    def __init__(self, data: TfdsData, model: AnyModelConfig):
        import tensorflow_datasets as tfds  # slow to import, and wanted by these data sets only

        name, self.text = data.name.removeprefix("tfds:"), model.text
        try:
            builder = tfds.builder(name, data_dir=data.data_dir)
            self.examples = builder.as_data_source(data.split)  # pyright: ignore[reportCallIssue]
        except ImportError as error:
            raise ConfigError(f"{data.name} needs a package that is not installed: {error}") from None
        except Exception as error:  # of many kinds, some of them several screens long
            raise ConfigError(
                f"{data.name} cannot be opened ({first_line(error)}); prepare it once with tfds.builder({name!r}, "
                f"data_dir={data.data_dir!r}, file_format='array_record').download_and_prepare()"
            ) from None
        features = cast(Mapping[str, Any], builder.info.features)
        for feature in (data.video, data.caption):
            if feature not in features:
                raise ConfigError(f"{data.name} has no feature {feature!r}; it has {', '.join(sorted(features))}")
        if len(self.examples) <= 0:
            raise ConfigError(f"{data.name} has no examples in split {data.split}")
        self.data, self.label, self.skipped = data, features[data.caption], {}
        self.rate, self.frames_of_a_clip = data.fps or model.fps, data.frames
        self.size = decoded_size(model.height, model.width, model.vae)
        self.shapes = np.broadcast_to(np.asarray([data.frames, *self.size], np.int32), (len(self.examples), 3))
        version = f"{builder.info.full_name} {data.split} {len(self.examples)}"
        self.identity = fingerprint(version, data.video, data.caption, data.frames, self.rate, self.size)

    def __len__(self) -> int:
        return len(self.examples)

    def frames(self, index: int, first: int = 0, count: int | None = None) -> np.ndarray:
        count = self.frames_of_a_clip - first if count is None else count
        try:
            video = self.examples[index][self.data.video]
        except Exception as error:  # of a damaged example, by the libraries below, of many kinds
            raise ConfigError(f"{self.name(index)} cannot be read: {first_line(error)}") from None
        if isinstance(video, bytes):
            return read_clip(io.BytesIO(video), first / self.rate, self.rate, count, self.size)
        video = np.asarray(video)
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
            raise ConfigError(
                f"feature {self.data.video!r} of {self.data.name} is {video.dtype} {list(video.shape)}; videos are "
                "uint8 [f, h, w, 3]"
            )
        if len(video) < first + count:
            raise ConfigError(f"{self.name(index)} has {len(video)} frames; {first + count} are needed")
        return resize_crop(video[first : first + count], *self.size)

    def captions(self, index: int) -> list[str]:
        value = self.examples[index][self.data.caption]
        if hasattr(self.label, "int2str"):  # class names such as ApplyEyeMakeup
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.label.int2str(int(value)))
            return [words.replace("_", " ").lower()]
        return [clean(value.decode(errors="replace") if isinstance(value, bytes) else str(value), self.text)]

    def fps(self, index: int) -> float:
        return self.rate

    def name(self, index: int) -> str:
        return f"example {index} of {self.data.name}"
