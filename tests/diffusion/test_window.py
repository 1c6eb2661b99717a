"""The plan of shifts: what enters, moves and leaves, and at which levels."""

import itertools

import jax
import numpy as np
import pytest

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.window import ShiftInputs, num_shifts, plan_shifts, segments
from pavdm_jax.errors import ConfigError

CASES = [
    pytest.param(WindowConfig(chunk_size=k, noisy_chunks=noisy, context_chunks=context, steps=2 * noisy), n, given)
    for k, noisy, context, n, given in [
        (5, 6, 1, 12, 1),
        (5, 6, 1, 9, 0),
        (2, 3, 0, 5, 0),
        (2, 3, 0, 6, 2),
        (2, 3, 2, 7, 1),
        (2, 3, 2, 9, 5),
        (1, 4, 1, 2, 0),  # shorter than the window
        (1, 4, 1, 1, 0),  # a single chunk
        (1, 1, 1, 4, 1),  # one noisy chunk: plain continuation
    ]
]


def make_plan(config: WindowConfig, num_chunks: int, num_given: int, **options) -> ShiftInputs:
    return plan_shifts(config, shift_levels(level_table(config), 240, 424, 35), num_chunks, num_given, **options)


@pytest.mark.parametrize(("config", "num_chunks", "num_given"), CASES)
def test_every_new_chunk_descends_from_one_to_zero_in_exactly_the_asked_steps(config, num_chunks, num_given):
    plan = make_plan(config, num_chunks, num_given)
    assert len(plan.num_valid) == num_shifts(config, num_chunks, num_given)
    for chunk in range(num_given, num_chunks):
        shifts, slots = np.nonzero(plan.chunks == chunk)
        shifts, slots = (a[plan.levels[shifts, 0, slots] > 0] for a in (shifts, slots))
        assert (np.diff(shifts) == 1).all()
        rows = plan.levels[shifts, :, slots]
        np.testing.assert_array_equal(rows[1:, 0], rows[:-1, -1])  # a shift goes on where the one before stopped
        path = np.concatenate([rows[:, :-1].ravel(), rows[-1, -1:]])
        assert (path[0], path[-1]) == (1.0, 0.0)
        assert len(path) == config.steps + 1
        assert (np.diff(path) < 0).all()


@pytest.mark.parametrize(("config", "num_chunks", "num_given"), CASES)
def test_levels_rise_along_the_window_and_chunks_are_consecutive_from_its_head(config, num_chunks, num_given):
    plan = make_plan(config, num_chunks, num_given)
    for levels, chunks, num_valid in zip(plan.levels, plan.chunks, plan.num_valid, strict=True):
        held = num_valid // config.chunk_size
        np.testing.assert_array_equal(chunks[:held], chunks[0] + np.arange(held))
        np.testing.assert_array_equal(chunks[held:], -1)
        assert (np.diff(levels[:, :held], axis=1) >= 0).all()
        assert (levels[:, held:] == 0).all()
        clean = (levels[0, :held] == 0).sum()
        assert clean <= config.context_chunks
        assert (np.diff(levels[:-1, clean:held], axis=1) > 0).all()


@pytest.mark.parametrize(("config", "num_chunks", "num_given"), CASES)
def test_chunks_enter_and_leave_once_and_in_order_and_the_window_follows(config, num_chunks, num_given):
    plan = make_plan(config, num_chunks, num_given)
    new = np.arange(num_given, num_chunks)
    np.testing.assert_array_equal(plan.entering[plan.entering >= 0], new)
    np.testing.assert_array_equal(plan.emitted[plan.emitted >= 0], new)
    np.testing.assert_array_equal(np.diff(plan.chunks[:, 0]), plan.roll[:-1])
    assert (plan.emitted[config.noisy_chunks - 1 :] >= 0).all()  # one a shift, once the window has filled
    for i in np.nonzero(plan.emitted >= num_given + config.context_chunks)[0]:
        np.testing.assert_array_equal(
            plan.chunks[i, : config.context_chunks], plan.emitted[i] - np.arange(config.context_chunks, 0, -1)
        )


