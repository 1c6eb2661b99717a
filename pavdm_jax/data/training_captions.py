"""The captions of training data, on which a tokenizer is trained when a run starts from random weights."""

from collections.abc import Sequence

import numpy as np

from pavdm_jax.data.clips import open_clips
from pavdm_jax.data.config import Data, LatentData, ShapesData, TfdsData, VideoData
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.manifest import read_manifest
from pavdm_jax.data.shapes_world import sample_captions
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.text.captions import clean, complete

SHAPES_CAPTIONS = 4000
"""The number of captions of a shapes world; every word of its grammar occurs in them."""

CAPTIONS = 100_000
"""The most captions of a manifest or of latents, evenly distributed over it."""

TFDS_EXAMPLES = 4000
"""The most examples of a TFDS data set, because each caption is read together with its video."""


def training_captions(stages: Sequence[Data], model: AnyModelConfig, seed: int) -> list[str]:
    """The captions of the data of a run's stages, completed and cleaned; data of several stages counts once.

    Args:
      stages: the data of each.
      model: for its videos' size and rate.
      seed: of the captions of the shapes world, which are drawn.

    Raises:
      ConfigError: data cannot be opened.
    """
    captions = []
    for world in dict.fromkeys(data.world for data in stages if isinstance(data, ShapesData)):
        captions += sample_captions(np.random.default_rng(seed), SHAPES_CAPTIONS, split="train", world=world)
    for manifest in dict.fromkeys(data.manifest for data in stages if isinstance(data, VideoData)):
        captions += [clean(row.caption, model.text) for row in _evenly(read_manifest(manifest), CAPTIONS)]
    for folder in dict.fromkeys(data.folder for data in stages if isinstance(data, LatentData)):
        cache = LatentCache(folder)
        captions += [text for index in _evenly(range(len(cache)), CAPTIONS) for text in cache.about(index)["captions"]]
    for data in dict.fromkeys(data for data in stages if isinstance(data, TfdsData)):
        clips = open_clips(data, model)
        captions += [text for index in _evenly(range(len(clips)), TFDS_EXAMPLES) for text in clips.captions(index)]
    return [complete(caption, model.text) for caption in captions]


def _evenly(items: Sequence, most: int) -> Sequence:
    return items[:: -(-len(items) // most) or 1]
