"""A video that is sampled otherwise than its model was trained says so, in its file and in one warning."""

import dataclasses
import json
import warnings

import pytest
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax import generate_stream, make_video
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.config import OPEN_SORA_1_2, SCHEDULES
from pavdm_jax.generation.as_trained import needed_pattern, unlike_training
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.level_pattern import PRETRAINED, LevelPattern, diffusion_forcing, name_patterns
from pavdm_jax.video.writer import read_comment
from pavdm_jax.wan_config import NEGATIVE_PROMPT, SKYREELS_V2_DF_1_3B_MODEL

PA_O = LevelPattern("progressive", 35, 5, 5)
RW = LevelPattern("uniform", 15, 0)
RN = LevelPattern("uniform", 15, 5)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, PA_O),
        ({"fixed_length": True}, PA_O),
        ({"schedule": "pa-m"}, LevelPattern("progressive", 55, 5, 5)),
        ({"schedule": "no-context"}, LevelPattern("progressive", 30, 0, 5)),
        ({"schedule": "no-chunks"}, LevelPattern("progressive", 30, 0, 1)),
        ({"schedule": "fifo"}, LevelPattern("progressive", SCHEDULES["fifo"].partition, 5, 1)),
        ({"schedule": "asynchronous"}, LevelPattern("waiting", 35, 5, 5)),
        ({"schedule": "synchronous", "frames": 119}, LevelPattern("uniform", 35, 0)),
        ({"method": "noisy-replacement"}, RW),
        ({"method": "replacement"}, RN),
        ({"method": "replacement", "keep_latents": True}, RN),
        ({"method": "replacement", "context_frames": 1}, LevelPattern("uniform", 15, 1)),
        ({"method": "replacement", "clip_frames": 102}, LevelPattern("uniform", 30, 5)),
    ],
)
def test_every_system_needs_levels_of_its_own(options, needed):
    request = make_request(OPEN_SORA_1_2, "a cat", **options)
    levels = dataclasses.replace(needed_pattern(request), steps_per_shift=None, guidance_scale=None)
    assert levels == needed
    assert unlike_training((needed_pattern(request),), request) is None
    assert unlike_training((needed,), request) is None
    assert unlike_training((RW, needed), request) is None
    assert unlike_training((), request) is None  # unknown
    for pattern in {PA_O, RW, RN} - {needed}:
        assert "outside of that training" in str(unlike_training((pattern,), request))


def test_a_level_for_each_frame_covers_every_window_up_to_the_length_of_training():
    trained = (diffusion_forcing(25),)
    assert unlike_training(trained, make_request(SKYREELS_V2_DF_1_3B_MODEL, "a cat")) is None
    longer = make_request(SKYREELS_V2_DF_1_3B_MODEL, "a cat", noisy_chunks=5, steps=30)
    assert "trained with any levels, frame by frame, of at most 25 latent frames" in str(
        unlike_training(trained, longer)
    )


def test_without_guidance_a_models_own_negative_prompt_is_not_encoded():
    asked = (make_request(SKYREELS_V2_DF_1_3B_MODEL, "a cat", guidance_scale=scale) for scale in (1.0, 2.0))
    assert [request.negative_prompts for request in asked] == [None, (NEGATIVE_PROMPT,)]


def test_pretraining_knows_clips_of_every_length_with_frames_kept_clean_and_no_rising_levels():
    for options in (
        {"method": "replacement", "context_frames": 1},
        {"method": "noisy-replacement", "clip_frames": 17 * 6},
    ):
        assert unlike_training((PRETRAINED,), make_request(OPEN_SORA_1_2, "a cat", **options)) is None
    assert unlike_training((PRETRAINED,), make_request(OPEN_SORA_1_2, "a cat")) == (
        "open-sora-1.2 was trained with one level for clips of any length, some of them clean; this request samples "
        "with levels that rise along 35 latent frames in chunks of 5, the first 5 clean, steps a shift: 5, "
        "guidance scale: 7, outside of that training"
    )


def test_the_embedded_model_was_finetuned_progressively():
    assert load("demo", parts=()).trained_with == (PA_O,)


def test_a_video_says_how_its_model_was_trained(tmp_path):
    trained = LevelPattern("progressive", 20, 5, 5)
    for name, patterns in (("known", (trained,)), ("unknown", ())):
        save_model(tmp_path / name, tiny_model().replace(trained_with=patterns))

    def comment(checkpoint, *options):
        output = tmp_path / f"{checkpoint}-{len(options)}.mp4"
        given = [PROMPT, "--checkpoint", str(tmp_path / checkpoint), "--output", str(output), "--frames", str(CHUNK)]
        make_video.run(make_video.read([*given, "--quiet", *options]))
        return json.loads(read_comment(output))["trained_with"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert comment("known") == str(trained)
        assert comment("unknown", "--method", "replacement") == "unknown"
    with pytest.warns(
        UserWarning, match="tiny was trained with levels that rise .* samples with one level for 15"
    ) as seen:
        assert comment("known", "--method", "replacement") == str(trained)
    assert len(seen) == 1 and "\n" not in str(seen[0].message)


def test_python_is_warned_too():
    model = tiny_model().replace(trained_with=(RW, RN))
    with pytest.warns(UserWarning, match=f"trained with {RW}; or {RN}; this request samples with levels that rise"):
        generate_stream(model, PROMPT, CHUNK)
    assert name_patterns(()) == "unknown"
