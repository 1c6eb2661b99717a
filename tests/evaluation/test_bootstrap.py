"""Intervals of means cover the truth as often as they say; contrasts of curves known in closed form."""

import numpy as np
import pytest

from pavdm_jax.evaluation.bootstrap import curve_with_intervals, mean_with_interval
from pavdm_jax.evaluation.contrast import start_end_contrast


def test_intervals_of_normal_scores_are_those_of_theory():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_with_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (found.mean, found.count) == (pytest.approx(values.mean()), 400)
    np.testing.assert_allclose([found.low, found.high], [found.mean - half, found.mean + half], rtol=0.01)


@pytest.mark.parametrize("videos", [5, 6, 20])
def test_intervals_cover_the_truth_as_often_as_they_say_even_of_few_videos(videos):
    rng = np.random.default_rng(1)
    found = [mean_with_interval(rng.normal(1, 1, videos), resamples=2000) for _ in range(400)]
    covered = np.mean([estimate.low <= 1 <= estimate.high for estimate in found])
    assert 0.89 < covered < 0.98  # the plain percentile bootstrap: 0.87 of 6 videos


def test_missing_scores_are_left_out():
    found = mean_with_interval([1.0, float("nan"), 3.0])
    assert (found.mean, found.count) == (2.0, 2)


def test_too_few_videos_have_no_interval():
    found = mean_with_interval([1.0, 2.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == (2, None, None)
    assert mean_with_interval([]).mean is None


def test_a_mean_curve_goes_on_over_the_videos_that_last_so_long():
    curve = curve_with_intervals([[0.0, 1.0, 4.0], [2.0, 3.0]])
    assert [(point.mean, point.count) for point in curve] == [(1, 2), (2, 2), (4, 1)]


def test_the_contrast_of_a_straight_line_is_its_rise_between_the_middles_of_the_ends():
    assert start_end_contrast(np.arange(100.0)) == pytest.approx(85)
    assert start_end_contrast(-np.arange(100.0)) == pytest.approx(-85)


def test_a_clip_that_is_partly_within_an_end_counts_partly():
    curve = np.zeros(30)  # 15 % are 4.5 clips
    curve[-5] = 9
    assert start_end_contrast(curve) == pytest.approx(9 * 0.5 / 4.5)


def test_a_contrast_is_of_the_scores_that_are_known_at_either_end():
    nan = float("nan")
    assert start_end_contrast([1.0, nan, 2.0]) == pytest.approx(1)
    assert start_end_contrast([1.0, nan, *[0.0] * 8, 4.0, 6.0]) == pytest.approx((6 + 0.8 * 4) / 1.8 - 1)
    assert np.isnan(start_end_contrast([1.0]))
    assert np.isnan(start_end_contrast([nan, 1.0, 2.0]))
