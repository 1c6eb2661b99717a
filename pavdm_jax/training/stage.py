"""A stage of training: prepare it, run its steps (with logs, checkpoints, samples, preemption), finish it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pavdm_jax import storage
from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.run_folder import stage_folder
from pavdm_jax.cli import check_interrupted
from pavdm_jax.config import VAEConfig
from pavdm_jax.distributed.mesh import use_mesh
from pavdm_jax.distributed.placement import on_first_device, place_batch, process_rows, to_devices, to_host
from pavdm_jax.distributed.processes import exit_if_peer_lost, is_first, on_first
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.flops import peak_flops, train_flops
from pavdm_jax.models.model import Model
from pavdm_jax.models.vae import makes_latents
from pavdm_jax.training.check import stage_mesh
from pavdm_jax.training.checkpoints import Checkpoints
from pavdm_jax.training.config import JointReconstruction, Stage, TemporalReconstruction, TrainConfig
from pavdm_jax.training.denoising import DISTILLED, DiffusionObjective, clip_chunks
from pavdm_jax.training.distillation import teacher_flops
from pavdm_jax.training.log import FIRST_STEPS, RunLog, StageLog, loss_warning
from pavdm_jax.training.parameters import Trainable, trainable
from pavdm_jax.training.preemption import Preempted, Preemption
from pavdm_jax.training.program import Program, make_program, used_frozen
from pavdm_jax.training.reconstruction import measure_normalisation
from pavdm_jax.training.samples import sample_videos
from pavdm_jax.training.state import TrainState, read_totals
from pavdm_jax.training.trained_with import trained_with

MakeBatches = Callable[[Stage, Model, int, int, Sequence[int]], Iterator[dict]]
"""(stage, model, seed, first step, rows) -> the rows `rows` of each batch from the first step on."""


@dataclass(frozen=True)
class Run:
    """What the stages of a run share: config, log, preemption, and the function that makes batches."""

    config: TrainConfig
    log: RunLog
    preemption: Preemption
    feed: MakeBatches


@dataclass(frozen=True)
class PreparedStage:
    """A stage before its next step.

    Attributes:
      run: of which it is a stage.
      number: of the stage in its run.
      first: step of the whole run at which the stage starts.
      done: its steps that are done.
      model: from which the stage starts, in host memory.
      parameters: the trained and the frozen parameters of that model, in host memory.
      mesh: the devices.
      program: its compiled programs.
      frozen: the frozen parameters that are used, on the devices.
      state: on the devices.
      example: the first batch.
      batches: all batches, from the first one on.
    """

    run: Run
    number: int
    first: int
    done: int
    model: Model
    parameters: Trainable
    mesh: Mesh
    program: Program
    frozen: dict
    state: TrainState
    example: dict
    batches: Iterator[dict]

    @property
    def stage(self) -> Stage:
        """The settings of the stage."""
        return self.run.config.stages[self.number]

    @property
    def seed(self) -> int:
        """See `stage_seed`."""
        return stage_seed(self.run.config, self.number)

    def averaged(self, state: TrainState) -> Model:
        """The model of averaged weights."""
        params = self.parameters.assemble(to_host(state.ema), self.parameters.frozen)
        patterns = trained_with(self.run.config.model, self.stage, self.model.trained_with)
        return self.model.replace(params=params, trained_with=patterns)


def stage_seed(config: TrainConfig, number: int) -> int:
    """The seed of the batches, levels and noise of a stage."""
    return config.seed + 1000 * number


def train_stage(run: Run, number: int, first: int, model: Model, base: str) -> Model:
    """Train a stage, or the rest of it, and return the model of averaged weights.

    Args:
      run: the run.
      number: of the stage.
      first: step of the whole run at which it starts.
      model: from which it starts.
      base: the folder of that model, or its name.

    Raises:
      ConfigError, SaveError, Preempted: see `loop.fit`.
    """
    config, stage = run.config, run.config.stages[number]
    folder = stage_folder(storage.as_path(config.output), number, stage.name)
    with Checkpoints(folder, config, stage, model, base) as checkpoints, exit_if_peer_lost():
        prepared = prepare(run, number, first, model, checkpoints)
        state = run_steps(prepared, checkpoints)
        result = finish(prepared, state, checkpoints.about)
    return with_measured_normalisation(prepared, result) if _changes_latents(prepared) else result


def prepare(run: Run, number: int, first: int, model: Model, checkpoints: Checkpoints) -> PreparedStage:
    """Open the data, make the programs, and put the state of the newest checkpoint, or a new one, on the devices."""
    config, stage = run.config, run.config.stages[number]
    seed, mesh = stage_seed(config, number), stage_mesh(config, stage)
    parameters = trainable(model.params, stage, seed)
    done = 0 if checkpoints.latest is None else checkpoints.latest - first
    batches = run.feed(stage, model, seed, done, process_rows(mesh, stage.batch_size))
    batches = (place_batch(batch, mesh, stage.batch_size) for batch in batches)
    example = next(batches)
    frozen = used_frozen(config.model, parameters, model.params, stage, example)
    program = make_program(config, stage, parameters._replace(frozen=frozen), example, mesh)
    frozen = to_devices(frozen, program.frozen)
    if done:
        state = checkpoints.restore(program.state)
        run.log.text.info(f"{stage.name}: going on from the checkpoint of step {first + done}")
    else:
        places = jax.tree.map(lambda x: x.sharding, program.state.params)
        state = program.init(to_devices(parameters.trained, places))
    batches = itertools.chain([example], batches)
    return PreparedStage(run, number, first, done, model, parameters, mesh, program, frozen, state, example, batches)


def run_steps(prepared: PreparedStage, checkpoints: Checkpoints) -> TrainState:
    """Run the remaining steps, with logs, checkpoints and samples; returns the last state.

    Raises:
      ConfigError, SaveError, Preempted: see `loop.fit`.
    """
    run, stage, first, state = prepared.run, prepared.stage, prepared.first, prepared.state
    key, previous = jax.random.key(prepared.seed), None
    with _stage_log(prepared) as log, run.preemption.steps():
        for index in range(prepared.done, stage.steps):
            check_interrupted()
            try:
                batch = next(prepared.batches)
            except ConfigError:  # a fault of the data; other processes, if any, are in their next step already
                if jax.process_count() == 1 and index % run.config.save_every and index > prepared.done:
                    _save(prepared, checkpoints, state, index)
                    checkpoints.wait()
                raise
            with use_mesh(prepared.mesh):
                state, loss = prepared.program.step(state, prepared.frozen, batch, key)
            if previous is not None:  # the step before, so that the host prepares a step while the device computes
                log.advance(float(previous))
            previous, step = loss, index + 1
            stops, ends = run.preemption.requested(first + step), step == stage.steps
            saves = step % run.config.save_every == 0 or ends or stops
            state = _record(prepared, checkpoints, log, state, step, saves)
            if not stops and _samples(run.config, stage, step):
                try:
                    with run.preemption.at_once():
                        _sample(prepared, state, step)
                except Preempted:
                    stops = True
                    if not saves:
                        _save(prepared, checkpoints, state, step)
            if stops and not ends:
                checkpoints.wait()
                saved = f": step {first + step} of {run.config.output} is saved; the same command goes on from it"
                raise Preempted(run.preemption.by, saved)
        if previous is not None:
            log.advance(float(previous))
            checkpoints.wait()
            # Checkpoints are older than the new normalisation, so none is recommended.
            best = "" if _changes_latents(prepared) else f"; lowest loss: {checkpoints.best}"
            run.log.text.info(f"{stage.name}: {stage.steps} steps; {log.summary(state)}{best}")
    return state


def _record(
    prepared: PreparedStage, checkpoints: Checkpoints, log: StageLog, state: TrainState, step: int, saves: bool
) -> TrainState:
    """Log and save the state after a step, if they are due; if it was logged, its sums of metrics are reset."""
    run, stage = prepared.run, prepared.stage
    if step % run.config.log_every == 0 or step == stage.steps:
        _check_finite(prepared, checkpoints, state)
        metrics, state = read_totals(state)
        log.write(step, metrics)
    if saves:
        _save(prepared, checkpoints, state, step)
    if (
        step == FIRST_STEPS
        and isinstance(stage.objective, DiffusionObjective)
        and not isinstance(stage.objective, DISTILLED)
    ):
        loaded = run.config.init_from is not None or prepared.number > 0
        warning = loss_warning(run.config.model, loaded, float(state.smooth_loss))
        if warning is not None:
            run.log.text.warning(f"warning: {warning}")
    return state


def _save(prepared: PreparedStage, checkpoints: Checkpoints, state: TrainState, step: int) -> None:
    """Begin to save the state after a step, unless it is not finite."""
    _check_finite(prepared, checkpoints, state)
    checkpoints.save(prepared.first + step, state, float(state.smooth_loss))
    log = prepared.run.log
    try:
        log.keep()
    except OSError as error:
        log.text.warning(f"warning: the log is not copied now, but with a later checkpoint: {first_line(error)}")


def _sample(prepared: PreparedStage, state: TrainState, step: int) -> None:
    """Make the sample videos of a step in process 0; all processes must call it, to gather the weights.

    Training goes on without them if they cannot be made, as when they do not fit beside it.
    """
    model, log, step = prepared.averaged(state), prepared.run.log, prepared.first + step
    if is_first():
        config = prepared.run.config
        try:
            log.videos(step, sample_videos(model, config.samples, config.compute_dtype, log.folder / "samples", step))
        except (jax.errors.JaxRuntimeError, ConfigError, OSError, MemoryError) as error:
            log.text.warning(f"warning: no samples of step {step}: {first_line(error)}")


def finish(prepared: PreparedStage, state: TrainState, about: dict) -> Model:
    """The model of averaged weights; the adapters of LoRA are also written to their file.

    Args:
      prepared: the stage.
      state: after its last step.
      about: what its checkpoints say of the model that it started from.
    """
    result, stage, config = prepared.averaged(state), prepared.stage, prepared.run.config
    if stage.lora is not None:
        base = about["fingerprints"][config.model.transformer_part]
        adapters = lora.Adapters(
            to_host(state.ema), stage.lora.alpha, base, about["base"], config.model, result.trained_with
        )
        path = storage.as_path(config.output) / lora.FILE
        on_first(lambda: lora.save(path, adapters, jnp.dtype(config.model_dtype)))
    return result


def with_measured_normalisation(prepared: PreparedStage, result: Model) -> Model:
    """The model with the VAE's shift and scale measured on its new latents."""
    run, stage = prepared.run, prepared.stage
    # All rows, so that the result is the same in every process.
    batches = run.feed(stage, result, run.config.seed + 7, 0, range(stage.batch_size))
    vae = jax.device_put(result.params["vae"], on_first_device())
    batches = [next(batches) for _ in range(16)]
    config = run.config.model.vae
    assert isinstance(config, VAEConfig)  # the only one that can be trained
    return result.replace(params=measure_normalisation(config, {**result.params, "vae": vae}, batches))


