"""Identity, drift and motion of rendered videos, whose truth is known, and of the same videos with one known fault."""

import dataclasses

import numpy as np
import pytest

from pavdm_jax.data.shapes_world import Background, Light, Look, Scene, Shape, Texture, render, visibility
from pavdm_jax.evaluation.identity import UNITS, score_video
from pavdm_jax.evaluation.tracker_error import Condition, degrade

FPS = 24
CIRCLE = Shape("circle", "red", "large", "slow", "right", (0.1, 0.1), Look(0.5, 1.05, 1.1, 10.0))
SQUARE = Shape("square", "blue", "small", "fast", "left", (0.9, 0.9), Look(-0.5, 0.95, 1.0, -5.0))
TWO = Scene((CIRCLE, SQUARE), Background((20, 25, 45), (55, 40, 60), 30.0))
PROMPT = "a large red circle moves slowly and a small blue square moves fast"


def changed(scene, number, look=None, **fields):
    """The scene with one shape changed."""
    shapes = list(scene.shapes)
    if look is not None:
        fields["look"] = dataclasses.replace(shapes[number].look, **look)
    shapes[number] = dataclasses.replace(shapes[number], **fields)
    return dataclasses.replace(scene, shapes=tuple(shapes))


def cut(before, after, second, seconds):
    """One scene up to a second, and then another one."""
    first = round(second * FPS)
    return np.concatenate([render(before, first), render(after, round(seconds * FPS) - first, first_frame=first)])


def morphed(scene_at, seconds):
    """The scene of every frame by its number over that of the last one."""
    frames = round(seconds * FPS)
    return np.concatenate([render(scene_at(t / (frames - 1)), 1, first_frame=t) for t in range(frames)])


def test_a_true_video_has_full_marks():
    scene = dataclasses.replace(TWO, light=Light(0.3, 20.0, 0.1))
    score = score_video(render(scene, 8 * FPS), PROMPT, FPS)
    assert score.survived and score.survival_seconds == 8
    assert score.switches == score.switches_per_minute == score.jumps_per_minute == 0
    assert score.window_seconds == [0, 2, 4, 6]
    assert set(score.curves) == set(UNITS)
    assert score.curves["present"] == [1, 1, 1, 1]
    bounds = {"extra": 0, "speed_error": 3, "jitter": 0.1, "path_error": 0.6, "hue_drift": 0.5, "size_drift": 1}
    bounds |= {"elongation_drift": 1.5, "tilt_drift": 0.5, "texture_drift": 1, "background_drift": 1}
    for name, bound in bounds.items():
        assert max(score.curves[name]) <= bound, name


def test_a_scene_may_stand_for_its_prompt_and_noise_and_blur_are_forgiven():
    video = degrade(render(TWO, 6 * FPS), Condition(blur=0.8, noise=8), np.random.default_rng(0))
    score = score_video(video, TWO, FPS)
    assert score.survived
    assert score.curves["present"] == [1, 1, 1]
    assert max(score.curves["extra"]) == 0
    assert max(score.curves["size_drift"]) < 3


def test_swapped_colors_are_one_switch_at_their_second():
    swapped = changed(changed(TWO, 0, color="blue"), 1, color="red")
    score = score_video(cut(TWO, swapped, 4, 8), PROMPT, FPS)
    assert score.switches == 1 and score.switches_per_minute == 7.5
    assert score.survival_seconds == pytest.approx(4, abs=0.1) and not score.survived
    assert score.curves["present"] == [1, 1, 0, 0]


def test_like_shapes_that_swap_colors_are_all_present_but_jump():
    like = changed(changed(TWO, 1, look={}, kind="circle", size="large"), 0, kind="circle")
    swapped = changed(changed(like, 0, color="blue"), 1, color="red")
    prompt = "a large red circle moves slowly and a large blue circle moves fast"
    score = score_video(cut(like, swapped, 4, 8), prompt, FPS)
    assert score.curves["present"] == [1, 1, 1, 1]
    assert score.switches == 1
    assert score.jumps_per_minute == 7.5
    assert score.survival_seconds == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("wrong", [{"kind": "triangle"}, {"color": "magenta"}, {"size": "large"}])
