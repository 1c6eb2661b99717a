"""Frames, latent frames and chunks; sizes and their names."""

import dataclasses
import json

import pytest
from support.golden_data import GOLDEN

from pavdm_jax import geometry, resolutions
from pavdm_jax.config import OPEN_SORA_1_2, VAEConfig, tiny
from pavdm_jax.errors import ConfigError
from pavdm_jax.wan_config import WanVAEConfig

VAE = OPEN_SORA_1_2.vae
NAMED = json.loads((GOLDEN / "resolutions.json").read_text())


@pytest.mark.parametrize(
    ("frames", "latents"),
    [(1, 1), (4, 1), (5, 2), (16, 4), (17, 5), (18, 6), (21, 6), (22, 7), (34, 10), (51, 15), (119, 35), (1445, 425)],
)
def test_latent_frames_with_remainders(frames, latents):
    assert geometry.latent_frames(frames, VAE) == latents
    least = geometry.least_frames(latents, VAE)
    assert geometry.latent_frames(least, VAE) == latents
    assert least == 1 or geometry.latent_frames(least - 1, VAE) == latents - 1


def test_every_length_has_just_enough_chunks():
    for chunk_size in (1, 3, 5, 10):
        for frames in range(1, 200):
            latents = -(-geometry.new_latents(frames, VAE) // chunk_size) * chunk_size
            assert (latents - chunk_size) // 5 * 17 < frames <= latents // 5 * 17
    assert geometry.new_latents(1440, VAE) == geometry.new_latents(1445, VAE) == 85 * 5


@pytest.mark.parametrize(("frames", "new"), [(1, 1), (4, 1), (5, 2), (80, 20), (81, 21)])
def test_behind_known_latent_frames_of_a_causal_vae_each_new_one_is_four_frames(frames, new):
    assert geometry.new_latents(frames, WanVAEConfig(), known=5) == new
    assert geometry.new_latents(frames, VAE, known=5) == geometry.new_latents(frames, VAE)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (13, 4), (17, 5), (18, 6), (22, 7), (34, 10)])
def test_a_context_ends_where_a_latent_frame_ends(frames, latents):
    assert geometry.check_context(frames, VAE) == latents


@pytest.mark.parametrize(("frames", "near"), [(2, "1 or 5"), (16, "13 or 17"), (19, "18 or 22")])
def test_a_context_that_tears_a_latent_frame_apart_is_refused(frames, near):
    with pytest.raises(ConfigError, match=f"context_frames {frames} .*use {near}"):
        geometry.check_context(frames, VAE)


def test_seconds_become_frames():
    assert geometry.seconds_to_frames(60, 24) == 1440
    assert geometry.seconds_to_frames(0.001, 24) == 1
    assert geometry.seconds_to_frames(1, 23.976) == 24


@pytest.mark.parametrize(
    "call",
    [
        lambda: geometry.seconds_to_frames(float("nan"), 24),
        lambda: geometry.seconds_to_frames(float("inf"), 24),
        lambda: geometry.seconds_to_frames(0, 24),
        lambda: geometry.seconds_to_frames(2, 0),
        lambda: geometry.new_latents(0, VAE),
        lambda: geometry.latent_frames(0, VAE),
        lambda: resolutions.resolution("241p", "9:16"),
        lambda: resolutions.resolution("240p", "9:15"),
        lambda: resolutions.resolution("256", "9:16"),
        lambda: resolutions.frame_count("3s"),
    ],
)
def test_nonsense_is_one_clear_line(call):
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value)


def test_sizes_round_down_to_latent_cells():
    assert geometry.latent_size(240, 426, VAE) == (30, 53)
    assert geometry.decoded_size(240, 426, VAE) == (240, 424)
    assert geometry.decoded_size(17, 23, tiny().vae) == (16, 22)


def test_check_size_names_the_nearest():
    geometry.check_size(240, 424, OPEN_SORA_1_2)
    geometry.check_size(18, 22, tiny())
    with pytest.raises(ConfigError, match="240x424 or 240x432"):
        geometry.check_size(240, 426, OPEN_SORA_1_2)
    with pytest.raises(ConfigError, match=r"nearest: 8x424$"):
        geometry.check_size(0, 424, OPEN_SORA_1_2)
    with pytest.raises(ConfigError, match="8x424"):
        geometry.check_size(-240, 424, OPEN_SORA_1_2)


def test_named_resolutions_are_the_references():
    expected = {
        name: {ratio: tuple(size) for ratio, size in sizes.items()}
        for name, sizes in NAMED["image_size_height_width"].items()
    }
    assert expected == resolutions.RESOLUTIONS
    for name, sizes in expected.items():
        for ratio, size in sizes.items():
            assert resolutions.resolution(name, ratio) == size


def test_named_lengths_are_the_references():
    assert NAMED["frames"] == resolutions.FRAME_COUNTS
    assert all(resolutions.frame_count(name) == frames for name, frames in NAMED["frames"].items())


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match=r"144p.*1080p.*1024"):
        resolutions.resolution("4k", "9:16")
    with pytest.raises(ConfigError, match="12:25, 1:2, 1:1, 2:1"):
        resolutions.resolution("512", "9:16")


def test_a_vae_of_sixteen_frames_in_five_latent_frames():
    """The paper's M setting: chunks of 5 latent frames are 16 frames each."""
    assert geometry.new_latents(1440, VAEConfig(micro_frames=16, micro_latents=5)) == 90 * 5


@pytest.mark.parametrize(("frames", "near"), [(4, "16"), (20, "16 or 32"), (17, "16 or 32")])
def test_of_a_vae_whose_first_latent_frame_is_padding_a_context_is_whole_clips(frames, near):
    """A shorter clip has no latent frame of padding, and those behind it would be in the wrong places."""
    vae = dataclasses.replace(VAE, micro_frames=16)
    assert geometry.first_frames(vae) == 0 and geometry.first_frames(VAE) == 1
    assert geometry.check_context(16, vae) == 5 and geometry.check_context(32, vae) == 10
    with pytest.raises(ConfigError, match=f"context_frames {frames} .*use {near}$"):
        geometry.check_context(frames, vae)
