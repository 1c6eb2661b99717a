"""Runs the stages of a training config: batches in, checkpoints and a log out; an interrupted run goes on at its last checkpoint."""

import csv
import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from pavdm_jax.checkpoints import load, save_model
from pavdm_jax.config import ConfigError, ModelConfig, require
from pavdm_jax.data.loader import batches
from pavdm_jax.data.shapes_world import sample_captions
from pavdm_jax.data.sources import open_feed
from pavdm_jax.model import Model, init_params
from pavdm_jax.text import Tokenizer, train_tokenizer
from pavdm_jax.train_config import (
    JointReconstruction,
    ProgressiveDiffusion,
    SpatialReconstruction,
    Stage,
    TemporalReconstruction,
    TrainConfig,
    UniformDiffusion,
)
from pavdm_jax.training.denoising import progressive_loss, uniform_loss
from pavdm_jax.training.frame_size import at_size_of_batch
from pavdm_jax.training.reconstruction import (
    Loss,
    joint_loss,
    measure_normalisation,
    spatial_loss,
    temporal_loss,
)
from pavdm_jax.training.state import init_state, make_optimizer, make_train_step, merge, split


def make_loss(model: ModelConfig, stage: Stage) -> Loss:
    """The loss of a stage's objective."""
    match stage.objective:
        case SpatialReconstruction(kl_weight):
            return spatial_loss(model.vae, kl_weight)
        case TemporalReconstruction(kl_weight):
            return temporal_loss(model.vae, kl_weight)
        case JointReconstruction():
            return joint_loss(model.vae)
        case UniformDiffusion():
            return at_size_of_batch(lambda sized: uniform_loss(sized, stage.objective), model)
        case ProgressiveDiffusion():
            return at_size_of_batch(lambda sized: progressive_loss(sized, stage.objective), model)


def make_batches(config: TrainConfig, stage: Stage, model: Model, seed: int, start_step: int) -> Iterator[dict]:
    """The stage's batches from `start_step` on, this process's part of each; latents are computed first where they are to be kept."""
    match stage.objective:
        case UniformDiffusion():
            chunks = stage.objective.clip_chunks
        case ProgressiveDiffusion():
            chunks = config.model.window.slots
        case _:
            chunks = None
    text_is_frozen = not any(name.split("/")[0] == "t5" for name in stage.train)
    feed = open_feed(stage.data, model, chunks, Path(config.output).parent, text_is_frozen)
    processes = jax.process_index(), jax.process_count()
    return map(feed.finish, batches(feed.source, stage.batch_size, seed, start_step, *processes, feed.workers))


def start_model(config: TrainConfig) -> Model:
    """The model before the first step: loaded from `init_from`, or random with a tokenizer made for the shapes world."""
    if config.init_from is not None:
        model = load(config.init_from)
        require(
            (model.config.stdit3, model.config.vae, model.config.t5)
            == (config.model.stdit3, config.model.vae, config.model.t5),
            f"init_from {config.init_from} holds the model '{model.config.name}' of another architecture than this config's",
        )
        return model.replace(config=config.model)
    tokenizer = Tokenizer(
        train_tokenizer(
            sample_captions(np.random.default_rng(config.seed), 4000, split="train"), config.model.t5.vocab_size
        )
    )
    params = jax.jit(functools.partial(init_params, config.model))(jax.random.key(config.seed))
    return Model(params, config.model, tokenizer)


def fit(config: TrainConfig) -> Model:
    """Train, and return (and write to `output/model`) the model of averaged weights.

    A run that was interrupted is continued from its last checkpoint in `output`; a finished stage is not repeated.

    Raises:
      ConfigError: `output` holds a run of another config, or the loss is not finite.
    """
    output = Path(config.output)
    _claim(output, config)
    model = start_model(config)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with ocp.CheckpointManager((output / "checkpoints").absolute(), options=options) as manager:
        first = 0  # step of the whole run at which the stage starts
        for number, stage in enumerate(config.stages):
            model = _run_stage(config, stage, number, first, model, manager)
            first += stage.steps
    save_model(output / "model", model, jnp.dtype(config.model_dtype))
    return model


def _claim(output: Path, config: TrainConfig) -> None:
    """Make the run's folder, or check that it belongs to a run of this config."""
    record = output / "train_config.txt"
    # How often to save and to log may change between the parts of a run.
    text = repr(dataclasses.replace(config, save_every=1, log_every=1)) + "\n"
    if record.exists():
        require(
            record.read_text() == text,
            f"{output} holds a run of another config; choose another --output or remove that folder",
        )
        return
    output.mkdir(parents=True, exist_ok=True)
    beside = record.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, record)


def _run_stage(
    config: TrainConfig, stage: Stage, number: int, first: int, model: Model, manager: ocp.CheckpointManager
) -> Model:
    trained, frozen = split(model.params, stage.train)
    optimizer = make_optimizer(stage.optimizer, stage.steps)
    state = init_state(trained, optimizer)
    last = manager.latest_step() or 0
    if last > first + stage.steps:  # a checkpoint of a later stage holds this one's result among its frozen parameters
        return model
    if first < last <= first + stage.steps:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"state": state, "frozen": frozen})
        restored = manager.restore(last, args=ocp.args.StandardRestore(target))
        state, frozen = restored["state"], restored["frozen"]
    # All on the device from the start: else the second step, whose state comes from the first, would be compiled anew.
    state, frozen = jax.device_put((state, frozen), jax.local_devices()[0])
    model = model.replace(params=merge(state.params, frozen))

    done = int(state.step)
    if done < stage.steps:
        seed = config.seed + 1000 * number
        feed = make_batches(config, stage, model, seed, done)
        step = make_train_step(make_loss(config.model, stage), optimizer, stage.optimizer.ema_decay)
        key = jax.random.key(seed)
        with _Log(Path(config.output) / "log.csv", stage, done) as log:
            for index in range(done, stage.steps):
                state, metrics = step(state, frozen, next(feed), key)
                saves, logs = (
                    (index + 1) % every == 0 or index + 1 == stage.steps
                    for every in (config.save_every, config.log_every)
                )
                if saves or logs:  # before saving, so that no checkpoint holds what is not finite
                    log.write(first, index + 1, {name: float(value) for name, value in metrics.items()})
                log.advance()
                if saves:
                    manager.save(first + index + 1, args=ocp.args.StandardSave({"state": state, "frozen": frozen}))
        manager.wait_until_finished()
    params = merge(state.ema, frozen)
    if isinstance(stage.objective, TemporalReconstruction):
        feed = make_batches(config, stage, model, config.seed + 7, 0)
        params = measure_normalisation(config.model.vae, params, [next(feed) for _ in range(16)])
    return model.replace(params=params)


class _Log:
    """A progress bar on the terminal and a line of comma-separated values each `log_every` steps."""

    def __init__(self, path: Path, stage: Stage, done: int):
        self.path, self.stage, self.started = path, stage, time.time()
        self.bar = tqdm(total=stage.steps, initial=done, desc=stage.name, unit="step", smoothing=0.05)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def advance(self) -> None:
        self.bar.update()

    def write(self, first: int, step: int, metrics: dict[str, float]) -> None:
        if not np.isfinite(metrics["loss"]):
            raise ConfigError(
                f"the loss is {metrics['loss']} at step {step} of stage {self.stage.name}; lower the learning rate and start again in another --output"
            )
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()})
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["stage", "step", "seconds", "metrics"])
            writer.writerow(
                [
                    self.stage.name,
                    first + step,
                    round(time.time() - self.started, 1),
                    " ".join(f"{k}={v:.6g}" for k, v in metrics.items()),
                ]
            )
