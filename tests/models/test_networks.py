"""What every family's networks promise to generation and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import TINY, tiny_model

from pavdm_jax.models.networks import networks
from pavdm_jax.wan_config import tiny_wan


@pytest.mark.parametrize("config", [TINY, tiny_wan()], ids=lambda config: config.name)
def test_a_dropped_caption_is_the_one_that_guidance_leads_away_from(config):
    network, params = networks(config), tiny_model(config).transformer
    features = jax.random.normal(jax.random.key(0), (2, config.text.max_tokens, config.t5.d_model))
    lengths = jnp.array([3, 5])
    kept_features, kept_lengths = network.drop_captions(params, features, lengths, jnp.array([True, False]))
    made = network.caption(params, kept_features[:, None], kept_lengths[:, None])
    plain = network.caption(params, features[:, None], lengths[:, None])
    null = network.null_caption(params, lengths[:, None])
    for ours, of_null, of_prompt in zip(*map(jax.tree.leaves, (made, null, plain)), strict=True):
        batch = -5 if ours.ndim > 2 else 0  # of keys and values; lengths
        first, second = (np.take(np.asarray(ours), sample, batch) for sample in (0, 1))
        np.testing.assert_allclose(first, np.take(np.asarray(of_null), 0, batch), atol=1e-6)
        np.testing.assert_array_equal(second, np.take(np.asarray(of_prompt), 1, batch))
    assert not np.allclose(made.keys, plain.keys)
