"""The video VAE against the reference (golden vae_a), its inverse table of weights, and micro clips."""

import functools

import golden_data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import FORWARD_TOLERANCE, channels_last, relative_error

from pavdm_jax.compiled import decode_chunk
from pavdm_jax.config import OPEN_SORA_1_2, SpatialVAEConfig, TemporalVAEConfig, VAEConfig
from pavdm_jax.convert_weights import to_params, to_tensors, vae_rules
from pavdm_jax.model import abstract_params
from pavdm_jax.models import vae as vae_file
from pavdm_jax.models.vae import VideoVAE, sample_posterior

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
FRAMES = SETTINGS["frames"]


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


@pytest.mark.parametrize("frames", FRAMES)
def test_decode_matches_the_reference(frames):
    latents = channels_last(GOLDEN["outputs"][f"latent_{frames}"])
    decoded = run("decode", latents, frames)
    assert relative_error(decoded, channels_last(GOLDEN["outputs"][f"decoded_{frames}"])) < FORWARD_TOLERANCE


@pytest.mark.parametrize("frames_at_once", [1, 6])
def test_frames_a_few_at_a_time_match_the_reference(monkeypatch, frames_at_once):
    latents = channels_last(GOLDEN["outputs"]["latent_34"])
    h, w = (side * CONFIG.spatial.downsample for side in latents.shape[2:4])
    monkeypatch.setattr(vae_file, "MICRO_BATCH_VALUES", frames_at_once * h * w * CONFIG.spatial.block_channels[0])
    decoded = run("decode", latents, 34)
    assert relative_error(decoded, channels_last(GOLDEN["outputs"]["decoded_34"])) < FORWARD_TOLERANCE
    encoded = run("encode", channels_last(GOLDEN["inputs"]["video_34"]))
    assert relative_error(encoded, latents) < FORWARD_TOLERANCE


def test_memory_of_decoding_a_chunk_does_not_grow_with_its_frames():
    """Published widths at 240x424: a fifteenth of what all frames at once took."""
    config = OPEN_SORA_1_2
    params = abstract_params(config)["vae"]

    def temporaries(frames):
        latents = jax.ShapeDtypeStruct((1, frames // 17 * 5, 30, 53, 4), jnp.float32)
        lowered = decode_chunk.lower(params, latents, config=config, num_frames=frames)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    one = temporaries(17)
    assert one < 0.5 * 2**30
    assert temporaries(34) < one + 0.1 * 2**30


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
    mean, log_variance = VAE.apply({"params": params()}, latents, method=lambda vae, z: vae.temporal.encode(z))
    assert relative_error(mean, channels_last(GOLDEN["outputs"]["temporal_mean_17"])) < FORWARD_TOLERANCE
    assert relative_error(log_variance, channels_last(GOLDEN["outputs"]["temporal_logvar_17"])) < FORWARD_TOLERANCE


def test_posterior_draws_have_the_mean_and_the_deviation_asked_for():
    mean, log_variance = jnp.full((40_000,), 3.0), jnp.full((40_000,), 2.0)
    draws = sample_posterior(mean, log_variance, jax.random.key(0))
    assert abs(float(draws.mean()) - 3.0) < 0.05
    assert abs(float(draws.std()) - np.exp(1.0)) < 0.05
    clamped = sample_posterior(mean, jnp.full_like(mean, 1e6), jax.random.key(0))
    assert float(clamped.std()) < 1.1 * np.exp(10.0)


def test_encoding_with_a_key_samples_both_posteriors():
    video = channels_last(GOLDEN["inputs"]["video_17"])
    encode = jax.jit(functools.partial(VAE.apply, method="encode"))
    one, again, other = (encode({"params": params()}, video, jax.random.key(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert float(jnp.abs(one - other).max()) > 0


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
