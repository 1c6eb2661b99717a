"""The prompts of a request as features of the text encoder."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pavdm_jax.generation.request import Request
from pavdm_jax.models.model import DTYPES, Model
from pavdm_jax.text.features import prompt_features


class PromptFeatures(NamedTuple):
    """T5 features of every prompt of every sample: p prompts each, those of its timeline.

    Attributes:
      features: float32 [b, p, l, d], zero at the padding tokens.
      lengths: int32 [b, p], tokens of each prompt.
      negative: float32 [b, l, d] of the negative prompts, or None: guidance leads away from the null caption.
      negative_lengths: int32 [b], tokens of the negative prompts, or None.
    """

    features: np.ndarray
    lengths: np.ndarray
    negative: np.ndarray | None = None
    negative_lengths: np.ndarray | None = None

    def part(self, samples: slice) -> "PromptFeatures":
        """The features of some of the samples, as `Request.part`."""
        if self.negative is None or self.negative_lengths is None:
            return PromptFeatures(self.features[samples], self.lengths[samples])
        return PromptFeatures(
            self.features[samples], self.lengths[samples], self.negative[samples], self.negative_lengths[samples]
        )

    def insert(self, place: int, other: "PromptFeatures") -> "PromptFeatures":
        """These features with the first prompt of `other` inserted before number `place` of the timeline."""
        features = np.insert(self.features, place, other.features[:, 0], axis=1)
        return self._replace(features=features, lengths=np.insert(self.lengths, place, other.lengths[:, 0], axis=1))

    def without_first(self, count: int) -> "PromptFeatures":
        """These features without the first `count` prompts of the timeline."""
        return self._replace(features=self.features[:, count:], lengths=self.lengths[:, count:])


def encode_prompts(model: Model, *requests: Request, progress: bool = False) -> list[PromptFeatures]:
    """The features of each request, from the cache or from the text encoder, which is read once for all of them.

    Args:
      model: see `text.features.prompt_features`.
      requests: at least one, of the same model, and with the same scores and dtype.
      progress: show a bar when reading the text encoder takes long.

    Raises:
      ConfigError: see `text.features.prompt_features`.
    """
    first = requests[0]
    texts = [text for request in requests for text in request.texts]
    negative = [text for request in requests for text in request.negative_prompts or ()]
    features, lengths = prompt_features(
        model.replace(config=first.config), texts, DTYPES[first.dtype], progress, negative
    )
    encoded, at, negative_at = [], 0, len(texts)
    for request in requests:
        rows, shape = slice(at, at := at + len(request.texts)), (request.batch, -1)
        made = PromptFeatures(features[rows].reshape(*shape, *features.shape[1:]), lengths[rows].reshape(shape))
        if request.negative_prompts:
            rows = slice(negative_at, negative_at := negative_at + request.batch)
            made = made._replace(negative=features[rows], negative_lengths=lengths[rows])
        encoded.append(made)
    return encoded


def encode_texts(model: Model, request: Request, texts: Sequence[str]) -> PromptFeatures:
    """The features of one more prompt for each sample of a request, with a timeline axis of length 1.

    Raises:
      ConfigError: see `text.features.prompt_features`.
    """
    features, lengths = prompt_features(model.replace(config=request.config), texts, DTYPES[request.dtype])
    return PromptFeatures(features[:, None], lengths[:, None])
