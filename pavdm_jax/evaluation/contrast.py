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
      The contrast in the unit of the scores, of those that are known; nan where an end has none, or of fewer than 2.
    """
    values = np.asarray(curve, np.float64)
    if len(values) < 2:
        return float("nan")
    at_start = np.clip(share * len(values) - np.arange(len(values)), 0, 1) * np.isfinite(values)
    at_end = np.clip(share * len(values) - np.arange(len(values))[::-1], 0, 1) * np.isfinite(values)
    if not at_start.any() or not at_end.any():
        return float("nan")
    known = np.nan_to_num(values)
    return float(np.average(known, weights=at_end) - np.average(known, weights=at_start))
