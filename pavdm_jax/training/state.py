"""The state of a training stage: everything that changes from step to step, as one pytree for checkpoints."""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from pavdm_jax.training.loss import Average

NO_FAULT = (-1, -1, 0)


class TrainState(struct.PyTreeNode):
    """The state that a training step changes.

    Attributes:
      step: int32 [], steps done in this stage.
      params: the trained parameters: slash-separated path → float32 array.
      ema: their exponential moving average, float32, which is the result of the stage.
      opt_state: of the optimiser.
      totals: sums of the metrics since the last line of the log, with their weights; part of the state so that a
        resumed run logs the same values.
      smooth_loss: float32 [], the loss averaged over about a hundred steps.
      fault: int32 [3]: the first step whose loss or gradient was not finite, its first bad sample (-1 if only the
        gradient was bad), and the number of bad samples; (-1, -1, 0) if there was none.
    """

    step: jax.Array
    params: dict[str, jax.Array]
    ema: dict[str, jax.Array]
    opt_state: optax.OptState
    totals: dict[str, Average]
    smooth_loss: jax.Array
    fault: jax.Array


def init_state(trained: dict, optimizer: optax.GradientTransformation, metrics: dict) -> TrainState:
    """The state before the first step.

    Args:
      trained: the trained parameters by path.
      optimizer: the optimiser.
      metrics: arrays or shapes of the metrics of a step, see `step.metric_shapes`.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        # Copies, because a step reuses the memory of its state, while the caller keeps the model.
        params=jax.tree.map(jnp.copy, trained),
        ema=jax.tree.map(lambda x: jnp.array(x, jnp.float32), trained),
        opt_state=optimizer.init(trained),
        totals=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics),
        smooth_loss=jnp.zeros((), jnp.float32),
        fault=jnp.array(NO_FAULT, jnp.int32),
    )


def read_totals(state: TrainState) -> tuple[dict[str, float], TrainState]:
    """The means of the metrics since the last call, without those of weight 0; and the state with its sums reset."""
    totals = jax.device_get(state.totals)
    names = sorted(totals, key=lambda name: (name != "loss", name))
    means = {name: float(totals[name][0] / totals[name][1]) for name in names if totals[name][1] > 0}
    return means, state.replace(totals=jax.tree.map(jnp.zeros_like, state.totals))
