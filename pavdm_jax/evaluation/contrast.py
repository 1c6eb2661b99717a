"""How much a score has changed from the beginning of a video to its end, with its sign."""

from collections.abc import Sequence

import numpy as np

SHARE = 0.15
"""Of the video, at either end."""


def start_end_contrast(curve: Sequence[float] | np.ndarray, share: float = SHARE) -> float:
    """Mean over the last 15 % of a curve minus mean over the first 15 %.

    A point that lies partly within an end counts with that part: of 30 clips the first 4.5 are taken.

    Args:
      curve: scores of equally long pieces of a video, in order.
      share: of the curve that each end is, above 0 and at most 0.5.

    Returns:
      The contrast in the unit of the scores; nan where a score is missing, or of fewer than 2.
    """
    values = np.asarray(curve, np.float64)
    if len(values) < 2:
        return float("nan")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    width = share * len(values)
    at_start, before_end = np.interp([width, len(values) - width], np.arange(len(sums)), sums)
    return float((sums[-1] - before_end - at_start) / width)
