"""Wan 2.1's VAE against the reference (golden skyreels/vae_a)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import FORWARD_TOLERANCE, channels_last, relative_error
from support.pytorch_layout import to_params

from pavdm_jax.conversion.wan_vae import wan_vae_rules
from pavdm_jax.models.wan_vae import WanVAE, encode_video
from pavdm_jax.wan_config import WanVAEConfig

pytestmark = pytest.mark.usefixtures("fully_optimised")

SETTINGS, GOLDEN = golden_data.load("skyreels/vae_a")
CONFIG = WanVAEConfig(base_channels=SETTINGS["dim"])
VAE = WanVAE(CONFIG)
INPUTS, OUTPUTS = ({name: np.asarray(x) for name, x in GOLDEN[group].items()} for group in ("inputs", "outputs"))


@functools.cache
def params():
    frames = jnp.zeros((1, 5, 8, 8, 3))
    expected = jax.eval_shape(functools.partial(VAE.init, method="reconstruct"), jax.random.key(0), frames)["params"]
    return to_params(wan_vae_rules(CONFIG), GOLDEN["weights"], expected)


def run(method, x, vae=VAE):
    return jax.jit(functools.partial(vae.apply, method=method))({"params": params()}, x)


@pytest.mark.parametrize("frames", [1, 5, 17, 21])
def test_encode_matches_the_reference(frames):
    video = channels_last(INPUTS["video"])[:, :frames]
    assert relative_error(run("encode", video), channels_last(OUTPUTS[f"encoded_{frames}"])) < FORWARD_TOLERANCE


def test_the_log_variance_matches_the_reference():
    _, log_variance = run("posterior", channels_last(INPUTS["video"])[:, :5])
    assert relative_error(np.clip(log_variance, -30, 20), channels_last(OUTPUTS["logvar_5"])) < FORWARD_TOLERANCE


@pytest.mark.parametrize(("latents", "decoded"), [("latents", "decoded_9"), ("latents_long", "decoded_long")])
def test_decode_matches_the_reference(latents, decoded):
    frames = run("decode", channels_last(INPUTS[latents]))
    assert relative_error(frames, channels_last(OUTPUTS[decoded])) < FORWARD_TOLERANCE


def test_statistics_of_latents_are_the_published_ones():
    np.testing.assert_array_equal(np.float32(WanVAEConfig().latent_mean), INPUTS["latents_mean"])
    np.testing.assert_array_equal(np.float32(WanVAEConfig().latent_deviation), INPUTS["latents_std"])


@pytest.mark.parametrize("frames", [18, 19, 20])
def test_frames_beyond_whole_latent_frames_are_dropped(frames):
    video = channels_last(INPUTS["video"])
    for encode in (VAE.apply, lambda variables, x, method: encode_video(VAE, variables["params"], x)):
        shape = jax.eval_shape(functools.partial(encode, method="encode"), {"params": params()}, video[:, :frames])
        assert shape.shape == (1, 5, 4, 6, 16)


def test_dropped_frames_change_nothing():
    video = channels_last(INPUTS["video"])[:, :8]
    np.testing.assert_allclose(run("encode", video), run("encode", video[:, :5]), atol=1e-5)


def test_bfloat16_stays_near_float32():
    latents = channels_last(INPUTS["latents"])[:, :3]
    half = jax.jit(functools.partial(WanVAE(CONFIG, jnp.bfloat16).apply, method="decode"))(
        {"params": params()}, latents
    )
    assert half.dtype == jnp.float32
    assert 1e-4 < relative_error(half, run("decode", latents)) < 0.05
