"""Wan 2.1's VAE piece by piece: the frames that causal layers carry are all that a video's past is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import channels_last, relative_error
from support.pytorch_layout import to_params

from pavdm_jax.conversion.wan_vae import wan_vae_rules
from pavdm_jax.models.wan_vae import WanVAE, decode_next, encode_video
from pavdm_jax.wan_config import WanVAEConfig

SETTINGS, GOLDEN = golden_data.load("skyreels/vae_a")
CONFIG = WanVAEConfig(base_channels=SETTINGS["dim"])
VAE = WanVAE(CONFIG)
EXPECTED = jax.eval_shape(
    functools.partial(VAE.init, method="reconstruct"), jax.random.key(0), jnp.zeros((1, 5, 8, 8, 3))
)["params"]
PARAMS = to_params(wan_vae_rules(CONFIG), GOLDEN["weights"], EXPECTED)
INPUTS = GOLDEN["inputs"]

ROUNDING = 2e-6
"""Relative: sums in another order."""


@jax.jit
def decode_at_once(latents):
    return VAE.apply({"params": PARAMS}, latents, method="decode")


decode_some = jax.jit(functools.partial(decode_next, VAE))


def decode_in_pieces(latents, size, start=0):
    """The frames of latents from `start` on, `size` latent frames a call."""
    past, frames = None, []
    for begin in range(start, latents.shape[1], size):
        some, past = decode_some(PARAMS, latents[:, begin : begin + size], past)
        frames.append(some)
    return np.concatenate(frames, axis=1)


def test_a_video_encoded_piece_by_piece_is_that_encoded_at_once():
    video = channels_last(INPUTS["video"])
    pieces = jax.jit(functools.partial(encode_video, VAE))(PARAMS, video)
    at_once = jax.jit(functools.partial(VAE.apply, method="encode"))({"params": PARAMS}, video)
    assert relative_error(pieces, at_once) < ROUNDING


@pytest.mark.parametrize("size", [1, 5])
def test_a_video_decoded_piece_by_piece_is_that_decoded_at_once(size):
    latents = channels_last(INPUTS["latents_long"])[:, :21]
    pieces = decode_in_pieces(latents, size)
    assert pieces.shape == (1, 81, 8, 16, 3)
    assert relative_error(pieces, decode_at_once(latents)) < ROUNDING


def test_in_bfloat16_the_past_takes_half_and_frames_are_a_few_levels_off():
    """The reference decodes so, too; the largest difference of 256 levels here is 5, the mean 0.4."""
    decode = jax.jit(functools.partial(decode_next, WanVAE(CONFIG, jnp.bfloat16)))
    frames, past = decode(PARAMS, channels_last(INPUTS["latents"]))
    assert {array.dtype for array in jax.tree.leaves(past)} == {jnp.dtype(jnp.bfloat16)}
    expected = channels_last(GOLDEN["outputs"]["decoded_9"])
    levels = 127.5 * np.abs(np.clip(frames, -1, 1) - np.clip(expected, -1, 1))
    assert levels.max() < 10
    assert levels.mean() < 1


def test_pieces_of_any_size_are_the_same_bit_for_bit():
    latents = channels_last(INPUTS["latents_long"])[:, :11]
    np.testing.assert_array_equal(decode_in_pieces(latents, 5), decode_in_pieces(latents, 3))


def test_pieces_have_seventeen_frames_then_twenty_and_one_program():
    latents = channels_last(INPUTS["latents_long"])
    frames, past = decode_some(PARAMS, latents[:, :5])
    assert frames.shape[1] == 17
    shapes = jax.tree.map(jnp.shape, past)
    frames, past = decode_some(PARAMS, latents[:, 5:10], past)
    programs = decode_some._cache_size()
    assert frames.shape[1] == 20
    assert jax.tree.map(jnp.shape, past) == shapes
    decode_some(PARAMS, latents[:, 10:15], past)
    assert decode_some._cache_size() == programs


def test_the_decode_of_a_prefix_is_the_prefix_of_the_decode():
    latents = channels_last(INPUTS["latents_long"])[:, :15]
    np.testing.assert_array_equal(decode_in_pieces(latents[:, :10], 5), decode_in_pieces(latents, 5)[:, :37])
    assert relative_error(decode_at_once(latents[:, :4]), decode_at_once(latents)[:, :13]) < ROUNDING


def test_the_latents_before_decide_the_state():
    """Going on from any place: the frames of `decoder_reach` latents before it are made and dropped."""
    reach = CONFIG.decoder_reach
    assert reach == SETTINGS["receptive_preceding_latents"]
    latents = channels_last(INPUTS["latents_long"])
    assert latents.shape[1] - reach - 1 == 5
    whole, cold = decode_in_pieces(latents, 1), decode_in_pieces(latents, 1, start=5)
    np.testing.assert_array_equal(cold[:, -4:], whole[:, -4:])
    assert np.abs(decode_in_pieces(latents, 1, start=latents.shape[1] - 17)[:, -4:] - whole[:, -4:]).max() > 1e-4


def test_no_frame_depends_on_later_latents_and_the_last_on_all_within_reach():
    config = WanVAEConfig(base_channels=2, channel_multipliers=(1, 1, 1, 1))
    vae = WanVAE(config)
    variables = vae.init(jax.random.key(0), jnp.zeros((1, 5, 8, 8, 3)), method="reconstruct")
    latents = jax.random.normal(jax.random.key(1), (1, 43, 1, 1, 16))

    @jax.jit
    def gradient(z, frame):
        def value(z):
            decoded = vae.apply({"params": variables["params"]}, z, method="decode")[:, frame]
            return 1e15 * jnp.sum(decoded)  # or the smallest gradients would round to zero

        return jnp.abs(jax.grad(value)(z)).sum((0, 2, 3, 4))

    first, last = (np.flatnonzero(gradient(latents, frame)) for frame in (4 * 40 - 3, 4 * 40))  # of latent frame 40
    assert (first[0], first[-1]) == (40 - config.decoder_reach, 40)
    assert (last[0], last[-1]) == (41 - config.decoder_reach, 40)


def test_memory_does_not_grow_with_the_latents_of_a_call():
    def temporaries(count):
        latents = jax.ShapeDtypeStruct((1, count, 8, 8, 16), jnp.float32)
        _, past = jax.eval_shape(functools.partial(decode_next, VAE), PARAMS, latents)
        program = jax.jit(functools.partial(decode_next, VAE)).lower(PARAMS, latents, past).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert 0 < temporaries(16) < 1.2 * temporaries(2)
