"""Abrupt changes in frames that are in memory, by the rule of PySceneDetect; `scenes` counts those of files, by the
library itself."""

import numpy as np

CUT_SIDE_PX = 256  # longer frames are reduced to this before they are compared
CUT_RATIO = 3.0  # change at a cut over the mean change of its neighbours
CUT_MIN_CONTENT = 15.0  # of 255; smaller changes are never a cut
CUT_NEIGHBOURS = 2  # frames on either side
CUT_MIN_SCENE = 15  # frames


def scene_cuts(video: np.ndarray) -> int:
    """Number of abrupt changes in uint8 frames `[f, h, w, 3]`; the number of scenes is one more (see `cut_frames`)."""
    return len(cut_frames(video))


def cut_frames(video: np.ndarray) -> list[int]:
    """First frames of new scenes, by the rule of PySceneDetect 0.6's `AdaptiveDetector` with its default settings.

    A decision is due two frames after the frame that it is about, and the least length of a scene is counted up to
    then, so a scene may be 13 frames long; release 0.7 counts up to the frame itself, to 15.
    """
    content = _content_changes(video)
    cuts: list[int] = []
    last_cut = 0
    for t in range(CUT_NEIGHBOURS, len(content) - CUT_NEIGHBOURS):
        around = np.r_[content[t - CUT_NEIGHBOURS : t], content[t + 1 : t + 1 + CUT_NEIGHBOURS]].mean()
        abrupt = content[t] / around >= CUT_RATIO if around >= 1e-5 else True
        long_enough = t + CUT_NEIGHBOURS - last_cut >= CUT_MIN_SCENE
        if abrupt and content[t] >= CUT_MIN_CONTENT and long_enough:
            cuts.append(t)
            last_cut = t
    return cuts


def _content_changes(video: np.ndarray) -> np.ndarray:
    """Mean absolute change of hue, saturation and value from the frame before `[f]`; 0 in the first frame."""
    changes = np.zeros(len(video))
    before = None
    for t, frame in enumerate(video):
        now = _hsv(_reduce(frame))
        if before is not None:
            changes[t] = np.abs(now - before).mean()
        before = now
    return changes


def _reduce(frame: np.ndarray) -> np.ndarray:
    """The frame with its longer side at most `CUT_SIDE_PX`: bilinear at pixel centres, not smoothed, in 8 bits."""
    factor = max(frame.shape[:2]) / CUT_SIDE_PX
    if factor <= 1:
        return frame
    image = frame.astype(np.float64)
    for axis in (0, 1):
        size, target = frame.shape[axis], round(frame.shape[axis] / factor)
        at = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        weight = np.expand_dims(at - low, tuple(a for a in range(3) if a != axis))
        image = image.take(low, axis) * (1 - weight) + image.take(low + 1, axis) * weight
    return np.rint(image).astype(np.uint8)


def _hsv(frame: np.ndarray) -> np.ndarray:
    """8-bit RGB `[h, w, 3]` as hue 0..179, saturation and value 0..255, int32, with OpenCV's integer rounding."""
    red, green, blue = np.moveaxis(frame.astype(np.int32), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    sector = np.where(
        value == red, green - blue, np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    divisor = np.maximum(np.arange(256), 1)
    hue = (sector * np.rint((180 << 12) / (6 * divisor)).astype(np.int32)[spread] + (1 << 11)) >> 12
    saturation = (spread * np.rint((255 << 12) / divisor).astype(np.int32)[value] + (1 << 11)) >> 12
    return np.stack([np.where(hue < 0, hue + 180, hue), saturation, value])
