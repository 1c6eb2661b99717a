"""Writing the checkpoints of a training run; `checkpoints/run_folder.py` describes its folder."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from pavdm_jax import storage
from pavdm_jax.checkpoints.config_json import to_json
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.model_folder import is_embedded
from pavdm_jax.checkpoints.run_folder import check_base, checkpoint_steps, reason
from pavdm_jax.errors import ConfigError, MachineError
from pavdm_jax.models.model import Model
from pavdm_jax.training.config import Stage, TrainConfig
from pavdm_jax.training.state import TrainState
from pavdm_jax.training.trained_with import trained_with

PASSING = (storage.StorageError, PermissionError, ConnectionError, TimeoutError, MemoryError)
PASSING_CODES = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED")
"""Kinds of errors, and codes in their messages, that say nothing of what is stored: they are of too little memory, the
network, or permissions."""


class SaveError(MachineError):
    """A checkpoint could not be written; the ones before it are complete."""


class Checkpoints:
    """The checkpoints of a stage, written in the background and atomically; use it as a context manager.

    The newest ones are kept, and those of the lowest loss (`TrainConfig.keep` and `keep_best`).

    Args:
      folder: of the stage's checkpoints.
      config: of the run.
      stage: the stage.
      base: the model that the stage starts from.
      base_path: the folder of that model, or its name if it is embedded.
    """

    def __init__(self, folder: Path, config: TrainConfig, stage: Stage, base: Model, base_path: str):
        def loss(metrics: dict) -> float:
            return metrics["loss"]

        best = checkpoint_managers.BestN(
            get_metric_fn=loss, reverse=True, n=config.keep_best, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(config.keep), best]
            ),
            best_fn=loss,  # without it the losses are not written, and a resumed run does not know the best one
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        self.folder = folder
        self.about = {
            "base": base_path if is_embedded(base_path) else storage.reference(base_path, config.output),
            "fingerprints": {part: params_fingerprint(params) for part, params in base.params.items()},
            "model": to_json(config.model),
            "lora_alpha": stage.lora.alpha if stage.lora else None,
            "trained_with": to_json(trained_with(config.model, stage, base.trained_with)),
        }
        with storage.cloud_errors(folder):
            self._manager = ocp.CheckpointManager(storage.absolute(folder), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if kind is None:
            self.wait()
        with contextlib.suppress(Exception):  # a failed save has been reported already
            self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, counted over the whole run; None if there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest smoothed loss of those that are kept."""
        return self.folder / str(self._manager.best_step())

    def restore(self, state: TrainState) -> TrainState:
        """The state of the newest checkpoint, with the shapes and shardings of `state`.

        Raises:
          ConfigError: the model that the stage starts from has changed, or the checkpoint is damaged; as a
            `MachineError`, that it cannot be read now.
        """
        step = self.latest
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(state))
        args = ocp.args.Composite(
            about=ocp.args.JsonRestore(),
            **{name: ocp.args.StandardRestore(item) for name, item in target.items()},
        )
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # Orbax reports damage by exceptions of many kinds
            problem = f"the checkpoint {self.folder / str(step)} cannot be read: {reason(error)}"
            if isinstance(error, PASSING) or any(code in str(error) for code in PASSING_CODES):
                raise MachineError(f"{problem}; it may be whole: give the same command again when this ends") from None
            raise ConfigError(f"{problem}; remove it to go on from the one before") from None
        check_base(restored["about"], self.about["fingerprints"], self.folder)
        return TrainState(ema=restored["ema"], **restored["state"])

    def save(self, step: int, state: TrainState, loss: float) -> None:
        """Start writing a checkpoint in the background.

        Args:
          step: counted over the whole run.
          state: the stage's state.
          loss: smoothed, by which the best checkpoints are kept.

        Raises:
          SaveError: this checkpoint, or the one before it, could not be written.
        """
        args = ocp.args.Composite(
            about=ocp.args.JsonSave(self.about),
            **{name: ocp.args.StandardSave(item) for name, item in _items(state).items()},
        )
        with self._errors():
            self._manager.save(step, args=args, metrics={"loss": loss})

    def wait(self) -> None:
        """Wait until all checkpoints are written.

        Raises:
          SaveError: one could not be written.
        """
        with self._errors():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # from Orbax's threads, of many kinds
            whole = checkpoint_steps(self.folder)
            kept = f"checkpoint {whole[-1]} is whole" if whole else "there is none before it"
            raise SaveError(
                f"a checkpoint could not be written to {self.folder}: {reason(error)}; {kept}; make room and give "
                "the same command again"
            ) from None


def _items(state: TrainState) -> dict:
    """The items of a checkpoint; the averaged weights are one of their own, so that they can be read alone."""
    items = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {"ema": items.pop("ema"), "state": items}
