"""Clips are cut as VBench-Long cuts them."""

import numpy as np
import pytest

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.two_second_clips import clip_length, clip_starts, two_second_clips


def numbered(frames):
    return [np.full((2, 2, 3), number, np.uint8) for number in range(frames)]


def numbers(frames, length):
    return [clip[:, 0, 0, 0].tolist() for clip in two_second_clips(numbered(frames), length)]


def vbench(frames, length):
    """The rule of `split_video_into_clips`, on the numbers of frames."""
    frames = list(range(frames))
    if len(frames) < length:
        return [frames]
    whole, rest = divmod(len(frames), length)
    clips = [frames[i * length : (i + 1) * length] for i in range(whole)]
    if rest:
        clips.append(frames[max(0, whole * length - (length - rest)) :])
    return clips


@pytest.mark.parametrize(("fps", "frames"), [(24, 48), (23.976, 46), (30000 / 1001, 58), (8, 16), (1.5, 2)])
def test_a_clip_has_two_seconds_of_whole_frames(fps, frames):
    assert clip_length(fps) == frames


def test_less_than_one_frame_a_second_is_refused():
    with pytest.raises(ConfigError, match=r"0\.5 frames a second; 1 is the least"):
        clip_length(0.5)


@pytest.mark.parametrize("frames", range(1, 30))
@pytest.mark.parametrize("length", [2, 6])
def test_clips_are_those_of_vbench(frames, length):
    expected = vbench(frames, length)
    assert numbers(frames, length) == expected
    assert clip_starts(frames, length) == [clip[0] for clip in expected]


def test_a_short_rest_borrows_frames_of_the_clip_before():
    assert numbers(8, 6) == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7]]


def test_a_minute_at_24_frames_a_second_is_thirty_clips():
    assert clip_starts(1440, clip_length(24)) == [48 * i for i in range(30)]
