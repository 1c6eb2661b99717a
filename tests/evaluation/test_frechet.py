"""The Fréchet distance of Gaussians is known in closed form."""

import numpy as np
import pytest
from scipy import linalg

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.frechet import distance_of_gaussians, frechet_distance, gaussian


def covariance(dimension, seed):
    root = np.random.default_rng(seed).normal(size=(dimension, 2 * dimension))
    return root @ root.T / dimension


def test_gaussians_that_differ_in_their_means_are_their_squared_distance_apart():
    c = covariance(5, 0)
    assert distance_of_gaussians(np.zeros(5), c, np.full(5, 2.0), c) == pytest.approx(20)


def test_gaussians_of_different_widths():
    """In one dimension (s1 - s2)², and as often in several that do not depend on each other."""
    assert distance_of_gaussians(np.zeros(1), np.eye(1) * 9, np.zeros(1), np.eye(1) * 4) == pytest.approx(1)
    first, second = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 1.0])
    assert distance_of_gaussians(np.zeros(3), first, np.zeros(3), second) == pytest.approx(1 + 0 + 4)


def test_the_root_is_that_of_scipy():
    m1, m2 = np.random.default_rng(2).normal(size=(2, 6))
    c1, c2 = covariance(6, 3), covariance(6, 4)
    root = np.real(linalg.sqrtm(c1 @ c2))
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * root)
    assert distance_of_gaussians(m1, c1, m2, c2) == pytest.approx(expected)


def test_covariances_of_low_rank_have_a_distance():
    direction = np.array([[3.0, 4.0]])
    c = direction.T @ direction  # rank 1, variance 25 along (0.6, 0.8)
    assert distance_of_gaussians(np.zeros(2), c, np.zeros(2), 4 * c) == pytest.approx(25)  # (10 - 5)²


def test_the_covariance_is_divided_by_the_number_of_samples():
    mean, c = gaussian(np.array([[0.0], [2.0]]))
    assert (mean, c) == (1, 1)


def videos(count, clips, mean, scale, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(mean, scale, (clips, 3)) for _ in range(count)]


def test_samples_of_gaussians_are_as_far_apart_as_the_gaussians():
    found = frechet_distance(videos(100, 30, 0, 1, 0), videos(100, 30, 1, 2, 1), resamples=50)
    assert found.distance == pytest.approx(3 * 1 + 3 * (2 - 1) ** 2, rel=0.05)
    assert found.low < found.distance < found.high
    assert (found.samples, found.dimension, found.rank) == ((3000, 3000), 3, 3)


def test_equal_sets_are_not_apart():
    same = videos(5, 4, 0, 1, 0)
    assert frechet_distance(same, same, resamples=2).distance == pytest.approx(0, abs=1e-9)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = []
    for trial in range(60):
        found = frechet_distance(videos(30, 4, 0, 1, 2 * trial), videos(30, 4, 0.5, 1, 2 * trial + 1), resamples=100)
        covered.append(found.low <= 3 * 0.25 <= found.high)
    assert np.mean(covered) > 0.85


def test_clips_of_a_video_are_drawn_together():
    """Sixty copies of a clip say no more than one."""
    distinct = videos(20, 2, 0, 1, 0), videos(20, 2, 1, 1, 1)
    copied = [[np.repeat(clips, 60, axis=0) for clips in of] for of in distinct]
    one, many = frechet_distance(*distinct, resamples=50), frechet_distance(*copied, resamples=50)
    assert many.distance == pytest.approx(one.distance)
    assert many.high - many.low == pytest.approx(one.high - one.low)


def test_too_few_clips_are_refused():
    with pytest.raises(ConfigError, match=r"3 clips give no covariance of 3 numbers; .* more than 3 clips"):
        frechet_distance(videos(9, 9, 0, 1, 0), videos(1, 3, 0, 1, 1))


def test_features_of_two_networks_are_not_compared():
    with pytest.raises(ConfigError, match="cannot be compared"):
        frechet_distance([np.zeros((9, 3))], [np.zeros((9, 4))])


def test_directions_that_never_vary_are_told():
    flat = [np.c_[clips, np.zeros(len(clips))] for clips in videos(9, 9, 0, 1, 0)]
    found = frechet_distance(flat, flat, resamples=2)
    assert (found.dimension, found.rank) == (4, 3)
