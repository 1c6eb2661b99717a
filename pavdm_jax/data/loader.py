"""Batches from a random-access source, by grain: the batch of a step depends only on the seed and the step.

So the state of the loader is the number of the next step, which every checkpoint has, and a resumed run continues with
the next sample. The numbers of worker processes and of training processes do not change the batch of a step.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from pavdm_jax.errors import ConfigError

ENDLESS = 2**48
"""The number of samples of an endless data set: more than any run draws."""


class Source(Protocol):
    """Numbered samples. `draw` uses the generator for everything that differs between visits (cuts, captions)."""

    @property
    def groups(self) -> Sequence[np.ndarray]:
        """The numbers of the samples, sorted, in groups with equal shapes; a batch has samples of one group."""
        ...

    @property
    def image_groups(self) -> Sequence[np.ndarray]:
        """The groups of images, if other samples are longer."""
        ...

    def __len__(self) -> int: ...

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Sample number `index`: name → array or number."""
        ...


class Schedule:
    """The samples of each step, over all processes.

    In each epoch, every group is shuffled and cut into whole batches (the rest is left out of this epoch; a group that
    is smaller than a batch is repeated to fill one), and the batches of all groups are shuffled.
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
    """Draws sample number i of this process, counted over all steps."""

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
    """Endless batches for this process.

    Args:
      source: of samples, dicts of arrays that have equal shapes within a group.
      batch_size: samples of a batch, over all processes.
      seed: of the order and of `Source.draw`.
      start_step: batches to skip; they are not read.
      rows: the rows of each batch that this process reads (`distributed.placement.process_rows`); None: all.
      workers: processes that draw samples; 0: threads of this process.
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


def _follow_trainer(*_: int) -> None:
    """Of a worker: signals that reach all processes of a terminal or a job are for the one that trains, and the worker
    ends when that one does, however it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class ReadAhead:
    """Iterates over a grain data set in other threads or processes, a few elements ahead.

    It is closed by `close`, or when it is deleted, or when the program ends.

    Args:
      dataset: the data set.
      workers: processes; 0: threads of this process.
      buffer: elements that are read ahead.
    """

    def __init__(self, dataset: grain.MapDataset, workers: int = 0, buffer: int = 4):
        threads = min(buffer, 2 if workers else os.cpu_count() or 2)
        elements = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer))
        if workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain asks for a flag of its own, which is not given here
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            elements = elements.mp_prefetch(options, _follow_trainer)
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
        # Copies: memory that is shared with a worker must not outlive the loader, or the program ends with errors.
        return {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in element.items()}


def _close(opened: list) -> None:
    """Close and delete the iterator; grain's shared memory must be released before the interpreter exits."""
    with contextlib.suppress(Exception):  # a worker that is dead already
        opened[0].close()
    opened.clear()
    gc.collect()
