"""Runs the stages of a training config one after another; an interrupted run continues from its last checkpoint."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from pavdm_jax import storage
from pavdm_jax.checkpoints.model_folder import is_model, save_model
from pavdm_jax.checkpoints.run_folder import newest_step, result_folder
from pavdm_jax.data.loader import batches
from pavdm_jax.data.sources import open_feed
from pavdm_jax.distributed.processes import is_first, on_first
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import Model
from pavdm_jax.training.check import check
from pavdm_jax.training.config import Stage, TrainConfig
from pavdm_jax.training.denoising import DiffusionObjective, clip_chunks
from pavdm_jax.training.log import RunLog
from pavdm_jax.training.preemption import Preemption
from pavdm_jax.training.run_record import claim
from pavdm_jax.training.stage import Run, train_stage
from pavdm_jax.training.start import given_model, load_whole, start_on_disk
from pavdm_jax.training.step import learning_rate


def fit(config: TrainConfig) -> Model:
    """Train a model.

    An interrupted run continues from its last checkpoint in `output`; finished stages are not repeated.

    Returns:
      The model of averaged weights, which is also written to `output/model`.

    Raises:
      ConfigError: `output` holds a run of another config, the data or the model to start from cannot be used, or the
        loss is not finite.
      SaveError: a checkpoint could not be written.
      Preempted: the process got SIGTERM, or Ctrl-C within the steps; the state is saved.
    """
    check(config)
    return train(config)


def train(config: TrainConfig) -> Model:
    """`fit` a config that was checked."""
    output, began = storage.as_path(config.output), time.time()
    with Preemption() as preemption, contextlib.ExitStack() as claimed:
        given = given_model(config)
        recorded: list[int | None] = []  # steps of the last stage when this run was last started; process 0 only
        on_first(lambda: recorded.append(claimed.enter_context(claim(output, config))))
        if not is_first() and not output.is_dir():
            raise ConfigError(
                f"process {jax.process_index()} does not see {output}, which process 0 made; let --output be "
                "in a file system of all"
            )
        with RunLog(output, newest_step(output), is_first()) as log:
            for steps in recorded:
                if steps is not None and steps < config.stages[-1].steps:
                    log.text.info(extension(config.stages[-1], steps))
            run = Run(config, log, preemption, functools.partial(make_batches, config))
            model, base = start_on_disk(config, given, output)
            first = 0  # step of the whole run at which the stage starts
            for number, stage in enumerate(config.stages):
                result = result_folder(output, number, stage.name)
                if is_model(result):
                    model = load_whole(str(result)).replace(config=config.model)
                else:
                    model = train_stage(run, number, first, model, base)
                    if number + 1 < len(config.stages):
                        on_first(functools.partial(save_model, result, model))
                first, base = first + stage.steps, str(result)
            if config.stages[-1].lora is None or config.stages[-1].lora.save_merged:
                finished = functools.partial(save_model, output / "model", model, jnp.dtype(config.model_dtype))
                on_first(finished)
            took = time.time() - began
            log.text.info(f"finished {first} steps, {took:.0f} s since this start; use it with --checkpoint {output}")
    return model


def extension(stage: Stage, recorded: int) -> str:
    """What is logged when a run of `recorded` steps is extended to those of the stage, with the learning rates."""
    said = f"{stage.name}: extended from {recorded} to {stage.steps} steps"
    before, now = (
        float(jnp.asarray(learning_rate(stage.optimizer, steps)(recorded))) for steps in (recorded, stage.steps)
    )
    if before == now:
        return f"{said}; the learning rate stays {now:.3g}"
    change = f"at step {recorded} it is {now:.3g}, not {before:.3g}"
    return f"{said}; the learning rate goes on along the new schedule: {change}"


def make_batches(
    config: TrainConfig, stage: Stage, model: Model, seed: int, start_step: int, rows: Sequence[int] | None = None
) -> Iterator[dict]:
    """The batches of a stage from `start_step` on; see `data.sources.open_feed` for cached latents, and for errors.

    `rows` are the rows of each batch that are read; None: all.
    """
    chunks = clip_chunks(config.model, stage.objective) if isinstance(stage.objective, DiffusionObjective) else None
    text_is_frozen = not any(name.split("/")[0] == "t5" for name in stage.train)
    feed = open_feed(stage.data, model, chunks, storage.as_path(config.output).parent, text_is_frozen)
    share = stage.data.image_share
    return map(feed.finish, batches(feed.source, stage.batch_size, seed, start_step, rows, feed.workers, share))
