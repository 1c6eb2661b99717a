"""How far each system's videos are from reference videos: Fréchet distances for every network that has seen both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.frechet import RESAMPLES, FrechetDistance, frechet_distance
from pavdm_jax.evaluation.frechet_networks import PROTOCOLS
from pavdm_jax.evaluation.networks import FRECHET_FRAMES
from pavdm_jax.evaluation.vbench_long import NETWORKS

Features = Mapping[str, np.ndarray]
"""Of a video: by network, its output for each clip."""


@dataclass(frozen=True)
class Refused:
    """No distance, and why."""

    refused: str


def reference_distances(
    systems: Mapping[str, Sequence[Features]], reference: Sequence[Features]
) -> dict[str, dict[str, FrechetDistance | Refused]]:
    """By system and network, the distance between the clips of its videos and those of the reference.

    Videos that a network has not seen are left out.
    """
    of_reference = _vectors(reference)
    return {
        system: {
            network: _distance(videos, of_reference[network])
            for network, videos in _vectors(features).items()
            if network in of_reference
        }
        for system, features in systems.items()
    }


def check_reference(reference: Sequence[Features]) -> None:
    """`ConfigError` if no network has seen the reference videos."""
    if not _vectors(reference):
        raise ConfigError(
            "no network has seen the reference videos; name one with --networks, such as videomae_vit_g_ssv2, or give "
            "--i3d or --vae"
        )


def _vectors(videos: Sequence[Features]) -> dict[str, list[np.ndarray]]:
    """By network that gives a vector for each clip, its outputs for all videos `[clips, d]`; VBench's are none."""
    names = dict.fromkeys(name for features in videos for name in features if name not in NETWORKS)
    of = {name: [features[name] for features in videos if name in features] for name in names}
    return {name: outputs for name, outputs in of.items() if all(output.ndim == 2 for output in outputs)}


def _distance(videos: list[np.ndarray], reference: list[np.ndarray]) -> FrechetDistance | Refused:
    try:
        return frechet_distance(videos, reference)
    except ConfigError as error:
        return Refused(str(error))


def distance_protocol(network: str) -> str:
    """What the distance of a network's features is, for the file of scores."""
    if network in PROTOCOLS:
        what = f"{PROTOCOLS[network]}; {FRECHET_FRAMES} frames of each clip of two seconds, every third at 24 fps"
    elif network.startswith("vae_latents_"):
        what = "not FVD: mean, deviation and change of the latents of a VAE of this project, whose hash is in the name"
    else:
        what = "features of this name from files beside the videos"
    return (
        f"Frechet distance of Gaussians, population covariance; {what}; 95 % basic bootstrap over videos, "
        f"{RESAMPLES} resamples"
    )
