"""The state of a training stage, and one step of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct, traverse_util

from pavdm_jax.config import require
from pavdm_jax.train_config import OptimizerConfig
from pavdm_jax.training.reconstruction import Loss


@struct.dataclass
class TrainState:
    """What changes from step to step.

    Attributes:
      params: the trained parameters, flat: path → array.
      ema: their exponential moving average, float32; the stage's result.
      opt_state: of the optimiser.
      step: steps done in this stage.
    """

    params: dict[str, jax.Array]
    ema: dict[str, jax.Array]
    opt_state: optax.OptState
    step: jax.Array


def split(params: dict, prefixes: tuple[str, ...]) -> tuple[dict, dict]:
    """The flat parameters below `prefixes`, and all others.

    Raises:
      ConfigError: a prefix that no parameter has.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for prefix in prefixes:
        require(
            any(_below(name, prefix) for name in flat),
            f"train names '{prefix}', which is no part of the model; parts are {', '.join(sorted({n.split('/')[0] for n in flat}))} and what is below them",
        )
    trained = {name: x for name, x in flat.items() if any(_below(name, prefix) for prefix in prefixes)}
    return trained, {name: x for name, x in flat.items() if name not in trained}


def merge(*parts: dict) -> dict:
    """The parameter tree of flat parts."""
    return traverse_util.unflatten_dict({name: x for part in parts for name, x in part.items()}, sep="/")


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + "/")


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm; the rate warms up, then decays over the stage's `steps`."""
    warmup = min(config.warmup_steps, steps)
    rate = optax.linear_schedule(0.0, config.learning_rate, warmup)
    if config.decay:
        rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, warmup + 1))
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(rate, b2=config.beta2, eps=config.epsilon, weight_decay=config.weight_decay),
    )


def init_state(trained: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. The average is a copy: the step donates both."""
    return TrainState(trained, jax.tree.map(jnp.copy, trained), optimizer.init(trained), jnp.zeros((), jnp.int32))


def make_train_step(loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float) -> Callable:
    """`step(state, frozen, batch, key) -> (state, metrics)`, compiled, giving its input state's memory to its output."""

    def train_step(state: TrainState, frozen: dict, batch: dict, key: jax.Array):
        key = jax.random.fold_in(key, state.step)

        def of_trained(trained):
            return loss(merge(trained, frozen), batch, key)

        (value, metrics), gradients = jax.value_and_grad(of_trained, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The average of few steps should not remember the random start.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda average, new: decay * average + (1.0 - decay) * new, state.ema, params)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradients), **metrics}
        return TrainState(params, ema, opt_state, state.step + 1), metrics

    return jax.jit(train_step, donate_argnums=0)
