"""Scores on videos whose truth is known, and the command on the tiny model."""

import numpy as np
import pytest
from support.tiny_model import CHUNK

from pavdm_jax import evaluate, generate, load
from pavdm_jax.data.shapes_world import Scene, Shape, held_out, parse_caption, render
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.scores import held_out_prompts

CIRCLE = Shape("circle", "red", "large", "slow", "left", (0.2, 0.5))
SQUARE = Shape("square", "blue", "small", "fast", "right", (0.8, 0.2))
TEXT = "a slow large red circle and a fast small blue square bounce"


def score(video):
    return evaluate.score_video(video, TEXT, 0, (2.0, 5.0), 24.0)


def test_the_true_video_has_full_marks():
    result = score(render(Scene((CIRCLE, SQUARE)), 120))
    assert result.present == result.only == [True, True]
    assert len(result.speed_errors) == 4
    assert np.median(result.speed_errors) < 0.05
    assert result.cuts == 0


def test_a_shape_that_vanishes_is_missed_from_then_on():
    video = np.concatenate([render(Scene((CIRCLE, SQUARE)), 60), render(Scene((CIRCLE,)), 60)])
    assert score(video).present == [True, False]


def test_a_shape_too_many_is_noticed():
    third = Shape("triangle", "green", "large", "slow", "up", (0.9, 0.9))
    result = score(render(Scene((CIRCLE, SQUARE, third)), 120))
    assert result.present == [True, True]
    assert False in result.only


def test_prompts_are_distinct_and_held_out():
    prompts = held_out_prompts(12, 0, 64)
    assert len(set(prompts)) == 12
    assert prompts == held_out_prompts(12, 0, 64)
    for prompt in prompts:
        described = parse_caption(prompt)
        shapes = tuple(Shape(d.kind, d.color, d.size, d.speed, "up", (0.5, 0.5)) for d in described)
        assert held_out(Scene(shapes))


def test_moments_after_the_end_are_refused():
    with pytest.raises(ConfigError, match="longer videos"):
        evaluate.evaluate(evaluate.EvaluateConfig(frames=24, seconds=(5.0,)))


def test_the_embedded_model_shows_the_colour_that_it_is_asked_for():
    """A short video of one large shape, which the embedded model knows best."""
    video = generate(load("demo"), "a large red circle moves slowly left", 4 * CHUNK)
    lit = video[video.max(axis=-1) > 100]
    assert 0.02 < len(lit) / video[..., 0].size < 0.4
    red, green, blue = lit.mean(axis=0)
    assert red > 3 * max(green, blue)
