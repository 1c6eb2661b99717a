"""Reads clips from video files: frames by number, or frames at given times whatever the file's own frame rate is."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError
from pavdm_jax.outputs import file_url
from pavdm_jax.video.images import check_pixels, is_image, read_image, read_picture, resize_crop

SAME_RATE = 0.05
"""The part by which two frame rates may differ and be taken for the same, as 23.976, 24 and 25."""

HDR = (16, 18)
"""FFmpeg's numbers of the transfer functions of films with a high dynamic range: PQ and HLG."""

MAX_BYTES = 2**33
"""The largest clip that is read into memory, 8 GiB: twenty minutes at 240 by 424 pixels."""

# --- reading ----------------------------------------------------------------------------------------------------------


def read_video(
    path: str | Path,
    start: int = 0,
    stop: int | None = None,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> np.ndarray:
    """The frames of a video, or the one frame of a picture.

    Pictures and videos are rotated as their metadata says.

    Args:
      path: a local file.
      start: number of the first frame, from 0.
      stop: number behind the last frame; None: to the end. A video that ends before it gives the frames that it has.
      size: height and width in pixels, to which each frame is resized and cropped as it comes (see `resize_crop`);
        None: as they are.
      fps: the frames are those that are shown at times 0, 1/fps, ... of a video that has more frames a second; None:
        all of them. A rate that differs by less than 5 % is taken for the same, as 25 for 24.

    Returns:
      uint8 `[f, h, w, 3]`, f ≥ 1.

    Raises:
      ConfigError: there is no such file, it is neither video nor picture, it is damaged or cut off, it has no frames
        between `start` and `stop`, or it is too large for memory.
    """
    path = find_video(path)
    if start < 0 or (stop is not None and stop <= start):
        raise ConfigError(f"frames {start} to {stop} of {path}: give 0 <= start < stop")
    frames = read_picture(path)
    if frames is None:
        return _read_frames(path, start, stop, size, fps)
    if start != 0:
        raise ConfigError(f"{path} is a picture: it has no frame {start}")
    return frames if size is None else resize_crop(frames, *size)


def find_video(path: str | Path) -> Path:
    """The local path of a video or picture; `ConfigError` where there is no file."""
    path = storage.local_path(path, "the video")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a video or picture in it")
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; check the name")
    return path


def _read_frames(
    path: Path, start: int, stop: int | None, size: tuple[int, int] | None, fps: float | None
) -> np.ndarray:
    frames: list[np.ndarray] = []
    shapes: set[tuple[int, ...]] = set()
    number = packets = 0
    try:
        with av.open(file_url(path)) as container:
            stream = _video_stream(container, str(path))

            def decoded() -> Iterator[av.VideoFrame]:
                nonlocal packets
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    yield from packet.decode()

            for picture, times in _played(decoded(), stream, fps):
                if picture.is_corrupt:
                    raise ConfigError(f"{path} is damaged in frame {number}; copy or download it again")
                if number + times > start:
                    pixels = frame_pixels(picture, stream)
                    shapes.add(pixels.shape)
                    pixels = pixels if size is None else resize_crop(pixels[None], *size)[0]
                for _ in range(times):
                    if number >= start:
                        frames.append(pixels)
                        if len(frames) * frames[0].nbytes > MAX_BYTES:
                            raise ConfigError(
                                f"{path} does not fit into memory ({len(frames)} frames are {MAX_BYTES >> 30} GiB); "
                                "read fewer frames"
                            )
                    number += 1
                    if number == stop:
                        return np.stack(frames)
            if packets < stream.frames:
                raise ConfigError(
                    f"{path} is cut off: it has {packets} of {stream.frames} frames; copy or download it again"
                )
    except (FFmpegError, UnicodeDecodeError) as error:  # some releases of av want metadata in UTF-8
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{path} cannot be read as a video ({reason}); it may be damaged, cut off or no video"
        ) from None
    if number <= 0:
        raise ConfigError(f"{path} has no frames; it may be cut off")
    if not frames:
        raise ConfigError(f"{path} has only {number} frames; frame {start} is beyond its end")
    if len(shapes) != 1:
        raise ConfigError(f"{path} changes its size on the way; convert it to one size")
    return np.stack(frames)


