"""The samples of training stages: pixels for the VAE; latents and captions for the transformer.

Latents come from a cache, or are encoded for every batch.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pavdm_jax.checkpoints.fingerprint import fingerprint, text_fingerprint, vae_fingerprint
from pavdm_jax.config import TextConfig
from pavdm_jax.data.check import check_latents, check_length
from pavdm_jax.data.clips import Clips, open_clips
from pavdm_jax.data.config import Data, LatentData, VideoData
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.latent_cache import LatentCache, cache_identity
from pavdm_jax.data.latent_writer import CacheOptions, write_cache
from pavdm_jax.data.loader import Source
from pavdm_jax.distributed.processes import check_agreed, on_first
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.geometry import latent_frames
from pavdm_jax.models.model import Model
from pavdm_jax.models.tokenizer import Tokenizer
from pavdm_jax.text.captions import clean, complete, is_blank

ATTEMPTS = 100
"""The number of unreadable clips in a row after which reading fails."""


def equal_rows(rows: np.ndarray) -> list[np.ndarray]:
    """The numbers of equal rows: a sorted array for each different row of `rows` `[n, ...]`."""
    if not np.ptp(rows, axis=0).any():  # quick for a million equal rows
        return [np.arange(len(rows))]
    kinds, kind = np.unique(rows, axis=0, return_inverse=True)
    return [np.flatnonzero(kind.ravel() == k) for k in range(len(kinds))]


def split_images(shapes: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """`equal_rows` of shapes (frames, ...): those of videos and, where there are longer clips, those of one frame."""
    groups = equal_rows(shapes)
    longest = max(int(shapes[group[0], 0]) for group in groups)
    of_images = [1 == shapes[group[0], 0] < longest for group in groups]
    pairs = list(zip(groups, of_images, strict=True))
    return [group for group, images in pairs if not images], [group for group, images in pairs if images]


class _Readable:
    """Reads clips, and instead of one that cannot be read, the next one of its shape.

    Unreadable clips are reported once.
    """

    def __init__(self, clips: Clips):
        self.clips, self.groups = clips, equal_rows(clips.shapes)
        self.skipped: dict[str, str] = {}

    def read(self, index: int, first: int, count: int) -> tuple[int, np.ndarray]:
        """The number of the clip that was read, and its frames, uint8 `[f, h, w, 3]`."""
        failed: set[str] = set()  # of this call alone: what is read must not depend on what was read before
        for tried, other in enumerate(self._candidates(index, failed), 1):
            try:
                return other, self.clips.frames(other, first, count)
            except ConfigError as error:
                self._report(self.clips.name(other), str(error))
                last = error
            failed.add(self.clips.name(other))
            if tried == ATTEMPTS:
                break
        raise ConfigError(f"no clip could be read, {tried} tries in a row; the last: {last}")

    def _candidates(self, index: int, failed: set[str]) -> Iterator[int]:
        """The clips to be tried for clip `index`; of files that have failed by then, of which there may be thousands,
        only after those of all others."""
        waiting = []
        for other in self._from(index):
            if self.clips.name(other) in failed:
                waiting.append(other)
            else:
                yield other
        yield from waiting

    def _from(self, index: int) -> Iterator[int]:
        """The clips with the shape of clip `index`, beginning with it, and cyclically."""
        yield index
        group = next(group for group in self.groups if index in group)
        place = int(np.searchsorted(group, index))
        yield from (int(group[(place + step) % len(group)]) for step in range(1, len(group)))

    def _report(self, name: str, reason: str) -> None:
        if name not in self.skipped:
            self.skipped[name] = reason
            print(f"skipped (the {len(self.skipped)}. clip): {printable(reason)}", file=sys.stderr, flush=True)


class PixelSource:
    """Samples of the VAE's stages, whole clips: `{"frames": uint8 [f, h, w, 3]}`."""

    def __init__(self, clips: Clips):
        self.readable = _Readable(clips)
        self.groups, self.image_groups = split_images(clips.shapes)

    def __len__(self) -> int:
        return len(self.readable.clips)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        clips = self.readable.clips
        _, frames = self.readable.read(index, int(rng.integers(clips.starts)), int(clips.shapes[index, 0]))
        return {"frames": frames}


