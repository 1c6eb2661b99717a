"""Where training samples come from: clips of the shapes world, and latents that were computed once."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pavdm_jax.config import require
from pavdm_jax.data import shapes_world
from pavdm_jax.text import Tokenizer
from pavdm_jax.train_config import ShapesData

CAPTIONS_OF_A_CLIP = 4
"""Paraphrases kept beside the latents of a clip; each visit reads one of them."""


class ShapesClips:
    """Pixel clips of the shapes world: `{"frames": uint8 [f, h, w, 3]}` of scene number `index`."""

    def __init__(self, data: ShapesData, canvas: int):
        self.data, self.canvas = data, canvas

    def __len__(self) -> int:
        return self.data.samples

    def scene(self, index: int) -> shapes_world.Scene:
        return shapes_world.sample_scene(np.random.default_rng([self.data.seed, index]), self.canvas, split="train")

    def frames(self, index: int, first_frame: int = 0) -> np.ndarray:
        return shapes_world.render(self.scene(index), self.data.frames, self.canvas, first_frame=first_frame)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A clip that starts anywhere in the scene's first ten seconds."""
        return {"frames": self.frames(index, int(rng.integers(240)))}


class LatentClips:
    """Cached latents with captions: `{"latents": float32 [t, h, w, c], "ids": int32 [l], "length": int32}`.

    Args:
      folder: written by `precompute`.
      clip_latents: latent frames of a sample; longer cached clips are cut at a random chunk.
      chunk_size: latent frames of a chunk.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, max_tokens: int, clip_latents: int, chunk_size: int):
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.captions = json.loads((folder / "captions.json").read_text())
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.clip_latents, self.chunk_size = clip_latents, chunk_size
        require(
            clip_latents <= self.latents.shape[1],
            f"the cached clips in {folder} have {self.latents.shape[1]} latent frames; {clip_latents} are needed",
        )

    def __len__(self) -> int:
        return len(self.latents)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        spare_chunks = (self.latents.shape[1] - self.clip_latents) // self.chunk_size
        start = int(rng.integers(spare_chunks + 1)) * self.chunk_size
        caption = self.captions[index][int(rng.integers(len(self.captions[index])))]
        ids, lengths = self.tokenizer.tokenize([caption], self.max_tokens)
        latents = np.asarray(self.latents[index, start : start + self.clip_latents], np.float32)
        return {"latents": latents, "ids": ids[0], "length": lengths[0]}


def precompute(
    source: ShapesClips, encode: Callable[[np.ndarray], np.ndarray], folder: Path, progress: Callable
) -> None:
    """Encode every clip of `source` from its first frame, and keep latents (float16) and captions in `folder`.

    An interrupted call is continued by the next one; `latents.npy` has its name only when it is whole.

    Args:
      encode: uint8 `[1, f, h, w, 3]` → latents `[1, t, h, w, c]`.
      progress: wraps the iterator of clip numbers (a progress bar).
    """
    if (folder / "latents.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    done, partial = folder / "done.txt", folder / "latents.partial.npy"
    first = encode(source.frames(0)[None])[0]
    start = int(done.read_text()) if done.exists() and partial.exists() else 0
    mode = "r+" if start else "w+"
    latents = np.lib.format.open_memmap(partial, mode, np.float16, (len(source), *first.shape))
    for index in progress(range(start, len(source))):
        latents[index] = encode(source.frames(index)[None])[0]
        if (index + 1) % 100 == 0:
            latents.flush()
            _write(done, str(index + 1))
    latents.flush()
    _write(folder / "captions.json", json.dumps([_paraphrases(source, index) for index in range(len(source))]))
    os.replace(partial, folder / "latents.npy")
    done.unlink(missing_ok=True)


def _paraphrases(source: ShapesClips, index: int) -> list[str]:
    rng = np.random.default_rng([source.data.seed, index, 1])
    return [shapes_world.caption(source.scene(index), rng) for _ in range(CAPTIONS_OF_A_CLIP)]


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    os.replace(beside, path)
