"""Means with 95 % intervals, by resampling videos with replacement (percentile bootstrap)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` videos and its interval; None where there are too few videos to say."""

    mean: float | None
    low: float | None
    high: float | None
    count: int


def mean_with_interval(values: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of a score over videos with its 95 % interval.

    Args:
      values: one for each video; nan is a missing score and left out.
      seed: of the resampling; the same values give the same interval.
      resamples: how often videos are drawn again.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return Estimate(float(known[0]) if len(known) else None, None, None, len(known))
    drawn = np.random.default_rng(seed).integers(len(known), size=(resamples, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(known.mean()), float(low), float(high), len(known))


def curve_with_intervals(curves: Sequence[Sequence[float]], seed: int = 0) -> list[Estimate]:
    """The mean curve of videos that need not be equally long: at each moment, over the videos that last so long."""
    length = max(map(len, curves), default=0)
    return [mean_with_interval([curve[at] for curve in curves if at < len(curve)], seed) for at in range(length)]
