"""Latents of the embedded VAE as features."""

from pathlib import Path

import numpy as np
import pytest

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.features import FeatureCollector
from pavdm_jax.evaluation.vae_network import VaeLatents


def test_three_numbers_for_each_latent_channel():
    network = VaeLatents("demo")
    assert network.name.startswith("vae_latents_")
    still = np.full((48, 64, 64, 3), 90, np.uint8)
    moving = still.copy()
    moving[np.arange(48), :, np.arange(48)] = 255  # a bright column passes
    features, other = network.features(still, 24), network.features(moving, 24)
    channels = len(features) // 3
    assert features.shape == other.shape == (3 * channels,)
    assert np.isfinite(features).all()
    assert (other[-channels:] > features[-channels:]).all()  # the latents change more
    collector = FeatureCollector(Path("short.mp4"), [network])
    with pytest.raises(ConfigError, match=r"short\.mp4: a clip of 16 frames is too short for the VAE"):
        collector.add(still[:16], 24)
