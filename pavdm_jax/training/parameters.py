"""Which parameters of a model a stage trains: groups by path, or adapters beside frozen ones."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import traverse_util

from pavdm_jax.checkpoints import lora
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import Stage


class Trainable(NamedTuple):
    """A stage's view of a model.

    Attributes:
      trained: what the optimiser changes, flat: path → array.
      frozen: the model's other parameters, flat.
      assemble: (trained, frozen) → the model's parameter tree; differentiable.
    """

    trained: dict[str, jax.Array]
    frozen: dict[str, jax.Array]
    assemble: Callable[[dict, dict], dict]


def trainable(params: dict, stage: Stage, seed: int = 0) -> Trainable:
    """What `stage` trains of a model's parameters; `seed` makes the adapters' random start.

    Raises:
      ConfigError: the stage names parameters that the model does not have.
    """
    trained, frozen = split(params, stage.train, stage.freeze)
    if stage.lora is None:
        return Trainable(trained, frozen, join)
    adapters = lora.init_adapters(jax.random.key(seed), trained, stage.lora.layers, stage.lora.rank)
    alpha = stage.lora.alpha

    def assemble(adapters: dict, frozen: dict) -> dict:
        return lora.merge(join(frozen), adapters, alpha)

    return Trainable(adapters, {**trained, **frozen}, assemble)


def split(params: dict, train: tuple[str, ...], freeze: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """The flat parameters below the prefixes `train` but not below those of `freeze`, and all others.

    Raises:
      ConfigError: a prefix that no parameter has, or nothing is left to train.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    parts = ", ".join(sorted({name.split("/")[0] for name in flat}))
    for field, prefixes in (("train", train), ("freeze", freeze)):
        for prefix in prefixes:
            if not any(_below(name, prefix) for name in flat):
                raise ConfigError(
                    f"{field} names '{prefix}', which is no part of the model; parts are {parts} and what is below them"
                )
    trained = {
        name: value
        for name, value in flat.items()
        if any(_below(name, prefix) for prefix in train) and not any(_below(name, prefix) for prefix in freeze)
    }
    if not trained:
        raise ConfigError(f"freeze {freeze} leaves nothing of train {train}; freeze less")
    return trained, {name: value for name, value in flat.items() if name not in trained}


def join(*parts: dict) -> dict:
    """The parameter tree of flat parts."""
    return traverse_util.unflatten_dict({name: x for part in parts for name, x in part.items()}, sep="/")


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + "/")
