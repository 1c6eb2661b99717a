"""Runs of several processes on this machine: they train together, end together, and go on in another number."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from support.nightly import nightly
from support.small_videos import gradient, write_csv, write_video
from support.tiny_model import SHAPES, tiny_model

from pavdm_jax import train
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.distributed import processes
from pavdm_jax.errors import ConfigError
from pavdm_jax.training import loop

STEPS, SAVE_EVERY, BATCH = 12, 3, 4

CONFIG = """
from pavdm_jax.config import *
from pavdm_jax.training.config import OptimizerConfig, ShapesData, Stage, TrainConfig, UniformDiffusion

optimizer = OptimizerConfig(3e-3, 2, epsilon=1e-3)
config = TrainConfig(
    {model!r},
    (Stage("base", UniformDiffusion(1), ShapesData(17, samples=6), ("stdit3/blocks",), {steps}, {batch}, optimizer),),
    init_from={start!r},
    save_every={save_every},
    keep=100,
    log_every=1,
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A config file, and `one`, the run of one process."""
    path = tmp_path_factory.mktemp("runs")
    save_model(path / "start", tiny_model(SHAPES))
    text = CONFIG.format(model=SHAPES, steps=STEPS, batch=BATCH, start=str(path / "start"), save_every=SAVE_EVERY)
    (path / "config.py").write_text(text)
    loop.fit(train.read(["--config", str(path / "config.py"), "--output", str(path / "one")])[1])
    return path


def start(folder, name, count, *options):
    """The processes of a run."""
    return start_module("train", count, "--config", folder / "config.py", "--output", folder / name, *options)


def start_module(module, count, *options):
    """Processes of a command line, each with one CPU device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", f"pavdm_jax.{module}", "--distributed", *map(str, options)]
    given = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **given, "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]


def finish(started, seconds=300):
    """What each process said."""
    try:
        return [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            process.kill()


def wait_for_step(run, step, process, seconds=300):
    """Until the log has a step, or a process of the run is at its end."""
    until = time.time() + seconds
    while (log(run) or [(0,)])[-1][0] < step and time.time() < until and process.poll() is None:
        time.sleep(0.02)


def log(run):
    if not (run / "log.csv").exists():
        return []
    with (run / "log.csv").open(newline="") as file:
        return [(int(row["step"]), float(row["loss"]), float(row["grad_norm"])) for row in csv.DictReader(file)]


def same_result(run, other):
    assert [line[0] for line in log(run)] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(log(run), log(other), rtol=1e-4)
    ours, theirs = (load(path).params["stdit3"] for path in (run, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)


@nightly
@pytest.mark.parametrize("later", [2, 4])
def test_a_run_whose_process_dies_or_is_told_to_stop_goes_on_in_another_number(folder, later):
    name = f"two, then {later}"
    run = folder / name
    first, second = start(folder, name, 2)
    wait_for_step(run, SAVE_EVERY + 2, first)
    second.kill()
    killed = time.time()
    said, _ = finish([first, second])
    assert first.returncode == 1, said
    assert time.time() - killed < 60
    assert "error: process 0 of 2 stops, because another one is gone" in said
    assert "start all of them again" in said.strip().splitlines()[-1]
    assert len(log(run)) < STEPS and not (run / "model").exists()

    started = start(folder, name, later)
    wait_for_step(run, 2 * SAVE_EVERY + 1, started[0])
    started[-1].send_signal(signal.SIGTERM)  # one process is told, all of them stop after the same step
    said = finish(started)
    assert [process.returncode for process in started] == [0] * later, said
    assert "going on from the checkpoint of step" in said[0]
    stopped = log(run)[-1][0]
    assert 2 * SAVE_EVERY < stopped < STEPS
    assert all(f"stopped by SIGTERM: step {stopped} of" in text for text in said)
    assert all("step/s" not in text for text in said[1:])  # one process tells

    loop.fit(train.read(["--config", str(folder / "config.py"), "--output", str(run)])[1])
    same_result(run, folder / "one")
    steps = sorted(int(path.name) for path in (run / "stages" / "0-base").iterdir())
    assert steps == sorted({*range(SAVE_EVERY, STEPS + 1, SAVE_EVERY), stopped})


@nightly
@pytest.mark.parametrize("repetition", range(10))
def test_split_parameters_are_exchanged_in_one_order(folder, repetition):
    """Without an order, Gloo has failed twice: many exchanges of a step do not depend on each other."""
    name = f"split, {repetition}"
    said = finish(started := start(folder, name, 2, "--mesh", "fsdp=2"))
    assert [process.returncode for process in started] == [0, 0], said
    same_result(folder / name, folder / "one")


def test_a_mistake_ends_all_processes(folder):
    (folder / "taken" / "model").mkdir(parents=True)
    said = finish(started := start(folder, "taken", 2))
    assert [process.returncode for process in started] == [2, 2], said
    assert "error: " in said[0] and "is no run of this trainer" in said[0]
    assert "error: process 0 cannot go on, and says why" in said[1]


@nightly
def test_latents_are_computed_by_several_processes(folder, tmp_path):
    videos = [write_video(tmp_path / f"{n}.mp4", gradient(36, 64, 64, n)) for n in range(3)]
    manifest = write_csv(tmp_path / "clips.csv", [f"{path},a clip" for path in videos])
    options = ["--checkpoint", folder / "start", "--manifest", manifest, "--output", tmp_path / "latents"]
    options += ["--frames", 34, "--shard-size", 1, "--caption-features"]
    said = finish(started := start_module("precompute", 2, *options))
    assert [process.returncode for process in started] == [0, 0], said
    assert sum("3 clips in" in text for text in said) >= 1
    cache = LatentCache(tmp_path / "latents")
    assert len(cache) == 3 and cache.has_features


def test_half_an_address_is_named(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.delenv("JAX_PROCESS_ID", raising=False)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(ConfigError, match="JAX_PROCESS_ID must be set with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"):
        processes.connect()
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    with pytest.raises(ConfigError, match="numbered from 0 to their number - 1"):
        processes.connect()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, processes.ORDERED),
        ("--xla_a=1", f"--xla_a=1 {processes.ORDERED}"),
        (ORDER := processes.ORDERED.replace("false", "true"), ORDER),
    ],
)
def test_processes_exchange_in_order_unless_the_user_has_decided(monkeypatch, given, used):
    asked = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: asked.update(options))
    monkeypatch.setenv("XLA_FLAGS", given or "")
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    processes.connect()
    assert os.environ["XLA_FLAGS"] == used
    assert asked["shutdown_timeout_seconds"] > 24 * 3600  # who is done with its share waits for the slowest


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("Barrier timed out"), True),
        (OSError("coordination service: heartbeat timeout"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: Gloo allreduce failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),
        (ValueError("the connection pool is empty"), False),
        (OSError("no space left on device"), False),
    ],
)
def test_errors_of_lost_processes_are_told_from_others(error, lost):
    assert processes._is_lost(error) == lost


