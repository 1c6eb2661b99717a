"""The diffusion loss: levels of a mix, losses by level, and a clip that is learnt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import tiny_model

from pavdm_jax.config import ModelConfig, WindowConfig, tiny
from pavdm_jax.diffusion.train_levels import TrainLevels
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import abstract_params
from pavdm_jax.training.config import (
    MixedDiffusion,
    OptimizerConfig,
    ProgressiveDiffusion,
    ShapesData,
    Stage,
    UniformDiffusion,
)
from pavdm_jax.training.denoising import at_size_of_batch, clip_chunks, denoising_loss, draw_levels, losses_by_level
from pavdm_jax.training.parameters import trainable
from pavdm_jax.training.state import init_state
from pavdm_jax.training.step import learning_rate, make_gradients, make_optimizer, make_train_step, metric_shapes

KEY = jax.random.key(0)


def test_a_mix_draws_its_objectives_by_weight():
    config = dataclasses.replace(tiny(), window=WindowConfig(chunk_size=1, noisy_chunks=3, steps=3))
    uniform, progressive = (
        UniformDiffusion(clip_chunks=2, masks=None, caption_dropout=0.0),
        ProgressiveDiffusion(0.0, 0.0, 0.0, level_shift=0.0, caption_dropout=1.0),
    )
    mix = MixedDiffusion((uniform, progressive), (1.0, 3.0))
    assert clip_chunks(config, mix) == 4
    drawn, dropout = jax.jit(draw_levels(config, mix), static_argnums=(1, 2))(KEY, 1000, 4)
    is_progressive = np.asarray(dropout) == 1.0
    assert abs(is_progressive.mean() - 0.75) < 0.05
    np.testing.assert_array_equal(np.asarray(drawn.num_valid), np.where(is_progressive, 4, 2))
    levels = np.asarray(drawn.levels)
    assert (levels[is_progressive, 0] == 0).all() and (np.diff(levels[is_progressive]) > 0).all()
    assert (levels[~is_progressive, 0] == levels[~is_progressive, 1]).all()
    assert (levels[~is_progressive, 2:] == 0).all() and not np.asarray(drawn.loss_mask)[~is_progressive, 2:].any()
    with pytest.raises(ConfigError, match="2 weights are given for 1 objectives"):
        MixedDiffusion((uniform,), (1.0, 2.0))


def test_the_network_is_told_captions_rate_and_size_and_sees_no_empty_slots():
    rng = np.random.default_rng(0)
    batch = {
        "latents": rng.normal(size=(2, 20, 2, 3, 4)).astype(np.float32),
        "ids": rng.integers(3, 90, (2, 8)).astype(np.int32),
        "length": np.array([4, 6], np.int32),
        "fps": np.float32([24, 24]),
    }
    params, config = tiny_model().params, tiny_model().config

    def loss(batch, config=config, **settings):
        objective = ProgressiveDiffusion(**{"caption_dropout": 0.0} | settings)
        return float(jax.jit(denoising_loss(config, objective))(params, batch, KEY)[0])

    kept, others = loss(batch), batch | {"ids": batch["ids"][::-1].copy()}
    assert loss(others) != kept
    assert loss(others, caption_dropout=1.0) == loss(batch, caption_dropout=1.0) != kept
    assert loss(batch | {"fps": np.float32([12, 24])}) != kept
    assert loss(batch, dataclasses.replace(config, height=32)) != kept
    large, cell = batch | {"latents": batch["latents"].repeat(2, axis=2)}, config.vae.downsample
    sized = at_size_of_batch(lambda model: denoising_loss(model, ProgressiveDiffusion(caption_dropout=0.0)), config)
    of_its_size = loss(large, dataclasses.replace(config, height=4 * cell, width=3 * cell))
    np.testing.assert_allclose(jax.jit(sized)(params, large, KEY)[0], of_its_size, rtol=1e-6)

    one_chunk = UniformDiffusion(clip_chunks=1, masks=None, caption_dropout=0.0)  # of four that the batch has
    by_mix = jax.jit(denoising_loss(config, MixedDiffusion((one_chunk, ProgressiveDiffusion()), (1.0, 0.0))))
    changed = np.array(batch["latents"])
    changed[:, config.window.chunk_size :] = 7.0
    np.testing.assert_allclose(by_mix(params, batch | {"latents": changed}, KEY)[0], by_mix(params, batch, KEY)[0])


def test_losses_are_kept_apart_by_level():
    levels = jnp.array([[0.0, 0.1, 0.5], [0.55, 0.99, 1.0]])
    drawn = TrainLevels(levels, (levels > 0).astype(jnp.float32), jnp.array([3, 3]))
    found = losses_by_level(jnp.array([[0.0, 2.0, 3.0], [5.0, 7.0, 9.0]]), drawn)
    means = {name: float(total / weight) for name, (total, weight) in found.items() if weight > 0}
    assert means == {"loss_level_0.0_0.2": 2.0, "loss_level_0.4_0.6": 4.0, "loss_level_0.8_1.0": 8.0}


def thin_transformer(height: int, width: int) -> ModelConfig:
    """The published window of 35 latent frames, and a transformer of one thin pair of blocks."""
    stdit3 = dataclasses.replace(tiny().stdit3, depth=1, hidden_size=16, num_heads=1)
    return dataclasses.replace(tiny(), stdit3=stdit3, window=WindowConfig(), height=height, width=width)


STAGE = Stage("one", ProgressiveDiffusion(caption_dropout=0.0), ShapesData(119), ("stdit3", "t5"), 60, 1)
SETTINGS = OptimizerConfig(2e-2, warmup_steps=1, decay=False)


def batch_of(clip) -> dict:
    return {"latents": clip, "ids": np.ones((1, 8), np.int32), "length": np.array([4]), "fps": np.float32([24])}


def test_one_clip_is_learnt():
    """35 latent frames, as of 119 frames."""
    config = thin_transformer(64, 96)
    shapes = abstract_params(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.1, jnp.float32),
        {name: shapes[name] for name in ("stdit3", "t5")},
    )
    t, h, w = np.meshgrid(np.arange(35), np.arange(8), np.arange(12), indexing="ij")
    batch = batch_of(np.stack([np.sin(0.2 * (w + channel * h) + 0.3 * t) for channel in range(4)], -1)[None])
    batch["latents"] = batch["latents"].astype(np.float32)
    trained, frozen, assemble = trainable(params, STAGE)
    optimizer = make_optimizer(SETTINGS, STAGE.steps)
    loss_of = denoising_loss(config, STAGE.objective, remat="full")
    gradients_of = make_gradients(loss_of, assemble, 1)
    state = init_state(trained, optimizer, metric_shapes(loss_of, params, batch))
    step = make_train_step(gradients_of, optimizer, learning_rate(SETTINGS, STAGE.steps), 0.9, None)
    losses = []
    for _ in range(STAGE.steps):
        state, loss = step(state, frozen, batch, KEY)
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.65 * np.mean(losses[:3])


def test_a_clip_of_the_published_size_has_gradients():
    """30 x 53 latents a frame, at 240p; by shapes."""
    config = thin_transformer(240, 424)
    trained, frozen, assemble = trainable({name: abstract_params(config)[name] for name in ("stdit3", "t5")}, STAGE)
    gradients_of = make_gradients(denoising_loss(config, STAGE.objective, remat="full"), assemble, 1)
    batch = batch_of(jax.ShapeDtypeStruct((1, 35, 30, 53, 4), jnp.float32))
    gradients, losses, _ = jax.eval_shape(gradients_of, trained, frozen, batch, KEY)
    assert jax.tree.map(lambda x: x.shape, gradients) == jax.tree.map(lambda x: x.shape, trained)
    assert losses.shape == (1,)