def test_sizes_of_a_minute():
    plan = make_plan(WindowConfig(), 85, 1)
    assert len(plan.num_valid) == 89
    assert plan.num_valid.max() == 35
    assert [int(n) for n in plan.num_valid[:6]] == [10, 15, 20, 25, 30, 35]
    assert [int(n) for n in plan.num_valid[-6:]] == [35, 30, 25, 20, 15, 10]


def test_without_its_ends_a_plan_is_the_stretch_in_which_the_window_is_full_of_noisy_chunks():
    """The paper's fixed length."""
    config = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6)
    ends = config.noisy_chunks - 1
    plan = make_plan(config, 9, 1)
    fixed = make_plan(config, 9, 1, start=ends, stop=num_shifts(config, 9, 1) - ends)
    full = (plan.levels[:, 0] > 0).sum(axis=1) == 3
    for ours, whole in zip(jax.tree.leaves(fixed), jax.tree.leaves(plan), strict=True):
        np.testing.assert_array_equal(ours, whole[full])
    assert list(fixed.emitted) == [1, 2, 3, 4, 5, 6]


def test_a_noised_context_keeps_its_level_in_every_row():
    config = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6, context_noise=0.02)
    noised, clean = make_plan(config, 9, 1), make_plan(WindowConfig(chunk_size=2, noisy_chunks=3, steps=6), 9, 1)
    finished = (clean.levels == 0).all(axis=1) & (clean.chunks >= 0)
    expected = np.where(finished[:, None, :], np.float32(0.02), clean.levels)
    # A chunk that is being denoised ends at 0; it is noised when it becomes context.
    np.testing.assert_array_equal(noised.levels, expected)
    assert (noised.context_noise == np.float32(0.02)).all()
    assert (clean.context_noise == 0).all()


def test_given_latent_frames_are_held_while_their_chunk_is_at_the_head():
    plan = make_plan(WindowConfig(chunk_size=2, noisy_chunks=3, steps=6), 6, 0, held=1)
    np.testing.assert_array_equal(plan.held, (plan.chunks[:, 0] == 0).astype(int))


@pytest.mark.parametrize("length", [1, 3, 4, 100])
def test_segments_are_equally_long_and_hold_the_plan_then_inert_shifts(length):
    plan = make_plan(WindowConfig(chunk_size=2, noisy_chunks=3, steps=6), 6, 1)
    pieces = list(segments(plan, length))
    assert {len(piece.num_valid) for piece in pieces} == {length}
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces)
    shifts = len(plan.num_valid)
    for ours, whole in zip(jax.tree.leaves(joined), jax.tree.leaves(plan), strict=True):
        assert ours.dtype == whole.dtype
        np.testing.assert_array_equal(ours[:shifts], whole)
    padding = jax.tree.map(lambda array: array[shifts:], joined)
    assert (padding.num_valid == 0).all()
    assert (padding.emitted == -1).all()
    assert (padding.roll == 0).all()


def test_a_plan_can_be_made_piece_by_piece_and_a_longer_video_starts_alike():
    config = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6)
    whole, longer = make_plan(config, 8, 1), make_plan(config, 1000, 1, stop=7)
    pieces = [make_plan(config, 8, 1, start=a, stop=b) for a, b in itertools.pairwise([0, 4, 5, 99])]
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces)
    for one, other, start in zip(*map(jax.tree.leaves, (joined, whole, longer)), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(start, other[:7])


def test_each_slot_follows_the_prompt_of_its_chunk():
    config = WindowConfig(chunk_size=2, noisy_chunks=3, steps=6)
    plan = make_plan(config, 6, 1, prompt_starts=[0, 2, 3, 3])
    expected = np.where(plan.chunks < 0, 0, np.array([0, 0, 1, 3, 3, 3])[plan.chunks])
    np.testing.assert_array_equal(plan.prompt_index, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, 3), "3 chunks leaves nothing"), ((3, -1), "0 or more, not -1")],
)
def test_wrong_sizes_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(WindowConfig(), *arguments)


def test_a_table_of_another_window_is_refused():
    with pytest.raises(ConfigError, match=r"shape \(2, 3\); this window needs \(5, 6\)"):
        plan_shifts(WindowConfig(), np.ones((2, 3)), 8)
