"""Encoded frames as closed fragments (`moof` + `mdat`) of an MP4.

The bytes of a fragment depend only on its frames, on the number of the first of them and on the encoder's settings. All
fragments of a video share one header.
"""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError

from pavdm_jax.errors import ConfigError
from pavdm_jax.outputs import file_url

PIXEL_FORMAT = "yuv420p"
"""Of H.264 that plays everywhere: colours at half the resolution, so that height and width must be even."""

_FRAGMENT_OPTIONS = {
    "movflags": "frag_custom+empty_moov+default_base_moof+frag_discont+skip_trailer",
    "use_editlist": "0",
    "avoid_negative_ts": "disabled",  # or every fragment would be moved to time 0
}

_ENCODER_OPTIONS = {
    "preset": "medium",
    "bf": "0",
    # At widths that are no multiple of 16, the macroblock tree of some builds of x264 (PyAV 19 has one) depends on what
    # was in the memory before, so that equal frames would not always give equal bytes.
    "mbtree": "0",
}

_BT709, _LIMITED_RANGE = 1, 1  # H.264's numbers, ITU-T H.273


def encode(frames: np.ndarray, first_frame: int, rate: Fraction, crf: float) -> tuple[bytes, bytes]:
    """The header, which is the same for all of a video, and the fragment of some frames.

    Args:
      frames: uint8 `[f, h, w, 3]`.
      first_frame: number of the first one in the video.
      rate: frames per second.
      crf: constant rate factor, 1 to 51.
    """
    buffer = io.BytesIO()
    with _open(buffer, first_frame) as container:
        stream = container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS | {"crf": str(crf)})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXEL_FORMAT
        context = stream.codec_context
        context.thread_count = 1  # x264's output depends on the number of its threads
        context.gop_size = 10**6
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        for number, pixels in enumerate(frames, first_frame):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=PIXEL_FORMAT, dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return _split(buffer.getvalue())


def copy_fragments(path: Path, num_frames: int, rate: Fraction, crf: float) -> Iterator[tuple[bytes, bytes, int]]:
    """What `encode` gave for each fragment of a finished video, up to `num_frames` frames; and the frames of each.

    Raises:
      ConfigError: the video cannot be read, has no fragment that ends there, or was not made by `encode` with this rate
        and crf.
    """
    try:
        with av.open(file_url(path)) as source:
            stream = source.streams.video[0]
            header, _ = encode(np.zeros((1, stream.height, stream.width, 3), np.uint8), 0, rate, crf)
            if stream.average_rate != rate or bytes(stream.codec_context.extradata or b"") not in header:
                raise ConfigError(
                    f"{path} was encoded with other settings or another version of the encoder: nothing can be "
                    "appended to it; make it again"
                )
            done = 0
            for packets in _fragments(source):
                if done >= num_frames:
                    break
                yield header, _pack(packets, stream, done), len(packets)
                done += len(packets)
    except (OSError, FFmpegError, UnicodeDecodeError, IndexError) as error:
        raise ConfigError(f"{path} cannot be read as a video ({error})") from None
    if done != num_frames:
        raise ConfigError(f"{path} cannot be cut after {num_frames} frames; it is not the video that it was")


def _open(buffer: io.BytesIO, first_frame: int) -> OutputContainer:
    """A file in memory, of one fragment."""
    return av.open(buffer, "w", format="mp4", options=_FRAGMENT_OPTIONS | {"fragment_index": str(first_frame + 1)})


def _split(file: bytes) -> tuple[bytes, bytes]:
    """The header, and what begins with the first `moof` box."""
    offset = 0
    while file[offset + 4 : offset + 8] != b"moof":
        offset += int.from_bytes(file[offset : offset + 4], "big")
    return file[:offset], file[offset:]


def _fragments(source: InputContainer) -> Iterator[list[av.Packet]]:
    """The packets of each fragment, which only begins with a key frame."""
    packets: list[av.Packet] = []
    for packet in source.demux(video=0):
        if packet.size:
            if packet.is_keyframe and packets:
                yield packets
                packets = []
            packets.append(packet)
    yield packets


def _pack(packets: list[av.Packet], source: av.VideoStream, first_frame: int) -> bytes:
    """The fragment of frames that are encoded already."""
    buffer = io.BytesIO()
    with _open(buffer, first_frame) as container:
        stream = container.add_stream_from_template(source)
        stream.time_base = source.time_base
        for packet in packets:
            packet.stream = stream
            container.mux(packet)
    return _split(buffer.getvalue())[1]
