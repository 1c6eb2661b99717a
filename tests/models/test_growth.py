"""A grown transformer starts where the old one ended: exactly with more blocks, about with patches of another size."""

import dataclasses

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import tiny_model

from pavdm_jax.config import tiny
from pavdm_jax.models.embeddings import patchify, unpatchify
from pavdm_jax.models.growth import can_become, grow
from pavdm_jax.models.model import Model, abstract_params
from pavdm_jax.models.networks import networks
from pavdm_jax.wan_config import tiny_wan


def with_transformer(model: Model, **changes) -> Model:
    """The model with its transformer grown."""
    part, old = model.config.transformer_part, model.config.transformer
    new = dataclasses.replace(old, **changes)
    config = dataclasses.replace(model.config, **{part: new})
    return model.replace(config=config, params={**model.params, part: grow(model.transformer, old, new)})


def velocity(model: Model) -> jax.Array:
    keys = jax.random.split(jax.random.key(0), 2)
    latents = jax.random.normal(keys[0], (1, 2, 4, 4, model.config.transformer.latent_channels))
    text = model.config.transformer
    features = jax.random.normal(keys[1], (1, 1, text.max_caption_tokens, text.caption_channels))
    network = networks(model.config)
    caption = network.caption(model.transformer, features, jnp.full((1, 1), 5))
    size = jnp.full((1,), 24.0), jnp.full((1,), 32.0), jnp.full((1,), 32.0)
    return network.predict(model.transformer, latents, jnp.array([[0.3, 0.8]]), caption, *size, None)[0]


@pytest.mark.parametrize("config", [tiny(), tiny_wan()], ids=lambda config: config.name)
def test_more_blocks_compute_the_same_at_first_and_all_of_them_can_learn(config):
    model = tiny_model(config)
    depth = model.config.transformer.depth
    deeper = with_transformer(model, depth=2 * depth + 1)
    assert jax.tree.map(np.shape, deeper.params) == jax.tree.map(np.shape, abstract_params(deeper.config))
    np.testing.assert_array_equal(velocity(deeper), velocity(model))

    def loss(params: dict) -> jax.Array:
        return jnp.sum(velocity(deeper.replace(params=deeper.params | {config.transformer_part: params})) ** 2)

    gradients = jax.grad(loss)(deeper.transformer)["blocks"]
    last = [x for path, x in jax.tree_util.tree_leaves_with_path(gradients) if any(e.key == "mlp_out" for e in path)]
    assert last and all(np.abs(x).reshape(2 * depth + 1, -1).max(1).min() > 0 for x in last)


@pytest.mark.parametrize(("old", "new"), [((2, 2), (1, 1)), ((1, 1), (2, 2)), ((2, 2), (1, 2)), ((2, 1), (2, 2))])
def test_constant_frames_become_the_same_tokens_and_constant_tokens_the_same_velocity(old, new):
    coarse = with_transformer(tiny_model(), patch_size=old)
    other = with_transformer(coarse, patch_size=new)
    assert jax.tree.map(np.shape, other.params) == jax.tree.map(np.shape, abstract_params(other.config))
    frame = einops.repeat(jnp.arange(1.0, 5), "c -> 1 1 4 4 c")
    token = jnp.linspace(-1, 1, coarse.config.stdit3.hidden_size)
    tokens, velocities = [], []
    for params, (rows, columns) in ((coarse.transformer, old), (other.transformer, new)):
        tokens.append((patchify(frame, (rows, columns)) @ params["patch_embed"]["kernel"])[0, 0, 0])
        one = token @ params["final"]["kernel"] + params["final"]["bias"]
        cells = einops.repeat(one, "o -> 1 1 s o", s=16 // (rows * columns))
        velocities.append(unpatchify(cells, 4, 4, (rows, columns)).mean((0, 1, 2, 3)))
    np.testing.assert_allclose(*tokens, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(*velocities, rtol=1e-5, atol=1e-5)
    assert other.transformer["blocks"] is coarse.transformer["blocks"]


def test_only_what_can_grow_may_differ():
    config = tiny().stdit3
    assert can_become(config, dataclasses.replace(config, patch_size=(1, 1), base_size=32, depth=5))
    assert not can_become(config, dataclasses.replace(config, depth=1))
    assert not can_become(config, dataclasses.replace(config, num_heads=4))
    assert not can_become(config, tiny_wan().wan)
