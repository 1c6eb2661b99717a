"""The T5 encoder against the reference (golden t5_encoder), its table of weights, and the published size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import FORWARD_TOLERANCE, relative_error
from support.pytorch_layout import to_params, to_tensors

from pavdm_jax.config import T5Config, demo
from pavdm_jax.conversion.open_sora import t5_rules
from pavdm_jax.conversion.rules import WeightsError
from pavdm_jax.models.t5 import T5Encoder, relative_buckets

pytestmark = pytest.mark.usefixtures("fully_optimised")

SETTINGS, GOLDEN = golden_data.load("t5_encoder")
CONFIG = T5Config(
    vocab_size=SETTINGS["vocab_size"],
    d_model=SETTINGS["d_model"],
    d_kv=SETTINGS["d_kv"],
    d_ff=SETTINGS["d_ff"],
    num_layers=SETTINGS["num_layers"],
    num_heads=SETTINGS["num_heads"],
    relative_buckets=SETTINGS["relative_attention_num_buckets"],
    relative_max_distance=SETTINGS["relative_attention_max_distance"],
)
IDS = GOLDEN["inputs"]["input_ids"].astype(np.int32)
MASK = GOLDEN["inputs"]["attention_mask"].astype(bool)
LENGTHS = MASK.sum(1).astype(np.int32)
REFERENCE = GOLDEN["outputs"]["last_hidden_state"]
DUPLICATE = "encoder.embed_tokens.weight"


def abstract_params(config: T5Config) -> dict:
    ids, lengths = jax.ShapeDtypeStruct((1, 4), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(T5Encoder(config).init, jax.random.key(0), ids, lengths)["params"]


@functools.cache
def params() -> dict:
    return to_params(t5_rules(CONFIG), GOLDEN["weights"], abstract_params(CONFIG))


@functools.cache
def features() -> np.ndarray:
    return np.asarray(jax.jit(T5Encoder(CONFIG).apply)({"params": params()}, IDS, LENGTHS))


def test_golden_masks_are_prefixes():
    assert len(set(LENGTHS)) > 1
    np.testing.assert_array_equal(MASK, np.arange(MASK.shape[1])[None] < LENGTHS[:, None])


def test_features_match_the_reference_on_tokens_and_on_padding():
    assert features().dtype == np.float32
    assert relative_error(features()[MASK], REFERENCE[MASK]) < FORWARD_TOLERANCE
    assert relative_error(features()[~MASK], REFERENCE[~MASK]) < FORWARD_TOLERANCE


def test_padding_does_not_reach_the_tokens():
    other = np.where(MASK, IDS, (IDS + 5) % CONFIG.vocab_size)
    changed = np.asarray(jax.jit(T5Encoder(CONFIG).apply)({"params": params()}, other, LENGTHS))
    np.testing.assert_array_equal(changed[MASK], features()[MASK])
    assert not np.array_equal(changed[~MASK], features()[~MASK])


def test_bfloat16_stays_near_float32_and_returns_float32():
    # On initial values: the golden's weights give attention scores up to 60, where rounding to bfloat16 alone moves
    # features by a fifth.
    initial = T5Encoder(CONFIG).init(jax.random.key(0), IDS[:, :40], np.minimum(LENGTHS, 40))["params"]
    full, half = (
        np.asarray(jax.jit(T5Encoder(CONFIG, dtype).apply)({"params": initial}, IDS[:, :40], np.minimum(LENGTHS, 40)))
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.dtype == np.float32
    assert 1e-4 < relative_error(half, full) < 2e-2


@pytest.mark.parametrize(
    ("distance", "bucket"),
    # Hand-computed: 8 exact distances, then 8 + floor(8 · log(d/8) / log(16)); the powers of two are exact edges.
    {
        0: 0,
        -1: 1,
        -7: 7,
        -8: 8,
        -11: 8,
        -12: 9,
        -16: 10,
        -31: 11,
        -32: 12,
        -64: 14,
        -90: 14,
        -91: 15,
        -128: 15,
        -5000: 15,
        1: 17,
        7: 23,
        8: 24,
        64: 30,
        5000: 31,
    }.items(),
)
def test_relative_buckets(distance, bucket):
    assert relative_buckets(np.array(distance), num_buckets=32, max_distance=128) == bucket


def test_weights_survive_the_round_trip():
    tensors = to_tensors(t5_rules(CONFIG), params())
    assert set(tensors) == set(GOLDEN["weights"]) - {DUPLICATE}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, GOLDEN["weights"][name], err_msg=name)


def test_both_names_of_the_embedding_are_one_table():
    np.testing.assert_array_equal(GOLDEN["weights"][DUPLICATE], GOLDEN["weights"]["shared.weight"])
    without = {name: tensor for name, tensor in GOLDEN["weights"].items() if name != DUPLICATE}
    to_params(t5_rules(CONFIG), without, abstract_params(CONFIG))


def test_a_missing_layer_is_named():
    without = {name: tensor for name, tensor in GOLDEN["weights"].items() if not name.startswith("encoder.block.1.")}
    with pytest.raises(WeightsError, match=r"missing tensor encoder\.block\.1\.layer\.0\.SelfAttention\.q\.weight"):
        to_params(t5_rules(CONFIG), without, abstract_params(CONFIG))


def test_full_size_has_the_published_parameters():
    leaves = jax.tree.leaves(abstract_params(T5Config()))
    per_layer = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096
    assert sum(leaf.size for leaf in leaves) == 24 * per_layer + 32128 * 4096 + 32 * 64 + 4096


def test_a_fresh_encoder_tells_which_word_stands_beside_which():
    config = demo().t5
    words = np.arange(10, 17)[None]  # such as: a red circle and a blue square
    exchanged = words[:, [0, 5, 2, 3, 4, 1, 6]]
    ids, lengths = np.concatenate([words, exchanged]), np.full(2, words.size)
    network = T5Encoder(config)
    features, of_exchanged = np.asarray(network.apply(network.init(jax.random.key(0), ids, lengths), ids, lengths))
    for noun in (2, 6):
        assert relative_error(of_exchanged[noun], features[noun]) > 0.3  # with small random biases 0.03 to 0.04
