"""The loop over the steps of a stage: train, log, save, sample, and stop when told to."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from pavdm_jax import storage
from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.run_folder import stage_folder
from pavdm_jax.distributed.mesh import make_mesh, train_mesh, use_mesh
from pavdm_jax.distributed.placement import on_first_device, place_batch, process_rows, to_devices, to_host
from pavdm_jax.distributed.processes import exit_if_peer_lost, is_first, on_first
from pavdm_jax.errors import ConfigError
from pavdm_jax.flops import peak_flops, train_flops
from pavdm_jax.models.model import Model
from pavdm_jax.models.vae import makes_latents
from pavdm_jax.training.checkpoints import Checkpoints
from pavdm_jax.training.config import JointReconstruction, Stage, TemporalReconstruction, TrainConfig
from pavdm_jax.training.denoising import DiffusionObjective
from pavdm_jax.training.log import FIRST_STEPS, RunLog, StageLog, loss_warning
from pavdm_jax.training.parameters import trainable
from pavdm_jax.training.preemption import Preempted, Preemption
from pavdm_jax.training.program import make_program, used_parts
from pavdm_jax.training.reconstruction import measure_normalisation
from pavdm_jax.training.samples import sample_videos
from pavdm_jax.training.state import TrainState, read_totals

MakeBatches = Callable[[Stage, Model, int, int, Sequence[int]], Iterator[dict]]
"""(stage, model, seed, first step, rows) -> those rows of the batches from that step on."""


@dataclass(frozen=True)
class Run:
    """What the stages of a run share."""

    config: TrainConfig
    log: RunLog
    preemption: Preemption


def train_stage(run: Run, number: int, first: int, model: Model, base: str, feed: MakeBatches) -> Model:
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
    seed, output = config.seed + 1000 * number, storage.as_path(config.output)
    size = stage.batch_size
    mesh = stage_mesh(config, stage)
    on_host = trainable(model.params, stage, seed)
    with (
        Checkpoints(stage_folder(output, number, stage.name), config, stage, model, base) as checkpoints,
        exit_if_peer_lost(),
    ):
        done = 0 if checkpoints.latest is None else checkpoints.latest - first
        batches = feed(stage, model, seed, done, process_rows(mesh, size))
        batches = (place_batch(batch, mesh, size) for batch in batches)
        example = next(batches)
        used = used_parts(stage, example)
        frozen = {name: x for name, x in on_host.frozen.items() if name.split("/")[0] in used}
        program = make_program(config, stage, on_host._replace(frozen=frozen), example, mesh)
        frozen = to_devices(frozen, program.frozen)
        if done:
            state = checkpoints.restore(program.state)
            run.log.text.info(f"{stage.name}: going on from the checkpoint of step {first + done}")
        else:
            places = jax.tree.map(lambda x: x.sharding, program.state.params)
            state = program.init(to_devices(on_host.trained, places))

        def averaged(state: TrainState) -> Model:
            return model.replace(params=on_host.assemble(to_host(state.ema), on_host.frozen))

        key, previous = jax.random.key(seed), None
        batches = itertools.chain([example], batches)
        with _stage_log(run, stage, first, done, example, mesh) as log, run.preemption.steps():
            for index in range(done, stage.steps):
                batch = next(batches)
                with use_mesh(mesh):
                    state, loss = program.step(state, frozen, batch, key)
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
                    run.log.keep()
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
                    sampled = averaged(state)
                    if is_first():
                        gifs = sample_videos(sampled, config.samples, run.log.folder / "samples", first + now)
                        run.log.videos(first + now, gifs)
            if previous is not None:
                log.advance(float(previous))
                checkpoints.wait()
                # A checkpoint before the new normalisation is no model to recommend.
                best = "" if _changes_latents(stage, on_host.trained) else f"; lowest loss: {checkpoints.best}"
                run.log.text.info(f"{stage.name}: {stage.steps} steps; {log.summary(state)}{best}")

        result = averaged(state)
        if stage.lora is not None:
            adapters = to_host(state.ema)
            on_first(lambda: lora.save(output / lora.FILE, adapters, stage.lora.alpha, model.params))
    if _changes_latents(stage, on_host.trained):
        batches = feed(stage, result, config.seed + 7, 0, range(size))  # all rows: every process finds the same
        vae = jax.device_put(result.params["vae"], on_first_device())
        batches = [next(batches) for _ in range(16)]
        params = measure_normalisation(config.model.vae, {**result.params, "vae": vae}, batches)
        result = result.replace(params=params)
    return result


def stage_mesh(config: TrainConfig, stage: Stage) -> Mesh:
    """The mesh that a stage is trained on.

    Raises:
      ConfigError: see `sharding.train_mesh`.
    """
    return make_mesh(train_mesh(config.mesh, stage.batch_size // stage.optimizer.accumulate, jax.device_count()))


def _stage_log(run: Run, stage: Stage, first: int, done: int, example: dict, mesh: Mesh) -> StageLog:
    """The stage's log, which knows what a step on a batch like `example` costs."""
    flops = peak = None
    if isinstance(stage.objective, DiffusionObjective):
        flops = train_flops(run.config.model.stdit3, example["latents"].shape)
        of_one = peak_flops(jax.devices()[0].device_kind)
        peak = None if of_one is None else of_one * mesh.size
    return StageLog(run.log, stage, first, done, flops, peak)


def _samples(config: TrainConfig, stage: Stage, step: int) -> bool:
    """Whether sample videos are made after a step."""
    every = config.samples.every
    return every > 0 and step % every == 0 and isinstance(stage.objective, DiffusionObjective)


def _changes_latents(stage: Stage, trained: dict) -> bool:
    """Whether a stage trained what makes latents of whole clips, so that these have another mean and deviation."""
    whole = isinstance(stage.objective, TemporalReconstruction | JointReconstruction)
    return whole and any(name.startswith("vae/") and makes_latents(name) for name in trained)


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
