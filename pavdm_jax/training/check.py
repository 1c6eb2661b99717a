"""Mistakes of a training config that are found without a model, before the imports and the work that take seconds."""

import functools

import jax
from jax.sharding import Mesh

from pavdm_jax import storage
from pavdm_jax.checkpoints.model_folder import is_model
from pavdm_jax.checkpoints.run_folder import result_folder
from pavdm_jax.data.check import check_data
from pavdm_jax.distributed.mesh import make_mesh, train_mesh
from pavdm_jax.distributed.processes import on_first
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.model import abstract_params
from pavdm_jax.text.captions import check_readable
from pavdm_jax.training.config import JointReconstruction, LatentData, Stage, TemporalReconstruction, TrainConfig
from pavdm_jax.training.denoising import clip_latents
from pavdm_jax.training.parameters import block_matrices, trainable
from pavdm_jax.training.run_record import check_claim


def check(config: TrainConfig) -> None:
    """Check what can be checked without loading a model, within a few seconds.

    Raises:
      ConfigError: a prompt, a mesh or the data of a stage cannot be used, or `output` holds something else.
    """
    output = storage.as_path(config.output)
    make_request(config.model, "a prompt")  # the model that is trained can make videos of its own size and rate
    if config.samples.every:
        from pavdm_jax.generation.pipeline import check_method  # which takes long to import

        samples = config.samples
        prompts = list(samples.prompts)
        request = make_request(config.model, prompts, frames=samples.frames, seed=samples.seed, method=samples.method)
        check_method(request)
        check_readable(prompts, config.model.text)
    shapes = abstract_params(config.model)
    for stage in config.stages:
        stage_mesh(config, stage)
        _check_trained(stage, shapes)
    on_first(functools.partial(check_claim, output, config))
    for number, stage in enumerate(config.stages):
        if not is_model(result_folder(output, number, stage.name)):  # a finished stage is not read again
            check_data(stage.data, clip_latents(config.model, stage.objective), config.model)
            _check_micro_clip(config, stage)


def _check_trained(stage: Stage, shapes: dict) -> None:
    """`ConfigError` for parameters that the model does not have, or that adapters or the optimiser are not for."""
    try:
        trained = jax.eval_shape(lambda shapes: trainable(shapes, stage).trained, shapes)
        if stage.optimizer.algorithm == "muon":
            block_matrices(trained)
    except ConfigError as error:
        raise ConfigError(f"stage {stage.name}: {error}") from None


def _check_micro_clip(config: TrainConfig, stage: Stage) -> None:
    """`ConfigError` for clips that the temporal VAE would encode as one micro clip and decode as several."""
    if isinstance(stage.data, LatentData) or not isinstance(
        stage.objective, TemporalReconstruction | JointReconstruction
    ):
        return
    frames, most = stage.data.frames, config.model.vae.micro_frames
    if frames > most:
        raise ConfigError(
            f"stage {stage.name}: clips of {frames} frames are too long: {type(stage.objective).__name__} trains on "
            f"single micro clips; give at most {most} frames (data.frames)"
        )


def stage_mesh(config: TrainConfig, stage: Stage) -> Mesh:
    """The mesh of a stage.

    Raises:
      ConfigError: see `mesh.train_mesh`.
    """
    return make_mesh(train_mesh(config.mesh, stage.batch_size // stage.optimizer.accumulate, jax.device_count()))
