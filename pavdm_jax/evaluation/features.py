"""Collects what networks say of a video, clip by clip; what the file beside the video says is taken from there."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.feature_files import check_clips, read_features, write_features
from pavdm_jax.evaluation.networks import Network
from pavdm_jax.evaluation.two_second_clips import clip_length, two_second_clips
from pavdm_jax.video.clips import frame_rate, iterate_video


class FeatureCollector:
    """The outputs of networks for the clips of one video."""

    def __init__(self, video: Path, networks: Sequence[Network]):
        self._video, self._kept = video, read_features(video)
        self._networks = [network for network in networks if network.name not in self._kept]
        self._found: dict[str, list[np.ndarray]] = {network.name: [] for network in self._networks}

    @property
    def complete(self) -> bool:
        """Whether the file beside the video says all that is asked for."""
        return not self._networks

    def add(self, clip: np.ndarray, fps: float) -> None:
        """The next two-second clip, uint8 `[f, h, w, 3]`; one that a network cannot take is a `ConfigError`."""
        for network in self._networks:
            try:
                self._found[network.name].append(network.features(clip, fps))
            except ConfigError as error:
                raise ConfigError(f"{self._video}: {error}") from None

    def finish(self, clips: int | None = None) -> dict[str, np.ndarray]:
        """By network, an array whose first axis is the clips; what is new is kept in the file beside the video.

        Raises:
          ConfigError: the file was made from a video of other than `clips` clips, or a network gives no finite numbers.
        """
        if clips is not None:
            check_clips(self._video, self._kept, clips)
        new = {name: np.stack(outputs).astype(np.float32) for name, outputs in self._found.items()}
        for name, output in new.items():
            if not np.isfinite(output).all():
                raise ConfigError(
                    f"{name} gives numbers that are not finite for {self._video}; its frames may be too small"
                )
        outputs = self._kept | new
        if new:
            try:
                write_features(self._video, outputs)
            except ConfigError as error:  # what was computed counts all the same
                warnings.warn(f"{error}; the networks' features of {self._video} are not kept", stacklevel=2)
        return outputs


def video_features(video: Path, networks: Sequence[Network]) -> dict[str, np.ndarray]:
    """What networks, and the file beside a video, say of its clips; nothing is decoded if the file says it all."""
    collector = FeatureCollector(video, networks)
    if not collector.complete:
        fps = frame_rate(str(video))
        frames = (frame for group in iterate_video(video) for frame in group)
        for clip in two_second_clips(frames, clip_length(fps)):
            collector.add(clip, fps)
    return collector.finish()
