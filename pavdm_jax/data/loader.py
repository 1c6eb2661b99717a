"""Batches from a random-access source, by grain: the batch of a step depends on the seed and the step alone.

So the state of the loader is the number of the next step, which every checkpoint holds, and a resumed run goes on with
the next sample; neither the number of worker processes nor that of training processes changes what a step sees.
"""

import contextlib
import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from pavdm_jax.errors import ConfigError

ENDLESS = 2**48
"""Samples; more than any run draws."""


class Source(Protocol):
    """Samples by number. `draw` may use the generator for all that should differ between visits (cuts, paraphrases)."""

    @property
    def groups(self) -> Sequence[np.ndarray]:
        """The numbers of the samples, sorted, in groups whose samples have equal shapes; a batch is of one group."""
        ...

    @property
    def image_groups(self) -> Sequence[np.ndarray]:
        """Those of images, where the other samples are longer."""
        ...

    def __len__(self) -> int: ...

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]: ...


class Schedule:
    """Which samples each step takes, over all processes.

    An epoch shuffles every group, cuts it into whole batches (the rest waits for another epoch; a group smaller than a
    batch is repeated until it fills one), and shuffles the batches of all groups.
    """

    def __init__(self, groups: Sequence[np.ndarray], batch_size: int, seed: int):
        self.groups, self.batch_size, self.seed = groups, batch_size, seed
        self.steps = sum(max(1, len(group) // batch_size) for group in groups)
        self._epoch: tuple[int, np.ndarray] | None = None

    def __getitem__(self, step: int) -> np.ndarray:
        epoch, position = divmod(step, self.steps)
        kept = self._epoch
        if kept is None or kept[0] != epoch:
            kept = self._epoch = (epoch, self._shuffled(epoch))
        return kept[1][position]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_epoch": None}  # a worker shuffles for itself

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for group in self.groups:
            count = max(1, len(group) // self.batch_size)
            batches.append(np.resize(rng.permutation(group), (count, self.batch_size)))
        return rng.permutation(np.concatenate(batches))


class JointSchedule:
    """Steps of videos, and of images spread evenly among them: of n steps, n * share (rounded) are of images.

    The two have epochs of their own.
    """

    def __init__(self, videos: Schedule, images: Schedule, share: float):
        self.videos, self.images, self.share = videos, images, share

    def __getitem__(self, step: int) -> np.ndarray:
        before, after = int(step * self.share), int((step + 1) * self.share)  # batches of images until this step
        return self.images[before] if after > before else self.videos[step - before]


class _Sample:
    """Sample number i of this process, counted over all steps."""

    def __init__(self, source: Source, schedule: Schedule | JointSchedule, seed: int, rows: Sequence[int]):
        self.source, self.schedule, self.seed, self.rows = source, schedule, seed, rows

    def __call__(self, number: int) -> dict[str, Any]:
        step, place = divmod(number, len(self.rows))
        row = self.rows[place]
        rng = np.random.default_rng([self.seed, step, row])
        return self.source.draw(int(self.schedule[step][row]), rng)


def batches(
    source: Source,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    workers: int = 0,
    image_share: float = 0.0,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of this process.

    Args:
      source: where samples come from; each is a dict of arrays, equal in shape within a group.
      batch_size: samples of a batch, over all processes.
      seed: of the order and of `Source.draw`.
      start_step: batches to skip; they are not read.
      rows: of each batch, which are read here (`sharding.process_rows`); None: all.
      workers: processes that draw; 0: threads of this one.
      image_share: of the batches, those that are of the source's images; 0: these are not drawn.

    Raises:
      ConfigError: the source is empty, or has no images for their share; while iterating: a worker died.
    """
    if len(source) <= 0:
        raise ConfigError("the data set is empty; there is nothing to train on")
    rows = range(batch_size) if rows is None else rows
    schedule: Schedule | JointSchedule = Schedule(source.groups, batch_size, seed)
    if source.image_groups and not image_share:
        count = sum(map(len, source.image_groups))
        print(f"the data has {count} images, which are left out: image_share is 0", file=sys.stderr)
    if image_share:
        if not source.image_groups:
            raise ConfigError(f"image_share is {image_share:g}, but the data has no images beside longer clips")
        schedule = JointSchedule(schedule, Schedule(source.image_groups, batch_size, seed), image_share)
    sample = _Sample(source, schedule, seed, rows)
    whole = grain.MapDataset.range(ENDLESS).map(sample).batch(len(rows), drop_remainder=True)
    return ReadAhead(whole[start_step:], workers)


class ReadAhead:
    """Iterates a grain data set in other threads or processes, a few elements ahead; closed at the latest when the
    program ends.
    """

    def __init__(self, dataset: grain.MapDataset, workers: int = 0, buffer: int = 4):
        threads = min(buffer, 2 if workers else os.cpu_count() or 2)
        elements = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer))
        if workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain asks for a flag of its own, which is not given here
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            elements = elements.mp_prefetch(options)
        self._open = [iter(elements)]
        self.close: Callable[[], None] = weakref.finalize(self, _close, self._open)

    def __iter__(self) -> "ReadAhead":
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            element = next(self._open[0])
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise ConfigError(
                f"a worker process of the loader died ({str(error).split('.')[0]}); it may have run out of memory: use "
                "fewer workers, and run the same command again"
            ) from None
        # Out of the memory shared with a worker, which else outlives the loader and spoils the end of the program.
        return {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in element.items()}


def _close(opened: list) -> None:
    """Also lets go of it: grain's shared memory must not be what is left when the interpreter goes."""
    with contextlib.suppress(Exception):  # a worker that is dead already
        opened[0].close()
    opened.clear()
    gc.collect()
