"""Levels, their noise shift and the Euler step, against the reference's tables and by their own laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import euler_step, interpolate, shift_levels, velocity_target
from pavdm_jax.diffusion.noise_levels import level_table, uniform_levels

LEVEL_TOLERANCE = 1e-6
"""Float32 rounding: the reference counts 0..1000 and divides."""

TABLES = golden_data.load("schedules")[1]["tables"]


def shifted_as_named(levels: jax.Array, name: str) -> jax.Array:
    """`name` is "raw" or "<height>x<width>x<pixel frames>"."""
    if name == "raw":
        return levels
    height, width, frames = map(int, name.split("x"))
    return shift_levels(levels, height, width, frames // 17 * 5)


@pytest.mark.parametrize("name", TABLES)
def test_levels_equal_the_reference(name):
    sizes, variant = name.split("/")
    if sizes.startswith("uniform"):
        ours = uniform_levels(int(sizes.removeprefix("uniform")))[:-1]
    else:
        noisy, steps, chunk = map(int, sizes.split("_"))
        config = WindowConfig(chunk_size=chunk, noisy_chunks=noisy // chunk, steps=steps)
        ours = jnp.repeat(level_table(config), chunk, axis=1)
    assert golden_data.relative_error(shifted_as_named(ours, variant), TABLES[name] / 1000) < LEVEL_TOLERANCE


@pytest.mark.parametrize(("chunks", "steps"), [(6, 30), (6, 60), (3, 6), (1, 4), (4, 4)])
def test_one_step_below_the_last_row_is_the_first_row_moved_by_a_chunk(chunks, steps):
    table = np.asarray(level_table(WindowConfig(noisy_chunks=chunks, steps=steps)))
    assert table.shape == (steps // chunks, chunks)
    assert table[0, -1] == 1.0
    assert (np.diff(table, axis=1) > 0).all()
    np.testing.assert_allclose(table[-1] - 1 / steps, np.concatenate([[0.0], table[0, :-1]]), atol=LEVEL_TOLERANCE)
    np.testing.assert_allclose(np.sort(table.ravel()), np.arange(1, steps + 1) / steps, atol=LEVEL_TOLERANCE)


def test_noise_shift_keeps_the_ends_and_the_order_and_takes_sizes_of_each_sample():
    levels = jnp.linspace(0, 1, 50)
    shifted = shift_levels(levels, 240, 424, 35)
    assert shifted.dtype == jnp.float32
    assert (shifted[0], shifted[-1]) == (0, 1)
    assert (jnp.diff(shifted) > 0).all()
    sizes = jnp.array([[240.0], [64.0]]), jnp.array([[424.0], [64.0]])
    both = shift_levels(jnp.broadcast_to(levels[None], (2, 50)), *sizes, 35)
    np.testing.assert_array_equal(both[0], shifted)
    np.testing.assert_allclose(both[1], shift_levels(levels, 64, 64, 35), atol=LEVEL_TOLERANCE)


def test_a_single_frame_of_the_base_size_is_not_shifted():
    levels = jnp.linspace(0, 1, 50)
    np.testing.assert_allclose(shift_levels(levels, 64, 256, 1, base_size=128), levels, atol=LEVEL_TOLERANCE)


def test_euler_along_the_velocity_leads_from_any_level_to_any_lower_one():
    clean, noise = jax.random.normal(jax.random.key(0), (2, 1, 3, 2, 2, 4))
    now, later = jnp.array([[1.0, 0.6, 0.4]]), jnp.array([[0.7, 0.0, 0.3]])
    moved = euler_step(interpolate(clean, noise, now), velocity_target(clean, noise), now, later)
    np.testing.assert_allclose(moved, interpolate(clean, noise, later), atol=LEVEL_TOLERANCE)


def test_euler_leaves_frames_whose_level_stays_alone():
    latents = jax.random.normal(jax.random.key(0), (1, 2, 2, 2, 4))
    now, later = jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 0.5]])
    moved = euler_step(latents, jnp.full_like(latents, jnp.nan), now, later)
    np.testing.assert_array_equal(moved[:, 0], latents[:, 0])
    assert jnp.isnan(moved[:, 1]).all()
