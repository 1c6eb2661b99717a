"""Videos as clips of two seconds, cut as VBench-Long cuts them, so that a score of a clip becomes a curve over time.

Source: `vbench2_beta_long/utils.py`, `split_video_into_clips`. VBench-Long writes each clip to a compressed file before
it scores it; here the decoded frames themselves are scored.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from pavdm_jax.errors import ConfigError

CLIP_SECONDS = 2


def clip_length(fps: float) -> int:
    """Frames of a clip: two seconds of the whole frames a second, so 46 at 23.976 fps and 48 at 24."""
    if fps < 1:
        raise ConfigError(f"clips of {CLIP_SECONDS} seconds cannot be cut at {fps:g} frames a second; 1 is the least")
    return int(fps) * CLIP_SECONDS


def clip_starts(frames: int, length: int) -> list[int]:
    """The first frame of each clip of a video of `frames` frames; a short rest begins in the clip before it."""
    starts = list(range(0, max(frames - length, 0) + 1, length))
    if frames > length and frames % length:
        starts.append(frames - length)
    return starts


def two_second_clips(frames: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Cut a stream of frames into clips, holding two of them in memory.

    Args:
      frames: uint8 `[h, w, 3]` each.
      length: of a clip, see `clip_length`.

    Yields:
      uint8 `[length, h, w, 3]`. A rest that is too short is completed by frames of the clip before it. A video that is
      shorter than a clip is one short clip.
    """
    before: list[np.ndarray] = []
    clip: list[np.ndarray] = []
    for frame in frames:
        clip.append(frame)
        if len(clip) == length:
            yield np.stack(clip)
            before, clip = clip, []
    if clip:
        yield np.stack([*before[len(clip) :], *clip])
