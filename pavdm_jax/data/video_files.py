"""Clips out of video files: what a file holds, and frames of it at given moments, whatever its own frame rate does."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np

from pavdm_jax import storage
from pavdm_jax.config import ConfigError, require
from pavdm_jax.video_io import MAX_PIXELS, frame_pixels, resize_crop

TOLERANCE = 1e-3
"""Seconds. Containers round the times of frames; Matroska to whole milliseconds."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: the size of its upright pictures, and when the last one ends, in seconds after the first one begins."""

    height: int
    width: int
    seconds: float


def frames_within(start: float, end: float, fps: float) -> int:
    """How many of the moments start, start + 1/fps, ... lie before `end`."""
    return max(0, int(np.ceil((end - start) * fps - TOLERANCE * fps)))


def probe(path: str) -> VideoInfo:
    """Read a file's packets, and decode its first picture.

    Raises:
      ConfigError: it cannot be read, is cut off, or has no pictures.
    """
    with _opened(path) as container:
        stream = _video_stream(container, path)
        end, packets = 0.0, 0
        for packet in container.demux(stream):
            if packet.size:
                packets += 1
                require(not packet.is_corrupt, f"{path} is damaged in packet {packets}")
                if packet.pts is not None:
                    length = packet.duration or 0
                    end = max(end, float((packet.pts - (stream.start_time or 0) + length) * stream.time_base))
        require(packets >= stream.frames, f"{path} is cut off: it has {packets} of {stream.frames} frames")
        require(packets > 0, f"{path} has no pictures in it")
    with _opened(path) as container:
        first = next(container.decode(_video_stream(container, path)), None)
        require(first is not None, f"{path} has no pictures in it")
        height, width = frame_pixels(first).shape[:2]
    return VideoInfo(height, width, max(end, TOLERANCE * 2))


def read_clip(file: str | BinaryIO, start: float, fps: float, frames: int, size: tuple[int, int]) -> np.ndarray:
    """The pictures that a player shows at the moments start, start + 1/fps, ...

    Args:
      file: a path, perhaps in a bucket, or an open file.
      start: seconds after the first picture begins.
      fps: moments a second.
      frames: how many moments.
      size: height and width to which the pictures are resized and cropped.

    Returns:
      uint8 `[frames, height, width, 3]`.

    Raises:
      ConfigError: the file cannot be read, is damaged, or ends before the last moment.
    """
    clip = np.empty((frames, *size, 3), np.uint8)
    done = 0
    with _opened(file) as container:
        for picture, begins, ends in _shown(container, _video_stream(container, file), start):
            last = done
            while done < frames and start + done / fps < ends - TOLERANCE:
                if done == last:
                    require(not picture.is_corrupt, f"{_name(file)} is damaged at second {begins:.2f}")
                    clip[done] = resize_crop(frame_pixels(picture)[None], *size)[0]
                else:
                    clip[done] = clip[last]
                done += 1
            if done == frames:
                return clip
    raise ConfigError(
        f"{_name(file)} ends after {done} of the {frames} frames from second {start:.2f} at {fps:g} fps; it may be cut off"
    )


def _shown(container, stream, start: float) -> Iterator[tuple[av.VideoFrame, float, float]]:
    """Pictures from the one shown at `start` on (or a little before it), with the times at which each begins and ends."""
    origin = stream.start_time or 0
    if start > 0:
        container.seek(origin + int(start / stream.time_base), stream=stream, backward=True)
    shown = None
    begins = 0.0
    for picture in container.decode(stream):
        time = begins if picture.pts is None else float((picture.pts - origin) * stream.time_base)
        if shown is not None:
            yield shown, begins, time
        shown, begins = picture, time
    if shown is not None:
        shortest = 1 / stream.average_rate if stream.average_rate else 0
        yield shown, begins, begins + max(float((shown.duration or 0) * stream.time_base), float(shortest))


class _opened:
    """`av.open` whose errors are `ConfigError`s that name the file; a bucket that cannot be reached is no fault of the file's."""

    def __init__(self, file: str | BinaryIO):
        self.file, self._closing = file, contextlib.ExitStack()

    def __enter__(self):
        try:
            source = self.file
            if isinstance(source, str) and storage.is_remote(source):
                source = self._closing.enter_context(storage.open_binary(source))
            return self._closing.enter_context(av.open(source))
        except storage.StorageError:
            self._closing.close()
            raise
        except (OSError, av.FFmpegError, UnicodeDecodeError) as error:
            self._closing.close()
            raise self._explained(error) from None

    def __exit__(self, kind, error, trace) -> None:
        self._closing.close()
        at_fault = isinstance(error, OSError | av.FFmpegError | UnicodeDecodeError)
        if at_fault and not isinstance(error, storage.StorageError):
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> ConfigError:
        reason = getattr(error, "strerror", None) or str(error)
        return ConfigError(f"{_name(self.file)} cannot be read as a video ({reason})")


def _video_stream(container, file: str | BinaryIO):
    require(bool(container.streams.video), f"{_name(file)} has no pictures in it")
    stream = container.streams.video[0]
    require(
        0 < stream.height * stream.width <= MAX_PIXELS,
        f"{_name(file)} is {stream.height}x{stream.width} pixels; at most {MAX_PIXELS} in all can be read",
    )
    return stream


def _name(file: str | BinaryIO) -> str:
    return file if isinstance(file, str) else "a video of the data set"
