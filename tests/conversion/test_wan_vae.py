"""The table of Wan 2.1's VAE: both published layouts, at full size by name and shape, at a tiny one by value."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.pytorch_layout import to_params, to_tensors

from pavdm_jax.conversion.rules import WeightsError, assign
from pavdm_jax.conversion.sources import open_weights
from pavdm_jax.conversion.wan_vae import wan_vae_config, wan_vae_rules
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.wan_vae import WanVAE
from pavdm_jax.wan_config import WanVAEConfig

MANIFEST = json.loads((golden_data.GOLDEN / "skyreels" / "weight_manifest.json").read_text())["vae Wan2.1"]
_, GOLDEN = golden_data.load("skyreels/vae_a")
ORIGINAL = GOLDEN["weights"]
DIFFUSERS = {second: ORIGINAL[first] for first, _, second in MANIFEST["tensors"]}
CONFIG = WanVAEConfig(base_channels=4)


@functools.cache
def expected(config):
    frames = jax.ShapeDtypeStruct((1, 5, 8, 8, 3), jnp.float32)
    return jax.eval_shape(
        lambda frames: WanVAE(config).init(jax.random.key(0), frames, method="reconstruct")["params"], frames
    )


@pytest.mark.parametrize("column", [0, 2], ids=["original", "diffusers"])
def test_every_published_tensor_has_its_place(column):
    shapes = {row[column]: tuple(row[1]) for row in MANIFEST["tensors"]}
    config = wan_vae_config(shapes, {})
    assert config == WanVAEConfig()
    assert assign(wan_vae_rules(config), shapes, expected(config)).keys() == shapes.keys()
    assert sum(leaf.size for leaf in jax.tree.leaves(expected(config))) == MANIFEST["parameters"]


def test_both_layouts_become_the_same_parameters():
    original, diffusers = (to_params(wan_vae_rules(CONFIG), t, expected(CONFIG)) for t in (ORIGINAL, DIFFUSERS))
    jax.tree.map(np.testing.assert_array_equal, original, diffusers)


def test_the_files_of_both_layouts_become_the_same_parameters():
    pytest.importorskip("torch", reason="Wan2.1_VAE.pth is a file of PyTorch's own")
    folder, params = golden_data.GOLDEN / "skyreels" / "checkpoints", []
    for path in ("SkyReels-V2-DF-tiny/Wan2.1_VAE.pth", "SkyReels-V2-DF-tiny-Diffusers/vae"):
        weights = open_weights(folder / path)
        config = wan_vae_config(weights.shapes, weights.config)
        assert config == CONFIG
        tensors = {name: file.read(raw) for name, (file, raw) in weights.places.items()}
        params.append(to_params(wan_vae_rules(config), tensors, expected(config)))
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_tensors_come_back_under_their_original_names():
    tensors = to_tensors(wan_vae_rules(CONFIG), to_params(wan_vae_rules(CONFIG), DIFFUSERS, expected(CONFIG)))
    assert tensors.keys() == ORIGINAL.keys()
    for name, tensor in ORIGINAL.items():
        np.testing.assert_array_equal(tensors[name], tensor)


def test_a_tensor_that_is_missing_or_misshapen_in_either_layout_is_named():
    for layout, gone, wrong in (
        (ORIGINAL, "decoder.middle.1.proj.weight", "encoder.downsamples.5.time_conv.weight"),
        (DIFFUSERS, "decoder.mid_block.attentions.0.proj.weight", "encoder.down_blocks.5.time_conv.weight"),
    ):
        tensors = {name: tensor for name, tensor in layout.items() if name != gone}
        tensors[wrong] = tensors[wrong][:, :, :1]
        with pytest.raises(WeightsError) as caught:
            to_params(wan_vae_rules(CONFIG), tensors, expected(CONFIG))
        assert "missing tensor decoder.middle.1.proj.weight" in str(caught.value)
        assert f"{wrong} has shape [8, 8, 1, 1, 1]" in str(caught.value)


def test_the_normalisation_is_that_of_config_json():
    shapes = {name: tensor.shape for name, tensor in DIFFUSERS.items()}
    statistics = {"latents_mean": [0.5] * 16, "latents_std": [2] * 16}
    config = wan_vae_config(shapes, statistics)
    assert config == WanVAEConfig(base_channels=4, latent_mean=(0.5,) * 16, latent_deviation=(2.0,) * 16)
    with pytest.raises(ConfigError, match="latents_std must be a list of numbers"):
        wan_vae_config(shapes, {"latents_std": "one"})
    for wrong in (0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="latent_deviation must be finite and above 0"):
            wan_vae_config(shapes, {"latents_std": [1] * 15 + [wrong]})
    with pytest.raises(ConfigError, match="latent_mean must be finite"):
        wan_vae_config(shapes, {"latents_mean": [0] * 15 + [float("nan")]})
    with pytest.raises(ConfigError, match="latent_mean has 16 channels and latent_deviation 3"):
        wan_vae_config(shapes, {"latents_std": [1, 1, 1]})
