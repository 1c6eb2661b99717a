"""Reading the folder of a training run, which `training/checkpoints.py` writes.

    RUN/train_config.json       the config of the run
    RUN/start/                  the model that a run starts from, where it is random or has grown
    RUN/stages/0-NAME/STEP/     checkpoints, the step counted over the whole run: state, ema, about
    RUN/results/0-NAME/         the model after a stage that is not the last
    RUN/model/                  the finished model
    RUN/lora.safetensors        the adapters of a run with LoRA, instead of the model or beside it
    RUN/log.csv, train.log, tensorboard/, samples/
    RUN/.lock                   locked by the process that trains

Frozen parameters are not in the checkpoints: `about` has the path and the fingerprints of the model that the stage
started from. The folder may be in a bucket; there a checkpoint is complete when it has `commit_success.txt`, and a
model when it has `parts.json`.
"""

import errno
import os
from pathlib import Path

from pavdm_jax import storage
from pavdm_jax.checkpoints.model_folder import is_embedded, is_model
from pavdm_jax.errors import FULL, ConfigError, first_line


def stage_folder(output: Path, number: int, name: str) -> Path:
    """The folder of a stage's checkpoints."""
    return output / "stages" / f"{number}-{name}"


def result_folder(output: Path, number: int, name: str) -> Path:
    """The folder of the model of a stage that is not the last."""
    return output / "results" / f"{number}-{name}"


def is_unfinished_run(path: str | os.PathLike) -> bool:
    """Whether a folder is a training run without its finished model, or one of its checkpoints.

    The name of an embedded model is none, even where a folder of that name lies in the working directory.
    """
    if is_embedded(path):
        return False
    folder = storage.as_path(path)
    with storage.cloud_errors(folder):
        return not is_model(folder / "model") and any((folder / name).is_dir() for name in ("stages", "ema"))


def check_base(about: dict, fingerprints: dict[str, str], where: Path) -> None:
    """Check that the frozen parameters of a checkpoint are still those that its stage started from.

    Args:
      about: the checkpoint's record of that model.
      fingerprints: of the model as it is now, by part; see `fingerprint.params_fingerprint`.
      where: the checkpoint, for the message.

    Raises:
      ConfigError: they differ, or the checkpoint is of an earlier version, without fingerprints.
    """
    if not isinstance(about, dict) or "fingerprints" not in about:
        raise ConfigError(
            f"{where} was written by an earlier version of pavdm_jax; finish that run with that version, or train again"
        )
    if not isinstance(about["fingerprints"], dict):
        raise ConfigError(f"{where} is damaged: it does not say which model it was trained from")
    changed = [part for part, found in fingerprints.items() if about["fingerprints"].get(part) != found]
    if changed:
        raise ConfigError(
            f"{where} was trained from the model {about.get('base')}, whose {' and '.join(changed)} changed since; put "
            "that model back"
        )


def newest_checkpoint(run: Path) -> Path:
    """The last checkpoint of a run, or the model of its last finished stage.

    Raises:
      ConfigError: there is none yet.
    """
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
    """The steps of the complete checkpoints in a stage's folder, in ascending order."""
    import orbax.checkpoint as ocp  # slow to import, and not wanted to find mistakes

    steps = [int(name) for name in storage.names(folder) if name.isdigit()]
    return sorted(step for step in steps if ocp.utils.is_checkpoint_finalized(folder / str(step)))


def reason(error: Exception) -> str:
    """The reason why a file could not be written or read, in a few words."""
    text = str(error)
    for code in (*FULL, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return first_line(error)
