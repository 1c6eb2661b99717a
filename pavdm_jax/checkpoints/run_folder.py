"""The folder of a training run, as it is read.

    RUN/train_config.json       whose run it is
    RUN/start/                  the random model of a run from nothing
    RUN/stages/0-NAME/STEP/     checkpoints, the step counted over the whole run: state, ema, about
    RUN/results/0-NAME/         the model after a stage that is not the last
    RUN/model/                  the finished model
    RUN/lora.safetensors        the adapters of a run with LoRA, instead of it or beside it
    RUN/log.csv, train.log, tensorboard/, samples/

Frozen parameters are in no checkpoint: `about` says where the model is that the stage started from, and how to know it.
The folder may be in a bucket: there a checkpoint counts from its `commit_success.txt` on, and a model from its
`parts.json` on. `training/checkpoints.py` writes it.
"""

import errno
import os
from pathlib import Path

import orbax.checkpoint as ocp

from pavdm_jax import storage
from pavdm_jax.checkpoints.model_folder import is_model
from pavdm_jax.errors import ConfigError, first_line


def stage_folder(output: Path, number: int, name: str) -> Path:
    """Where a stage keeps its checkpoints."""
    return output / "stages" / f"{number}-{name}"


def result_folder(output: Path, number: int, name: str) -> Path:
    """Where a stage that is not the last puts its model."""
    return output / "results" / f"{number}-{name}"


def is_unfinished_run(folder: Path) -> bool:
    """Whether a folder is a training run without its finished model, or one of its checkpoints."""
    with storage.cloud_errors(folder):
        return not is_model(folder / "model") and any((folder / name).is_dir() for name in ("stages", "ema"))


def check_base(about: dict, fingerprints: dict[str, str], where: Path) -> None:
    """Refuse a checkpoint whose frozen parameters are not those of the model that its stage started from.

    Args:
      about: what the checkpoint notes about that model.
      fingerprints: of the model that is there now, by part; see `fingerprint.params_fingerprint`.
      where: the checkpoint, for the message.

    Raises:
      ConfigError: they differ, or the checkpoint was written before models were told apart by this rule.
    """
    if "fingerprints" not in about:
        raise ConfigError(
            f"{where} was written by an earlier version of pavdm_jax; finish that run with that version, or train again"
        )
    changed = [part for part, found in fingerprints.items() if about["fingerprints"].get(part) != found]
    if changed:
        raise ConfigError(
            f"{where} was trained from the model {about['base']}, whose {' and '.join(changed)} changed since; put "
            "that model back"
        )


def newest_checkpoint(run: Path) -> Path:
    """The last checkpoint of a run, or the model of its last finished stage."""
    for folder in reversed(_stages(run)):
        result, steps = run / "results" / folder.name, checkpoint_steps(folder)
        if is_model(result) or steps:
            return result if is_model(result) else folder / str(steps[-1])
    raise ConfigError(f"the training run {run} has no checkpoint yet; wait until it has saved one")


def newest_step(run: Path) -> int:
    """The step, counted over the whole run, of its newest checkpoint; 0 without one."""
    return max((step for folder in _stages(run) for step in checkpoint_steps(folder)), default=0)


def _stages(run: Path) -> list[Path]:
    """The folders of a run's stages, in their order."""
    found = [name for name in storage.names(run / "stages") if name.split("-")[0].isdigit()]
    return [run / "stages" / name for name in sorted(found, key=lambda name: int(name.split("-")[0]))]


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a stage's folder that were written to their end."""
    steps = [int(name) for name in storage.names(folder) if name.isdigit()]
    return sorted(step for step in steps if ocp.utils.is_checkpoint_finalized(folder / str(step)))


def reason(error: Exception) -> str:
    """Why a file could not be written or read, in a few words."""
    text = str(error)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return first_line(error)
