"""The folder of a training run.

    RUN/train_config.txt        whose run it is
    RUN/start/                  the random model of a run from nothing
    RUN/stages/0-NAME/STEP/     checkpoints, the step counted over the whole run: state, ema, about
    RUN/results/0-NAME/         the model after a stage that is not the last
    RUN/model/                  the finished model; of LoRA the adapters, lora.safetensors
    RUN/log.csv, train.log, tensorboard/, samples/

Frozen parameters are in no checkpoint: `about` says where the model is that the stage started from, and how to know it. The folder may
be in a bucket: there a checkpoint counts from its `commit_success.txt` on, and a model from its `parts.json` on.
"""

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.typing import DTypeLike
from orbax.checkpoint import checkpoint_managers

from pavdm_jax import lora, storage
from pavdm_jax.checkpoints import is_embedded, is_model, load
from pavdm_jax.config import ConfigError, ModelConfig, first_line, from_json, require, to_json
from pavdm_jax.model import Model, digest
from pavdm_jax.train_config import Stage, TrainConfig
from pavdm_jax.training.parameters import merge
from pavdm_jax.training.state import TrainState

RECORD = "train_config.txt"


class SaveError(OSError):
    """A checkpoint could not be written; the ones before it are whole."""


def check_claim(output: Path, config: TrainConfig) -> bool:
    """Whether the folder is already that of a run of this config.

    Raises:
      ConfigError: it holds a run of another config, or something else.
    """
    record = output / RECORD
    with storage.explained(output):
        if record.exists():
            require(
                record.read_text() == _claimed_by(config),
                f"{output} holds a run of another config; choose another --output or remove that folder",
            )
            return True
        others = [name for name in ("config.json", "model", "checkpoints") if (output / name).exists()]
        others += ["stages"] if newest_step(output) else []
    require(not others, f"{output} is no run of this trainer, but holds {', '.join(others)}; choose another --output")
    return False


@contextlib.contextmanager
def claim(output: Path, config: TrainConfig) -> Iterator[None]:
    """Make the run's folder, or go on in it; a run that fails before its first checkpoint leaves it free for another config.

    Of several processes one calls it.

    Raises:
      ConfigError: see `check_claim`; or the folder cannot be made.
    """
    if not check_claim(output, config):
        storage.make_folder(output)
        storage.write(output / RECORD, _claimed_by(config).encode())
    try:
        yield
    except (ConfigError, OSError):
        if not newest_step(output):
            with contextlib.suppress(OSError):  # the failure itself is what matters
                storage.remove(output / RECORD)
        raise


def _claimed_by(config: TrainConfig) -> str:
    """What is computed, which may not change between the parts of a run; what is seen and kept of it may."""
    shown = {
        name: TrainConfig.__dataclass_fields__[name].default
        for name in ("save_every", "log_every", "keep", "keep_best")
    }
    return repr(dataclasses.replace(config, samples=type(config.samples)(), **shown)) + "\n"


def stage_folder(output: Path, number: int, stage: Stage) -> Path:
    """Where a stage keeps its checkpoints."""
    return output / "stages" / f"{number}-{stage.name}"


def result_folder(output: Path, number: int, stage: Stage) -> Path:
    """Where a stage that is not the last puts its model."""
    return output / "results" / f"{number}-{stage.name}"