def _stage_log(prepared: PreparedStage) -> StageLog:
    """The stage's log, which knows what a step costs."""
    flops = peak = None
    model, stage = prepared.run.config.model, prepared.stage
    if isinstance(stage.objective, DiffusionObjective):
        b, _, *cell = prepared.example["latents"].shape
        clip = clip_chunks(model, stage.objective) * model.window.chunk_size
        of_videos, of_images = (train_flops(model.transformer, (b, t, *cell)) for t in (clip, 1))
        of_videos += teacher_flops(model, stage.objective, (b, clip, *cell))
        flops = of_videos + stage.data.image_share * (of_images - of_videos)
        of_one = peak_flops(jax.devices()[0].device_kind)
        peak = None if of_one is None else of_one * prepared.mesh.size
    return StageLog(prepared.run.log, stage, prepared.first, prepared.done, flops, peak)


def _samples(config: TrainConfig, stage: Stage, step: int) -> bool:
    """Whether sample videos are made after a step."""
    every = config.samples.every
    return every > 0 and step % every == 0 and isinstance(stage.objective, DiffusionObjective)


def _changes_latents(prepared: PreparedStage) -> bool:
    """Whether a stage trained the encoder on clips, so that the mean and deviation of latents have changed."""
    whole = isinstance(prepared.stage.objective, TemporalReconstruction | JointReconstruction)
    return whole and any(name.startswith("vae/") and makes_latents(name) for name in prepared.parameters.trained)


def _check_finite(prepared: PreparedStage, checkpoints: Checkpoints, state: TrainState) -> None:
    """Raise `ConfigError`, with the step and the sample, if the loss or the gradient was not finite."""
    stage, output, kept = prepared.stage, prepared.run.config.output, checkpoints.latest
    step, sample, bad = (int(x) for x in state.fault)
    if step < 0:
        return
    where = "the gradient is" if bad == 0 else f"the loss of sample {sample} ({bad} of {stage.batch_size} are bad) is"
    remedy = (
        "there is no checkpoint to go on from; start again in another --output with a lower learning rate"
        if kept is None
        else f"the checkpoint of step {kept} is kept; go on from it in another --output with --init-from {output} and "
        "a lower learning rate"
    )
    raise ConfigError(f"{where} not finite at step {prepared.first + step + 1} of stage {stage.name}; {remedy}")
