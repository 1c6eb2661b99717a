"""Batches: order, resuming, processes, workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pavdm_jax.data.loader import Schedule, batches
from pavdm_jax.errors import ConfigError


class Numbers:
    """A source of its own numbers, in groups of 40 and 7."""

    groups = (np.arange(40), np.arange(40, 47))
    image_groups = ()

    def __len__(self):
        return 47

    def draw(self, index, rng):
        return {"number": np.asarray(index), "random": rng.random(), "process": np.asarray(os.getpid())}


def take(feed, count):
    return [next(feed) for _ in range(count)]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a["number"], b["number"])
        np.testing.assert_array_equal(a["random"], b["random"])


def test_batches_go_on_from_any_step():
    whole = take(batches(Numbers(), 4, seed=3), 30)
    same(take(batches(Numbers(), 4, seed=3, start_step=17), 13), whole[17:])
    other = take(batches(Numbers(), 4, seed=4), 30)
    assert any((a["number"] != b["number"]).any() for a, b in zip(whole, other, strict=True))


def test_an_epoch_visits_each_sample_once_and_a_batch_has_one_group():
    epoch = [batch["number"] for batch in take(batches(Numbers(), 4, seed=0), 11)]
    assert sorted(np.concatenate([b for b in epoch if b[0] < 40])) == list(range(40))
    assert all(len({number < 40 for number in batch}) == 1 for batch in epoch)
    assert len(Schedule([np.arange(3)], 8, 0)[5]) == 8  # fewer samples than a batch: repeated


def test_processes_read_disjoint_parts_of_the_same_batches():
    whole = take(batches(Numbers(), 4, seed=1), 15)
    parts = [take(batches(Numbers(), 4, seed=1, rows=rows), 15) for rows in ([0, 1], [2, 3])]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts, strict=True)]
    same(joined, whole)
    assert not set(parts[0][0]["number"]) & set(parts[1][0]["number"])


def test_workers_change_nothing_and_a_dead_one_is_an_error():
    feed = batches(Numbers(), 4, seed=3, start_step=2, workers=1)
    found = take(feed, 3)
    same(found, take(batches(Numbers(), 4, seed=3, start_step=2), 3))
    worker = int(found[0]["process"][0])
    assert worker != os.getpid()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(ConfigError, match="a worker process of the loader died"):
        take(feed, 50)
    feed.close()


def test_an_empty_source_is_refused():
    class Empty(Numbers):
        def __len__(self):
            return 0

    with pytest.raises(ConfigError, match="the data set is empty"):
        batches(Empty(), 1, seed=0)


LEAVES = """
import multiprocessing
import os
import signal

import grain

from pavdm_jax.data.loader import ReadAhead

if __name__ == "__main__":
    elements = ReadAhead(grain.MapDataset.range(1000).map(lambda number: {"number": number}), workers=1)
    next(elements)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)  # which reaches all processes of a job
    for _ in range(300):
        next(elements)
    print(worker.pid, flush=True)
    os._exit(1)
"""


def test_a_worker_survives_signals_and_ends_with_a_trainer_that_is_killed(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    done = subprocess.run([sys.executable, tmp_path / "leaves.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    status = Path("/proc") / done.stdout.strip() / "status"
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.2)
    raise AssertionError("the worker is there still")
