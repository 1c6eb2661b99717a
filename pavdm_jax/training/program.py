"""The compiled programs of a stage, with the shardings of their arrays.

They are made from arrays for training, or from shapes for compiling only.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from pavdm_jax.config import VAEConfig
from pavdm_jax.distributed.mesh import use_mesh
from pavdm_jax.distributed.partitioning import replicated, tree_shardings
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.attention import choose_backend
from pavdm_jax.models.model import flatten
from pavdm_jax.training.config import Stage, TrainConfig
from pavdm_jax.training.denoising import DISTILLED, DiffusionObjective, at_size_of_batch, denoising_loss
from pavdm_jax.training.distillation import TEACHER, distillation_loss
from pavdm_jax.training.loss import Loss, by_kind
from pavdm_jax.training.parameters import Trainable
from pavdm_jax.training.reconstruction import reconstruction_loss
from pavdm_jax.training.state import TrainState, init_state
from pavdm_jax.training.step import learning_rate, make_gradients, make_optimizer, make_train_step, metric_shapes


class Program(NamedTuple):
    """The compiled programs of a stage.

    Attributes:
      init: trained parameters → the state before the first step.
      step: (state, frozen, batch, key) → (state, loss), to be called inside `use_mesh`.
      state: shapes and shardings of the state.
      frozen: shardings of the frozen parameters.
    """

    init: Callable[[dict], TrainState]
    step: Callable[[TrainState, dict, dict, jax.Array], tuple[TrainState, jax.Array]]
    state: TrainState
    frozen: dict


def make_loss(config: TrainConfig, stage: Stage, device: jax.Device | None) -> Loss:  # pyright: ignore[reportInvalidTypeForm]
    """The loss of a stage's objective, for programs on such a device; None: any."""
    loss = _objective_loss(config, stage, device)
    return by_kind(loss) if stage.data.image_share else loss


def _objective_loss(config: TrainConfig, stage: Stage, device: jax.Device | None) -> Loss:  # pyright: ignore[reportInvalidTypeForm]
    objective = stage.objective
    if isinstance(objective, DiffusionObjective):
        dtype = jnp.dtype(config.compute_dtype)
        backend = "xla" if device is None else choose_backend(device, dtype, config.model.transformer.head_width)

        def sized_loss(model: AnyModelConfig) -> Loss:
            if isinstance(objective, DISTILLED):
                return distillation_loss(model, objective, dtype, config.remat, backend)
            return denoising_loss(model, objective, dtype, config.remat, backend)

        return at_size_of_batch(sized_loss, config.model)
    assert isinstance(config.model.vae, VAEConfig)  # `TrainConfig` has refused others
    return reconstruction_loss(config.model.vae, objective)


def used_parts(model: AnyModelConfig, stage: Stage, example: dict) -> tuple[str, ...]:
    """The networks that the loss of a stage uses, for a batch like `example`; the others stay on the host."""
    if not isinstance(stage.objective, DiffusionObjective):
        return ("vae",)
    return (model.transformer_part,) if "features" in example else (model.transformer_part, "t5")


def used_frozen(
    model: AnyModelConfig, parameters: Trainable, params: dict, stage: Stage, example: dict
) -> dict[str, jax.Array]:
    """The frozen parameters that the loss of a stage uses, by path; the teacher's of a distillation are among them.

    Args:
      model: the architecture.
      parameters: of the stage.
      params: of the model from which it starts, a tree of arrays or shapes.
      stage: the stage.
      example: see `used_parts`.
    """
    used = used_parts(model, stage, example)
    frozen = {name: x for name, x in parameters.frozen.items() if name.split("/")[0] in used}
    if isinstance(stage.objective, DISTILLED):
        part = model.transformer_part
        frozen |= {f"{TEACHER}/{name}": x for name, x in flatten({part: params[part]}).items()}
    return frozen


def make_program(
    config: TrainConfig, stage: Stage, parameters: Trainable, example: dict, mesh: Mesh | AbstractMesh
) -> Program:
    """Make the programs of a stage.

    Args:
      config: of the run.
      stage: the stage.
      parameters: arrays or shapes; of the frozen ones, only those that are used.
      example: a batch, of arrays or shapes.
      mesh: of the run; it may be abstract if everything else is shapes.
    """
    trained, frozen, assemble = parameters
    optimizer = make_optimizer(stage.optimizer, stage.steps)
    loss = make_loss(config, stage, mesh.devices.flat[0] if isinstance(mesh, Mesh) else None)
    gradients_of = make_gradients(loss, assemble, stage.optimizer.accumulate)
    with use_mesh(mesh) if isinstance(mesh, Mesh) else contextlib.nullcontext():
        metrics = metric_shapes(loss, jax.eval_shape(assemble, trained, frozen), example)
    init = functools.partial(init_state, optimizer=optimizer, metrics=metrics)
    state = jax.eval_shape(init, trained)
    places = tree_shardings(state, mesh)
    schedule = learning_rate(stage.optimizer, stage.steps)
    return Program(
        jax.jit(init, out_shardings=places),
        make_train_step(gradients_of, optimizer, schedule, stage.optimizer.ema_decay, (places, replicated(mesh))),
        jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, places),
        tree_shardings(frozen, mesh),
    )
