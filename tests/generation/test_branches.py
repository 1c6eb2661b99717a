"""Positions that are restored elsewhere: in a longer video, or on the same stream after its prompt was changed."""

import numpy as np
import pytest
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax import generate_stream
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import make_request

OTHER = "a large green triangle moves right"


def stream(chunks, **options):
    if options.get("method", "progressive") == "progressive":
        options["segment"] = 1  # shift of a round
    return generate_stream(tiny_model(), PROMPT, chunks * CHUNK, **options)


def positions(stream):
    """Those of all rounds, and the frames that follow each."""
    saved, made = [stream.save()], []
    while not stream.done:
        made.append(stream.advance())
        saved.append(stream.save())
    return saved, [[frames for later in made[number:] for frames in later] for number in range(len(saved))]


def frames(parts):
    return np.concatenate([*parts, np.zeros((1, 0, 16, 24, 3), np.uint8)], axis=1)


@pytest.mark.parametrize("options", [{}, {"schedule": "asynchronous", "lag": 2}])
def test_a_longer_video_goes_on_while_chunks_enter_and_is_refused_then(options):
    short, _ = positions(stream(6, **options))
    same, rest = positions(stream(12, **options))
    accepted = []
    for number, saved in enumerate(short):
        longer = stream(12, **options)
        try:
            longer.restore(saved)
        except ConfigError as error:
            assert "its video came to its end" in str(error)
            continue
        accepted.append(number)
        np.testing.assert_array_equal(saved["latents"], same[number]["latents"])
        np.testing.assert_array_equal(frames(list(longer)), frames(rest[number]))
    assert accepted == list(range(len(accepted)))
    assert 3 <= len(accepted) < len(short) - 1


@pytest.mark.parametrize("method", ["progressive", "replacement"])
def test_the_end_of_a_video_that_was_cut_is_not_that_of_a_longer_one(method):
    def of(frames):
        return generate_stream(tiny_model(), PROMPT, frames, method=method)

    cut = of(4 * CHUNK - 3)
    list(cut)
    of(4 * CHUNK - 3).restore(cut.save())  # of the same length it is whole
    with pytest.raises(ConfigError, match=r"came to its end|is lost; take an earlier position"):
        of(8 * CHUNK).restore(cut.save())


@pytest.mark.parametrize("method", ["progressive", "replacement"])
def test_the_same_stream_goes_back_behind_a_change_of_its_prompt(method):
    one = stream(12, method=method)
    for _ in range(2):
        one.advance()
    saved = one.save()
    whole = frames(list(one))
    one.restore(saved)
    one.set_prompt(OTHER)
    changed = one.save()
    with_change = frames(list(one))
    assert np.abs(with_change.astype(int) - whole).max() > 1
    for position, expected in ((saved, whole), (changed, with_change), (changed, with_change), (saved, whole)):
        one.restore(position)
        np.testing.assert_array_equal(frames(list(one)), expected)


def test_a_context_of_another_length_is_refused():
    saved = generate_stream(tiny_model(), PROMPT, 6 * CHUNK, method="replacement", context_frames=CHUNK)
    saved.advance()
    other = generate_stream(tiny_model(), PROMPT, 6 * CHUNK, method="replacement", context_frames=2 * CHUNK)
    with pytest.raises(ConfigError, match=f"this request's context_frames {2 * CHUNK} are"):
        other.restore(saved.save())


def test_noise_is_drawn_as_long_as_chunks_enter_or_the_context_is_noised():
    def plan(**options):
        return make_plan(make_request(tiny_model().config, PROMPT, frames=8 * CHUNK, **options))

    clean, noised = plan(), plan(context_noise=0.02)
    takes = [clean.takes_noise(shift) for shift in range(clean.num_shifts)]
    entering = clean.segment(0, clean.num_shifts).entering >= 0
    assert takes == [entering[shift:].any() for shift in range(clean.num_shifts)]
    assert takes[0]
    assert not takes[-1]
    assert all(noised.takes_noise(shift) for shift in range(noised.num_shifts))


def test_clips_of_another_length_are_refused():
    saved = generate_stream(tiny_model(), PROMPT, 6 * CHUNK, method="replacement", context_frames=CHUNK)
    saved.advance()
    other = generate_stream(
        tiny_model(), PROMPT, 6 * CHUNK, method="replacement", context_frames=CHUNK, clip_frames=5 * CHUNK
    )
    with pytest.raises(ConfigError, match=f"this request's clip_frames are {5 * CHUNK}"):
        other.restore(saved.save())


@pytest.mark.parametrize("method", ["progressive", "replacement"])
def test_of_many_changes_of_the_prompt_those_are_kept_that_still_matter(method):
    one = generate_stream(tiny_model(), PROMPT, 60 * CHUNK, method=method)
    for number in range(12):
        one.advance()
        one.set_prompt(PROMPT if number % 2 else OTHER)
    saved = one.save()
    assert 0 < len(saved["changed_at"]) < 6
    again = generate_stream(tiny_model(), PROMPT, 60 * CHUNK, method=method)
    again.restore(saved)
    for _ in range(4):
        np.testing.assert_array_equal(frames(one.advance()), frames(again.advance()))


@pytest.mark.parametrize("method", ["progressive", "replacement"])
def test_a_change_of_the_prompt_survives_two_resumptions_and_is_gone_before_it(method):
    def fresh():
        return generate_stream(tiny_model(), PROMPT, 40 * CHUNK, method=method)

    one = fresh()
    for _ in range(2):
        one.advance()
    before = one.save()
    one.set_prompt(OTHER)
    for _ in range(5):
        one.advance()
    first = one.save()
    two = fresh()
    two.restore(first)
    two.advance()
    three = fresh()
    three.restore(two.save())
    one.advance()
    for _ in range(3):
        expected = frames(one.advance())
        np.testing.assert_array_equal(frames(three.advance()), expected)
    plain = fresh()
    plain.restore(before)
    three.restore(before)
    for _ in range(8):
        np.testing.assert_array_equal(frames(three.advance()), frames(plain.advance()))