@dataclass(frozen=True)
class Cut:
    """What the transformer's stages take of a clip: `chunks` chunks, from a random one on, and one of its captions as
    token ids; of an image, its one latent frame.

    Attributes:
      chunks: of a sample.
      chunk_size: latent frames of a chunk.
      micro_latents: latent frames of a micro clip, `VAEConfig.micro_latents`.
      tokenizer: of the model's text encoder.
      text: how captions are completed and tokenised.
    """

    chunks: int
    chunk_size: int
    micro_latents: int
    tokenizer: Tokenizer
    text: TextConfig

    @property
    def latents(self) -> int:
        """Latent frames of a sample."""
        return self.chunks * self.chunk_size

    @property
    def micro_clips(self) -> int:
        """Micro clips that hold a sample wherever it begins, which may be inside of one."""
        latest = self.micro_latents - math.gcd(self.chunk_size, self.micro_latents)
        return -(-(latest + self.latents) // self.micro_latents)

    def draw_first(self, latents: int, rng: np.random.Generator) -> int:
        """The first latent frame of a sample, of a clip of so many; an image has nothing to choose.

        A micro clip that the clip does not fill is left out, unless the sample would not fit then.
        """
        whole = latents - latents % self.micro_latents
        usable = whole if whole >= self.latents else latents
        return int(rng.integers(usable // self.chunk_size - self.chunks + 1)) * self.chunk_size if latents > 1 else 0

    def draw_caption(self, captions: list[str], rng: np.random.Generator) -> tuple[int, dict[str, np.ndarray]]:
        """The number of a random caption, and its `ids` int32 `[l]` with their `length`."""
        number = int(rng.integers(len(captions)))
        ids, lengths = self.tokenizer.tokenize([complete(captions[number], self.text)], self.text.max_tokens)
        return number, {"ids": ids[0], "length": lengths[0]}


class LatentSource:
    """Samples from a cache: `{"latents": float32 [t, h, w, c], "ids": int32 [l], "length": int32, "fps": float32}`.

    With `features`, they also have the text encoder's `{"features": float32 [l, d]}`, zero at the padding.
    """

    def __init__(self, cache: LatentCache, cut: Cut, features: bool = False):
        self.cache, self.cut, self.features = cache, cut, features
        of_a_sample = np.minimum(cache.shapes[:, :1], cut.latents)
        self.groups, self.image_groups = split_images(np.hstack([of_a_sample, cache.shapes[:, 1:]]))

    def __len__(self) -> int:
        return len(self.cache)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        available = int(self.cache.shapes[index, 0])
        first = self.cut.draw_first(available, rng)
        latents = self.cache.latents(index, first, min(first + self.cut.latents, available))
        about = self.cache.about(index)
        number, sample = self.cut.draw_caption(about["captions"], rng)
        sample |= {"latents": latents.astype(np.float32), "fps": np.float32(about["fps"])}
        if self.features:
            features = self.cache.features(index, number)
            sample["features"] = np.zeros((self.cut.text.max_tokens, features.shape[1]), np.float32)
            sample["features"][: len(features)] = features
        return sample


class UncachedSource:
    """The same samples as `LatentSource`, but with pixels, which `encoded` turns into latents: the `frames` of whole
    micro clips, of whose latents the sample begins at the `first`."""

    def __init__(self, clips: Clips, cut: Cut, model: AnyModelConfig):
        self.readable, self.cut = _Readable(clips), cut
        self.groups, self.image_groups = split_images(clips.shapes)
        self.vae = model.vae

    def __len__(self) -> int:
        return len(self.readable.clips)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        available, vae, count = int(self.readable.clips.shapes[index, 0]), self.vae, self.cut.micro_clips
        first = self.cut.draw_first(latent_frames(available, vae), rng)
        start = min(first // vae.micro_latents, max(0, available // vae.micro_frames - count))  # the first micro clip
        index, frames = self.readable.read(index, start * vae.micro_frames, min(count * vae.micro_frames, available))
        _, sample = self.cut.draw_caption(self.readable.clips.captions(index), rng)
        sample |= {"first": np.int32(first - start * vae.micro_latents), "frames": frames}
        return sample | {"fps": np.float32(self.readable.clips.fps(index))}


def encoded(encoder: Encoder, length: int, batch: dict) -> dict:
    """A batch of `UncachedSource` with `length` latents (of images, one) instead of frames, rounded to float16 as in a
    cache.
    """
    rest = {name: value for name, value in batch.items() if name not in ("frames", "first")}
    latents = encoder.latents(batch["frames"]).astype(np.float32)
    length = min(length, latents.shape[1])
    cut = jax.vmap(functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=length))
    return rest | {"latents": cut(latents, batch["first"])}


# --- from a config ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Feed:
    """A source, its worker processes, and a function of its batches that runs in the training process."""

    source: Source
    workers: int = 0
    finish: Callable[[dict], dict] = dict


def open_feed(
    data: Data,
    model: Model,
    clip_chunks: int | None,
    folder: Path,
    text_is_frozen: bool = False,
) -> Feed:
    """The samples of a stage, for any kind of data.

    A cache of latents that is missing or incomplete is written first, by all processes together.

    Args:
      data: of the stage.
      model: whose encoders are used.
      clip_chunks: chunks of a sample of latents; None for a stage that works on pixels.
      folder: in which caches of latents are kept, each in a folder of its own.
      text_is_frozen: the stage does not train the text encoder, so cached caption features may be used.

    Raises:
      ConfigError: the data cannot be read, or does not fit the model.
    """
    if clip_chunks is None:
        return Feed(PixelSource(agreed_clips(data, model.config)), data.workers)
    if model.tokenizer is None:
        raise ConfigError("the model has no tokenizer, without which captions cannot be read")
    window, vae = model.config.window, model.config.vae
    cut = Cut(clip_chunks, window.chunk_size, vae.micro_latents, model.tokenizer, model.config.text)
    if isinstance(data, LatentData):
        cache = LatentCache(data.folder)
        cache.check({"vae": vae_fingerprint(model)})
        features = cache.has_features and text_is_frozen
        if features:
            cache.check({"text": text_fingerprint(model)})
        check_latents(cache, cut.latents, model.config)
        return Feed(LatentSource(cache, cut, features))
    clips = agreed_clips(data, model.config)
    check_length(clips.frames_of_a_clip, cut.latents, model.config)
    encoder = Encoder(model)
    if not data.cache:
        finish = functools.partial(encoded, encoder, cut.latents)
        return Feed(UncachedSource(clips, cut, model.config), data.workers, finish)
    identity = fingerprint(cache_identity(clips, model))
    folder = folder / f"latents-{identity}"
    options = CacheOptions(workers=data.workers)
    write_cache(clips, encoder, folder, options, jax.process_index(), jax.process_count())
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"latents {identity}")
    return Feed(LatentSource(LatentCache(folder), cut))


def agreed_clips(data: Data, model: AnyModelConfig) -> Clips:
    """The clips of the data, of which every process has the same: each takes its rows of a batch by their numbers."""
    if jax.process_count() > 1:  # so that files are looked into once, and not by every process
        on_first(functools.partial(open_clips, data, model))
    clips = open_clips(data, model)
    check_agreed("clips in the data", clips.identity)
    if jax.process_index() == 0 and isinstance(data, VideoData):
        check_captions(clips, model.text)
    return clips


LOOKED_AT = 10_000
"""The most clips of which captions are looked at before a training, a second's work."""


def check_captions(clips: Clips, config: TextConfig) -> None:
    """Refuse captions of which cleaning leaves nothing: without a word, a training would teach nothing of them.

    Raises:
      ConfigError: there is one; the message names the clip.
    """
    for index in range(0, len(clips), -(-len(clips) // LOOKED_AT)):
        for caption in clips.captions(index):
            if is_blank(clean(caption, config)):
                name = clips.name(index)
                raise ConfigError(f"nothing is left of the caption of {name} when cleaned; write it in English words")
