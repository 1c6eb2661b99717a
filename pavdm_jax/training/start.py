"""The model before the first step of a run: loaded, or with random weights and a tokenizer of its own."""

import functools
from pathlib import Path

import jax

from pavdm_jax import storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.lora import find_base
from pavdm_jax.checkpoints.model_folder import open_model, save_model
from pavdm_jax.checkpoints.run_folder import is_unfinished_run, newest_step
from pavdm_jax.data.training_captions import training_captions
from pavdm_jax.distributed.placement import on_host
from pavdm_jax.distributed.processes import on_first
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig, networks_of
from pavdm_jax.models.growth import can_become, grow
from pavdm_jax.models.model import PARTS, Model, init_params
from pavdm_jax.models.tokenizer import Tokenizer, train_tokenizer
from pavdm_jax.training.config import TrainConfig


def load_whole(path: str) -> Model:
    """Load all parts of a model into host memory; see `checkpoints.load.load`."""
    return load(path, PARTS, dict.fromkeys(PARTS, on_host()))


def given_model(config: TrainConfig) -> Model | None:
    """The model of `init_from`, or None for a run from random weights.

    The config may ask for more blocks, other patches or another base size, see `models/growth.py`; such a model has no
    folder.

    Raises:
      ConfigError: it cannot be loaded, or is of another architecture, which is found before its parameters are read.
    """
    if config.init_from is None:
        return None
    base, _ = find_base(config.init_from)
    if not is_unfinished_run(base):
        _check_architecture(config, open_model(base, PARTS).config)
    model = load_whole(config.init_from)
    _check_architecture(config, model.config)
    part, old, new = model.config.transformer_part, model.config.transformer, config.model.transformer
    if old != new:
        model = model.replace(params=model.params | {part: grow(model.params[part], old, new)}, folder=None)
    return model.replace(config=config.model)


def start_on_disk(config: TrainConfig, given: Model | None, output: Path) -> tuple[Model, str]:
    """The model before the first step, and its folder on disk; checkpoints refer to it for frozen parameters.

    A model that is on no disk yet, with random weights or grown, is written to `output`/start.

    Raises:
      ConfigError: see `make_tokenizer`.
    """
    if given is not None and given.folder is not None:
        return given, str(config.init_from)
    folder = output / "start"

    def write() -> None:
        save_model(folder, random_model(config) if given is None else given)

    on_first(lambda: None if newest_step(output) else write())
    return load_whole(str(folder)), str(folder)


def random_model(config: TrainConfig) -> Model:
    """A model with random weights; see `make_tokenizer` for its tokenizer, and for the errors."""
    tokenizer = make_tokenizer(config)
    params = jax.jit(functools.partial(init_params, config.model))(jax.random.key(config.seed))
    return Model(params, config.model, tokenizer)


def make_tokenizer(config: TrainConfig) -> Tokenizer:
    """The tokenizer of a run from random weights: the config's, or one trained on the captions of the stages' data.

    Raises:
      ConfigError: its file is missing, is no sentencepiece model, or has more ids than the text encoder; or the data
        has no captions.
    """
    known = config.model.t5.vocab_size
    if config.tokenizer is None:
        captions = training_captions([stage.data for stage in config.stages], config.model, config.seed)
        try:
            return Tokenizer(train_tokenizer(captions, known))
        except ConfigError as error:
            raise ConfigError(
                f"no tokenizer can be made from the captions of the data: {error}; or give one: --tokenizer "
                "spiece.model, or a model that has one: --init-from MODEL"
            ) from None
    path = storage.as_path(config.tokenizer)
    with storage.cloud_errors(path):
        if not path.is_file():
            raise ConfigError(f"there is no tokenizer {path}; give the path of a spiece.model file")
        content = path.read_bytes()
    try:
        tokenizer = Tokenizer(content)
    except ConfigError as error:
        raise ConfigError(f"the tokenizer {path} cannot be used: {error}") from None
    if tokenizer.vocab_size > known:
        raise ConfigError(
            f"the tokenizer {path} has {tokenizer.vocab_size} ids and the text encoder {known}; "
            f"give --model.t5.vocab-size {tokenizer.vocab_size} or more"
        )
    return tokenizer


def _check_architecture(config: TrainConfig, found: AnyModelConfig) -> None:
    """The networks must be the same but for what can grow; how many frames the VAE codes at once is free."""
    same = can_become(found.transformer, config.model.transformer)
    if not same or networks_of(config.model)[1:] != networks_of(found)[1:]:
        raise ConfigError(
            f"init_from {config.init_from} holds the model '{found.name}' of another architecture than this config's"
        )


def start_model(config: TrainConfig) -> Model:
    """The model before the first step, without writing it to disk; errors as `given_model` and `make_tokenizer`."""
    given = given_model(config)
    return random_model(config) if given is None else given
