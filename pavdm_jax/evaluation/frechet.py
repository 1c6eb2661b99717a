"""The Fréchet distance between the features of two sets of videos, with an interval.

With the features of a network that was trained on videos this is known as FVD; the number means nothing without the
name of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.bootstrap import FEWEST, LEVEL

RESAMPLES = 200
"""Fewer than for means: each one takes eigenvalues of matrices as large as a feature is long."""


@dataclass(frozen=True)
class FrechetDistance:
    """The distance and its 95 % interval.

    Attributes:
      distance: of the two Gaussians.
      low, high: its interval, None where a set has fewer than 5 videos.
      samples: clips in the first and in the second set.
      dimension: numbers in a feature.
      rank: of the two covariances, the lower rank; below `dimension`, some directions of the features never vary.
    """

    distance: float
    low: float | None
    high: float | None
    samples: tuple[int, int]
    dimension: int
    rank: int


def gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[d]` and covariance `[d, d]` (divided by the number of samples) of features `[n, d]`."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / len(features)


def distance_of_gaussians(
    first_mean: np.ndarray, first_covariance: np.ndarray, second_mean: np.ndarray, second_covariance: np.ndarray
) -> float:
    """|m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared Fréchet (2-Wasserstein) distance of two Gaussians.

    (C1 C2)^(1/2) and (C1^(1/2) C2 C1^(1/2))^(1/2) have the same trace. The second is of a symmetric matrix without
    negative eigenvalues, so that its root exists for covariances of any rank, where `scipy.linalg.sqrtm` of the first,
    which most implementations take, fails or gives complex numbers.
    """
    values, vectors = np.linalg.eigh(first_covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second_covariance @ root), 0)).sum()
    apart = np.sum((first_mean - second_mean) ** 2)
    return float(apart + np.trace(first_covariance) + np.trace(second_covariance) - 2 * common)


def frechet_distance(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], seed: int = 0, resamples: int = RESAMPLES
) -> FrechetDistance:
    """The distance between two sets of videos.

    The interval is the basic bootstrap's over videos, whose clips are drawn together: distances of resamples are larger
    than that of the samples by as much as that one is larger than the truth, so they are mirrored at it.

    Args:
      first, second: for each video of a set, the features of its clips `[clips, d]`.
      seed, resamples: of the bootstrap.

    Raises:
      ConfigError: a set has no more clips than a feature has numbers, so that its covariance cannot be of full rank.
    """
    joined = [np.concatenate([np.asarray(clips, np.float64) for clips in videos]) for videos in (first, second)]
    dimensions = {features.shape[1] for features in joined}
    if len(dimensions) != 1:
        raise ConfigError(f"features of {' and '.join(map(str, dimensions))} numbers cannot be compared")
    (dimension,) = dimensions
    fewest = min(map(len, joined))
    if fewest <= dimension:
        raise ConfigError(
            f"{fewest} clips give no covariance of {dimension} numbers; a Fréchet distance needs more than {dimension} "
            "clips of either set"
        )
    gaussians = [gaussian(features) for features in joined]
    distance = distance_of_gaussians(*gaussians[0], *gaussians[1])
    rank = min(int(np.linalg.matrix_rank(covariance, hermitian=True)) for _, covariance in gaussians)
    low = high = None
    if min(len(first), len(second)) >= FEWEST:
        rng = np.random.default_rng(seed)
        drawn = [
            distance_of_gaussians(*gaussian(_resampled(first, rng)), *gaussian(_resampled(second, rng)))
            for _ in range(resamples)
        ]
        below, above = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = max(0.0, float(2 * distance - above)), max(0.0, float(2 * distance - below))
    return FrechetDistance(distance, low, high, (len(joined[0]), len(joined[1])), dimension, rank)


def _resampled(videos: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([videos[i] for i in rng.integers(len(videos), size=len(videos))])
