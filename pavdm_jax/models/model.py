"""A model as one value: its config and tokenizer (static), and its parameters (a pytree)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from jax.typing import DTypeLike

from pavdm_jax.families import TRANSFORMER_PARTS, AnyModelConfig
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.models.networks import networks
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.models.tokenizer import Tokenizer

PARTS = ("transformer", "vae", "t5")
"""The networks of a model. Among its parameters the transformer has the name of its family, see `part_name`."""

PART_NAMES = (*TRANSFORMER_PARTS, *PARTS[1:])
"""The names of networks in models of all families."""

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""The dtypes in which matrices can be kept and multiplied; see `in_dtype` for what is always float32."""

FLOAT32_LAYERS = ("level_embed", "fps_embed", "modulation")
"""Layers that compute in float32 whatever the network's dtype is; their matrices stay float32, too."""

SAMPLING_PARTS = PARTS[:2]
"""The networks that generation keeps in memory; the text encoder, by far the largest, is read for new texts only."""


def part_name(part: str, config: AnyModelConfig) -> str:
    """The name of a part in a model: "transformer" stands for that of its family."""
    return config.transformer_part if part == "transformer" else part


class Model(struct.PyTreeNode):
    """What `load` returns and `generate` takes.

    Attributes:
      params: {"stdit3" or "wan": ..., "vae": ..., "t5": ...}, the parameters of the networks, or of some of them.
      config: the architecture and the defaults of sampling.
      tokenizer: the sentencepiece model of the text encoder; None where the model has no text encoder.
      folder: where it was loaded from, for the parts that `params` lacks; None for a model that was made in memory.
      trained_with: the noise levels that the transformer was last trained on; empty: unknown.
    """

    params: dict
    config: AnyModelConfig = struct.field(pytree_node=False)
    tokenizer: Tokenizer | None = struct.field(pytree_node=False)
    folder: str | None = struct.field(pytree_node=False, default=None)
    trained_with: tuple[LevelPattern, ...] = struct.field(pytree_node=False, default=())

    @property
    def transformer(self) -> dict:
        """The parameters of the transformer, whatever its name is in the family."""
        return self.params[self.config.transformer_part]

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


def init_params(config: AnyModelConfig, key: jax.Array) -> dict:
    """Random parameters of all three networks; under `jax.eval_shape`, their shapes without any computation."""
    transformer_key, vae_key, t5_key = jax.random.split(key, 3)
    ids, lengths = jnp.zeros((1, config.text.max_tokens), jnp.int32), jnp.ones((1,), jnp.int32)
    return {
        config.transformer_part: networks(config).init_transformer(transformer_key),
        "vae": networks(config).init_vae(vae_key),
        "t5": T5Encoder(config.t5).init(t5_key, ids, lengths)["params"],
    }


def flatten(tree: Any) -> dict[str, Any]:
    """A tree of parameters (or of their shapes, or gradients) as a dict by slash-separated path."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep="/")


@functools.lru_cache(maxsize=8)
def abstract_params(config: AnyModelConfig) -> dict:
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
