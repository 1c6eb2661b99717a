"""Runs the stages of a training config, each from where the one before ended; what was interrupted goes on at its last checkpoint."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax import storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import is_model, save_model
from pavdm_jax.checkpoints.run_folder import newest_step, result_folder
from pavdm_jax.data.loader import batches
from pavdm_jax.data.shapes_world import sample_captions
from pavdm_jax.data.sources import open_feed
from pavdm_jax.distributed.placement import on_host
from pavdm_jax.distributed.processes import is_first, on_first
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.model import PARTS, Model, init_params
from pavdm_jax.models.tokenizer import Tokenizer, train_tokenizer
from pavdm_jax.training.checkpoints import check_claim, claim
from pavdm_jax.training.config import Stage, TrainConfig
from pavdm_jax.training.denoising import DiffusionObjective, clip_chunks
from pavdm_jax.training.log import RunLog
from pavdm_jax.training.preemption import Preemption
from pavdm_jax.training.stage import Run, stage_mesh, train_stage


def fit(config: TrainConfig) -> Model:
    """Train, and return (and write to `output/model`) the model of averaged weights.

    A run that was interrupted is continued from its last checkpoint in `output`; a finished stage is not repeated.

    Raises:
      ConfigError: `output` holds a run of another config, or the loss is not finite.
      SaveError: a checkpoint could not be written.
      Preempted: SIGTERM came; what was done is saved.
    """
    output, began = storage.as_path(config.output), time.time()
    if config.samples.every:  # a prompt that cannot work is found now, not after hours
        make_request(config.model, list(config.samples.prompts), frames=config.samples.frames)
    with Preemption() as preemption, contextlib.ExitStack() as claimed:
        for stage in config.stages:
            stage_mesh(config, stage)  # one that does not fit is found now
        on_first(lambda: check_claim(output, config))
        given = None if config.init_from is None else start_model(config)
        on_first(lambda: claimed.enter_context(claim(output, config)))
        if not is_first() and not output.is_dir():
            raise ConfigError(
                f"process {jax.process_index()} does not see {output}, which process 0 made; let --output be in a file system of all"
            )
        with RunLog(output, newest_step(output), is_first()) as log:
            run = Run(config, log, preemption)
            model, base = (given, config.init_from) if given else _random_start(config, output)
            first = 0  # step of the whole run at which the stage starts
            for number, stage in enumerate(config.stages):
                result = result_folder(output, number, stage.name)
                if is_model(result):
                    model = _load(str(result)).replace(config=config.model)
                else:
                    model = train_stage(run, number, first, model, base, functools.partial(make_batches, config))
                    if number + 1 < len(config.stages):
                        on_first(functools.partial(save_model, result, model))
                first, base = first + stage.steps, str(result)
            if stage.lora is None or stage.lora.save_merged:
                finished = functools.partial(save_model, output / "model", model, jnp.dtype(config.model_dtype))
                on_first(finished)
            log.text.info(
                f"finished {first} steps, {time.time() - began:.0f} s since this start; use it with {_use(config)}"
            )
    return model


def _use(config: TrainConfig) -> str:
    """The options that make videos with the run's result."""
    adapted = config.stages[-1].lora
    if adapted is None or adapted.save_merged:
        return f"--checkpoint {config.output}"
    return f"--checkpoint {config.init_from} --lora {config.output}"


def make_batches(
    config: TrainConfig, stage: Stage, model: Model, seed: int, start_step: int, rows: Sequence[int] | None = None
) -> Iterator[dict]:
    """The stage's batches from `start_step` on, or these rows of each; latents are computed first where they are to be kept."""
    chunks = clip_chunks(config.model, stage.objective) if isinstance(stage.objective, DiffusionObjective) else None
    text_is_frozen = not any(name.split("/")[0] == "t5" for name in stage.train)
    feed = open_feed(stage.data, model, chunks, storage.as_path(config.output).parent, text_is_frozen)
    return map(feed.finish, batches(feed.source, stage.batch_size, seed, start_step, rows, feed.workers))


def _load(path: str) -> Model:
    """All of a model, in the host's memory."""
    return load(path, PARTS, dict.fromkeys(PARTS, on_host()))


def start_model(config: TrainConfig) -> Model:
    """The model before the first step: loaded from `init_from`, or random with a tokenizer made for the shapes world."""
    if config.init_from is not None:
        model = _load(config.init_from)
        if (model.config.stdit3, model.config.vae, model.config.t5) != (
            config.model.stdit3,
            config.model.vae,
            config.model.t5,
        ):
            raise ConfigError(
                f"init_from {config.init_from} holds the model '{model.config.name}' of another architecture than this config's"
            )
        return model.replace(config=config.model)
    tokenizer = Tokenizer(
        train_tokenizer(
            sample_captions(np.random.default_rng(config.seed), 4000, split="train"), config.model.t5.vocab_size
        )
    )
    params = jax.jit(functools.partial(init_params, config.model))(jax.random.key(config.seed))
    return Model(params, config.model, tokenizer)


def _random_start(config: TrainConfig, output: Path) -> tuple[Model, str]:
    """The random model before the first step, and where it is on disk: checkpoints do not repeat what is never trained."""
    folder = output / "start"
    on_first(lambda: None if newest_step(output) else save_model(folder, start_model(config)))
    return _load(str(folder)), str(folder)
