"""What a request fills in from the model, and how it is written down and read back."""

import dataclasses

from support.tiny_model import PROMPT, tiny_model

from pavdm_jax.config import OPEN_SORA_1_2, SCHEDULES
from pavdm_jax.generation.request import make_request
from pavdm_jax.generation.request_json import describe, read_request


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