class Checkpoints:
    """The checkpoints of a stage: written in the background, whole or absent; the newest ones and the best are kept.

    Args:
      folder: of the stage.
      config: of the run.
      stage: which is trained.
      base: the model that the stage starts from.
      base_path: where it is.
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
            best_fn=loss,  # without it the losses would not be written, and forgotten when the run is interrupted
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        self.folder = folder
        self.about = {
            "base": base_path if is_embedded(base_path) else storage.reference(base_path, config.output),
            "digests": {part: digest(params) for part, params in base.params.items()},
            "model": to_json(config.model),
            "lora_alpha": stage.lora.alpha if stage.lora else None,
        }
        with storage.explained(folder):
            self._manager = ocp.CheckpointManager(storage.absolute(folder), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if kind is None:
            self.wait()
        with contextlib.suppress(Exception):  # a failed save has been reported, and would be once more
            self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest one."""
        return self._manager.latest_step()

    @property
    def best(self) -> Path:
        """Of those that are kept, the one of the lowest smoothed loss."""
        return self.folder / str(self._manager.best_step())

    def restore(self, state: TrainState) -> TrainState:
        """The newest checkpoint, in the shapes and on the devices of `state`.

        Raises:
          ConfigError: the model that the stage starts from has changed, or the checkpoint is damaged.
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
            raise ConfigError(
                f"the checkpoint {self.folder / str(step)} cannot be read: {_reason(error)}; remove it to go on from the one before"
            ) from None
        _check_base(restored["about"], self.about["digests"], self.folder)
        return TrainState(ema=restored["ema"], **restored["state"])

    def save(self, step: int, state: TrainState, loss: float) -> None:
        """Begin to write a checkpoint.

        Raises:
          SaveError: this one, or the one before, could not be written.
        """
        args = ocp.args.Composite(
            about=ocp.args.JsonSave(self.about),
            **{name: ocp.args.StandardSave(item) for name, item in _items(state).items()},
        )
        with self._errors():
            self._manager.save(step, args=args, metrics={"loss": loss})

    def wait(self) -> None:
        """Until all is written.

        Raises:
          SaveError: it could not be.
        """
        with self._errors():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # from Orbax's threads, of many kinds
            whole = _steps(self.folder)
            kept = f"checkpoint {whole[-1]} is whole" if whole else "there is none before it"
            raise SaveError(
                f"a checkpoint could not be written to {self.folder}: {_reason(error)}; {kept}; make room and give the same command again"
            ) from None


def load_run(path: Path, parts: Sequence[str], shardings: dict | None, dtype: DTypeLike) -> Model:
    """The model with the averaged weights of a checkpoint.

    Args:
      path: the run (its newest checkpoint is taken), or a checkpoint.
      parts, shardings, dtype: see `checkpoints.load`; a text encoder that the run trains is always read.

    Raises:
      ConfigError: there is no checkpoint yet, it is damaged, or the model that the run started from is gone or has changed.
    """
    step = path if (path / "ema").is_dir() else _newest(path)
    if is_model(step):  # the result of a stage, and the next one has saved nothing yet
        return load(step, parts, shardings, dtype)
    run = storage.absolute(step).parents[2]
    try:
        about = json.loads((step / "about" / "metadata").read_text())
        with contextlib.closing(ocp.StandardCheckpointHandler()) as item:
            stored = dict(item.metadata(storage.absolute(step / "ema")))
            if any(name.startswith("t5/") for name in stored):  # else generation reads it from the base's folder
                parts = tuple(dict.fromkeys((*parts, "t5")))
            base_path = about["base"] if is_embedded(about["base"]) else storage.resolve(run, about["base"])
            base = load(base_path, parts, shardings, dtype)
            flat = traverse_util.flatten_dict(base.params, sep="/")
            # Adapters, and parameters of parts that are not asked for, have no like in the base.
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device) for name, x in stored.items()}
            like |= {name: ocp.utils.to_shape_dtype_struct(flat[name]) for name in stored if name in flat}
            trained = item.restore(storage.absolute(step / "ema"), args=ocp.args.StandardRestore(like))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the checkpoint {step} cannot be read: {_reason(error)}") from None
    _check_base(about, {part: digest(params) for part, params in base.params.items()}, step)
    if about["lora_alpha"] is not None:
        params = lora.merge(base.params, trained, about["lora_alpha"])
    else:
        params = merge(flat, {name: x for name, x in trained.items() if name.split("/")[0] in parts})
    return base.replace(params=params, config=from_json(ModelConfig, about["model"]))


def _items(state: TrainState) -> dict:
    """What is kept apart, so that the averaged weights can be read alone."""
    state = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {"ema": state.pop("ema"), "state": state}


def _check_base(about: dict, digests: dict[str, str], where: Path) -> None:
    changed = [part for part, found in digests.items() if about["digests"].get(part) != found]
    require(
        not changed,
        f"{where} was trained from the model {about['base']}, whose {' and '.join(changed)} changed since; put that model back",
    )


def _newest(run: Path) -> Path:
    """The last checkpoint of a run, or the model of its last finished stage."""
    for folder in reversed(_stages(run)):
        result, steps = run / "results" / folder.name, _steps(folder)
        if is_model(result) or steps:
            return result if is_model(result) else folder / str(steps[-1])
    raise ConfigError(f"the training run {run} has no checkpoint yet; wait until it has saved one")


def newest_step(run: Path) -> int:
    """The step, counted over the whole run, of its newest checkpoint; 0 without one."""
    return max((step for folder in _stages(run) for step in _steps(folder)), default=0)


def _stages(run: Path) -> list[Path]:
    """The folders of a run's stages, in their order."""
    found = [name for name in storage.names(run / "stages") if name.split("-")[0].isdigit()]
    return [run / "stages" / name for name in sorted(found, key=lambda name: int(name.split("-")[0]))]


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a stage's folder that were written to their end."""
    steps = [int(name) for name in storage.names(folder) if name.isdigit()]
    return sorted(step for step in steps if ocp.utils.is_checkpoint_finalized(folder / str(step)))


def _reason(error: Exception) -> str:
    """Why a file could not be written or read, in a few words."""
    text = str(error)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return first_line(error)
