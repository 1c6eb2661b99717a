"""The prompts of a request as features of the text encoder."""

from collections.abc import Sequence
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
      negative: float32 [b, l, d] of the negative prompts, or None: guidance leads away from the null caption.
      negative_lengths: int32 [b], or None.
    """

    features: np.ndarray
    lengths: np.ndarray
    negative: np.ndarray | None = None
    negative_lengths: np.ndarray | None = None

    def part(self, samples: slice) -> "PromptFeatures":
        """Those of some samples, as `Request.part`."""
        return PromptFeatures(*(None if array is None else array[samples] for array in self))

    def insert(self, place: int, other: "PromptFeatures") -> "PromptFeatures":
        """With the one prompt of `other` put in at a place of the timeline."""
        features = np.insert(self.features, place, other.features[:, 0], axis=1)
        return self._replace(features=features, lengths=np.insert(self.lengths, place, other.lengths[:, 0], axis=1))

    def without_first(self, count: int) -> "PromptFeatures":
        """Without the first prompts of the timeline."""
        return self._replace(features=self.features[:, count:], lengths=self.lengths[:, count:])


def encode_prompts(model: Model, request: Request, progress: bool = False) -> PromptFeatures:
    """The features of a request, from the cache or from the text encoder (see `text.features.prompt_features` for the errors)."""
    negative = list(request.negative_prompts or ())
    model = model.replace(config=request.config)
    # In one call, because the text encoder may have to be read from disk.
    features, lengths = prompt_features(model, request.texts + negative, DTYPES[request.dtype], progress)
    count, shape = len(request.texts), (request.batch, -1)
    made = PromptFeatures(features[:count].reshape(*shape, *features.shape[1:]), lengths[:count].reshape(shape))
    return made._replace(negative=features[count:], negative_lengths=lengths[count:]) if negative else made


def encode_texts(model: Model, request: Request, texts: Sequence[str]) -> PromptFeatures:
    """The features of one more prompt for each sample of a request."""
    features, lengths = prompt_features(model.replace(config=request.config), texts, DTYPES[request.dtype])
    return PromptFeatures(features[:, None], lengths[:, None])
