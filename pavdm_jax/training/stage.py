"""The loop over the steps of a stage: train, log, save, sample, and stop when told to."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from pavdm_jax import lora
from pavdm_jax.config import ConfigError
from pavdm_jax.flops import peak_flops, train_flops
from pavdm_jax.model import Model
from pavdm_jax.train_config import Stage, TemporalReconstruction, TrainConfig
from pavdm_jax.training.denoising import DiffusionObjective, denoising_loss
from pavdm_jax.training.expected_loss import FIRST_STEPS, loss_warning
from pavdm_jax.training.frame_size import at_size_of_batch
from pavdm_jax.training.log import RunLog, StageLog
from pavdm_jax.training.loss import Loss
from pavdm_jax.training.optimizer import learning_rate, make_optimizer
from pavdm_jax.training.parameters import trainable
from pavdm_jax.training.preemption import Preempted, Preemption
from pavdm_jax.training.reconstruction import measure_normalisation, reconstruction_loss
from pavdm_jax.training.run_folder import Checkpoints, stage_folder
from pavdm_jax.training.samples import sample_videos
from pavdm_jax.training.state import TrainState, init_state, place, read_totals
from pavdm_jax.training.step import make_gradients, make_train_step, metric_shapes

Feed = Callable[[Stage, Model, int, int], Iterator[dict]]
"""(stage, model, seed, first step) -> batches from that step on."""


@dataclass(frozen=True)
class Run:
    """What the stages of a run share."""

    config: TrainConfig
    log: RunLog
    preemption: Preemption


def make_loss(config: TrainConfig, stage: Stage) -> Loss:
    """The loss of a stage's objective."""
    if isinstance(stage.objective, DiffusionObjective):
        dtype = jnp.dtype(config.compute_dtype)
        return at_size_of_batch(lambda sized: denoising_loss(sized, stage.objective, dtype, config.remat), config.model)
    return reconstruction_loss(config.model.vae, stage.objective)


def train_stage(run: Run, number: int, first: int, model: Model, base: str, feed: Feed) -> Model:
    """Train a stage, or what is left of it, and return the model of averaged weights.

    Args:
      run: the run.
      number: of the stage.
      first: step of the whole run at which it starts.
      model: what it starts from.
      base: where that is on disk.
      feed: makes the batches.

    Raises:
      ConfigError, SaveError, Preempted: see `loop.fit`.
    """
    config, stage = run.config, run.config.stages[number]
    seed, output = config.seed + 1000 * number, Path(config.output)
    trained, frozen, assemble = trainable(model.params, stage, seed)
    optimizer = make_optimizer(stage.optimizer, stage.steps)
    gradients_of = make_gradients(make_loss(config, stage), assemble, stage.optimizer.accumulate)
    with Checkpoints(stage_folder(output, number, stage), config, stage, model, base) as checkpoints:
        done = 0 if checkpoints.latest is None else checkpoints.latest - first
        batches = feed(stage, model, seed, done)
        example = next(batches)
        state = init_state(trained, optimizer, metric_shapes(gradients_of, trained, frozen, example))
        state, frozen = place((state, frozen))
        if done:
            state = checkpoints.restore(state)
            run.log.text.info(f"{stage.name}: going on from the checkpoint of step {first + done}")
        schedule = learning_rate(stage.optimizer, stage.steps)
        step = make_train_step(gradients_of, optimizer, schedule, stage.optimizer.ema_decay)

        def averaged(state: TrainState) -> Model:
            return model.replace(params=assemble(state.ema, frozen))

        key, previous = jax.random.key(seed), None
        batches = itertools.chain([example], batches)
        with _stage_log(run, stage, first, done, example) as log, run.preemption.steps():
            for index in range(done, stage.steps):
                state, loss = step(state, frozen, next(batches), key)
                if previous is not None:  # only then: the host prepares a step while the device works on the one before
                    log.advance(float(previous))
                previous, now = loss, index + 1
                stops, ends = run.preemption.requested(first + now), now == stage.steps
                logs, saves = now % config.log_every == 0 or ends, now % config.save_every == 0 or ends or stops
                if logs or saves:  # before saving, so that no checkpoint holds what is not finite
                    _check_finite(state, stage, first, output, checkpoints.latest)
                if logs:
                    metrics, state = read_totals(state)
                    log.write(now, metrics)
                if saves:
                    checkpoints.save(first + now, state, float(state.smooth_loss))
                if now == FIRST_STEPS and isinstance(stage.objective, DiffusionObjective):
                    loaded = config.init_from is not None or number > 0
                    warning = loss_warning(config.model, loaded, float(state.smooth_loss))
                    if warning is not None:
                        run.log.text.warning(f"warning: {warning}")
                if stops and not ends:
                    checkpoints.wait()
                    raise Preempted(
                        f"stopped by SIGTERM: step {first + now} of {output} is saved; the same command goes on from it"
                    )
                if _samples(config, stage, now):
                    gifs = sample_videos(averaged(state), config.samples, output / "samples", first + now)
                    run.log.videos(first + now, gifs)
            if previous is not None:
                log.advance(float(previous))
                checkpoints.wait()
                run.log.text.info(f"{stage.name}: {stage.steps} steps; {log.summary(state)}")

    result = averaged(state)
    if stage.lora is not None:
        lora.save(output / lora.FILE, state.ema, stage.lora.alpha, model.params)
    if isinstance(stage.objective, TemporalReconstruction):
        batches = feed(stage, result, config.seed + 7, 0)
        params = measure_normalisation(config.model.vae, result.params, [next(batches) for _ in range(16)])
        result = result.replace(params=params)
    return result


def _stage_log(run: Run, stage: Stage, first: int, done: int, example: dict) -> StageLog:
    """The stage's log, which knows what a step on a batch like `example` costs."""
    flops = peak = None
    if isinstance(stage.objective, DiffusionObjective):
        flops = train_flops(run.config.model.stdit3, example["latents"].shape)
        of_one = peak_flops(jax.devices()[0])
        peak = None if of_one is None else of_one * jax.device_count()
    return StageLog(run.log, stage, first, done, flops, peak)


def _samples(config: TrainConfig, stage: Stage, step: int) -> bool:
    """Whether sample videos are made after a step."""
    every = config.samples.every
    return every > 0 and step % every == 0 and isinstance(stage.objective, DiffusionObjective)


def _check_finite(state: TrainState, stage: Stage, first: int, output: Path, kept: int | None) -> None:
    """Raise a `ConfigError` that says where the loss or the gradient was not finite."""
    step, sample, bad = (int(x) for x in state.fault)
    if step < 0:
        return
    where = "the gradient is" if bad == 0 else f"the loss of sample {sample} ({bad} of {stage.batch_size} are bad) is"
    remedy = (
        "there is no checkpoint to go on from; start again in another --output with a lower learning rate"
        if kept is None
        else f"the checkpoint of step {kept} is kept; go on from it in another --output with --init-from {output} and a lower learning rate"
    )
    raise ConfigError(f"{where} not finite at step {first + step + 1} of stage {stage.name}; {remedy}")
