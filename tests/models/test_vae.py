"""The video VAE against the reference (golden vae_a), its inverse table of weights, and micro clips."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import FORWARD_TOLERANCE, channels_last, relative_error
from support.nightly import at_night
from support.pytorch_layout import to_params, to_tensors

from pavdm_jax.config import SpatialVAEConfig, TemporalVAEConfig, VAEConfig
from pavdm_jax.conversion.open_sora import vae_rules
from pavdm_jax.geometry import latent_frames
from pavdm_jax.models import vae as vae_file
from pavdm_jax.models.vae import VideoVAE, _even_groups, sample_posterior

pytestmark = pytest.mark.usefixtures("fully_optimised")

SETTINGS, GOLDEN = golden_data.load("vae_a")
CONFIG = VAEConfig(
    spatial=SpatialVAEConfig(
        block_channels=tuple(SETTINGS["block_out"]), layers_per_block=SETTINGS["lpb"], num_groups=SETTINGS["ng2"]
    ),
    temporal=TemporalVAEConfig(
        filters=SETTINGS["filters"], num_res_blocks=SETTINGS["num_res_blocks"], num_groups=SETTINGS["num_groups"]
    ),
)
VAE = VideoVAE(CONFIG)
FRAMES = [n if n in (1, 20) else at_night(n)[0] for n in SETTINGS["frames"]]


@functools.cache
def params():
    expected = jax.eval_shape(
        functools.partial(VAE.init, method="reconstruct"), jax.random.key(0), jnp.zeros((1, 17, 16, 24, 3))
    )["params"]
    return to_params(vae_rules(CONFIG), GOLDEN["weights"], expected)


def run(method, *arguments):
    return jax.jit(functools.partial(VAE.apply, method=method), static_argnums=tuple(range(2, 1 + len(arguments))))(
        {"params": params()}, *arguments
    )


@pytest.mark.parametrize("frames", FRAMES)
def test_encode_matches_the_reference(frames):
    video = channels_last(GOLDEN["inputs"][f"video_{frames}"])
    spatial = run("encode_spatial", video)
    assert relative_error(spatial, channels_last(GOLDEN["outputs"][f"spatial_latent_{frames}"])) < FORWARD_TOLERANCE
    latents = run("encode", video)
    assert relative_error(latents, channels_last(GOLDEN["outputs"][f"latent_{frames}"])) < FORWARD_TOLERANCE


def test_in_bfloat16_frames_are_decoded_close_to_the_reference():
    """Of 256 levels the largest difference here is 15, the mean 1.1; values reach 3.1, far beyond the colours."""
    latents = channels_last(GOLDEN["outputs"]["latent_17"])
    decode = jax.jit(functools.partial(VideoVAE(CONFIG, jnp.bfloat16).apply, method="decode"), static_argnums=2)
    decoded = decode({"params": params()}, latents, 17)
    expected = channels_last(GOLDEN["outputs"]["decoded_17"])
    levels = 127.5 * np.abs(np.clip(decoded, -1, 1) - np.clip(expected, -1, 1))
    assert levels.max() < 25
    assert levels.mean() < 2


@pytest.mark.parametrize("frames", FRAMES)
def test_decode_matches_the_reference(frames):
    latents = channels_last(GOLDEN["outputs"][f"latent_{frames}"])
    decoded = run("decode", latents, frames)
    assert relative_error(decoded, channels_last(GOLDEN["outputs"][f"decoded_{frames}"])) < FORWARD_TOLERANCE


@pytest.mark.parametrize("frames_at_once", [*at_night(1), 6])
def test_frames_a_few_at_a_time_match_the_reference(monkeypatch, frames_at_once):
    latents = channels_last(GOLDEN["outputs"]["latent_34"])
    h, w = (side * CONFIG.spatial.downsample for side in latents.shape[2:4])
    monkeypatch.setattr(vae_file, "MICRO_BATCH_VALUES", frames_at_once * h * w * CONFIG.spatial.block_channels[0])
    decoded = run("decode", latents, 34)
    assert relative_error(decoded, channels_last(GOLDEN["outputs"]["decoded_34"])) < FORWARD_TOLERANCE
    encoded = run("encode", channels_last(GOLDEN["inputs"]["video_34"]))
    assert relative_error(encoded, latents) < FORWARD_TOLERANCE


def test_frames_a_few_at_a_time_take_the_memory_of_a_few(monkeypatch):
    def temporaries(frames_at_once):
        monkeypatch.setattr(vae_file, "MICRO_BATCH_VALUES", frames_at_once * 128**2 * CONFIG.spatial.block_channels[0])
        cells = 128 // CONFIG.spatial.downsample
        latents = jax.ShapeDtypeStruct((1, 17, cells, cells, 4), jnp.float32)
        decode = jax.jit(lambda params, z: VAE.apply({"params": params}, z, method="decode_spatial"))
        return decode.lower(params(), latents).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(1) < 0.2 * temporaries(17)


def test_spatial_posterior_and_decoder_match_the_reference():
    image = np.moveaxis(GOLDEN["inputs"]["image"], 1, -1)
    mean, log_variance = VAE.apply({"params": params()}, image, method=lambda vae, x: vae.spatial.encode(x))
    scaling = CONFIG.spatial.scaling_factor
    assert relative_error(mean / scaling, np.moveaxis(GOLDEN["outputs"]["vae2d_mean"], 1, -1)) < FORWARD_TOLERANCE
    assert relative_error(log_variance, np.moveaxis(GOLDEN["outputs"]["vae2d_logvar"], 1, -1)) < FORWARD_TOLERANCE
    latents = np.moveaxis(GOLDEN["inputs"]["z2d"], 1, -1) * scaling
    decoded = VAE.apply({"params": params()}, latents, method=lambda vae, z: vae.spatial.decode(z))
    assert relative_error(decoded, np.moveaxis(GOLDEN["outputs"]["vae2d_decoded"], 1, -1)) < FORWARD_TOLERANCE


def test_temporal_posterior_matches_the_reference():
    latents = channels_last(GOLDEN["outputs"]["spatial_latent_17"])
    mean, log_variance = VAE.apply({"params": params()}, latents, method="encode_micro")
    assert relative_error(mean, channels_last(GOLDEN["outputs"]["temporal_mean_17"])) < FORWARD_TOLERANCE
    assert relative_error(log_variance, channels_last(GOLDEN["outputs"]["temporal_logvar_17"])) < FORWARD_TOLERANCE


def test_posterior_draws_have_the_mean_and_the_deviation_asked_for():
    mean, log_variance = jnp.full((40_000,), 3.0), jnp.full((40_000,), 2.0)
    draws = sample_posterior(mean, log_variance, jax.random.key(0))
    assert abs(float(draws.mean()) - 3.0) < 0.05
    assert abs(float(draws.std()) - np.exp(1.0)) < 0.05
    clamped = sample_posterior(mean, jnp.full_like(mean, 1e6), jax.random.key(0))
    assert float(clamped.std()) < 1.1 * np.exp(10.0)


def test_tensors_come_back_under_their_published_names():
    tensors = to_tensors(vae_rules(CONFIG), params())
    assert set(tensors) == set(GOLDEN["weights"])
    for name, tensor in GOLDEN["weights"].items():
        np.testing.assert_array_equal(tensors[name], tensor)


def test_published_size_has_the_published_number_of_parameters():
    vae = VideoVAE(VAEConfig())
    init = functools.partial(vae.init, method="reconstruct")
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 17, 64, 64, 3)))["params"]
    count = {part: sum(leaf.size for leaf in jax.tree.leaves(shapes[part])) for part in ("spatial", "temporal")}
    assert round(count["spatial"] / 1e6, 1) == 83.7
    assert round(count["temporal"] / 1e6, 1) == 309.7


@pytest.mark.parametrize(
    ("count", "unit", "limit", "size"),
    [(17, 1, 60, 17), (17, 1, 5, 1), (34, 1, 20, 17), (17, 8, 8, 8), (17, 8, 99, 24), (3, 8, 8, 8)],
)
def test_groups_of_frames_waste_least_and_divide_over_devices(count, unit, limit, size):
    assert _even_groups(count, unit, limit) == size


@pytest.mark.parametrize(("frames", "latents"), [(16, 5), (1, 1), (15, 4), (32, 10), (37, 12)])
def test_sixteen_frames_become_five_latent_frames_where_the_config_says_so(frames, latents):
    """The paper's M setting; as many frames come back as went in, and no micro clip depends on another."""
    config = dataclasses.replace(CONFIG, micro_frames=16, micro_latents=5)
    vae = VideoVAE(config)
    assert latent_frames(frames, config) == latents
    clip = jax.ShapeDtypeStruct((1, frames, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(lambda clip: vae.init(jax.random.key(0), clip, method="reconstruct"), clip)
    z = jax.eval_shape(lambda p, x: vae.apply(p, x, method="encode"), params, clip)
    assert z.shape[1] == latents
    back = jax.eval_shape(lambda p, z: vae.apply(p, z, frames, method="decode"), params, z)
    assert back.shape == clip.shape


def test_the_latent_frame_of_padding_alone_comes_first():
    """Four zero frames in front of the sixteen, which are dropped again after decoding."""
    vae = VideoVAE(dataclasses.replace(CONFIG, micro_frames=16, micro_latents=5))
    spatial = jax.random.normal(jax.random.key(0), (1, 16, 4, 4, CONFIG.spatial.latent_channels))
    variables = {"params": params()}  # their shapes do not depend on the number of frames
    padded = jnp.pad(spatial, ((0, 0), (4, 0), (0, 0), (0, 0), (0, 0)))
    expected, _ = vae.apply(variables, padded, method=lambda vae, z: vae.temporal.encode(z, 5))
    coded = vae.apply(variables, spatial, method="encode_temporal")
    np.testing.assert_array_equal(coded, expected)
    decoded = vae.apply(variables, coded, 16, method="decode_temporal")
    whole = vae.apply(variables, coded, method=lambda vae, z: vae.temporal.decode(z, 20))
    np.testing.assert_array_equal(decoded, whole[:, 4:])