def test_the_words_of_a_mistake_are_no_sign_of_a_lost_process(monkeypatch):
    """But it may have been made of the error of one."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    said = []
    monkeypatch.setattr(processes, "end", lambda code, text: said.append(text))
    with pytest.raises(ConfigError, match="gloo"), processes.exit_if_peer_lost():
        raise ConfigError("there is no manifest /data/gloo/clips.csv")
    assert not said
    with processes.exit_if_peer_lost():
        try:
            raise ValueError("Barrier timed out")
        except ValueError:
            raise ConfigError("the checkpoint cannot be read") from None
    assert "because another one is gone" in said[0]


def test_the_code_of_an_error_of_jax_is_read():
    """A real one, which has a code: no collective fails with it, and it is no process that is lost."""
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.jit(lambda x: x + 1).lower(1.0).compile({"nonsense": 1})
    assert caught.value.error_code_string == "INVALID_ARGUMENT"
    assert not processes._is_lost(caught.value)


@pytest.mark.parametrize("code", processes.LOST_CODES)
def test_a_code_alone_tells_of_a_lost_process(code):
    class Lost(jax.errors.JaxRuntimeError):
        error_code_string = code

    assert processes._is_lost(Lost("the other end is gone"))


def test_processes_that_found_different_clips_all_stop(monkeypatch):
    """One that cannot read a file would take other clips for its rows than the others do."""
    processes.check_agreed("clips", "alone")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    found = []
    monkeypatch.setattr(
        processes.multihost_utils, "process_allgather", lambda x: np.stack([x, x if not found else found[0]])
    )
    processes.check_agreed("clips", "the same")
    found.append(np.zeros(8, np.int32))
    with pytest.raises(ConfigError, match="the processes have found different clips; see that all hosts read"):
        processes.check_agreed("clips", "others")
