"""Latent frames that a network remembers: keys and values of the others, in both families."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import TINY, tiny_model

from pavdm_jax.models.networks import networks
from pavdm_jax.wan_config import tiny_wan

ROUNDING = 2e-5
"""Of float32, relative to the largest value: the same sums by programs of other shapes."""

FRAMES, START = 6, 4


@pytest.fixture(params=[TINY, tiny_wan()], ids=lambda config: config.name)
def calls(request):
    """The network on a window of noise: plain(latents), and remember(latents, memory, start) of some of its frames."""
    config = request.param
    network, params = networks(config), tiny_model(config).transformer
    features = jax.random.normal(jax.random.key(0), (2, 1, config.text.max_tokens, config.t5.d_model))
    caption = network.caption(params, features, jnp.array([[3], [5]]))
    latents = jax.random.normal(jax.random.key(1), (2, FRAMES, 4, 6, config.vae.latent_channels))
    levels = jnp.broadcast_to(jnp.linspace(0.0, 1.0, FRAMES), (2, FRAMES))
    sizes = (jnp.full(2, 24.0), jnp.full(2, 32.0), jnp.full(2, 48.0))
    valid = jnp.array([FRAMES, FRAMES - 1])

    def plain(latents):
        return network.predict(params, latents, levels, caption, *sizes, valid)[0]

    def remember(latents, memory, start):
        theirs = levels[:, start : start + latents.shape[1]]
        return network.predict(params, latents, theirs, caption, *sizes, valid, memory, jnp.int32(start))

    return latents, plain, remember, network.empty_memory(latents.shape)


def close(one, other):
    """Compare frames that count: of the second sample not the last."""
    for sample, frames in enumerate((slice(None), slice(-1))):
        scale = np.abs(other[sample]).max()
        np.testing.assert_allclose(one[sample][frames], other[sample][frames], atol=ROUNDING * scale)


def test_a_call_on_the_whole_window_is_the_plain_one(calls):
    latents, plain, remember, empty = calls
    velocity, memory = remember(latents, empty, 0)
    close(velocity, plain(latents))
    for leaf in jax.tree.leaves(memory):
        assert np.abs(leaf).max(axis=(0, 1, 3, 4, 5)).min() > 0  # of every latent frame


def test_a_call_on_the_end_sees_the_rest_as_it_was(calls):
    latents, plain, remember, empty = calls
    _, memory = remember(latents, empty, 0)
    velocity, again = remember(latents[:, START:], memory, START)
    close(velocity, plain(latents)[:, START:])
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(memory), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)

    moved = latents.at[:, START:].add(1.0)
    velocity, changed = remember(moved[:, START:], memory, START)
    assert np.abs(velocity - plain(moved)[:, START:]).max() > 1e-4  # the rest would have changed, too
    np.testing.assert_array_equal(changed.keys[:, :, :START], memory.keys[:, :, :START])
    assert np.abs(changed.keys - memory.keys)[:, :, START:].max() > 1e-3
    blind, _ = remember(latents[:, START:], empty, START)
    assert np.abs(blind - plain(latents)[:, START:]).max() > 1e-4  # it does look at what is remembered
