"""Windows of a distilled shift are the sampler's, and its target is where the teacher's steps lead."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.distillation import mean_velocity, sample_steps
from pavdm_jax.diffusion.flow import euler_step, shift_levels
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.objectives import DistilledGuidance, DistilledShift, Windows
from pavdm_jax.diffusion.sampler import initial_state, sample_keys, sample_segment
from pavdm_jax.diffusion.window import plan_shifts
from pavdm_jax.errors import ConfigError

TEACHER = WindowConfig(chunk_size=2, noisy_chunks=3, context_chunks=1, steps=12)
SIZE = 256
ALL_KINDS = {"growing": 0.4, "shrinking": 0.3, "short": 0.2}


def steps(student, batch=600, teacher=TEACHER, **shares):
    objective = DistilledShift(**(shares or ALL_KINDS), steps=teacher.steps)
    draw = jax.jit(lambda key: sample_steps(key, objective, student, batch, SIZE, SIZE, 512))
    return draw(jax.random.key(0))


def test_the_context_keeps_its_noise_through_all_steps_of_the_teacher():
    student = dataclasses.replace(TEACHER, steps=3)
    noised, clean = steps(dataclasses.replace(student, context_noise=0.02)), steps(student)
    changed = [np.asarray(one.levels != other.levels) for one, other in zip(noised.rows, clean.rows, strict=True)]
    for row, where in zip(noised.rows, changed, strict=True):
        assert set(np.asarray(row.levels)[where]) == {np.float32(0.02)}
        np.testing.assert_array_equal(where, changed[0])
    assert changed[0][:, :2].any() and not changed[0][:, 2:].any()  # a context is one chunk, the first


@pytest.mark.parametrize("passes", [1, 2])
def test_levels_are_rows_of_the_samplers_plan(passes):
    """Of videos from text and after a chunk, shorter and longer than the window; all of their windows are drawn."""
    student = dataclasses.replace(TEACHER, steps=3 * passes)
    table = np.asarray(shift_levels(level_table(TEACHER), SIZE, SIZE, TEACHER.window_size))
    calls = 4 // passes
    planned = set()
    for chunks in range(1, 9):
        for given in range(min(chunks, 2)):
            plan = plan_shifts(TEACHER, table, chunks, given)
            for levels, valid in zip(plan.levels, plan.num_valid, strict=True):
                planned |= {named(levels[first : first + calls + 1], valid) for first in range(0, 4, calls)}
    drawn = steps(student).rows
    assert len(drawn) == calls + 1
    levels = np.stack([row.levels for row in drawn])[:, :, :: TEACHER.chunk_size]
    found = {named(levels[:, n], drawn[0].num_valid[n]) for n in range(levels.shape[1])}
    assert found == planned
    of_loss = np.asarray(drawn[0].loss_mask)[:, :: TEACHER.chunk_size]
    np.testing.assert_array_equal(of_loss, levels[0] > 0)


@pytest.mark.parametrize("passes", [1, 2])
def test_the_step_before_a_students_step_is_the_samplers(passes):
    """Of a long video: the levels before are those of the step before, in the same shift or the last."""
    student = dataclasses.replace(TEACHER, steps=3 * passes)
    table = np.asarray(shift_levels(level_table(student), SIZE, SIZE, TEACHER.window_size))
    plan = plan_shifts(student, table, num_chunks=9)
    expected = set()
    for number in range(len(plan.num_valid)):
        for row in range(passes):
            now, present = plan.levels[number, row], plan.chunks[number] >= 0
            if row:
                before, valid = plan.levels[number, row - 1], plan.num_valid[number]
            elif number == 0:
                before, valid = now, TEACHER.chunk_size  # pure noise: nothing was seen
            else:
                earlier = dict(zip(plan.chunks[number - 1].tolist(), plan.levels[number - 1, passes - 1], strict=True))
                before = np.array([earlier.get(chunk, now[slot]) for slot, chunk in enumerate(plan.chunks[number])])
                before, valid = np.where(present, before, 0), (before != now)[present].sum() * TEACHER.chunk_size
            expected.add(named(np.stack([before, now]), valid))
    drawn = steps(student)
    levels = np.stack([drawn.before.levels, drawn.rows[0].levels])[:, :, :: TEACHER.chunk_size]
    found = {named(levels[:, n], valid) for n, valid in enumerate(drawn.before.num_valid)}
    assert expected <= found


def test_the_context_is_finished_before_a_students_later_steps():
    noised = steps(dataclasses.replace(TEACHER, steps=6, context_noise=0.02))
    before, now = (np.asarray(one.levels) for one in (noised.before, noised.rows[0]))
    # Of these windows some are in the shift's first step, some in its second.
    is_context = now[:, 0] == np.float32(0.02)
    assert set(before[is_context, 0]) >= {np.float32(0.02)} and before[is_context, 0].min() > 0


def named(levels, num_valid):
    return tuple(np.round(levels, 5).ravel().tolist()), int(num_valid)


def test_one_step_along_the_mean_velocity_is_a_whole_shift_of_the_sampler():
    """The teacher's velocity depends on latents, levels and place, so that no other path leads to the same end."""
    student = dataclasses.replace(TEACHER, steps=3)
    drawn = steps(student, batch=4, growing=0.0, shrinking=0.0, short=0.0).rows
    latents = jax.random.normal(jax.random.key(1), (4, 8, 2, 2, 1))

    def velocity(latents, levels, num_valid, prompt_index):
        return jnp.sin(3 * latents) - latents * levels[:, :, None, None, None] + jnp.mean(latents, 1, keepdims=True)

    levels = jnp.stack([row.levels for row in drawn])
    mean = jax.jit(functools.partial(mean_velocity, velocity, slots=4))(latents, levels, drawn[0].num_valid)
    arrived = euler_step(latents, mean, levels[0], levels[-1])

    table = np.asarray(shift_levels(level_table(TEACHER), SIZE, SIZE, TEACHER.window_size))
    plan = plan_shifts(TEACHER, table, num_chunks=9, num_given=1, start=3, stop=4)  # a full window
    keys = sample_keys(range(4))

    def noise(number):  # the chunk that enters is the last of the window above
        return latents[:, 6:]

    first = jax.tree.map(lambda array: array[0], plan)
    state = dataclasses.replace(initial_state(noise, keys, latents[:, :0], first), latents=latents)
    state, finished = sample_segment(velocity, noise, state, plan)
    np.testing.assert_allclose(arrived[:, 2:4], finished.latents[0], atol=1e-6)
    np.testing.assert_allclose(arrived[:, 2:], state.latents[:, :6], atol=1e-6)
    np.testing.assert_array_equal(arrived[:, :2], latents[:, :2])  # the context
    assert (
        np.abs(
            np.asarray(arrived - euler_step(latents, velocity(latents, levels[0], 8, None), levels[0], levels[-1]))
        ).max()
        > 0.01
    )


