"""Batches from a random-access source, by grain: the batch of a step depends on the step alone, so a resumed run goes on where it was."""

from collections.abc import Iterator
from typing import Any, Protocol

import grain
import numpy as np


class Source(Protocol):
    """Samples by number. `draw` may use the generator for all that should differ between visits (crops, paraphrases)."""

    def __len__(self) -> int: ...

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]: ...


def batches(source: Source, batch_size: int, seed: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches: the samples of an epoch in a shuffled order, then the next epoch in another.

    Args:
      source: where samples come from; each is a dict of arrays that stack.
      batch_size: samples of a batch.
      seed: of the order and of `Source.draw`.
      start_step: batches to skip; they are not computed.
    """
    samples = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(source.draw)
        .batch(batch_size, drop_remainder=True)
    )
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(samples[start_step:].to_iter_dataset(options))
