"""The smallest model with every part, with random weights: for tests of everything around the networks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.config import tiny
from pavdm_jax.data.shapes_world import sample_captions
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.model import Model, abstract_params
from pavdm_jax.models.tokenizer import Tokenizer, train_tokenizer

PROMPT = "a red circle moves left"
CHUNK = 17  # pixel frames


TINY = tiny()
SHAPES = dataclasses.replace(
    TINY,
    height=64,
    width=64,
    vae=dataclasses.replace(TINY.vae, spatial=dataclasses.replace(TINY.vae.spatial, block_channels=(4, 4, 8))),
)
"""For the smallest canvas of the shapes world; its latents are 16 by 16."""


@functools.cache
def tiny_model(config: AnyModelConfig = TINY) -> Model:
    """Every parameter is random: layers that start at zero would make every test of the sampler blind."""
    rng = np.random.default_rng(0)

    def fill(shape: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = shape.shape[-2] if len(shape.shape) > 1 else 1
        return jnp.asarray(rng.normal(size=shape.shape) / np.sqrt(fan_in), jnp.float32)

    captions = list(sample_captions(np.random.default_rng(0), 300))
    tokenizer = Tokenizer(train_tokenizer(captions, config.t5.vocab_size))
    return Model(jax.tree.map(fill, abstract_params(config)), config, tokenizer)
