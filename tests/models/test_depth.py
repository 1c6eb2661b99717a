"""Shallow networks are compiled block by block, deep ones as a loop over depth: the same function either way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.config import tiny
from pavdm_jax.models import depth
from pavdm_jax.models.stdit3 import STDiT3


def test_a_loop_over_depth_computes_what_block_by_block_does(monkeypatch):
    network = STDiT3(dataclasses.replace(tiny().stdit3, depth=depth.SHALLOW + 1))
    params = network.init(jax.random.key(0), method="init_all")["params"]
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)) + 1))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)
    latents = jax.random.normal(next(keys), (1, 3, 2, 4, network.config.latent_channels))

    def value(params):
        caption = network.apply({"params": params}, jnp.full((1, 1), 4), method="encode_null_caption")
        size = (jnp.full((1,), 24.0), jnp.full((1,), 16.0), jnp.full((1,), 32.0))
        return jnp.sum(jnp.sin(network.apply({"params": params}, latents, jnp.full((1, 3), 0.4), caption, *size)))

    def program():
        return jax.jit(lambda params: jax.value_and_grad(value)(params)).lower(params)

    looped = program()
    monkeypatch.setattr(depth, "SHALLOW", network.config.depth)
    unrolled = program()
    assert looped.as_text().count("stablehlo.while") > unrolled.as_text().count("stablehlo.while") == 0
    for a, b in zip(*(jax.tree.leaves(one.compile()(params)) for one in (looped, unrolled)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
