"""The frozen encoders of training: clips to latents, and captions to features."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from pavdm_jax.distributed.mesh import MeshConfig, make_mesh, use_mesh
from pavdm_jax.distributed.placement import on_first_device, place_replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import Model
from pavdm_jax.models.networks import networks
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.text.captions import complete


class Encoder:
    """The VAE's encoder and the text encoder of a model, compiled; results are float16, as they are stored on disk.

    All devices of this process share the frames of a clip; captions are read by the first.

    Args:
      model: with the parts that are used: "vae", and "t5" for `features`.
      text_dtype: in which the text encoder computes.
    """

    def __init__(self, model: Model, text_dtype: DTypeLike = jnp.float32):
        self.model, self.text_dtype = model, jnp.dtype(text_dtype)
        # On the accelerators; the text encoder, which may be large, only when it is used.
        self._mesh = make_mesh(MeshConfig(sequence=jax.local_device_count()), jax.local_devices())
        self._vae = place_replicated(model.params["vae"], self._mesh)
        encode = networks(model.config).encode
        t5: Any = T5Encoder(model.config.t5, text_dtype)
        self._encode = jax.jit(
            lambda params, frames: encode(params, frames.astype(np.float32) / 127.5 - 1.0).astype(np.float16)
        )
        self._read = jax.jit(lambda params, ids, lengths: t5.apply({"params": params}, ids, lengths).astype(np.float16))

    @functools.cached_property
    def _t5(self) -> dict:
        return jax.device_put(self.model.params["t5"], on_first_device())

    def latents(self, frames: np.ndarray) -> jax.Array:
        """Posterior means, float16 `[b, t, h, w, c]`, of uint8 `[b, f, h, w, 3]`."""
        with use_mesh(self._mesh):
            return self._encode(self._vae, frames)

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Features of captions, completed as prompts are: float16 `[l, d]` for each, without padding.

        Raises:
          ConfigError: the model has no tokenizer.
        """
        if self.model.tokenizer is None:
            raise ConfigError("the model has no tokenizer, without which captions cannot be read")
        text = self.model.config.text
        ids, lengths = self.model.tokenizer.tokenize([complete(caption, text) for caption in captions], text.max_tokens)
        features = np.asarray(self._read(self._t5, ids, lengths))
        return [padded[:length] for padded, length in zip(features, lengths, strict=True)]