def test_one_wrong_attribute_loses_the_shape(wrong):
    score = score_video(cut(TWO, changed(TWO, 1, **wrong), 3, 6), PROMPT, FPS)
    assert score.survival_seconds == pytest.approx(3, abs=0.1)
    assert [shape["present"] for shape in score.shapes] == [[1, 1, 1], [1, score.shapes[1]["present"][1], 0]]


def test_a_shape_that_was_never_there_is_lost_from_the_start():
    score = score_video(render(changed(TWO, 1, color="magenta"), 4 * FPS), PROMPT, FPS)
    assert score.survival_seconds == 0 and score.switches == 1
    assert score.shapes[1]["present"] == [0, 0]


def test_a_half_disc_is_no_circle():
    video = render(Scene((CIRCLE,)), 4 * FPS)
    for frame in video:
        red = frame[..., 0] > 100
        frame[: int(np.nonzero(red)[0].mean())] = (18, 18, 24)
    score = score_video(video, "a red circle", FPS)
    assert score.curves["present"] == [0, 0]


def test_a_flicker_shorter_than_half_a_second_is_no_switch():
    video = render(TWO, 6 * FPS)
    video[60:66] = render(changed(TWO, 1, kind="circle"), 6, first_frame=60)
    score = score_video(video, PROMPT, FPS)
    assert score.survived and score.curves["present"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "number", "first", "last", "expected"),
    [
        ("size_drift", 0, {"scale": 0.95}, {"scale": 1.14}, 100 * np.log(1.2)),
        ("size_drift", 1, {"scale": 0.95}, {"scale": 1.14}, 100 * np.log(1.2)),
        ("hue_drift", 0, {"hue": -1.0}, {"hue": 1.0}, 14.0),
        ("elongation_drift", 0, {"aspect": 1.0}, {"aspect": 1.2}, 100 * np.log(1.2)),
        ("tilt_drift", 1, {"tilt": -10.0}, {"tilt": 10.0}, 20.0),
    ],
)
def test_drift_of_an_unnamed_attribute_is_measured(name, number, first, last, expected):
    (field,) = first

    def at(part):
        # as at the beginning for two seconds, as at the end in the last two
        value = first[field] + np.clip(2 * part - 0.5, 0, 1) * (last[field] - first[field])
        return changed(TWO, number, look={field: float(value)})

    score = score_video(morphed(at, 8), PROMPT, FPS)
    curve = score.shapes[number][name]
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(expected, rel=0.06)
    assert all(np.diff(curve) > -0.1)
    assert score.survived
    others = np.array(score.shapes[1 - number][name])
    assert (others[np.isfinite(others)] <= 1.5).all()
    assert np.isfinite(others).any() or (name, number) == ("tilt_drift", 1)  # the other one is a circle


def test_drift_of_texture_and_background_is_measured_and_light_is_none():
    striped = changed(TWO, 0, look={"texture": Texture("stripes", 0.45, 20.0, 0.3)})
    other = dataclasses.replace(striped, background=Background((45, 25, 20), (55, 40, 60), 30.0))
    plain = changed(other, 0, look={"texture": Texture()})
    score = score_video(np.concatenate([cut(striped, other, 2, 4), cut(other, plain, 4, 6)[4 * FPS :]]), PROMPT, FPS)
    _, same, faded = score.shapes[0]["texture_drift"]
    assert same < 1 and 10 < faded < 30
    _, changed_by, _ = score.curves["background_drift"]
    assert 10 < changed_by < 50
    lit = dataclasses.replace(striped, light=Light(0.3, 12.0, 0.0))
    assert max(score_video(render(lit, 6 * FPS), PROMPT, FPS).curves["background_drift"]) < 1


def test_an_added_shape_is_extra():
    third = Shape("triangle", "green", "large", "slow", "up", (0.9, 0.5))
    more = dataclasses.replace(TWO, shapes=(*TWO.shapes, third))
    score = score_video(cut(TWO, more, 4, 8), PROMPT, FPS)
    assert score.curves["extra"][:2] == [0, 0]
    assert min(score.curves["extra"][2:]) > 0.8
    assert score.survived