def test_a_linear_teacher_has_a_mean_velocity_in_closed_form():
    """n Euler steps along velocity = a · latents multiply latents by the product of 1 + a · drop."""
    drawn = steps(dataclasses.replace(TEACHER, steps=3), batch=16).rows
    latents = jax.random.normal(jax.random.key(1), (16, 8, 2, 2, 1))
    levels = np.stack([row.levels for row in drawn])
    found = mean_velocity(lambda latents, *_: 0.7 * latents, latents, jnp.asarray(levels), drawn[0].num_valid, 4)
    grown = np.prod(1 + 0.7 * (levels[:-1] - levels[1:]), axis=0)
    drop = levels[0] - levels[-1]
    expected = np.divide(grown - 1, drop, out=np.zeros_like(drop), where=drop > 0)[..., None, None, None] * latents
    np.testing.assert_allclose(found, expected, atol=1e-5)
    constant = mean_velocity(lambda latents, *_: 0 * latents + 2.0, latents, jnp.asarray(levels), drawn[0].num_valid, 4)
    np.testing.assert_allclose(constant[drop > 0], 2.0, atol=1e-4)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="are shares of all windows"):
        Windows(growing=0.7, shrinking=0.4)
    with pytest.raises(ConfigError, match="guidance_scale must be a number"):
        DistilledGuidance(guidance_scale=float("nan"))
    with pytest.raises(ConfigError, match="level_shift must be a number from 0 on"):
        DistilledGuidance(level_shift=-1.0)
    with pytest.raises(ConfigError, match="rollout is a share"):
        DistilledShift(rollout=2.0)
    with pytest.raises(ConfigError, match="steps of the teacher"):
        DistilledShift(steps=0)
