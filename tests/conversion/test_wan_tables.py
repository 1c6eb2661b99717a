"""The tables of Wan's transformer and umT5: every published tensor has its place, and both layouts are one model."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import GOLDEN
from support.pytorch_layout import to_params, to_tensors
from support.wan_network import abstract_wan, trajectory_network, wan_network_config

from pavdm_jax.config import T5Config
from pavdm_jax.conversion.rules import WeightsError, assign
from pavdm_jax.conversion.sources import open_weights
from pavdm_jax.conversion.wan import layout_of, umt5_config, umt5_rules, wan_config, wan_rules
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import flatten
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.wan_config import SKYREELS_V2_DF_1_3B, SKYREELS_V2_DF_14B, UMT5_XXL

SKYREELS = GOLDEN / "skyreels"
ORIGINAL = SKYREELS / "checkpoints" / "SkyReels-V2-DF-tiny"
DIFFUSERS = SKYREELS / "checkpoints" / "SkyReels-V2-DF-tiny-Diffusers"
TRANSFORMERS = {"original": ORIGINAL / "model.safetensors", "diffusers": DIFFUSERS / "transformer"}
TEXT_ENCODERS = {"original": ORIGINAL / "models_t5_umt5-xxl-enc-bf16.pth", "diffusers": DIFFUSERS / "text_encoder"}


def abstract_umt5(config: T5Config) -> dict:
    ids, lengths = jax.ShapeDtypeStruct((1, 4), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(T5Encoder(config).init, jax.random.key(0), ids, lengths)["params"]


@functools.cache
def manifest(name: str) -> dict:
    return json.loads((SKYREELS / "weight_manifest.json").read_text())[name]


PUBLISHED = {
    "transformer DF-1.3B": (SKYREELS_V2_DF_1_3B, wan_rules, wan_config, abstract_wan),
    "transformer DF-14B": (SKYREELS_V2_DF_14B, wan_rules, wan_config, abstract_wan),
    "text encoder umT5-XXL": (UMT5_XXL, umt5_rules, umt5_config, abstract_umt5),
}


def published_shapes(name: str, layout: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a published network in one of its layouts, those stored twice included."""
    column = {"original": 0, "diffusers": 2}[layout]
    shapes = {row[column]: tuple(row[1]) for row in manifest(name)["tensors"]}
    if layout == "diffusers":
        (table,) = (row[1] for row in manifest(name)["tensors"][:1])
        shapes |= {twice: tuple(table) for twice in manifest(name)["only_in_second_naming"]}
    return shapes


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_tensor_has_its_place(name, layout):
    config, rules, sizes, abstract = PUBLISHED[name]
    shapes = published_shapes(name, layout)
    assert layout_of(shapes) == layout
    assert sizes(shapes, {}) == config
    placed = assign(rules(config, layout), shapes, abstract(config))
    assert set(placed) == set(shapes) - set(manifest(name)["only_in_second_naming"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_names_of_a_tensor_are_one_parameter(name):
    config, rules, _, abstract = PUBLISHED[name]
    places = {
        layout: {
            name: (place.rule.target, place.layer)
            for name, place in assign(rules(config, layout), published_shapes(name, layout), abstract(config)).items()
        }
        for layout in ("original", "diffusers")
    }
    for original, _, ported in manifest(name)["tensors"]:
        assert places["original"][original] == places["diffusers"][ported]
    assert len(set(places["original"].values())) == len(manifest(name)["tensors"])


# --- checkpoints ------------------------------------------------------------------------------------------------------


def opened(path: Path):
    if path.suffix == ".pth":
        pytest.importorskip("torch", reason="reading PyTorch's files needs the extra: pip install 'pavdm_jax[torch]'")
    weights = open_weights(path)
    return weights, {name: file.read(raw) for name, (file, raw) in weights.places.items()}


def assert_equal_trees(ours: dict, expected: dict) -> None:
    ours, expected = flatten(ours), flatten(expected)
    assert set(ours) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


@pytest.mark.parametrize("layout", TRANSFORMERS)
def test_a_transformer_is_loaded_from_both_layouts_and_written_back(layout):
    weights, tensors = opened(TRANSFORMERS[layout])
    config = wan_config(weights.shapes, weights.config)
    expected_config, expected = trajectory_network()
    if layout == "diffusers":  # whose config.json does not say how far captions are padded: 512, as published
        assert config.max_caption_tokens == 512
    else:
        assert config == expected_config
    rules = wan_rules(config, layout)
    params = to_params(rules, tensors, abstract_wan(config))
    assert_equal_trees(params, expected)  # of which test_wan.py runs the forward
    back = to_tensors(rules, params)
    assert set(back) == set(tensors)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


@pytest.mark.parametrize("layout", TEXT_ENCODERS)
def test_a_text_encoder_is_loaded_from_both_layouts_and_written_back(layout):
    weights, tensors = opened(TEXT_ENCODERS[layout])
    config = umt5_config(weights.shapes, weights.config)
    golden = golden_data.load("skyreels/umt5_a")[1]["weights"]
    rules = umt5_rules(config, layout)
    params = to_params(rules, tensors, abstract_umt5(config))
    assert_equal_trees(params, to_params(umt5_rules(config, "original"), golden, abstract_umt5(config)))
    back = to_tensors(rules, params)
    assert set(back) == set(tensors) - {"encoder.embed_tokens.weight"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, np.asarray(tensors[name], np.float32), err_msg=name)


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_a_missing_layer_and_a_stranger_are_named():
    settings, arrays = golden_data.load("skyreels/dit_b")
    config = wan_network_config(settings)
    tensors = {name: x for name, x in arrays["weights"].items() if name != "blocks.1.norm3.bias"}
    tensors["img_emb.proj.0.weight"] = np.zeros((4, 4), np.float32)
    with pytest.raises(WeightsError) as caught:
        to_params(wan_rules(config, "original"), tensors, abstract_wan(config))
    assert "missing tensor blocks.1.norm3.bias" in str(caught.value)
    assert "unknown tensor img_emb.proj.0.weight [4, 4]" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_type": "i2v"}, "model_type 'i2v' is another transformer; only 't2v' is known"),
        ({"qk_norm": "layer_norm"}, "qk_norm 'layer_norm' is another"),
        ({"eps": 1e-5}, "eps 1e-05 is another"),
        ({"num_layers": -1}, "num_layers -1 cannot be"),
    ],
)
def test_other_variants_are_refused(said, message):
    shapes = published_shapes("transformer DF-1.3B", "original")
    with pytest.raises(ConfigError, match=message):
        wan_config(shapes, said)


def test_a_patch_over_several_frames_is_refused():
    shapes = published_shapes("transformer DF-1.3B", "original") | {"patch_embedding.weight": (1536, 16, 2, 2, 2)}
    with pytest.raises(ConfigError, match="spans 2 latent frames; only 1 is known"):
        wan_config(shapes, {})


def test_an_ungated_text_encoder_is_refused():
    with pytest.raises(ConfigError, match="feed_forward_proj 'relu' is another text encoder"):
        umt5_config(published_shapes("text encoder umT5-XXL", "diffusers"), {"feed_forward_proj": "relu"})
