"""A model as one value: its config and tokenizer (static), and its parameters (a pytree)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from jax.typing import DTypeLike

from pavdm_jax.config import ModelConfig
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.models.stdit3 import STDiT3
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.models.tokenizer import Tokenizer
from pavdm_jax.models.vae import VideoVAE

PARTS = ("stdit3", "vae", "t5")
"""The networks of a model: the keys of its parameters."""

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""The dtypes in which matrices can be kept and multiplied; see `in_dtype` for what is always float32."""

FLOAT32_LAYERS = ("level_embed", "fps_embed", "modulation")
"""Layers that compute in float32 whatever the network's dtype is; their matrices stay float32, too."""

SAMPLING_PARTS = ("stdit3", "vae")
"""The networks that generation keeps in memory; the text encoder, by far the largest, is read for new texts only."""


class Model(struct.PyTreeNode):
    """What `load` returns and `generate` takes.

    Attributes:
      params: {"stdit3": ..., "vae": ..., "t5": ...}, the parameters of the three networks, or of some of them.
      config: the architecture and the defaults of sampling.
      tokenizer: the sentencepiece model of the text encoder; None where the model has no text encoder.
      folder: where it was loaded from, for the parts that `params` lacks; None for a model that was made in memory.
      trained_with: the noise levels that the transformer was last trained on; empty: unknown.
    """

    params: dict
    config: ModelConfig = struct.field(pytree_node=False)
    tokenizer: Tokenizer | None = struct.field(pytree_node=False)
    folder: str | None = struct.field(pytree_node=False, default=None)
    trained_with: tuple[LevelPattern, ...] = struct.field(pytree_node=False, default=())

    def __repr__(self) -> str:
        """The name, the number and dtype of the parameters of each network, and the name of the folder."""
        networks = [f"{part}: {_summary(params)}" for part, params in self.params.items()]
        folder = [f"from {self.folder.rstrip('/').rsplit('/', 1)[-1]}"] if self.folder else []
        return f"Model({', '.join([self.config.name, *networks, *folder])})"


def _summary(params: Any) -> str:
    """Such as "1.209 M parameters in bfloat16", with the dtype of most of them; `params` may be shapes only."""
    sizes: dict[str, int] = {}
    for leaf in jax.tree.leaves(params):
        name = str(getattr(leaf, "dtype", type(leaf).__name__))
        sizes[name] = sizes.get(name, 0) + getattr(leaf, "size", 1)
    if not sizes:
        return "no parameters"
    return f"{sum(sizes.values()) / 1e6:.4g} M parameters in {max(sizes, key=lambda name: sizes[name])}"


def init_params(config: ModelConfig, key: jax.Array) -> dict:
    """Random parameters of all three networks; under `jax.eval_shape`, their shapes without any computation."""
    stdit3_key, vae_key, t5_key = jax.random.split(key, 3)
    cell = config.vae.spatial.downsample
    frames = jnp.zeros((1, config.vae.micro_frames, 2 * cell, 2 * cell, 3))
    vae = VideoVAE(config.vae).init(vae_key, frames, method="reconstruct")["params"]
    ids, lengths = jnp.zeros((1, config.text.max_tokens), jnp.int32), jnp.ones((1,), jnp.int32)
    t5 = T5Encoder(config.t5).init(t5_key, ids, lengths)["params"]
    stdit3 = STDiT3(config.stdit3).init(stdit3_key, method="init_all")["params"]
    return {"stdit3": stdit3, "vae": vae, "t5": t5}


def flatten(tree: Any) -> dict[str, Any]:
    """A tree of parameters (or of their shapes, or gradients) as a dict by slash-separated path."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep="/")


@functools.lru_cache(maxsize=8)
def abstract_params(config: ModelConfig) -> dict:
    """The tree of `jax.ShapeDtypeStruct` of a model's parameters."""
    return jax.eval_shape(functools.partial(init_params, config), jax.eval_shape(lambda: jax.random.key(0)))


def in_dtype(abstract: Any, dtype: DTypeLike) -> Any:
    """The tree of `jax.ShapeDtypeStruct` with matrices, convolution kernels and the token table in `dtype`.

    The rest is float32: norms, biases, modulation tables, the null caption, the relative bias, the VAE's statistics,
    and the layers that compute in float32. It is a thousandth of the parameters.
    """

    def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        names = [entry.key for entry in path]
        is_matrix = names[-1] in ("kernel", "token_embedding") and not set(names) & set(FLOAT32_LAYERS)
        return jax.ShapeDtypeStruct(shape.shape, dtype if is_matrix else jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, abstract)
