"""An MP4 file that can be played while it grows, survives a killed process, and is continued bit for bit the same.

Each `write` is encoded by an encoder of its own into one closed fragment (see `fragments.py`) and appended to the file,
so a run that was cut back to a known position and continued leaves the same bytes as one that was never interrupted.
"""

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import av
import numpy as np
from av.error import FFmpegError

from pavdm_jax import storage
from pavdm_jax.errors import FAULTS, ConfigError
from pavdm_jax.outputs import being_written, check_output, file_url, lock_file, partial_path, storage_error
from pavdm_jax.video.fragments import copy_fragments, encode

MIN_FPS, MAX_FPS = 0.01, 1000

MAX_SIDE = 16384
"""Pixels of the longer side of a frame; the encoder takes no more."""


class NotResumable(ConfigError):
    """The unfinished file is not, or not any more, what was written up to the position to be resumed."""


class Position(NamedTuple):
    """How much of a file is complete, which is what is needed to continue it."""

    num_frames: int
    num_bytes: int
    digest: str = ""  # of the bytes, hexadecimal


class VideoWriter:
    """Writes a video as its frames come; use it as a context manager.

    The file grows at `partial_path` and can be played from its start after every `write`. When the block ends without
    an error, it becomes an ordinary MP4 at `path`, atomically. After an error or Ctrl-C, `partial_path` stays, complete
    up to `position`.

    Args:
      path: the video, ending in .mp4; its folder is made, and an existing video is replaced at the end.
      fps: frames per second, `MIN_FPS` to `MAX_FPS`.
      crf: constant rate factor, 1 (largest file) to 51 (worst picture); 18 looks like the original.
      resume: the `position` of a writer that was interrupted; what its file holds behind it is dropped.
      comment: kept in the finished file, where players and `ffprobe` show it.

    Raises:
      ConfigError: a setting out of range, a place that cannot be written, or a full disk.
      NotResumable: the file at `partial_path` is not the one of that position.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        crf: float = 18,
        resume: Sequence | None = None,
        comment: str = "",
    ) -> None:
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ConfigError(f"fps {fps} must be {MIN_FPS} to {MAX_FPS}")
        if not 1 <= crf <= 51:
            raise ConfigError(f"crf {crf} must be 1 to 51; many players show 0, lossless, as black")
        self.path, self._comment = check_output(path), comment
        self.partial_path = partial_path(self.path)
        self.position = Position(0, 0) if resume is None else Position(*resume)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._crf = crf
        self._header: bytes | None = None
        self._shape: tuple[int, ...] | None = None
        self._hash = hashlib.blake2b(digest_size=16)
        self._file = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def write(self, frames: np.ndarray) -> None:
        """Append `frames`, uint8 `[f, h, w, 3]`, as one fragment, which is on disk afterwards.

        For equal bytes a resumed run must divide its frames among writes as the first run did.

        Raises:
          ConfigError: frames of another type or size, an odd height or width, or a place that cannot be written.
        """
        self._check(frames)
        if not len(frames):
            return
        header, fragment = encode(frames, self.position.num_frames, self._rate, self._crf)
        if self._header is None:
            self._check_header(header)
            self._header = header
        self._append(header, fragment, len(frames))

    def copy(self, path: str | Path, num_frames: int) -> None:
        """Begin with the first `num_frames` frames of a finished video of a `VideoWriter`, as they are stored.

        Raises:
          ConfigError: the video was not written with the same settings, or no `write` ended there.
        """
        for header, fragment, length in copy_fragments(Path(path), num_frames, self._rate, self._crf):
            self._append(header, fragment, length)

    def _append(self, header: bytes, fragment: bytes, num_frames: int) -> None:
        """Bring a fragment to the disk; the first one comes with the header."""
        data = fragment if self.position.num_bytes else header + fragment
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(error, self.partial_path) from None
        self._hash.update(data)
        frames, size = self.position.num_frames + num_frames, self.position.num_bytes + len(data)
        self.position = Position(frames, size, self._hash.hexdigest())

    def close(self) -> None:
        """Finish the video at `path`. Does nothing after `close` or `abandon`.

        Raises:
          ConfigError: no frame was written, or `path` cannot be written.
        """
        if self._file.closed:
            return
        if self.position.num_frames <= 0:
            self.abandon()
            raise ConfigError(f"output {self.path}: no frame was written")
        try:
            with self._file:  # and thereby held until the video has its name
                self._file.truncate(self.position.num_bytes)
                _finish(self.partial_path, self.path, self._comment)
        except OSError as error:
            raise storage_error(error, self.path) from None

    def abandon(self) -> None:
        """Stop, and leave the complete frames at `partial_path`, or no file. Does nothing after `close`."""
        if self._file.closed:
            return
        with self._file, contextlib.suppress(OSError):
            self._file.truncate(self.position.num_bytes)
            if not self.position.num_frames:
                self.partial_path.unlink(missing_ok=True)

    def _open(self) -> io.FileIO:
        """The partial file at the writer's position, held by this process alone."""
        try:
            file = lock_file(self.partial_path)
        except BlockingIOError:
            raise being_written(self.partial_path) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ConfigError(
                    f"{self.partial_path} is a symbolic link; remove it, or choose another output"
                ) from None
            raise storage_error(error, self.partial_path) from None
        try:
            self._check_position(file)
            file.truncate(self.position.num_bytes)
            file.seek(0, os.SEEK_END)
        except OSError as error:
            file.close()
            raise storage_error(error, self.partial_path) from None
        except ConfigError:
            if not os.fstat(file.fileno()).st_size:  # it was not there before
                self.partial_path.unlink(missing_ok=True)
            file.close()
            raise
        return file

    def _check_position(self, file: io.FileIO) -> None:
        """Refuse a position that is none of this file, or whose bytes have changed since."""
        frames, size, digest = self.position
        if frames < 0 or (frames > 0) != (size > 0):
            raise ConfigError(
                f"position {tuple(self.position)} cannot be resumed; give the one that the writer reported"
            )
        found = os.fstat(file.fileno()).st_size
        if not 0 <= size <= found:
            raise NotResumable(
                f"{self.partial_path} is not the file to resume: {found} bytes instead of at least {size}"
            )
        file.seek(0)
        while (rest := size - file.tell()) > 0:
            self._hash.update(file.read(min(rest, 2**20)))
        if self._hash.hexdigest() != digest and size:
            raise NotResumable(f"{self.partial_path} has changed since it was written")

    def _check(self, frames: np.ndarray) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ConfigError(f"frames must be uint8 [f, h, w, 3], not {frames.dtype} {list(frames.shape)}")
        height, width = frames.shape[1:3]
        if height % 2 != 0 or width % 2 != 0 or not height or not width:
            raise ConfigError(
                f"an H.264 video of {height}x{width} needs an even height and width: make it {height // 2 * 2 or 2}x"
                f"{width // 2 * 2 or 2} or {(height + 1) // 2 * 2 or 2}x{(width + 1) // 2 * 2 or 2}"
            )
        if max(height, width) > MAX_SIDE:
            raise ConfigError(
                f"an H.264 video of {height}x{width} is not possible: a side has at most {MAX_SIDE} pixels"
            )
        if self._shape not in (None, frames.shape[1:]):
            raise ConfigError(
                f"frames of {height}x{width} cannot follow frames of {'x'.join(map(str, (self._shape or ())[:2]))}"
            )
        self._shape = frames.shape[1:]

    def _check_header(self, header: bytes) -> None:
        """A resumed file must start with the header that this writer would have given it."""
        if self.position.num_bytes:
            self._file.seek(0)
            found = self._file.read(len(header))
            self._file.seek(0, os.SEEK_END)
            if found != header:
                raise ConfigError(
                    f"{self.partial_path} was written with another size or fps; resume with the same, or delete it "
                    "and start again"
                )


def read_comment(path: str | Path) -> str | None:
    """What a finished video carries as its comment; None for none, or where there is no video."""
    try:
        with av.open(file_url(path)) as container:
            return container.metadata.get("comment")
    except (OSError, FFmpegError, UnicodeDecodeError):
        return None


def _finish(partial: Path, path: Path, comment: str) -> None:
    """Turn the fragments into an ordinary MP4 with an index (exact frame count, quick seeking) at `path`.

    Where FFmpeg cannot, the fragments, a complete video too, become the result.

    Raises:
      OSError: it cannot be written, for instance because the disk has no room for a second copy; the fragments stay.
    """
    try:
        with storage.atomic_file(path) as indexed:
            _index(partial, indexed, comment)
    except FFmpegError as error:
        if error.errno in FAULTS:
            raise OSError(error.errno, error.strerror) from None
        partial.replace(path)
    else:
        partial.unlink()


def _index(partial: Path, indexed: Path, comment: str) -> None:
    with (
        av.open(file_url(partial)) as source,
        av.open(file_url(indexed), "w", options={"movflags": "faststart"}) as target,
    ):
        target.metadata["comment"] = comment
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
