"""Every system of the paper as values of the same options: what each makes, keeps and refuses, with a tiny model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.nightly import at_night
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax import generate, generate_stream
from pavdm_jax.config import SCHEDULES
from pavdm_jax.diffusion.partitions import partitioned
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import make_request

OTHER = "a large green triangle moves right"


CLIP = np.zeros((17, 16, 24, 3), np.uint8)


def video(prompt=PROMPT, frames=3 * CHUNK, **options):
    return generate(tiny_model(), prompt, frames, **options)


def clip(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def differ(one, other):
    return np.abs(one.astype(int) - other).max() > 1


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", at_night(*sorted(SCHEDULES)))
def test_every_named_window_starts_from_text_and_from_a_clip(schedule):
    made = video(frames=2 * CHUNK + 3, schedule=schedule)
    assert made.shape == (2 * CHUNK + 3, 16, 24, 3)
    continued = video(frames=4 * CHUNK, schedule=schedule, start=clip(2 * CHUNK))
    assert continued.shape == (4 * CHUNK, 16, 24, 3)
    kept = 0 if schedule in ("no-context", "no-chunks") else 2 * CHUNK
    np.testing.assert_array_equal(continued[:kept], clip(2 * CHUNK)[:kept])
    assert differ(continued, video(frames=4 * CHUNK, schedule=schedule, start=clip(2 * CHUNK, seed=1)))


def test_without_context_the_last_chunks_of_a_start_clip_are_noised_and_made_again():
    start = clip(6 * CHUNK)
    request = make_request(tiny_model().config, PROMPT, frames=8 * CHUNK, start=start, context_chunks=0)
    plan = make_plan(request)
    assert (plan.num_given, plan.num_noised, plan.first_shift) == (0, 2, 2)
    made = video(frames=8 * CHUNK, start=start, context_chunks=0)
    np.testing.assert_array_equal(made[: 4 * CHUNK], start[: 4 * CHUNK])
    assert differ(made[4 * CHUNK : 6 * CHUNK], start[4 * CHUNK :])


def test_single_latent_frames_are_shown_when_they_fill_a_micro_clip_and_resume_in_between():
    options = {"chunk_size": 1, "noisy_chunks": 6, "context_chunks": 1, "segment": 1}
    whole = video(frames=3 * CHUNK, **options)
    stream = generate_stream(tiny_model(), PROMPT, 3 * CHUNK, **options)
    made = []
    while len(made) < 1 or stream.save()["finished"].shape[1] != 2:
        made += stream.advance()
    again = generate_stream(tiny_model(), PROMPT, 3 * CHUNK, **options)
    again.restore(stream.save())
    np.testing.assert_array_equal(np.concatenate([*made, *again], axis=1)[0], whole)


def test_a_start_clip_may_end_within_a_micro_clip_of_what_is_made_again():
    """Nine latent frames are noised: of the second micro clip from the end the first one stays as it is."""
    options = {"chunk_size": 1, "noisy_chunks": 10, "steps": 10, "context_chunks": 0}
    start = clip(3 * CHUNK)
    stream = generate_stream(tiny_model(), PROMPT, 5 * CHUNK, start=start, **options)
    assert stream.kept_frames == CHUNK
    assert stream.save()["finished"].shape[1] == 1
    made = np.concatenate(list(stream), axis=1)[0]
    assert made.shape[0] == 5 * CHUNK
    np.testing.assert_array_equal(made[:CHUNK], start[:CHUNK])


def test_fixed_length_needs_a_full_window_and_keeps_what_lies_before_it():
    start = clip(4 * CHUNK)
    made = video(frames=6 * CHUNK, start=start, fixed_length=True)
    assert len(made) == 6 * CHUNK
    np.testing.assert_array_equal(made[: 2 * CHUNK], start[: 2 * CHUNK])
    assert differ(made[2 * CHUNK : 4 * CHUNK], start[2 * CHUNK :])
    for given in ({}, {"start": clip(2 * CHUNK)}):
        with pytest.raises(ConfigError, match=f"at least {3 * CHUNK} frames"):
            video(frames=6 * CHUNK, fixed_length=True, **given)


def test_a_noised_context_changes_what_follows_it_and_nothing_before():
    clean, noised = video(frames=5 * CHUNK), video(frames=5 * CHUNK, context_noise=0.2)
    np.testing.assert_array_equal(noised[:CHUNK], clean[:CHUNK])
    assert differ(noised[CHUNK:], clean[CHUNK:])


def test_partitions_call_the_network_on_parts_of_which_the_later_half_counts():
    calls = []

    def velocity(latents, levels, num_valid, prompt_index):
        jax.debug.callback(lambda *seen: calls.append(seen), latents[0, :, 0, 0, 0], num_valid, prompt_index)
        position = jnp.arange(4.0)[None, :, None, None, None]
        return latents * 0 + position

    latents = jnp.arange(8.0)[None, :, None, None, None] * jnp.ones((2, 8, 1, 1, 1))
    out = partitioned(velocity, 4)(latents, jnp.ones((2, 8)), jnp.int32(5), jnp.arange(8))
    assert out[1, :, 0, 0, 0].tolist() == [0, 1, 2, 3, 2, 3, 2, 3]
    jax.effects_barrier()
    seen = sorted((list(map(int, frames)), int(valid), list(map(int, prompts))) for frames, valid, prompts in calls)
    assert seen == [
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([2, 3, 4, 5], 3, [2, 3, 4, 5]),
        ([4, 5, 6, 7], 1, [4, 5, 6, 7]),
    ]


def test_one_partition_of_the_whole_window_is_no_partition():
    options = {"frames": 2 * CHUNK, "chunk_size": 1, "noisy_chunks": 6, "context_chunks": 0}
    np.testing.assert_array_equal(video(**options), video(partition=6, **options))


# --- baselines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"context_frames": 5, "clip_frames": 2 * CHUNK},
        {"steps": 4},  # no multiple of the noisy chunks
        *at_night({"clip_frames": 2 * CHUNK}, {"context_frames": 1}, {"keep_latents": True}, {"edit_ratio": 0.6}),
    ],
)
def test_clips_of_the_baselines_have_any_length_context_and_steps(options):
    made = video(frames=6 * CHUNK + 4, method="replacement", **options)
    assert len(made) == 6 * CHUNK + 4
    plain = video(frames=6 * CHUNK + 4, method="replacement")
    assert differ(made, plain)
    start = clip(CHUNK + 3)
    continued = video(frames=6 * CHUNK, method="replacement", start=start, **options)
    np.testing.assert_array_equal(continued[: len(start)], start)


def test_latents_kept_and_frames_encoded_again_agree_up_to_the_second_clip():
    kept = video(frames=5 * CHUNK, method="replacement", keep_latents=True)
    encoded = video(frames=5 * CHUNK, method="replacement")
    np.testing.assert_array_equal(kept[: 3 * CHUNK], encoded[: 3 * CHUNK])
    assert differ(kept[3 * CHUNK :], encoded[3 * CHUNK :])


def test_a_context_of_one_frame_advances_by_all_others():
    stream = generate_stream(tiny_model(), PROMPT, 51 + 50 + 10, method="replacement", context_frames=1)
    lengths = []
    while not stream.done:
        lengths.append(sum(frames.shape[1] for frames in stream.advance()))
    assert lengths == [51, 50, 10]


@pytest.mark.parametrize("keep_latents", [False, True])
def test_a_context_may_be_longer_than_what_is_new(keep_latents):
    options = {"method": "replacement", "context_frames": 2 * CHUNK, "keep_latents": keep_latents}
    stream, lengths = generate_stream(tiny_model(), PROMPT, 6 * CHUNK, **options), []
    while not stream.done:
        lengths.append(sum(frames.shape[1] for frames in stream.advance()))
        assert stream.save()["latents"].shape[1] == 10
    assert lengths == [3 * CHUNK, CHUNK, CHUNK, CHUNK]


# --- prompts, images, sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [{"aesthetic_score": 5.0}, {"motion_score": 3.0}, {"camera_motion": "pan right"}])
def test_scores_are_appended_to_the_prompt(score, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "pavdm_jax.models.tokenizer.Tokenizer.tokenize",
        lambda self, texts, n: (
            seen.extend(texts) or (np.ones((len(texts), n), np.int32), np.ones(len(texts), np.int32))
        ),
    )
    generate_stream(tiny_model(), PROMPT, CHUNK, **score)
    ((name, value),) = score.items()
    assert seen == [f"{PROMPT} {name.replace('_', ' ')}: {value}."]


def test_every_prompt_may_have_a_start_clip_of_its_own():
    starts = [clip(CHUNK, 1), clip(CHUNK, 2)]
    made = video([PROMPT, OTHER], frames=3 * CHUNK, start=starts, samples=2, seed=[1, 1, 1, 1])
    np.testing.assert_array_equal(made[:, :CHUNK], np.stack([starts[0], starts[0], starts[1], starts[1]]))
    with pytest.raises(ConfigError, match="equal lengths, not 17, 20 frames"):
        video([PROMPT, OTHER], start=[clip(17), clip(20)])
    with pytest.raises(ConfigError, match="3 start clips are given for 2 prompts"):
        video([PROMPT, OTHER], start=[clip(17)] * 3)


@pytest.mark.parametrize("method", ["progressive", "replacement", "noisy-replacement"])
def test_an_image_may_be_the_first_latent_frame_instead_of_a_still_clip(method):
    image = clip(1)
    still = video(start=image, method=method)
    np.testing.assert_array_equal(still[:CHUNK], np.repeat(image, CHUNK, axis=0))
    moving = video(start=image, image="latent", method=method)
    assert moving.shape == still.shape
    assert differ(moving[1:CHUNK], np.repeat(image, CHUNK - 1, axis=0))
    assert differ(moving, video(start=clip(1, seed=1), image="latent", method=method))


def test_an_image_as_latent_stays_at_level_0():
    stream = generate_stream(tiny_model(), PROMPT, 3 * CHUNK, start=clip(1), image="latent")
    held = np.array(stream.save()["latents"][:, :1])
    assert np.abs(held).max() > 0
    stream.advance()
    np.testing.assert_array_equal(stream.save()["latents"][:, :1], held)


def test_an_image_as_latent_stays_clean_when_its_chunk_becomes_the_noised_context():
    stream = generate_stream(
        tiny_model(), PROMPT, 6 * CHUNK, start=clip(1), image="latent", context_noise=0.5, segment=1
    )
    before = np.array(stream.save()["latents"])
    while stream.round < tiny_model().config.window.noisy_chunks:  # the last of them emits chunk 0
        stream.advance()
    after = np.array(stream.save()["latents"])
    np.testing.assert_array_equal(after[:, :1], before[:, :1])
    assert differ(after[:, 1:5], before[:, 1:5])


# --- timelines, branches ----------------------------------------------------------------------------------------------


def test_a_change_inside_the_last_chunk_holds_for_it():
    request = make_request(tiny_model().config, [(0, PROMPT), (2.5 * CHUNK / 24, OTHER)], frames=3 * CHUNK)
    assert make_plan(request).prompt_starts == (0, 2)
    request = make_request(tiny_model().config, [(0, PROMPT), (3 * CHUNK / 24, OTHER)], frames=3 * CHUNK)
    with pytest.raises(ConfigError, match="after the end"):
        make_plan(request)


def test_of_two_changes_in_one_chunk_the_later_holds_and_the_other_is_named():
    timeline = [(0, PROMPT), (1.1 * CHUNK / 24, "a blue square"), (1.6 * CHUNK / 24, OTHER)]
    request = make_request(tiny_model().config, timeline, frames=6 * CHUNK)
    with pytest.warns(UserWarning, match="'a blue square' is never seen"):
        plan = make_plan(request)
    assert plan.prompt_starts == (0, 2, 2)
    assert set(plan.segment(4, 1).prompt_index.ravel().tolist()) == {0, 2}


def test_the_timeline_of_a_video_without_end_is_followed():
    timeline = [(0, PROMPT), (2 * CHUNK / 24, OTHER)]
    endless = iter(generate_stream(tiny_model(), timeline, None))
    made = np.concatenate([next(endless) for _ in range(3)], axis=1)[0]
    np.testing.assert_array_equal(made, video(timeline, frames=9 * CHUNK)[: 3 * CHUNK])


def test_a_position_continues_with_the_noise_of_the_streams_own_seed():
    def stream(seed):
        return generate_stream(tiny_model(), PROMPT, 8 * CHUNK, seed=seed)

    first = stream(3)
    made = []
    while len(made) < 2:
        made += first.advance()
    same, other = stream(3), stream(4)
    same.restore(first.save())
    other.restore(first.save())
    whole = video(frames=8 * CHUNK, seed=3)
    np.testing.assert_array_equal(np.concatenate([*made, *same], axis=1)[0], whole)
    branched = np.concatenate([*made, *other], axis=1)[0]
    assert differ(branched[-2 * CHUNK :], whole[-2 * CHUNK :])


def test_a_position_of_another_method_is_refused():
    saved = generate_stream(tiny_model(), PROMPT, 3 * CHUNK).save()
    with pytest.raises(ConfigError, match="of method progressive; this request's is replacement"):
        generate_stream(tiny_model(), PROMPT, 3 * CHUNK, method="replacement").restore(saved)


def test_the_prompt_can_change_while_the_video_is_made():
    frames, options = 9 * CHUNK, {"segment": 1}
    stream = generate_stream(tiny_model(), PROMPT, frames, **options)
    made = []
    while len(made) < 2:
        made += stream.advance()
    entering = stream.round
    stream.set_prompt(OTHER)
    saved = stream.save()
    rest = list(stream)
    # The same as a timeline that was planned: the chunk that entered next is the first one of the new prompt.
    planned = video([(0, PROMPT), (entering * CHUNK / 24, OTHER)], frames=frames, **options)
    assert not differ(np.concatenate([*made, *rest], axis=1)[0], planned)

    for _ in range(2):  # a position of a stream that was restored itself has the change, too
        again = generate_stream(tiny_model(), PROMPT, frames, **options)
        again.restore(saved)
        saved = again.save()
        np.testing.assert_array_equal(np.concatenate(list(again), axis=1), np.concatenate(rest, axis=1))


@pytest.mark.parametrize("method", ["replacement", "noisy-replacement"])
def test_the_prompt_of_a_baseline_can_change_with_each_clip(method):
    frames, options = 9 * CHUNK, {"method": method, "steps": 3}
    stream = generate_stream(tiny_model(), PROMPT, frames, **options)
    made = stream.advance()
    stream.set_prompt(OTHER)
    saved = stream.save()
    rest = np.concatenate(list(stream), axis=1)
    whole = video(frames=frames, **options)
    assert not differ(made[0][0], whole[:CHUNK])
    assert differ(rest[0, :CHUNK], whole[3 * CHUNK : 4 * CHUNK])
    for _ in range(2):
        again = generate_stream(tiny_model(), PROMPT, frames, **options)
        again.restore(saved)
        saved = again.save()
        np.testing.assert_array_equal(np.concatenate(list(again), axis=1), rest)


@pytest.mark.parametrize("prompt", [5, [PROMPT, 5], [PROMPT, OTHER]])
def test_a_prompt_that_is_none_is_refused_on_the_way(prompt):
    stream = generate_stream(tiny_model(), PROMPT, 3 * CHUNK)
    with pytest.raises(ConfigError, match=r"a prompt is text|give one each"):
        stream.set_prompt(prompt)


def test_a_position_that_is_none_is_refused():
    stream = generate_stream(tiny_model(), PROMPT, 3 * CHUNK)
    with pytest.raises(ConfigError, match="the saved position lacks changed_at, changed_to, chunks, finished"):
        stream.restore({"latents": np.zeros(3)})


def test_prompts_that_are_no_longer_needed_are_forgotten():
    frames, texts = 20 * CHUNK, [OTHER, PROMPT, "a blue square"]
    stream, timeline, made = generate_stream(tiny_model(), PROMPT, frames, segment=1), [(0, PROMPT)], []
    for text in texts:
        for _ in range(6):
            made += stream.advance()
        timeline.append((stream.round * CHUNK / 24, text))  # round r lets chunk r in
        stream.set_prompt(text)
        held = len(stream.plan.prompt_starts)
        assert held <= 3
        assert stream._prompts.features.shape[1] == stream._prompts.lengths.shape[1] == held
    assert not differ(np.concatenate([*made, *stream], axis=1)[0], video(timeline, frames=frames, segment=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "pa"}, "schedule 'pa' is not known; use pa-o or"),
        ({"clip_frames": 34}, "clip_frames is an option of the methods replacement"),
        ({"method": "replacement", "noisy_chunks": 4}, "noisy_chunks is an option of method progressive"),
        ({"method": "replacement", "clip_frames": 20}, "use 17 or 34"),
        ({"method": "replacement", "context_frames": 3}, "use 1 or 5"),
        ({"method": "replacement", "context_frames": 51}, "fewer than the clip's 51 frames"),
        ({"method": "replacement", "context_frames": 1, "keep_latents": True}, "no latents of its own"),
        ({"method": "noisy-replacement", "edit_ratio": 0.5}, "options of method replacement"),
        ({"context_noise": 1.0}, "context_noise is a level"),
        ({"context_noise": 0.02, "context_chunks": 0}, "needs a context"),
        ({"guidance_above": 1.0}, "guidance_above is a level"),
        ({"guidance_above": 0.3, "guidance_scale": 1.0}, "guidance_above works by guidance"),
        ({"segment": 7, "method": "replacement"}, "segment is an option of method progressive"),
        ({"guidance_above": 0.3, "method": "replacement"}, "guidance_above is an option of method progressive"),
        ({"reuse_below": 1.0}, "reuse_below is a level"),
        ({"reuse_below": 0.3, "guidance_above": 0.3}, "cannot be combined with guidance_above 0.3"),
        ({"reuse_below": 0.3, "schedule": "fifo"}, "cannot be combined with partition"),
        ({"reuse_below": 0.3, "schedule": "asynchronous"}, "cannot be combined with lag"),
        ({"reuse_below": 0.3, "steps": 3}, "give more than 3 steps"),
        ({"reuse_below": 0.01, "context_chunks": 0}, "is below every level of this window"),
        ({"reuse_below": 0.3, "method": "replacement"}, "reuse_below is an option of method progressive"),
        ({"partition": 7}, "partition 7 does not divide"),
        ({"negative_prompt": " "}, "negative prompt is empty"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts are given for 1 prompts"),
        ({"image": "still"}, "use hold or latent"),
        ({"image": "latent"}, "image latent is of a start image; give one"),
        ({"image": "latent", "start": CLIP}, "the start clip has 17 frames; leave it out"),
        ({"start": CLIP[:0]}, r"start frames must be uint8 \[frames, height, width, 3\], not uint8 \[0, 16, 24, 3\]"),
        ({"motion_score": -1.0}, "motion_score must be from 0"),
    ],
)
def test_mistakes_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        video(**options)
    assert "\n" not in str(caught.value)
