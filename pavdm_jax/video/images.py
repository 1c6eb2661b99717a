"""Pictures: reading, resizing, contact sheets, PNG and GIF. Frames are uint8 RGB, `[f, h, w, 3]`.

Each library does what the others do not: imageio writes pictures; Pillow resizes, finds the colours of a GIF, and
reads, because imageio 2.38 turns grey pictures with an EXIF orientation the wrong way; PyAV writes the frames of a GIF
one by one, where imageio and Pillow collect all of them in memory first.
"""

import io
import itertools
import warnings
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageOps

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.outputs import check_output, file_url, new_file

MAX_PIXELS = 2**26
"""The most pixels of a frame that is read (8192 by 8192); more means a damaged header or the wrong file."""

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""By Pillow's names. Of others some start programs (PostScript does), whatever a file's name says."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Of files that are images in a manifest; a GIF counts as a video."""


def is_image(path: str) -> bool:
    """Whether a file's name is that of an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def read_image(path: str) -> np.ndarray:
    """The frame of an image, uint8 `[1, h, w, 3]`; the file may be in a bucket.

    Raises:
      ConfigError: it cannot be read, is damaged, too large or animated.
    """
    try:
        with storage.open_binary(path) as file:
            content = io.BytesIO(file.read())  # a network error is not a fault of the image
    except storage.StorageError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    picture = read_picture(Path(path), content)
    if picture is None:
        raise ConfigError(f"{path} is no still image: it is damaged, of an unknown format, or animated")
    return picture


def read_picture(path: Path, content: BinaryIO | None = None) -> np.ndarray | None:
    """The frame of a still picture, uint8 `[1, h, w, 3]`, on white where it is transparent.

    None for animations and for formats unknown to Pillow.

    Args:
      path: of the file.
      content: of the file, if it was read already.

    Raises:
      ConfigError: the picture is damaged, cut off or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged by MAX_PIXELS instead
        try:
            with Image.open(path if content is None else content, formats=PICTURE_FORMATS) as image:
                # Cameras append previews and depth maps to a JPEG, which Pillow counts as frames (MPO).
                if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                    return None
                check_pixels(path, image.height, image.width)
                return np.asarray(_opaque(_in_8_bits(path, ImageOps.exif_transpose(image))))[None]
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError:
            raise ConfigError(f"{path} is larger than {MAX_PIXELS} pixels; make it smaller") from None
        except ConfigError:
            raise
        except Exception as error:  # damaged pictures raise whatever their format's reader stumbles over
            raise ConfigError(
                f"{path} cannot be read as a picture ({first_line(error)}); it may be damaged or cut off"
            ) from None


def _in_8_bits(path: Path, image: Image.Image) -> Image.Image:
    """A picture of 16 bits in its upper 8, of which Pillow would make white; those of other numbers are refused."""
    if image.mode in ("I", "F"):
        raise ConfigError(f"{path} has pixels of 32 bits, whose range is not known; convert it to 8 or 16 bits")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """A picture in RGB, on white where it is transparent: what lies under that is left over from its making."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def check_pixels(path: Path | str, height: int, width: int) -> None:
    """Raise `ConfigError` when the frames of the file `path` have no pixels, or more than `MAX_PIXELS`."""
    if not 0 < height * width <= MAX_PIXELS:
        raise ConfigError(f"{path} is {height}x{width} pixels; at most {MAX_PIXELS} in all can be read")


# --- shaping ----------------------------------------------------------------------------------------------------------


def resize_crop(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop frames around the centre to the aspect ratio of `height` × `width`, and resize them to that size.

    Args:
      frames: uint8 [f, h, w, 3]; frames that have the size are returned as they are.
      height, width: in pixels.

    Returns:
      uint8 [f, height, width, 3], resampled by Lanczos without aliasing.
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
    """A picture, uint8 `[h, w, 3]`, of `frames` `[h, w, 3]` in rows, on white with `gap` pixels between them.

    Raises:
      ConfigError: there are no frames or no columns.
    """
    if len(frames) <= 0 or columns < 1:
        raise ConfigError(f"a contact sheet of {len(frames)} frames in {columns} columns shows nothing")
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
    """Write one frame, uint8 `[h, w, 3]`, as a PNG; `ConfigError` where it cannot be written."""
    path = check_output(path, (".png",))
    with new_file(path) as partial:
        iio.imwrite(partial, frame, extension=".png")


def write_gif(path: str | Path, clips: Iterable[np.ndarray], fps: float, gif_fps: float = 12) -> None:
    """Write clips, uint8 `[f, h, w, 3]` each, one after another as a GIF that loops, in bounded memory.

    Args:
      path: ends in .gif.
      clips: of equal height and width.
      fps: frames per second of the clips.
      gif_fps: about how many frames per second the GIF shows, at most 50; each frame has 256 colours of its own.

    Raises:
      ConfigError: no frames, a rate out of range, or a place that cannot be written.
    """
    path = check_output(path, (".gif",))
    if not fps > 0 or not 0 < gif_fps <= 50:
        raise ConfigError(f"a GIF of {gif_fps} fps from {fps} fps cannot be made; it shows at most 50 fps")
    stride = max(1, round(fps / gif_fps))
    rate = Fraction(fps).limit_denominator(1001) / stride
    shown = (frame for number, frame in enumerate(frame for clip in clips for frame in clip) if number % stride == 0)
    first = next(shown, None)
    if first is None:
        raise ConfigError(f"output {path}: no frame was given")
    height, width = first.shape[:2]
    with new_file(path) as partial, av.open(file_url(partial), "w", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
        for number, pixels in enumerate(itertools.chain([first], shown)):
            # A pair of arrays, which its annotation forgets.
            frame = av.VideoFrame.from_ndarray(cast(np.ndarray, _best_colours(pixels)), format="pal8")
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
