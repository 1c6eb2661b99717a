"""One training step: gradients of a batch, or of its parts; optimiser; moving average; sums for the log."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from pavdm_jax.training.config import OptimizerConfig
from pavdm_jax.training.loss import Average, Loss, scalar_metric
from pavdm_jax.training.parameters import block_matrices
from pavdm_jax.training.state import TrainState


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step → rate: a linear warm-up, then a cosine down to zero over the stage's `steps`, or a constant rate."""
    warmup = min(config.warmup_steps, steps)
    if config.decay:
        return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, warmup + 1))
    if warmup == 0:  # optax would keep a ramp of no steps at its beginning, 0
        return optax.constant_schedule(config.learning_rate)
    return optax.linear_schedule(0.0, config.learning_rate, warmup)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The config's algorithm after clipping of the global gradient norm, for a stage of `steps` steps.

    It is for parameters by path, as in `parameters.Trainable`.
    """
    rate = learning_rate(config, steps)
    if config.algorithm == "muon":
        rule = optax.contrib.muon(
            rate,
            adam_b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=MUON_RMS,
        )
    else:
        rule = optax.adamw(rate, b2=config.beta2, eps=config.epsilon, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)


MUON_RMS = 0.2
"""Root mean square of Muon's changes, in learning rates: about AdamW's, so that its rates serve (arXiv 2502.16982)."""


def _matrices(params: Any) -> Any:
    """Which parameters, by path, Muon is for: the linear layers of stacked blocks, [depth, in, out]; None for others.

    Raises:
      ConfigError: there are none.
    """
    matrix, chosen = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2), block_matrices(params)
    return {path: matrix if path in chosen else None for path in params}


SMOOTHING = 0.99

Gradients = Callable[[dict, dict, dict, jax.Array], tuple[dict, jax.Array, dict[str, Average]]]
"""(trained, frozen, batch, key) -> gradients, losses of the samples [b], metrics."""


def make_gradients(loss: Loss, assemble: Callable[[dict, dict], dict], accumulate: int) -> Gradients:
    """A function for the mean gradients of a batch, computed in `accumulate` equal parts one after another.

    Args:
      loss: of the model's parameters.
      assemble: see `parameters.Trainable`.
      accumulate: divides the batch size.
    """

    def gradients_of(trained: dict, frozen: dict, batch: dict, key: jax.Array):
        def of_trained(trained: dict, samples: dict, key: jax.Array):
            value, report = loss(assemble(trained, frozen), samples, key)
            return value, (report.per_sample, {"loss": scalar_metric(value), **report.metrics})

        def of_part(number: jax.Array | int, samples: dict):
            return jax.grad(of_trained, has_aux=True)(trained, samples, jax.random.fold_in(key, number))

        def add_part(total: dict, part: tuple[jax.Array, dict]):
            gradients, aux = of_part(*part)
            return jax.tree.map(lambda old, new: old + new / accumulate, total, gradients), aux

        if accumulate == 1:  # outside a loop, where compilers do better
            gradients, (per_sample, metrics) = of_part(0, batch)
            return gradients, per_sample, metrics
        start = jax.tree.map(jnp.zeros_like, trained)
        parts = jnp.arange(accumulate), jax.tree.map(lambda x: _to_parts(x, accumulate), batch)
        gradients, (per_sample, metrics) = jax.lax.scan(add_part, start, parts)
        metrics = jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
        return gradients, per_sample.swapaxes(0, 1).reshape(-1), metrics

    return gradients_of


def _to_parts(x: jax.Array, accumulate: int) -> jax.Array:
    """[b, ...] → [accumulate, b / accumulate, ...]: each part has samples of all devices, so that none are moved."""
    return jnp.reshape(x, (x.shape[0] // accumulate, accumulate, *x.shape[1:])).swapaxes(0, 1)


def metric_shapes(loss: Loss, params: dict, batch: dict) -> dict:
    """Shapes of the metrics that a step adds to `TrainState.totals`; arguments may be arrays or shapes."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    _, report = jax.eval_shape(loss, params, batch, key)
    number = jax.eval_shape(lambda: scalar_metric(jnp.zeros(())))
    return {"loss": number, **report.metrics, "grad_norm": number, "learning_rate": number}


def make_train_step(
    gradients_of: Gradients,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    ema_decay: float,
    shardings: tuple | None,
) -> Callable:
    """The compiled step, `step(state, frozen, batch, key) -> (state, loss)`; it reuses the memory of its state.

    `shardings` are those of the results; None leaves them to the compiler.
    """

    def train_step(state: TrainState, frozen: dict, batch: dict, key: jax.Array) -> tuple[TrainState, jax.Array]:
        gradients, per_sample, metrics = gradients_of(state.params, frozen, batch, jax.random.fold_in(key, state.step))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params: dict[str, Any] = optax.apply_updates(state.params, updates)  # pyright: ignore[reportAssignmentType]
        loss = metrics["loss"][0] / metrics["loss"][1]
        grad_norm = optax.tree.norm(gradients)
        metrics |= {
            "grad_norm": scalar_metric(grad_norm),
            "learning_rate": scalar_metric(jnp.asarray(schedule(state.step))),
        }
        new = TrainState(
            step=state.step + 1,
            params=params,
            ema=_moving_average(ema_decay, state.step, state.ema, params),
            opt_state=opt_state,
            totals=jax.tree.map(jnp.add, state.totals, metrics),
            smooth_loss=_moving_average(SMOOTHING, state.step, state.smooth_loss, loss),
            fault=jnp.where(state.fault[0] >= 0, state.fault, _find_fault(state.step, per_sample, grad_norm)),
        )
        return new, loss

    return jax.jit(train_step, donate_argnums=0, out_shardings=shardings)


def _moving_average(decay: float, step: jax.Array, average, new):
    """The moving average after one more value; in the first steps it decays faster, to forget the initial values."""
    used = jnp.minimum(decay, step / (10.0 + step))
    return jax.tree.map(lambda old, value: used * old + (1.0 - used) * value, average, new)


def _find_fault(step: jax.Array, per_sample: jax.Array, grad_norm: jax.Array) -> jax.Array:
    """See `TrainState.fault`."""
    bad = ~jnp.isfinite(per_sample)
    first = jnp.where(jnp.any(bad), jnp.argmax(bad), -1)
    found = jnp.stack([step, first, jnp.sum(bad)]).astype(jnp.int32)
    return jnp.where(jnp.any(bad) | ~jnp.isfinite(grad_norm), found, jnp.array([-1, -1, 0], jnp.int32))
