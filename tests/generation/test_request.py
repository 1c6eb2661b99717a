"""What a request fills in from the model, and how it is written down and read back."""

import dataclasses
import warnings

import numpy as np
import pytest
from support.small_videos import write_lossless
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax.config import OPEN_SORA_1_2, SCHEDULES
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import make_request
from pavdm_jax.generation.request_json import describe, read_request
from pavdm_jax.geometry import begin_of
from pavdm_jax.wan_config import tiny_wan


def test_the_network_is_told_a_named_size_as_upstream_tells_it():
    request = make_request(OPEN_SORA_1_2, "a cat", resolution="240p", aspect_ratio="9:16")
    assert (request.height, request.width, request.told_size) == (240, 424, (240, 426))
    request = make_request(OPEN_SORA_1_2, "a cat", height=240, width=424)
    assert request.told_size == (240, 424)


def test_clips_are_guided_whole_by_models_whose_windows_are_not():
    config = tiny_model().config
    config = dataclasses.replace(config, window=dataclasses.replace(config.window, guidance_above=0.3))
    assert make_request(config, PROMPT).config.window.guidance_above == 0.3
    request = make_request(config, PROMPT, method="replacement")
    assert request.config.window.guidance_above == 0

    def no_frames(count):
        raise AssertionError("there is no start clip")

    assert read_request(describe(request), config, no_frames).config == request.config


def test_seeds_and_negative_prompts_may_be_tuples():
    request = make_request(
        tiny_model().config, [PROMPT, "a blue square"], seed=(3, 4), negative_prompt=("a dog", "a cat")
    )
    assert (request.seeds, request.negative_prompts) == ((3, 4), ("a dog", "a cat"))


def test_windows_of_a_request_leave_the_model_as_it_is():
    config = tiny_model().config
    request = make_request(config, PROMPT, schedule="fifo")
    assert request.config.window == SCHEDULES["fifo"]
    assert dataclasses.replace(request.config, window=config.window) == config


def test_a_start_clip_is_taken_at_the_rate_of_the_video(tmp_path):
    """Of 34 frames at 24 a second, 12 a second are every second one; at 48 a second they would play faster."""
    frames = np.random.default_rng(0).integers(0, 255, (34, 16, 24, 3)).astype(np.uint8)
    write_lossless(tmp_path / "clip.mp4", frames)
    config = tiny_model().config

    def start(**options):
        return make_request(config, PROMPT, start=tmp_path / "clip.mp4", **options).start[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(start(), frames)
        np.testing.assert_array_equal(start(fps=12), frames[::2])
    with pytest.warns(UserWarning, match=r"clip\.mp4 has 24 frames a second and is played at 48, which is faster"):
        np.testing.assert_array_equal(start(fps=48), frames)


@pytest.mark.parametrize("frames", [1440, None, 30])
def test_a_length_is_given_once_even_if_it_is_the_usual_one(frames):
    with pytest.raises(ConfigError, match="both say how long; give one of them"):
        make_request(tiny_model().config, PROMPT, frames=frames, seconds=2)
    assert make_request(tiny_model().config, PROMPT, seconds=2).frames == 48


def test_a_window_that_would_not_see_the_start_clip_is_refused():
    start = np.zeros((2 * CHUNK, 16, 24, 3), np.uint8)
    options = {"noisy_chunks": 1, "context_chunks": 0, "steps": 2}
    request = make_request(tiny_model().config, PROMPT, start=start, **options)
    with pytest.raises(ConfigError, match="sees nothing of a start clip; give context_chunks 1"):
        make_plan(request)
    make_plan(make_request(tiny_model().config, PROMPT, **options))


def test_scores_of_a_model_that_knows_none_are_told():
    with pytest.warns(UserWarning, match="motion_score are appended to prompts of a model that is not known"):
        make_request(tiny_model().config, PROMPT, motion_score=15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_request(OPEN_SORA_1_2, "a cat", motion_score=15)


def test_levels_are_shifted_as_asked_for():
    """SkyReels-V2's levels s·l / (1 + (s − 1)·l) of evenly spaced l; Open-Sora's shift follows from the size."""
    plain, shifted = (make_plan(make_request(tiny_wan(), PROMPT, frames=40, noise_shift=s)) for s in (None, 5.0))
    assert tiny_wan().noise_shift == 8
    steps = tiny_wan().window.steps
    even = 0.999 * np.arange(1, steps + 1) / steps
    for plan, shift in ((plain, 8), (shifted, 5)):
        levels = np.unique(np.asarray(plan.table, np.float64).round(5))
        np.testing.assert_allclose(levels[levels > 0], (shift * even / (1 + (shift - 1) * even)).round(5), atol=2e-5)
    with pytest.raises(ConfigError, match="that of tiny follows from the size of the frames"):
        make_request(tiny_model().config, PROMPT, noise_shift=5.0)
    with pytest.raises(ConfigError, match="noise_shift must be above 0"):
        make_request(tiny_wan(), PROMPT, noise_shift=0.0)


@pytest.mark.parametrize("config", [tiny_model().config, tiny_wan()], ids=["open_sora", "wan"])
@pytest.mark.parametrize("chunk_size", [1, 3, 5])
def test_a_prompt_begins_with_the_first_chunk_that_lies_behind_its_second(config, chunk_size):
    config = dataclasses.replace(config, window=dataclasses.replace(config.window, chunk_size=chunk_size))
    for frame in range(1, 120):
        timeline = [(0, PROMPT), (frame / config.fps, "a blue square")]
        plan = make_plan(make_request(config, timeline, frames=1000))
        chunk = plan.prompt_starts[1]
        assert begin_of((chunk - 1) * chunk_size, config.vae) < frame <= begin_of(chunk * chunk_size, config.vae)


def test_behind_a_start_clip_chunks_are_counted_from_where_the_window_begins():
    """Of the clip's five latent frames chunks of three know the last three, about the frames from number 5 on."""
    config = tiny_model().config
    config = dataclasses.replace(config, window=dataclasses.replace(config.window, chunk_size=3))
    start = np.zeros((17, config.height, config.width, 3), np.uint8)
    for frame in range(17, 100):
        timeline = [(0, PROMPT), (frame / config.fps, "a blue square")]
        plan = make_plan(make_request(config, timeline, frames=1000, start=start))
        chunk = plan.prompt_starts[1]
        begins = [begin_of(2 + 3 * n, config.vae) for n in (chunk - 1, chunk)]
        assert plan.known_latents == 3 and begins[0] < frame <= begins[1]
