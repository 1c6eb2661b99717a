"""Brightness, saturation, sharpness and similarity of pictures whose values are known."""

import numpy as np
import pytest

from pavdm_jax.evaluation.appearance import brightness, saturation, sharpness
from pavdm_jax.evaluation.similarity import DISTANCES, SimilarityOverTime, structural_similarity


def plain(*colour):
    return np.broadcast_to(np.array(colour, np.uint8), (1, 32, 48, 3)).copy()


@pytest.mark.parametrize(
    ("colour", "luma", "saturated"),
    [
        ((0, 0, 0), 0, 0),
        ((255, 255, 255), 1, 0),
        ((255, 0, 0), 0.299, 1),
        ((0, 255, 0), 0.587, 1),
        ((0, 0, 255), 0.114, 1),
        ((200, 100, 100), (0.299 * 200 + 0.701 * 100) / 255, 0.5),
    ],
)
def test_plain_colours(colour, luma, saturated):
    assert brightness(plain(*colour)) == pytest.approx(luma, abs=0.5 / 255)
    assert saturation(plain(*colour)) == pytest.approx(saturated, abs=0.5 / 255)
    assert sharpness(plain(*colour)) == 0


def test_the_sharpness_of_stripes_is_the_variance_of_their_second_difference():
    grey = np.tile(np.array([100, 100, 140, 140], np.uint8), 12)
    frame = np.broadcast_to(grey[None, :, None], (1, 32, 48, 3)).copy()
    assert sharpness(frame) == pytest.approx(40**2, rel=0.05)  # every second difference is +40 or -40


def test_scores_are_of_each_frame():
    frames = np.concatenate([plain(0, 0, 0), plain(255, 255, 255)])
    np.testing.assert_array_equal(brightness(frames), [0, 1])


def grey(value):
    return np.full((40, 60), value, np.uint8)


def test_the_similarity_of_plain_pictures_is_that_of_their_brightness():
    c1 = 2.55**2
    assert structural_similarity(grey(50), grey(100)) == pytest.approx((2 * 50 * 100 + c1) / (50**2 + 100**2 + c1))


def test_a_picture_is_like_itself_and_unlike_its_negative():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    assert structural_similarity(picture, picture) == pytest.approx(1)
    assert structural_similarity(picture, 255 - picture) < 0


def collected(frames):
    similarity = SimilarityOverTime()
    for frame in frames:
        similarity.add(frame)
    return similarity.means()


def test_a_frozen_video_stays_alike_at_every_distance():
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    assert collected([frame] * 61) == {distance: pytest.approx(1) for distance in DISTANCES}


def test_a_brightening_video_differs_more_the_longer_the_distance():
    found = collected([plain(*[40 + 2 * t] * 3)[0] for t in range(61)])
    values = [found[distance] for distance in DISTANCES]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99 > values[-1]
    assert found[50] == pytest.approx(
        np.mean([structural_similarity(grey(40 + 2 * t), grey(140 + 2 * t)) for t in (0, 10)])
    )


def test_distances_beyond_a_video_are_missing():
    found = collected([plain(9, 9, 9)[0]] * 25)
    assert found[20] == pytest.approx(1)
    assert np.isnan(found[30])