def test_a_frozen_video_has_a_speed_error_of_100_percent():
    video = render(TWO, 8 * FPS)
    video[4 * FPS :] = video[4 * FPS]
    score = score_video(video, PROMPT, FPS)
    assert max(score.curves["speed_error"][:2]) < 3
    np.testing.assert_allclose(score.curves["speed_error"][2:], 100, atol=0.1)


@pytest.mark.parametrize("sigma", [0.3, 0.8])
def test_added_jitter_is_measured(sigma):
    scene = Scene((dataclasses.replace(CIRCLE, speed="fast", direction="down right"),))
    rng = np.random.default_rng(0)
    # pixels along the way, which leads down right: each axis has the square root of a half
    offsets = rng.normal(0, sigma * 2**0.5 / 30 * FPS, 8 * FPS)
    video = np.concatenate([render(scene, 1, first_frame=t + offset) for t, offset in enumerate(offsets)])
    score = score_video(video, "a large red circle moves fast", FPS)
    assert np.mean(score.curves["jitter"]) == pytest.approx(sigma, rel=0.3)
    assert np.mean(score.curves["path_error"]) == pytest.approx(sigma * 2**0.5, rel=0.3)


def test_a_shape_that_turns_in_the_open_leaves_its_path():
    scene = Scene((dataclasses.replace(CIRCLE, direction="right", position=(0.2, 0.3)),))
    video = render(scene, 2 * FPS)
    video = np.concatenate([video[:FPS], video[FPS - 1 :: -1]])
    score = score_video(video, "a large red circle moves slowly", FPS)
    assert score.curves["path_error"][0] > 1.5
    assert score_video(render(scene, 2 * FPS), scene, FPS).curves["path_error"][0] < 0.3


def test_a_jump_is_counted_where_it_is():
    video = np.concatenate([render(TWO, 3 * FPS), render(TWO, 3 * FPS, first_frame=7 * FPS)])
    score = score_video(video, PROMPT, FPS)
    assert score.curves["present"] == [1, 1, 1]
    assert score.switches == 1 and score.jumps_per_minute == 10
    assert score.survival_seconds == pytest.approx(3, abs=0.1)


CROSSING = Scene(
    (
        Shape("square", "yellow", "small", "slow", "right", (0.15, 0.5)),
        Shape("circle", "blue", "large", "slow", "down right", (0.2, 0.1)),
    )
)


def test_a_shape_hidden_for_longer_than_a_chunk_is_not_lost():
    hidden = visibility(CROSSING, np.arange(6 * FPS))[0] < 0.3
    assert hidden.sum() > 17
    score = score_video(render(CROSSING, 6 * FPS), "a small yellow square and a large blue circle move slowly", FPS)
    assert score.survived
    assert 0 not in score.shapes[0]["present"] and score.shapes[1]["present"] == [1, 1, 1]


def test_a_shape_that_does_not_come_back_from_behind_another_one_is_lost():
    alone = dataclasses.replace(CROSSING, shapes=CROSSING.shapes[1:])
    middle = int(np.argmin(visibility(CROSSING, np.arange(6 * FPS))[0])) / FPS
    prompt = "a small yellow square and a large blue circle move slowly"
    score = score_video(cut(CROSSING, alone, middle, 8), prompt, FPS)
    assert middle - 1 < score.survival_seconds < middle + 2
    assert score.shapes[0]["present"][-1] == 0 and score.shapes[1]["present"][-1] == 1


def test_what_is_no_shape_of_the_world_is_not_a_shape_that_the_prompt_leaves_open():
    frames = render(Scene(TWO.shapes[1:]), 4 * FPS)
    color = np.median(frames[:, frames[0].std(-1) > 20], axis=1)  # of the shape
    frames[:] = frames[:, :1, :1]
    frames[:, 20:44, 29:35] = color[:, None, None]  # a bar
    score = score_video(frames, "a shape moves slowly", FPS)
    assert score.curves["present"] == [0, 0]


def test_what_the_prompt_does_not_name_may_be_anything():
    score = score_video(render(TWO, 4 * FPS), "a shape moves slowly and a blue shape moves fast", FPS)
    assert score.survived and score.curves["present"] == [1, 1]
