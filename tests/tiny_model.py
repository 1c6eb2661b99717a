"""The smallest model with every part, with random weights: for tests of everything around the networks."""

import functools

import jax
import numpy as np

from pavdm_jax.config import tiny
from pavdm_jax.data.shapes_world import sample_captions
from pavdm_jax.model import Model, init_params
from pavdm_jax.text import Tokenizer, train_tokenizer

PROMPT = "a red circle moves left"
CHUNK = 17  # pixel frames


@functools.cache
def tiny_model() -> Model:
    config = tiny()
    params = jax.jit(functools.partial(init_params, config))(jax.random.key(0))
    # Layers that start at zero (the final one, what temporal blocks add) would make every test of the sampler blind.
    leaves, tree = jax.tree.flatten(params["stdit3"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    params["stdit3"] = jax.tree.unflatten(tree, leaves)
    captions = list(sample_captions(np.random.default_rng(0), 300))
    return Model(params, config, Tokenizer(train_tokenizer(captions, config.t5.vocab_size)))
