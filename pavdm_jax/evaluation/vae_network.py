"""Features of this project's own VAE for Fréchet distances, where no network that was trained on videos is at hand.

The distance is between sets of latents of one VAE. It is no FVD, and can be compared for one VAE only.
"""

import hashlib

import jax
import numpy as np

from pavdm_jax.checkpoints.load import load
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import encode_frames
from pavdm_jax.video.images import resize_crop


class VaeLatents:
    """Of each channel of a clip's latents the mean, the deviation, and the mean change between latent frames.

    Attributes:
      name: "vae_latents_" and eight digits of the weights' hash, so that features of two VAEs never meet.
    """

    def __init__(self, checkpoint: str):
        self._model = load(checkpoint, ("vae",))
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self._model.params["vae"]):
            digest.update(np.asarray(leaf, np.float32).tobytes())
        self.name = f"vae_latents_{digest.hexdigest()[:8]}"

    def features(self, clip: np.ndarray, fps: float) -> np.ndarray:
        """Three numbers for each latent channel, of as many whole groups of frames as the clip has."""
        config = self._model.config
        micro = config.vae.still_frames
        if len(clip) < micro:
            raise ConfigError(f"a clip of {len(clip)} frames is too short for the VAE, which encodes {micro} at once")
        frames = resize_crop(clip[: len(clip) // micro * micro], config.height, config.width)
        groups = [
            np.asarray(encode_frames(self._model.params["vae"], group[None], config=config)[0], np.float64)
            for group in np.split(frames, len(frames) // micro)
        ]
        latents = np.concatenate(groups)
        change = np.abs(np.diff(latents, axis=0)).mean(axis=(0, 1, 2))
        return np.concatenate([latents.mean(axis=(0, 1, 2)), latents.std(axis=(0, 1, 2)), change])
