"""Scores of a model whose videos are known, and the command on the embedded model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.tiny_model import CHUNK

from pavdm_jax import evaluate, generate, load
from pavdm_jax.data.shapes_world import Scene, Shape, held_out, parse_caption, render
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.held_out import held_out_prompts
from pavdm_jax.evaluation.identity import score_video

FPS = 24
CIRCLE = Shape("circle", "red", "large", "slow", "left", (0.2, 0.5))
SQUARE = Shape("square", "blue", "small", "fast", "right", (0.8, 0.2))
TEXT = "a slow large red circle and a fast small blue square bounce"


def summary(*videos):
    return evaluate.summarise([score_video(video, TEXT, FPS) for video in videos], (2.0, 5.0))


def means(estimates):
    return {moment: estimate.mean for moment, estimate in estimates.items()}


def test_the_true_video_has_full_marks():
    found = summary(render(Scene((CIRCLE, SQUARE)), 5 * FPS))
    assert means(found["present"]) == means(found["present_and_no_other"]) == {"2 s": 1, "5 s": 1}
    assert found["survival_seconds"].mean == 5
    assert found["survived"].mean == 1
    assert means(found["right_of_all_clips"]) == {"all": 1, "several": 1}
    assert means(found["switches_per_minute"]) == means(found["jumps_per_minute"]) == {"all": 0, "several": 0}
    assert found["speed_error_percent"].mean < 5


def test_a_shape_that_vanishes_is_missed_from_then_on():
    video = np.concatenate([render(Scene((CIRCLE, SQUARE)), 60), render(Scene((CIRCLE,)), 60)])
    found = summary(video, render(Scene((CIRCLE, SQUARE)), 5 * FPS))
    assert means(found["present"]) == {"2 s": 1, "5 s": 0.5}
    assert found["survived"].mean == 0.5
    first = (1 + 1 / 2 + 1 / 2) / 3  # clips of two seconds; in the second and third, one of two shapes
    assert found["right_of_all_clips"]["several"].mean == pytest.approx((first + 1) / 2)
    assert found["survival_seconds"].mean == pytest.approx((2.5 + 5) / 2, abs=0.3)


def test_a_shape_too_many_is_noticed():
    third = Shape("triangle", "green", "large", "slow", "up", (0.9, 0.9))
    found = summary(render(Scene((CIRCLE, SQUARE, third)), 5 * FPS))
    assert means(found["present"]) == {"2 s": 1, "5 s": 1}
    assert means(found["present_and_no_other"]) == {"2 s": 0, "5 s": 0}


def test_the_command_tells_means_with_intervals_and_writes_every_score(tmp_path, monkeypatch, capsys):
    """Of a model that always paints a small red circle."""
    scene = Scene((Shape("circle", "red", "small", "slow", "up", (0.1, 0.2)),))
    config = SimpleNamespace(fps=24.0, height=64, guidance_scale=6.0)
    monkeypatch.setattr(evaluate, "load", lambda *_: SimpleNamespace(config=config))
    monkeypatch.setattr(evaluate, "generate", lambda model, prompt, frames, **_: render(scene, frames))
    monkeypatch.setattr(evaluate, "reconstruction_psnr", lambda *_: 30.5)
    monkeypatch.setattr(evaluate, "held_out_prompts", lambda count, *_: ["a small red circle moves slowly"] * count)
    output = tmp_path / "scores.json"
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--videos", "5", "--frames", "48", "--moments", "2", "--output", str(output)])
    assert end.value.code == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["present"] == "2 s: 1 [1, 1]"
    assert told["survival_seconds"] == "2 [2, 2]"
    assert told["right_of_all_clips"] == "all: 1 [1, 1], one shape: 1 [1, 1]"
    assert told["vae_psnr_db"] == "30.5"
    found = json.loads(output.read_text())
    assert found["present"]["2 s"] == {"mean": 1, "low": 1, "high": 1, "count": 5}
    assert [score["survived"] for score in found["scores"]] == [True] * 5
    assert found["scores"][0]["curves"]["hue_drift"] == [0]


def test_prompts_are_distinct_and_held_out():
    prompts = held_out_prompts(12, 0, 64)
    assert len(set(prompts)) == 12
    assert prompts == held_out_prompts(12, 0, 64)
    for prompt in prompts:
        described = parse_caption(prompt)
        shapes = tuple(Shape(d.kind, d.color, d.size, d.speed, "up", (0.5, 0.5)) for d in described)
        assert held_out(Scene(shapes))


def test_a_seed_that_the_last_video_cannot_have_is_refused_before_the_first():
    with pytest.raises(ConfigError, match="seed must be 0 to 2147483646 for 2 videos, not 2147483647"):
        evaluate.evaluate(evaluate.EvaluateConfig(videos=2, seed=2**31 - 1))


def test_moments_after_the_end_are_refused():
    with pytest.raises(ConfigError, match="longer videos"):
        evaluate.evaluate(evaluate.EvaluateConfig(frames=24, moments=(5.0,)))


@pytest.mark.parametrize("second", [0.0, float("inf"), float("nan")])
def test_moments_that_are_none_are_refused(second):
    with pytest.raises(ConfigError, match="moments must be seconds above 0"):
        evaluate.evaluate(evaluate.EvaluateConfig(moments=(second,)))


def test_the_embedded_model_shows_the_colour_that_it_is_asked_for():
    """A short video of one large shape, which the embedded model knows best."""
    video = generate(load("demo"), "a large red circle moves slowly left", 4 * CHUNK)
    lit = video[video.max(axis=-1) > 100]
    assert 0.02 < len(lit) / video[..., 0].size < 0.4
    red, green, blue = lit.mean(axis=0)
    assert red > 3 * max(green, blue)
