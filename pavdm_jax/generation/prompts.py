"""The prompts of a request as features of the text encoder."""

from typing import NamedTuple

import numpy as np

from pavdm_jax.generation.request import Request
from pavdm_jax.models.model import DTYPES, Model
from pavdm_jax.text.features import prompt_features


class PromptFeatures(NamedTuple):
    """T5 features of every prompt of every sample.

    Attributes:
      features: float32 [b, p, l, d], zero behind the tokens.
      lengths: int32 [b, p], tokens.
    """

    features: np.ndarray
    lengths: np.ndarray

    def part(self, samples: slice) -> "PromptFeatures":
        """Those of some samples, as `Request.part`."""
        return PromptFeatures(self.features[samples], self.lengths[samples])


def encode_prompts(model: Model, request: Request, progress: bool = False) -> PromptFeatures:
    """The features of a request, from the cache or from the text encoder (see `text.features.prompt_features` for the errors)."""
    features, lengths = prompt_features(model, request.texts, DTYPES[request.dtype], progress)
    shape = (request.batch, -1)
    return PromptFeatures(features.reshape(*shape, *features.shape[1:]), lengths.reshape(shape))
