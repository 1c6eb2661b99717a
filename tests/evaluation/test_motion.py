"""The speed of what moves, on videos whose motion is known."""

import numpy as np
import pytest

from pavdm_jax.data.shapes_world import SPEED_PX_PER_S, Scene, Shape, render
from pavdm_jax.evaluation.motion import flow_stride, motion_amplitude


def textured(height, width):
    """A picture with detail of about 8 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2))
    rows, columns = np.linspace(0, coarse.shape[0] - 1.01, height), np.linspace(0, coarse.shape[1] - 1.01, width)
    i, j = rows.astype(int), columns.astype(int)
    y, x = (rows - i)[:, None], (columns - j)[None]
    up = coarse[i][:, j] * (1 - x) + coarse[i][:, j + 1] * x
    down = coarse[i + 1][:, j] * (1 - x) + coarse[i + 1][:, j + 1] * x
    return np.repeat((up * (1 - y) + down * y)[..., None], 3, axis=2).astype(np.uint8)


def panned(step, frames=24, height=96, width=128):
    wide = textured(height, width + step * frames)
    return np.stack([wide[:, step * t : step * t + width] for t in range(frames)])


@pytest.mark.parametrize("step", [1, 2])
def test_a_pan_has_the_speed_of_the_camera(step):
    assert motion_amplitude(panned(step), 24) == pytest.approx(100 * step * 24 / 96, rel=0.1)


def test_the_speed_does_not_depend_on_the_size_of_the_picture():
    large = panned(2).repeat(4, axis=1).repeat(4, axis=2)  # 384 by 512 pixels: reduced to 256
    assert motion_amplitude(large, 24) == pytest.approx(motion_amplitude(panned(2), 24), rel=0.05)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("speed", ["slow", "fast"])
def test_a_shape_on_an_empty_background_has_its_own_speed_whatever_its_size(size, speed):
    video = render(Scene((Shape("circle", "red", size, speed, "left", (0.8, 0.5)),)), 32)
    assert motion_amplitude(video, 24) == pytest.approx(100 * SPEED_PX_PER_S[speed] / 64, rel=0.03)


def test_a_still_video_does_not_move():
    assert motion_amplitude(panned(0), 24) < 0.2  # per cent a second; the slow shape of the world moves 19


def test_a_cut_is_no_motion():
    video = panned(0)
    video[12:] = 255 - video[12:, ::-1]
    assert motion_amplitude(video, 24) < 0.2


@pytest.mark.parametrize(("fps", "stride"), [(24, 3), (23.976, 3), (30, 4), (8, 1), (2, 1)])
def test_frames_are_compared_about_eight_times_a_second(fps, stride):
    assert flow_stride(fps) == stride


def test_one_compared_frame_says_nothing():
    assert np.isnan(motion_amplitude(panned(1)[:3], 24))
