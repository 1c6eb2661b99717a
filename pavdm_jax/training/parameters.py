"""Which parameters of a model a stage trains: those below some paths, or adapters of frozen ones."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import traverse_util

from pavdm_jax.checkpoints import lora
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import Stage


class Trainable(NamedTuple):
    """The trained and the frozen parameters of a stage.

    Attributes:
      trained: slash-separated path → array, of the parameters or adapters that the optimiser changes.
      frozen: the same of all other parameters of the model.
      assemble: (trained, frozen) → the model's parameter tree; differentiable.
    """

    trained: dict[str, jax.Array]
    frozen: dict[str, jax.Array]
    assemble: Callable[[dict, dict], dict]


def trainable(params: dict, stage: Stage, seed: int = 0) -> Trainable:
    """The trained and the frozen parameters of a stage.

    Args:
      params: the model's parameter tree, of arrays or shapes.
      stage: the stage.
      seed: for the initial values of adapters.

    Raises:
      ConfigError: the stage names parameters that the model does not have, or nothing is left to train.
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
    """Split a parameter tree by slash-separated path into those that are trained and all others.

    Args:
      params: the tree.
      train: prefixes of the paths that are trained.
      freeze: prefixes of exceptions, which are not.

    Raises:
      ConfigError: no parameter has one of the prefixes, or nothing is left to train.
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


def block_matrices(params: dict) -> set[str]:
    """The paths of the linear layers of stacked blocks, [depth, in, out], for which the optimiser Muon is.

    Raises:
      ConfigError: there are none.
    """
    # Of those that are masked, as optax masks the others, nothing is known.
    found = {path for path, x in params.items() if path.endswith("/kernel") and getattr(x, "ndim", 0) == 3}
    if not found:
        raise ConfigError("muon is for the matrices of blocks, of which this stage trains none; use adamw")
    return found


def join(*parts: dict) -> dict:
    """The parameter tree of one or more dicts by slash-separated path."""
    return traverse_util.unflatten_dict({name: x for part in parts for name, x in part.items()}, sep="/")


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + "/")
