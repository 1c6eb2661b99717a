"""Whole training runs as processes: killed at random moments, told to stop, and continued."""

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from support.nightly import nightly
from support.tiny_model import tiny_model

from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.models.model import PARTS

STEPS, SAVE_EVERY = 20, 3
KILLS, LONG = 50, 300

CONFIG = """
import dataclasses
from pavdm_jax.config import tiny
from pavdm_jax.training.config import OptimizerConfig, ShapesData, SpatialReconstruction, Stage, TrainConfig

config = TrainConfig(
    dataclasses.replace(tiny(), height=64, width=64),
    (
        Stage(
            "spatial",
            SpatialReconstruction(),
            ShapesData(1),
            ("vae/spatial/decoder",),
            {steps},
            1,
            OptimizerConfig(3e-3, 2),
        ),
    ),
    init_from={start!r},
    save_every={save_every},
    log_every=1,
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    save_model(path / "start", tiny_model())
    for name, steps in (("config.py", STEPS), ("long.py", LONG)):
        (path / name).write_text(CONFIG.format(steps=steps, start=str(path / "start"), save_every=SAVE_EVERY))
    return path


def start(folder, name, config="config.py"):
    """A training process of a run; all share a compilation cache."""
    command = [
        sys.executable,
        "-m",
        "pavdm_jax.train",
        "--config",
        str(folder / config),
        "--output",
        str(folder / name),
    ]
    environment = {**os.environ, "PAVDM_CACHE": str(folder / "cache")}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def rows(run):
    """Lines of the log without times."""
    if not (run / "log.csv").exists():
        return []
    with (run / "log.csv").open(newline="") as file:
        return [
            [v for k, v in row.items() if k not in ("seconds", "samples_per_second")] for row in csv.DictReader(file)
        ]


def wait_for_step(process, run, step):
    """Until this process has logged a step; lines that an earlier one left behind are dropped when it begins."""
    log, began = run / "log.csv", time.time()
    until = began + 300
    while time.time() < until and process.poll() is None:
        lines = rows(run)
        if lines and log.stat().st_mtime > began and int(lines[-1][1]) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {process.communicate()}")


def saved(run):
    """The step of the newest checkpoint."""
    return max((int(path.name) for path in run.glob("stages/0-spatial/*") if path.name.isdigit()), default=0)


@nightly
def test_a_run_that_is_killed_and_stopped_ends_bit_for_bit_like_one_that_is_not(folder):
    process = start(folder, "whole")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "finished 20 steps" in said

    run, chance = folder / "cut", random.Random()
    process = start(folder, "cut")
    wait_for_step(process, run, chance.randint(1, 8))
    time.sleep(chance.uniform(0.0, 0.3))
    process.kill()
    process.communicate()
    assert int(rows(run)[-1][1]) - saved(run) <= 2 * SAVE_EVERY  # the last checkpoint may have been on its way

    if saved(run) < STEPS - 2:
        process = start(folder, "cut")
        wait_for_step(process, run, saved(run) + 1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        if not (run / "model").exists():  # else it was too late
            assert f"stopped by SIGTERM: step {saved(run)} of" in said
            newest = load(run, PARTS)  # a run that is not finished gives the averaged weights of its newest checkpoint
            jax.tree.map(np.testing.assert_array_equal, newest.params["t5"], tiny_model().params["t5"])
            decoders = [jax.tree.leaves(m.params["vae"]["spatial"]["decoder"])[0] for m in (newest, tiny_model())]
            assert np.abs(decoders[0] - decoders[1]).max() > 0

    process = start(folder, "cut")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    ours, theirs = load(run, PARTS), load(folder / "whole", PARTS)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert rows(run) == rows(folder / "whole")
    assert len(rows(run)) == STEPS
    # Two newest ones and the best are kept; which is the best is known after interruptions, too.
    kept = run / "stages" / "0-spatial"
    losses = {int(path.parts[-3]): json.loads(path.read_text())["loss"] for path in kept.glob("*/metrics/metrics")}
    assert losses.keys() == {int(path.name) for path in kept.iterdir()} >= {STEPS - 2, STEPS}
    assert losses.keys() == {int(path.name) for path in (folder / "whole" / "stages" / "0-spatial").iterdir()}
    assert f"lowest loss: {kept / str(min(losses, key=losses.get))}" in said


@nightly
def test_fifty_kills_after_finished_checkpoints_do_not_change_a_run(folder):
    _, said = (process := start(folder, "long", "long.py")).communicate(timeout=600)
    assert process.returncode == 0, said
    run, chance = folder / "often", random.Random(1)
    for kill in range(KILLS):
        process = start(folder, "often", "long.py")
        at_least = saved(run) + 1  # a checkpoint more than the one that it began with, but for its last moments
        while saved(run) < at_least:
            assert process.poll() is None, f"after {kill} kills, at step {saved(run)}: {process.communicate()}"
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
    assert saved(run) < LONG, "it was over before the last kill"
    _, said = (process := start(folder, "often", "long.py")).communicate(timeout=600)
    assert process.returncode == 0, said
    ours, theirs = load(run, PARTS), load(folder / "long", PARTS)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert rows(run) == rows(folder / "long")


def test_a_full_disk_ends_a_run_with_a_message(folder):
    """No file may grow beyond a limit, which the first checkpoint meets, as on a disk that is full."""

    process = start(folder, "full")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4000, 4000))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "error: a checkpoint could not be written to" in said and "make room and give the same command again" in said
    assert saved(folder / "full") == 0 and not (folder / "full" / "model").exists()
