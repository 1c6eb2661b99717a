"""SkyReels-V2's schedules as options, for both families: lengths, starts, positions, what they refuse."""

import json

import numpy as np
import pytest
from support.nightly import at_night
from support.tiny_model import PROMPT, TINY, tiny_model

from pavdm_jax import generate, generate_stream, make_video, redo
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import make_request
from pavdm_jax.generation.request_json import describe, read_request
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import read_comment
from pavdm_jax.wan_config import tiny_wan

SCHEDULES = ("synchronous", "asynchronous")
FRAMES = 61


@pytest.fixture(params=[*at_night(TINY), tiny_wan()], ids=["open_sora", "wan"])
def config(request):
    return request.param


def video(config, frames=FRAMES, **options):
    return generate(tiny_model(config), PROMPT, frames, **options)


def clip(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def differ(one, other):
    return np.abs(one.astype(int) - other).max() > 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_length_is_made_exactly_and_goes_on_from_any_position(config, schedule):
    whole = video(config, schedule=schedule, segment=1)
    assert whole.shape == (FRAMES, 16, 24, 3)
    assert differ(whole, video(config))
    stream = generate_stream(tiny_model(config), PROMPT, FRAMES, schedule=schedule, segment=1)
    made = [frames for _ in range(stream.num_rounds // 2) for frames in stream.advance()]
    again = generate_stream(tiny_model(config), PROMPT, FRAMES, schedule=schedule, segment=1)
    again.restore(stream.save())
    np.testing.assert_array_equal(np.concatenate([*made, *again], axis=1)[0], whole)
    assert stream.round < stream.num_rounds


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_start_clip_is_kept_exactly_and_continued(config, schedule):
    one, other = (video(config, schedule=schedule, start=clip(23, seed), context_noise=0.1) for seed in (0, 1))
    assert one.shape == (FRAMES, 16, 24, 3)
    np.testing.assert_array_equal(one[:23], clip(23))
    assert differ(one[23:], other[23:])
    stream = generate_stream(
        tiny_model(config), PROMPT, FRAMES, schedule=schedule, start=clip(23), context_noise=0.1, segment=1
    )
    made = stream.advance()
    saved = stream.save()
    again = generate_stream(
        tiny_model(config), PROMPT, FRAMES, schedule=schedule, start=clip(23), context_noise=0.1, segment=1
    )
    again.restore(saved)
    np.testing.assert_array_equal(np.concatenate([*made, *again], axis=1)[0], one)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_image_can_be_the_first_latent_frame(config, schedule):
    one, other = (video(config, 17, schedule=schedule, start=clip(1, seed), image="latent") for seed in (0, 1))
    assert len(one) == 17
    assert differ(one, other)


def test_guidance_may_be_left_out_below_a_level(config):
    for schedule in SCHEDULES:
        made = video(config, 34, schedule=schedule, guidance_above=0.9)
        assert differ(made, video(config, 34, schedule=schedule))


def test_all_frames_at_once_are_a_clip_of_one_level():
    """Open-Sora's plain sampling, from other noise; the window is as long as the video."""
    request = make_request(TINY, PROMPT, frames=35, schedule="synchronous")
    window = request.config.window
    assert (window.chunk_size, window.slots, window.lag) == (15, 1, 1)
    assert make_plan(request).num_shifts == window.steps
    with_start = make_request(tiny_wan(), PROMPT, frames=97, schedule="synchronous", start=clip(17))
    plan = make_plan(with_start)
    assert (plan.window.chunk_size, plan.held, plan.num_chunks) == (25, 5, 1)


def test_chunks_one_after_the_other_make_an_endless_video(config):
    endless = iter(generate_stream(tiny_model(config), PROMPT, None, schedule="asynchronous"))
    made = np.concatenate([next(endless) for _ in range(3)], axis=1)[0]
    long = video(config, 200, schedule="asynchronous")
    np.testing.assert_array_equal(made, long[: len(made)])


def test_a_timeline_changes_the_prompt_of_the_chunks_from_its_second_on(config):
    timeline = [(0, PROMPT), (2.5, "a large green triangle moves right")]
    plain, changed = (
        generate(tiny_model(config), prompt, 100, schedule="asynchronous") for prompt in (PROMPT, timeline)
    )
    assert np.abs(plain[:17].astype(int) - changed[:17]).max() <= 1
    assert differ(plain[-30:], changed[-30:])


def test_the_lag_is_that_of_the_window_unless_it_is_given():
    asked = {"schedule": "asynchronous", "frames": 97}
    window = make_request(tiny_wan(), PROMPT, **asked).config.window
    assert (window.steps, window.noisy_chunks, window.lag) == (6, 3, 2)
    window = make_request(tiny_wan(), PROMPT, steps=50, lag=20, **asked).config.window
    assert (window.steps, window.lag) == (50, 20)
    assert make_request(tiny_wan(), PROMPT, steps=50, **asked).config.window.lag == 17


def test_context_noise_without_given_frames_does_nothing_and_says_so(config):
    with pytest.warns(UserWarning, match=r"context_noise 0\.1 does nothing without a start clip here"):
        make_request(config, PROMPT, schedule="asynchronous", context_noise=0.1)
    make_request(config, PROMPT, schedule="asynchronous", context_noise=0.1, frames=80, start=clip(17))


def test_a_request_says_its_schedule_and_is_read_back(config):
    for schedule in SCHEDULES:
        request = make_request(config, PROMPT, frames=FRAMES, schedule=schedule)
        said = describe(request)
        assert said["window"]["lag"] == request.config.window.lag
        assert read_request(said, config, clip).config.window == request.config.window
    del said["window"]["lag"]  # of a video made before there was a lag
    assert read_request(said | {"window": said["window"] | {"steps": 6}}, config, clip).config.window.lag is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "synchronous", "frames": None}, "give frames, or use schedule asynchronous"),
        ({"schedule": "synchronous", "chunk_size": 5}, "chunk_size is not possible with schedule synchronous"),
        ({"schedule": "synchronous", "lag": 5}, "lag 5 is an option of schedule asynchronous"),
        ({"lag": 5}, "lag 5 is an option of schedule asynchronous; schedule is None"),
        ({"schedule": "asynchronous", "lag": 0}, "lag must be at least 1 step, not 0"),
        ({"schedule": "asynchronous", "fixed_length": True}, "fixed_length is not possible with schedule asynchronous"),
        ({"schedule": "synchronous", "method": "replacement"}, "schedule is an option of method progressive"),
        ({"schedule": "at-once"}, "schedule 'at-once' is not known; .* or synchronous or asynchronous"),
        ({"schedule": "synchronous", "frames": 10**6}, "a window of .* latent frames is too long"),
    ],
)
def test_what_cannot_be_is_refused(config, options, message):
    with pytest.raises(ConfigError, match=message):
        make_request(config, PROMPT, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 30, "lag": 5}, "lag of 5 of 30 steps.* use a lag of 8 or more"),
        ({"start": clip(17), "context_chunks": 0}, "give context_chunks 1"),
    ],
)
def test_what_a_video_cannot_have_is_refused_before_anything_is_compiled(config, options, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(make_request(config, PROMPT, frames=200, schedule="asynchronous", **options))


def test_the_command_line_makes_them_and_redoes_what_has_positions(config, tmp_path):
    save_model(tmp_path / "model", tiny_model(config))
    options = ["--checkpoint", str(tmp_path / "model"), "--quiet"]
    for schedule in SCHEDULES:
        frames = "40" if schedule == "synchronous" else "100"
        made = [PROMPT, "--frames", frames, "--schedule", schedule, "--output", str(tmp_path / f"{schedule}.mp4")]
        assert make_video.run(make_video.read([*made, *options])) == 0
        assert len(read_video(tmp_path / f"{schedule}.mp4")) == int(frames)
        assert json.loads(read_comment(tmp_path / f"{schedule}.mp4"))["window"]["lag"]
    again = [str(tmp_path / "asynchronous.mp4"), "--from", "0.7", "--seed", "0"]
    assert redo.run(redo.read([*again, *options])) == 0
    np.testing.assert_array_equal(
        read_video(tmp_path / "asynchronous-redo.mp4"), read_video(tmp_path / "asynchronous.mp4")
    )
    again = [str(tmp_path / "synchronous.mp4"), "--from", "0", "--seed", "1"]
    with pytest.raises(ConfigError, match=r"another --seed would change nothing; give --prompt"):
        redo.run(redo.read([*again, *options]))
