"""Caption features by a text encoder on disk, of which two layers at most are in memory.

T5-XXL is 19 GB in float32 and is needed only briefly. A layer is 0.8 GB; the next one is read while one computes.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from tqdm import tqdm

from pavdm_jax.checkpoints.layers import PartReader, stored_arrays
from pavdm_jax.checkpoints.model_folder import check_architecture
from pavdm_jax.config import T5Config
from pavdm_jax.models.model import flatten, unflatten
from pavdm_jax.models.t5 import NORM_EPSILON, EncoderLayer, score_bias


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def encoder_layer(
    params: dict, x: jax.Array, bias: jax.Array | None, is_token: jax.Array, *, config: T5Config, dtype: DTypeLike
) -> jax.Array:
    """One layer of the encoder: x float32 [b, l, d] to [b, l, d], see `EncoderLayer`."""
    return EncoderLayer(config, dtype).apply({"params": params}, x, bias, is_token)[0]


def encode_from_disk(
    folder: Path,
    expected: dict,
    ids: np.ndarray,
    lengths: np.ndarray,
    *,
    config: T5Config,
    dtype: DTypeLike,
    progress: bool = False,
) -> list[np.ndarray]:
    """The features of n captions, as `T5Encoder` computes them for each caption alone.

    Args:
      folder: the checkpoint of the text encoder.
      expected: the tree of `jax.ShapeDtypeStruct` of its parameters, with the dtypes that they shall have in memory.
      ids: int [n, l], token ids, see `T5Encoder`.
      lengths: int [n], token counts, see `T5Encoder`.
      config, dtype: see `T5Encoder`.
      progress: show a bar of the layers if it takes more than two seconds.

    Returns:
      float32 [1, l, d_model] for each caption.

    Raises:
      ConfigError: the checkpoint is damaged, or of another architecture.
    """
    check_architecture(folder, stored_arrays(folder), expected)
    reader, flat = PartReader(folder), flatten(expected)

    def read(name: str, layer: int | None = None) -> np.ndarray:
        return reader.read(name, layer).astype(flat[name].dtype)

    def read_layer(layer: int) -> dict:
        names = (name for name in flat if name.startswith("layers/"))
        return unflatten({name.removeprefix("layers/"): read(name, layer) for name in names})

    table = read("token_embedding")
    states = [jnp.asarray(table[caption][None], jnp.float32) for caption in ids]
    del table
    shared = not config.bias_in_every_layer
    bias = score_bias(jnp.asarray(read("relative_bias")), ids.shape[1], config) if shared else None
    masks = [jnp.arange(ids.shape[1])[None, :] < length for length in lengths]
    for params in tqdm(
        _read_ahead(read_layer, config.num_layers),
        "text encoder",
        config.num_layers,
        unit="layer",
        delay=2,
        leave=False,
        disable=not progress,
    ):
        params = jax.device_put(params)
        states = [
            encoder_layer(params, x, bias, mask, config=config, dtype=dtype)
            for x, mask in zip(states, masks, strict=True)
        ]
    norm = {"params": {"scale": read("final_norm/scale")}}
    return [np.asarray(nn.RMSNorm(NORM_EPSILON).apply(norm, x)) for x in states]


def _read_ahead(read: Callable[[int], dict], count: int) -> Iterator[dict]:
    """Yield read(0), read(1), …; each is started while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(read, 0)
        for index in range(count):
            now = following.result()
            if index + 1 < count:
                following = pool.submit(read, index + 1)
            yield now