def _played(
    pictures: Iterator[av.VideoFrame], stream: VideoStream, fps: float | None
) -> Iterator[tuple[av.VideoFrame, int]]:
    """Frames, each with the number of times 0, 1/fps, ... at which it is shown; all once, where rates are the same."""
    rate = stream.average_rate
    if fps is None or not rate or fps / float(rate) > 1 - SAME_RATE:
        yield from ((picture, 1) for picture in pictures)
        return
    done = 0
    for picture, _, ends in _shown(pictures, stream):
        times = frames_within(done / fps, ends, fps)
        if times:
            yield picture, times
        done += times


def pad_start(frames: np.ndarray, least: int) -> tuple[np.ndarray, str]:
    """Lengthen a start clip that is too short to `least` frames by repeating its first frame.

    The published VAE encodes 17 frames at a time, while the released start clips have 16.

    Args:
      frames: uint8 `[f, h, w, 3]`, 1 ≤ f < `least`.
      least: pixel frames that are needed.

    Returns:
      The frames, uint8 `[least, h, w, 3]`, and a note for the user.
    """
    held = least - len(frames)
    note = f"the start clip has {len(frames)} frames; its first one is held for {held} more, to make {least}"
    return np.concatenate([frames[:1]] * held + [frames]), note


def iterate_video(path: str | Path) -> Iterator[np.ndarray]:
    """Read a video frame by frame, uint8 `[1, h, w, 3]`, in bounded memory.

    Raises:
      ConfigError: the file cannot be read as a video.
    """
    try:
        with av.open(file_url(path)) as container:
            stream = _video_stream(container, str(path))
            for frame in container.decode(stream):
                yield frame_pixels(frame, stream)[None]
    except (OSError, FFmpegError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a video ({error})") from None


def frame_pixels(frame: av.VideoFrame, stream: VideoStream) -> np.ndarray:
    """The pixels of a decoded frame, uint8 [h, w, 3], as they are shown.

    Rows are stretched where a film's pixels are no squares, and the frame is rotated as the metadata says (phones store
    films sideways). Colours of a high dynamic range are not mapped: there is a warning.
    """
    if getattr(frame, "color_trc", None) in HDR:
        warnings.warn(
            f"{stream.container.name or 'a video'} has colours of a high dynamic range, which come out flat and pale; "
            "convert it to SDR",
            stacklevel=2,
        )
    shape = float(stream.sample_aspect_ratio or 1)
    width = round(frame.width * shape) if 0.25 <= shape <= 4 else frame.width  # else it is a damaged number
    return np.rot90(frame.to_ndarray(format="rgb24", width=width), frame.rotation // 90)


MAX_SECONDS = 1e6
"""The longest video that is believed, 12 days: a damaged time would make clips without end."""

TOLERANCE = 1e-3
"""Seconds by which a frame's time may be off: containers round it, Matroska to whole milliseconds."""


@dataclass(frozen=True)
class VideoInfo:
    """Size and length of a video file, or of an image.

    Attributes:
      height, width: of the frames in pixels, after the rotation that the metadata asks for.
      seconds: from the begin of the first frame to the end of the last one; 0 for an image.
    """

    height: int
    width: int
    seconds: float


def frames_within(start: float, end: float, fps: float) -> int:
    """How many of the times start, start + 1/fps, ... (seconds) lie before `end`."""
    return max(0, int(np.ceil((end - start) * fps - TOLERANCE * fps)))


def probe(path: str) -> VideoInfo:
    """Size and length of a video, of which all packets are read, and the first frame is decoded; or of an image.

    Raises:
      ConfigError: the file cannot be read, is damaged or cut off, or has no frames.
    """
    if is_image(path):
        return VideoInfo(*read_image(path).shape[1:3], seconds=0.0)
    with _opened(path) as container:
        stream = _video_stream(container, path)
        end, packets = 0.0, 0
        for packet in container.demux(stream):
            if packet.size:
                packets += 1
                if packet.is_corrupt:
                    raise ConfigError(f"{path} is damaged in packet {packets}")
                if packet.pts is not None:
                    length = packet.duration or 0
                    end = max(end, float((packet.pts - (stream.start_time or 0) + length) * packet.time_base))
                    if end > MAX_SECONDS:
                        raise ConfigError(
                            f"{path} is damaged in packet {packets}, which is said to end after {end:.3g} seconds"
                        )
        if packets < stream.frames:
            raise ConfigError(f"{path} is cut off: it has {packets} of {stream.frames} frames")
        if packets <= 0:
            raise ConfigError(f"{path} has no pictures in it")
    with _opened(path) as container:
        stream = _video_stream(container, path)
        first = next(container.decode(stream), None)
        if first is None:
            raise ConfigError(f"{path} has no pictures in it")
        height, width = frame_pixels(first, stream).shape[:2]
    return VideoInfo(height, width, max(end, TOLERANCE * 2))


def frame_rate(path: str) -> float:
    """Frames a second of a video, on average over its length as its container says.

    Raises:
      ConfigError: it cannot be read, has no pictures, or does not say its rate.
    """
    with _opened(path) as container:
        rate = _video_stream(container, path).average_rate
    if not rate:
        raise ConfigError(f"{path} does not say how many frames a second it has; convert it to MP4")
    return float(rate)


def read_clip(file: str | BinaryIO, start: float, fps: float, frames: int, size: tuple[int, int]) -> np.ndarray:
    """The frames that a player shows at the times start, start + 1/fps, ...

    Args:
      file: a path, which may be in a bucket, or an open file.
      start: seconds after the begin of the first frame.
      fps: frames per second of the clip, whatever the file's rate is.
      frames: length of the clip in frames.
      size: height and width in pixels, to which the frames are resized and cropped (see `resize_crop`).

    Returns:
      uint8 `[frames, height, width, 3]`.

    Raises:
      ConfigError: the file cannot be read, is damaged, or ends before the last frame of the clip.
    """
    clip = np.empty((frames, *size, 3), np.uint8)
    done = 0
    with _opened(file) as container:
        stream = _video_stream(container, file)
        if start > 0:
            units = int(start / (stream.time_base or 1))
            container.seek((stream.start_time or 0) + units, stream=stream, backward=True)
        for picture, begins, ends in _shown(container.decode(stream), stream):
            last = done
            while done < frames and start + done / fps < ends - TOLERANCE:
                if done == last:
                    if picture.is_corrupt:
                        raise ConfigError(f"{_name(file)} is damaged at second {begins:.2f}")
                    clip[done] = resize_crop(frame_pixels(picture, stream)[None], *size)[0]
                else:
                    clip[done] = clip[last]
                done += 1
            if done == frames:
                return clip
    raise ConfigError(
        f"{_name(file)} ends after {done} of the {frames} frames from second {start:.2f} at {fps:g} fps; it may be "
        "cut off"
    )


def _shown(pictures: Iterable[av.VideoFrame], stream: VideoStream) -> Iterator[tuple[av.VideoFrame, float, float]]:
    """Decoded frames, each with its begin and its end in seconds after the begin of the video."""
    origin = stream.start_time or 0
    shown = None
    begins = 0.0
    for picture in pictures:
        time = begins if picture.pts is None else _seconds(picture.pts - origin, stream)
        if shown is not None:
            yield shown, begins, time
        shown, begins = picture, time
    if shown is not None:
        shortest = 1 / stream.average_rate if stream.average_rate else 0
        yield shown, begins, begins + max(_seconds(shown.duration or 0, stream), float(shortest))


def _seconds(units: int, stream: VideoStream) -> float:
    return float(units * (stream.time_base or 0))


@contextlib.contextmanager
def _opened(file: str | BinaryIO) -> Iterator[InputContainer]:
    """`av.open` whose errors become `ConfigError`s that name the file.

    A `StorageError` is passed on as it is: when a bucket cannot be reached, the file is not at fault.
    """
    try:
        with contextlib.ExitStack() as closing:
            source = file
            if isinstance(source, str) and storage.is_remote(source):
                source = closing.enter_context(storage.open_binary(source))
            if isinstance(source, str):
                source = file_url(source)
            yield closing.enter_context(av.open(source, "r"))
    except storage.StorageError:
        raise
    except (OSError, FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{_name(file)} cannot be read as a video ({reason})") from None


def _video_stream(container: InputContainer, file: str | BinaryIO) -> VideoStream:
    if not container.streams.video:
        raise ConfigError(f"{_name(file)} has no pictures in it; it may be cut off, or no video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ConfigError(f"{_name(file)} is of a kind that cannot be decoded; convert it to MP4")
    check_pixels(_name(file), stream.height, stream.width)
    return stream


def _name(file: str | BinaryIO) -> str:
    return file if isinstance(file, str) else "a video of the data set"
