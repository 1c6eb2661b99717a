"""umT5, T5 with a relative bias in every layer, against the reference (golden skyreels/umt5_a), also from disk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import relative_error
from support.pytorch_layout import to_params, to_tensors

from pavdm_jax.checkpoints.layers import PartWriter
from pavdm_jax.config import T5Config
from pavdm_jax.conversion.wan import umt5_config, umt5_rules
from pavdm_jax.models.model import flatten
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.text.layerwise_t5 import encode_from_disk
from pavdm_jax.wan_config import UMT5_XXL

pytestmark = pytest.mark.usefixtures("fully_optimised")

TOLERANCE = 1e-5
SETTINGS, GOLDEN = golden_data.load("skyreels/umt5_a")
CONFIG = T5Config(
    vocab_size=SETTINGS["vocab_size"],
    d_model=SETTINGS["dim"],
    d_kv=SETTINGS["dim_attn"] // SETTINGS["num_heads"],
    d_ff=SETTINGS["dim_ffn"],
    num_layers=SETTINGS["num_layers"],
    num_heads=SETTINGS["num_heads"],
    relative_buckets=SETTINGS["num_buckets"],
    relative_max_distance=SETTINGS["relative_attention_max_distance"],
    bias_in_every_layer=True,
)
IDS = GOLDEN["inputs"]["input_ids"].astype(np.int32)
MASK = GOLDEN["inputs"]["attention_mask"].astype(bool)
LENGTHS = MASK.sum(1).astype(np.int32)


def abstract_params(config: T5Config) -> dict:
    ids, lengths = jax.ShapeDtypeStruct((1, 4), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(T5Encoder(config).init, jax.random.key(0), ids, lengths)["params"]


@functools.cache
def params() -> dict:
    return to_params(umt5_rules(CONFIG, "original"), GOLDEN["weights"], abstract_params(CONFIG))


@functools.cache
def features() -> np.ndarray:
    return np.asarray(jax.jit(T5Encoder(CONFIG).apply)({"params": params()}, IDS, LENGTHS))


def test_features_match_the_reference_on_tokens_and_on_padding():
    assert LENGTHS.tolist() == [160, 37, 1]
    assert relative_error(features(), GOLDEN["outputs"]["last_hidden_state"]) < TOLERANCE
    context = np.where(MASK[..., None], features(), 0)
    assert relative_error(context, GOLDEN["outputs"]["context"]) < TOLERANCE


def test_every_layer_has_its_own_bias():
    tables = params()["layers"]["relative_bias"]
    assert tables.shape == (CONFIG.num_layers, CONFIG.relative_buckets, CONFIG.num_heads)
    one = np.broadcast_to(tables[:1], tables.shape)
    same = {**params(), "layers": {**params()["layers"], "relative_bias": one}}
    other = np.asarray(jax.jit(T5Encoder(CONFIG).apply)({"params": same}, IDS, LENGTHS))
    assert relative_error(other, features()) > 1e-3


def test_layer_by_layer_from_disk_gives_the_same(tmp_path):
    stacked = {name for name in flatten(params()) if name.startswith("layers/")}
    writer = PartWriter(tmp_path / "t5", abstract_params(CONFIG), stacked)
    for name, values in flatten(params()).items():
        for layer, one in enumerate(values) if name in stacked else [(0, values)]:
            writer.write(name, layer, one)
    writer.close()
    encoded = encode_from_disk(
        tmp_path / "t5", abstract_params(CONFIG), IDS, LENGTHS, config=CONFIG, dtype=jnp.dtype(jnp.float32)
    )
    assert relative_error(np.concatenate(encoded), features()) < TOLERANCE


def test_weights_survive_the_round_trip():
    tensors = to_tensors(umt5_rules(CONFIG, "original"), params())
    assert set(tensors) == set(GOLDEN["weights"])
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, GOLDEN["weights"][name], err_msg=name)


def test_sizes_are_read_off_the_tensors():
    shapes = {name: tensor.shape for name, tensor in GOLDEN["weights"].items()}
    assert umt5_config(shapes, {"num_layers": 2, "num_heads": 12}) == CONFIG  # the transformer's config.json


@pytest.mark.parametrize(("config", "size"), [(UMT5_XXL, 5_680_910_336)])
def test_full_size_has_the_published_parameters(config, size):
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config))) == size
