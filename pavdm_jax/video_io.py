"""Clips from and to files: read, resize, pictures, GIFs. The growing MP4 is in `video_writer.py`.

Frames are uint8 RGB, `[f, h, w, 3]`.
"""

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageOps

from pavdm_jax import storage
from pavdm_jax.config import ConfigError, require
from pavdm_jax.video_writer import VideoWriter, check_output, partial_path, storage_error

__all__ = [
    "VideoWriter",
    "check_output",
    "contact_sheet",
    "frame_pixels",
    "iterate_video",
    "read_video",
    "resize_crop",
    "write_gif",
    "write_png",
]

MAX_PIXELS = 2**26
"""Of a frame (8192 by 8192): a larger one is a broken header or the wrong file."""

MAX_BYTES = 2**33
"""Of a clip in memory, 8 GiB: at 240 by 424 this is twenty minutes."""


# --- reading ----------------------------------------------------------------------------------------------------------


def read_video(path: str | Path, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The frames `start` to `stop` (exclusive; None: to the end) of a video, or the one frame of a picture.

    Pictures and videos are turned as their metadata says. A video that ends before `stop` gives what it has.

    Returns:
      uint8 `[f, h, w, 3]`, f ≥ 1.

    Raises:
      ConfigError: there is no such file, it is neither video nor picture, it is damaged or cut off, it has no frames between
        `start` and `stop`, or it is too large for memory.
    """
    path = storage.local_path(path, "the video")
    require(
        start >= 0 and (stop is None or stop > start), f"frames {start} to {stop} of {path}: give 0 <= start < stop"
    )
    require(not path.is_dir(), f"{path} is a folder; name a video or picture in it")
    require(path.is_file(), f"{path} does not exist; check the name")
    frames = _read_picture(path)
    if frames is None:
        frames = _read_frames(path, start, stop)
    else:
        require(start == 0, f"{path} is a picture: it has no frame {start}")
    return frames


def _read_picture(path: Path) -> np.ndarray | None:
    """The one frame `[1, h, w, 3]` of a still picture; None for what Pillow does not know or what moves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged by MAX_PIXELS instead
        try:
            with Image.open(path) as image:
                if getattr(image, "n_frames", 1) > 1:
                    return None
                _check_pixels(path, image.height, image.width)
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[None]
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError:
            raise ConfigError(f"{path} is larger than {MAX_PIXELS} pixels; make it smaller") from None
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} cannot be read as a picture ({error}); it may be damaged or cut off") from None


def _read_frames(path: Path, start: int, stop: int | None) -> np.ndarray:
    frames: list[np.ndarray] = []
    number = packets = 0
    try:
        with av.open(str(path)) as container:
            require(bool(container.streams.video), f"{path} has no pictures in it; it may be cut off, or no video")
            stream = container.streams.video[0]
            _check_pixels(path, stream.height, stream.width)
            for packet in container.demux(stream):
                packets += packet.size > 0
                for frame in packet.decode():
                    if number >= start:
                        frames.append(frame_pixels(frame))
                        require(
                            len(frames) * frames[0].nbytes <= MAX_BYTES,
                            f"{path} does not fit into memory ({len(frames)} frames are {MAX_BYTES >> 30} GiB); read fewer frames",
                        )
                    number += 1
                    if number == stop:
                        return np.stack(frames)
            require(
                packets >= stream.frames,
                f"{path} is cut off: it has {packets} of {stream.frames} frames; copy or download it again",
            )
    except (av.FFmpegError, UnicodeDecodeError) as error:  # some releases of av want metadata in UTF-8
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{path} cannot be read as a video ({reason}); it may be damaged, cut off or no video"
        ) from None
    require(number > 0, f"{path} has no frames; it may be cut off")
    require(bool(frames), f"{path} has only {number} frames; frame {start} is beyond its end")
    require(len({frame.shape for frame in frames}) == 1, f"{path} changes its size on the way; convert it to one size")
    return np.stack(frames)


def iterate_video(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a whole video one by one, `[1, h, w, 3]`, in bounded memory; `ConfigError` where it cannot be read."""
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame_pixels(frame)[None]
    except (OSError, av.FFmpegError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a video ({error})") from None


def _check_pixels(path: Path, height: int, width: int) -> None:
    require(
        0 < height * width <= MAX_PIXELS, f"{path} is {height}x{width} pixels; at most {MAX_PIXELS} in all can be read"
    )


def frame_pixels(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [h, w, 3]; phones store upright films lying down, with the angle beside them."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


# --- shaping ----------------------------------------------------------------------------------------------------------


def resize_crop(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest centred part of `frames` that has the shape of `height` × `width`, resampled to it without aliasing.

    Frames of that size are returned as they are.
    """
    rows, columns = frames.shape[1:3]
    if (rows, columns) == (height, width):
        return frames
    scale = max(height / rows, width / columns)
    above, left = (rows - height / scale) / 2, (columns - width / scale) / 2
    box = (max(left, 0), max(above, 0), min(columns - left, columns), min(rows - above, rows))
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box))
            for frame in frames
        ]
    )


def contact_sheet(frames: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """One picture `[h, w, 3]` of equally large `frames`, row after row, on white with `gap` pixels between them."""
    require(
        len(frames) > 0 and columns >= 1, f"a contact sheet of {len(frames)} frames in {columns} columns shows nothing"
    )
    columns = min(columns, len(frames))
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        above, left = row * (height + gap), column * (width + gap)
        sheet[above : above + height, left : left + width] = frame
    return sheet


# --- writing ----------------------------------------------------------------------------------------------------------


def write_png(path: str | Path, frame: np.ndarray) -> None:
    """Write one frame `[h, w, 3]`; `ConfigError` where it cannot be written."""
    path = check_output(path, (".png",))
    with _growing(path) as partial:
        iio.imwrite(partial, frame, extension=".png")


def write_gif(path: str | Path, clips: Iterable[np.ndarray], fps: float, gif_fps: float = 12) -> None:
    """Write `clips`, uint8 `[f, h, w, 3]` each, one after the other as a GIF that repeats for ever, in bounded memory.

    Every n-th frame is shown, so that there are about `gif_fps` a second; each has its own 256 colours.

    Raises:
      ConfigError: no frames, a rate out of range, or a place that cannot be written.
    """
    path = check_output(path, (".gif",))
    require(
        fps > 0 and 0 < gif_fps <= 50, f"a GIF of {gif_fps} fps from {fps} fps cannot be made; it shows at most 50 fps"
    )
    stride = max(1, round(fps / gif_fps))
    rate = Fraction(fps).limit_denominator(1001) / stride
    shown = (frame for number, frame in enumerate(frame for clip in clips for frame in clip) if number % stride == 0)
    first = next(shown, None)
    if first is None:
        raise ConfigError(f"output {path}: no frame was given")
    height, width = first.shape[:2]
    with _growing(path) as partial, av.open(str(partial), "w", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
        for number, pixels in enumerate(itertools.chain([first], shown)):
            frame = av.VideoFrame.from_ndarray(_best_colours(pixels), format="pal8")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _best_colours(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour numbers `[h, w]` of a frame and the colours `[256, 4]` (opaque, red, green, blue) they stand for."""
    image = Image.fromarray(frame).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    return np.asarray(image), palette


@contextlib.contextmanager
def _growing(path: Path) -> Iterator[Path]:
    """A name to write to that becomes `path` at once when all went well, and vanishes otherwise."""
    partial = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise storage_error(error, path) from None
    finally:
        partial.unlink(missing_ok=True)
