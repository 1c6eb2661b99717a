"""Training levels, masks and the loss."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import channels_last
from support.golden_network import network_config, network_params, velocity_of

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion import masks, objectives, replacement, train_levels
from pavdm_jax.diffusion.flow import interpolate, shift_levels, velocity_target
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.objectives import ProgressiveDiffusion, UniformDiffusion
from pavdm_jax.errors import ConfigError

pytestmark = pytest.mark.usefixtures("fully_optimised")

CONFIG = WindowConfig(chunk_size=2, noisy_chunks=3, context_chunks=1, steps=6)
MANY = 2000
KEY = jax.random.key(0)


SIZE = 512
"""Pixels of a side: the noise shift of one frame of this size is 1."""


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def progressive(key, config, batch, objective):
    return train_levels.sample_progressive(key, objective, config, batch, SIZE, SIZE, SIZE)


def test_the_context_is_noised_as_in_sampling_and_is_not_part_of_the_loss():
    objective = ProgressiveDiffusion(0.25, 0.25, 0.0, level_shift=1.0)  # so that chunks are moved down to 0, too
    noised = progressive(KEY, dataclasses.replace(CONFIG, context_noise=0.02), MANY, objective)
    clean = progressive(KEY, CONFIG, MANY, objective)
    np.testing.assert_array_equal(noised.loss_mask, clean.loss_mask)
    changed = np.asarray(noised.levels) != np.asarray(clean.levels)
    assert set(np.asarray(noised.levels)[changed]) == {np.float32(0.02)}
    assert not changed[:, 2:].any()  # a context is one chunk, the first
    moved_down = ~changed[:, 0] & (np.asarray(clean.levels)[:, 0] == 0)
    assert 0 < moved_down.sum() < changed[:, 0].sum() < MANY
    np.testing.assert_array_equal(changed[:, 0], changed[:, 1])


def still(growing, shrinking, short=0.0):
    return ProgressiveDiffusion(growing, shrinking, short, level_shift=0.0)


def named(levels):
    return " ".join(f"{level:.4f}" for level in levels)


def test_progressive_windows_are_rows_of_the_table_cut_as_a_growing_or_shrinking_window_is():
    drawn = progressive(KEY, CONFIG, MANY, still(0.25, 0.25))
    table = np.asarray(shift_levels(level_table(CONFIG), 512, 512, CONFIG.window_size))
    expected = set()
    for row, n, context in itertools.product(table, (1, 2, 3), (0, 1)):
        expected.add((0.0,) * context + tuple(row[3 - n :]))
        if context:
            expected.add((0.0, *row[:n]))
    seen = set()
    for levels, loss_mask, num_valid in zip(*map(np.asarray, jax.tree.leaves(drawn)), strict=True):
        np.testing.assert_array_equal(levels[::2], levels[1::2])  # a chunk shares a level
        np.testing.assert_array_equal(loss_mask, levels > 0)
        assert (levels[num_valid:] == 0).all()
        seen.add(named(levels[:num_valid:2]))
    assert seen == {named(window) for window in expected}


def test_without_variable_length_windows_are_full():
    drawn = progressive(KEY, CONFIG, 200, still(0.0, 0.0))
    assert (drawn.num_valid == CONFIG.window_size).all()
    assert (drawn.levels[:, :2] == 0).all() and (drawn.levels[:, 2:] > 0).all()


def test_windows_grow_and_shrink_in_the_shares_that_are_asked_for():
    """One context chunk, two noisy ones.

    Half of the growing and shrinking windows have one noisy chunk, at the highest or lowest levels.
    """
    config = WindowConfig(chunk_size=1, noisy_chunks=2, context_chunks=1, steps=2)
    drawn = progressive(KEY, config, MANY, still(0.6, 0.2))
    levels = np.asarray(drawn.levels)
    no_context = levels[:, 0] > 0  # growing only
    assert abs(no_context.mean() - 0.6 / 2) < 0.03
    low = (drawn.num_valid == 2) & (levels[:, 0] == 0) & (levels[:, 1] < 1)
    assert abs(float(low.mean()) - 0.2 / 2) < 0.03
    only = progressive(KEY, config, 200, still(1.0, 0.0)).levels
    assert (np.asarray(only).max(axis=1) == 1).all()  # a growing window always holds the newest chunk
    with pytest.raises(ConfigError, match=r"growing 0\.7, shrinking 0\.4, short 0\.1 are shares"):
        ProgressiveDiffusion(growing=0.7, shrinking=0.4)


def test_every_window_of_a_short_video_is_drawn():
    """Videos of 1 to 4 new chunks, from text and after a start clip, as the sampler makes them.

    Half of them need short windows.
    """
    config = WindowConfig(chunk_size=1, noisy_chunks=4, context_chunks=1, steps=8)
    table = np.asarray(shift_levels(level_table(config), SIZE, SIZE, config.window_size))
    needed = set()
    for row, chunks, given in itertools.product(table, (1, 2, 3), (0, 1)):
        for moved in range(4 - chunks + 1):  # how far the newest chunk is below the top
            needed.add((0.0,) * given + tuple(row[4 - chunks - moved : 4 - moved]))

    def drawn(objective):
        found = progressive(KEY, config, 4 * MANY, objective)
        return {named(levels[:valid]) for levels, valid in zip(np.asarray(found.levels), found.num_valid, strict=True)}

    needed = {named(window) for window in needed}
    assert needed <= drawn(ProgressiveDiffusion(level_shift=0.0))
    assert not needed <= drawn(still(0.25, 0.25))


def test_the_level_shift_moves_a_window_by_part_of_a_grid_step_and_stays_in_range():
    """At 512 x 512 pixels and one latent frame the noise shift changes nothing: grid steps can be read off."""
    config = WindowConfig(chunk_size=1, noisy_chunks=1, context_chunks=0, steps=10)
    drawn = progressive(KEY, config, MANY, ProgressiveDiffusion(0.0, 0.0, 0.0, level_shift=0.4))
    levels = np.asarray(drawn.levels[:, 0])
    assert levels.min() >= 0 and levels.max() == 1
    inner = levels[(levels > 0.15) & (levels < 0.85)]
    offset = inner - np.round(inner, 1)  # a normal of 0.04, wrapped to ±0.05
    assert 0.02 < offset.std() < 0.03
    on_grid = progressive(KEY, config, MANY, still(0.0, 0.0)).levels
    np.testing.assert_allclose(on_grid, np.round(on_grid, 1), atol=1e-6)


@pytest.mark.parametrize("logit_normal", [True, False])
def test_uniform_clips_have_one_level_after_the_noise_shift(logit_normal):
    objective = UniformDiffusion(masks=None, logit_normal=logit_normal)
    drawn = jax.jit(lambda: train_levels.sample_uniform(KEY, objective, MANY, 5, SIZE, SIZE, SIZE))()
    levels = np.asarray(drawn.levels)
    assert (levels == levels[:, :1]).all()
    assert (drawn.loss_mask == 1).all() and (drawn.num_valid == 5).all()
    ratio = np.sqrt(5)
    raw = np.sort(levels[:, 0] / (ratio - (ratio - 1) * levels[:, 0]))
    quantiles = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    normal = np.array([-1.2816, -0.6745, 0.0, 0.6745, 1.2816])
    expected = 1 / (1 + np.exp(-normal)) if logit_normal else quantiles
    np.testing.assert_allclose(np.quantile(raw, quantiles), expected, atol=0.04)


def test_uniform_clips_may_be_short_and_of_different_sizes():
    lengths, sizes = jnp.array([1, 3, 8]), jnp.array([64.0, 128.0, 256.0])
    drawn = jax.jit(lambda: train_levels.sample_uniform(KEY, UniformDiffusion(), 3, 8, sizes, sizes, SIZE, lengths))()
    np.testing.assert_array_equal(drawn.num_valid, lengths)
    for i, length in enumerate([1, 3, 8]):
        assert (drawn.levels[i, length:] == 0).all() and (drawn.loss_mask[i, length:] == 0).all()
        assert drawn.loss_mask[i].sum() >= 1


@functools.partial(jax.jit, static_argnums=0)
def draw_masks(name, lengths):
    """[500, 20] masks of one strategy."""
    return masks.sample_masks(KEY, masks.masks_of(**{name: 1.0}), lengths, 20)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("image_head", {(0,)}),
        ("image_tail", {(8,)}),
        ("image_head_tail", {(0, 8)}),
        ("quarter_head", {(0,), (0, 1)}),
        ("quarter_tail", {(8,), (7, 8)}),
        ("quarter_head_tail", {(0, 8), (0, 1, 7, 8)}),
        ("quarter_random", {(i,) for i in range(9)} | {(i, i + 1) for i in range(8)}),
        ("interpolate", {(0, 2, 4, 6, 8), (1, 3, 5, 7)}),
        ("context", {(0, 1, 2, 3, 4)}),
    ],
)
def test_mask_strategies(name, clean):
    noisy = np.asarray(draw_masks(name, 9 * np.ones(500, int)))
    assert not noisy[:, 9:].any()
    assert {tuple(np.nonzero(~row[:9])[0]) for row in noisy} == clean


def test_random_masks_vary_in_their_share_and_leave_something_noisy():
    noisy = np.asarray(draw_masks("random", 20 * np.ones(500, int)))
    share = 1 - noisy.mean(axis=1)
    assert share.min() < 0.2 and share.max() > 0.8
    assert abs(share.mean() - 0.5) < 0.05


@pytest.mark.parametrize("name", masks.MASK_STRATEGIES)
def test_short_clips_always_keep_a_noisy_frame(name):
    lengths = 1 + np.arange(500) % 3
    for row, length in zip(np.asarray(draw_masks(name, lengths)), lengths, strict=True):
        assert row[:length].any()
        assert not row[length:].any()


def test_strategies_are_drawn_with_their_chances():
    noisy = jax.jit(masks.sample_masks, static_argnums=(1, 3))(KEY, masks.Masks(), jnp.full((MANY,), 8), 8)
    share = float(jnp.mean((~noisy[:, 0]) & noisy[:, 1:].all(axis=1)))
    assert abs(share - 0.22) < 0.03
    assert abs(float(jnp.mean(noisy.all(axis=1))) - 0.75) < 0.03
    with pytest.raises(ConfigError, match=r"the mask strategies are 1\.03 together"):
        masks.Masks(image_head=1.0)
    with pytest.raises(ConfigError, match="the mask strategy random must be from 0 to 1, not -1"):
        masks.Masks(random=-1)
    with pytest.raises(ConfigError, match="context_latents of the masks must be at least 1, not 0"):
        masks.Masks(context_latents=0)


def test_clips_are_trained_with_the_context_that_replacement_samples_with():
    """The same mask, and so the same levels, as of a clip of 15 latent frames that continues another one with 3."""
    objective = UniformDiffusion(masks=masks.masks_of(context=0.75, context_latents=3))
    drawn = jax.jit(lambda: train_levels.sample_uniform(KEY, objective, MANY, 15, SIZE, SIZE, SIZE))()
    levels = np.asarray(drawn.levels)
    continued = levels[:, 0] == 0
    assert abs(continued.mean() - 0.75) < 0.04
    given = jnp.arange(15)[None] < 3
    sampled = np.asarray(replacement.without_noise(jnp.linspace(1, 0, 11), 1.0 - given).levels[3, 0])
    np.testing.assert_array_equal(levels[continued] > 0, np.broadcast_to(sampled > 0, (continued.sum(), 15)))
    assert (levels[continued, 3:] == levels[continued, 3:4]).all() and (levels[~continued] > 0).all()
    np.testing.assert_array_equal(drawn.loss_mask, levels > 0)


def flow_loss(velocity, latents, noise, loss_mask):
    return objectives.flow_loss(
        objectives.frame_losses(velocity, velocity_target(latents, noise), loss_mask), loss_mask
    )


def test_loss_is_of_the_frames_that_count():
    latents = jax.random.normal(KEY, (2, 3, 2, 2, 4))
    levels = jnp.array([[0.0, 0.5, 1.0], [0.2, 0.2, 0.0]])
    noisy, noise = train_levels.sample_noisy(jax.random.key(1), latents, levels)
    np.testing.assert_array_equal(noisy[0, 0], latents[0, 0])
    np.testing.assert_array_equal(noisy[0, 2], noise[0, 2])
    wrong = (latents - noise).at[0, 1].add(2.0).at[0, 2].add(1.0).at[1, 0].add(3.0).at[0, 0].set(jnp.nan)
    loss_mask = jnp.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    loss = flow_loss(wrong.astype(jnp.float32), latents, noise, loss_mask)
    np.testing.assert_allclose(loss, [(4 + 1) / 2, 9 / 2], rtol=1e-5)
    gradient = jax.grad(lambda v: flow_loss(v, latents, noise, loss_mask).sum())(wrong)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["loss_pa_clean_chunk", "loss_pa_no_clean_chunk"])
def test_loss_equals_the_reference(name):
    settings, arrays = golden_data.load(name)
    config, inputs = network_config(settings), arrays["inputs"]
    params = network_params(config, arrays["weights"])
    latents, noise = channels_last(inputs["x_start"]), channels_last(inputs["noise"])
    context = latents.shape[1] - noise.shape[1]
    noise = np.pad(noise, ((0, 0), (context, 0), (0, 0), (0, 0), (0, 0)))
    levels = np.pad(inputs["t"] / 1000, ((0, 0), (context, 0)))
    size = inputs["height"][0], inputs["width"][0], inputs["fps"][0]

    @jax.jit
    def loss(params):
        velocity = velocity_of(config, params, inputs["y"], inputs["text_mask"], size, null_half=False)
        noisy = interpolate(latents, noise, levels)
        prediction = velocity(noisy, jnp.asarray(levels), jnp.int32(latents.shape[1]), jnp.zeros(1, jnp.int32))
        return flow_loss(prediction, latents, noise, (levels > 0).astype(jnp.float32))

    assert golden_data.relative_error(loss(params), arrays["outputs"]["loss"]) < golden_data.FORWARD_TOLERANCE
