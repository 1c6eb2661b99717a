"""PySceneDetect's count: a video without cuts is one scene."""

import numpy as np
import pytest
from support.small_videos import write_lossless, write_video

from pavdm_jax.evaluation.scenes import count_scenes, scenes_protocol


def video(*hues, frames=24):
    """Plain scenes of `frames` frames each with a little noise."""
    rng = np.random.default_rng(0)
    colours = np.repeat(np.array(hues, np.float64), frames, axis=0)[:, None, None]
    return np.clip(colours + rng.normal(0, 2, (len(colours), 64, 96, 3)), 0, 255).astype(np.uint8)


RED, GREEN, BLUE = (200, 40, 40), (40, 200, 40), (40, 40, 200)


@pytest.mark.parametrize(("hues", "scenes"), [([RED], 1), ([RED, GREEN], 2), ([RED, GREEN, BLUE], 3)])
def test_scenes_are_cuts_plus_one(tmp_path, hues, scenes):
    path = write_video(tmp_path / "a.mp4", video(*hues))
    assert count_scenes(path) == scenes


def test_a_slow_change_is_no_cut(tmp_path):
    share = np.linspace(0, 1, 72)[:, None, None, None]
    frames = video(RED, frames=72) * (1 - share) + video(BLUE, frames=72) * share
    write_lossless(tmp_path / "a.mp4", frames.astype(np.uint8))
    assert count_scenes(tmp_path / "a.mp4") == 1


def test_the_protocol_names_the_release():
    assert scenes_protocol().startswith("PySceneDetect 0.")
