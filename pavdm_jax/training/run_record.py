"""The record of a run's config, `train_config.json`: a run is continued only with the same config.

Some fields may change between the parts of a run (`MAY_CHANGE`), and the last stage may get more steps. Then training
continues from its state, and the learning rate follows the schedule of the new number of steps. If the rate does not
decay (and the warm-up was not cut short by the old number of steps), the result is bit for bit that of a run with the
new number of steps from the beginning. With decay it is not: the rate rises again to that of the longer cosine.
"""

import contextlib
import dataclasses
import errno
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pavdm_jax import storage
from pavdm_jax.checkpoints.config_json import plain
from pavdm_jax.checkpoints.lora import FILE
from pavdm_jax.checkpoints.run_folder import newest_step
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.linear import default_precision
from pavdm_jax.outputs import lock_file
from pavdm_jax.training.config import Data, Objective, TrainConfig

RECORD = "train_config.json"

FORMER_RECORD = "train_config.txt"

LOCK = ".lock"
"""The file in a run's folder that the process which trains into it holds locked."""

WRITTEN = ("stages", "results", "start", "model", "samples", "tensorboard", "train.log", "log.csv", RECORD, FILE)
"""What a run writes into its folder, changes and deletes."""

MAY_CHANGE = re.compile(
    r"""
    output | mesh | remat                       # results are equal up to rounding
    | save_every | keep | keep_best | log_every # what is saved and logged
    | samples(\..*)?
    | stages\.\d+\.data\.workers
    """,
    re.VERBOSE,
)
"""Fields, by dotted names, that may differ between the parts of a run."""

KINDS = (*typing.get_args(Objective), *typing.get_args(Data))
"""Classes of fields that may have one of several; the record names the class."""

ABSENT = object()


def check_claim(output: Path, config: TrainConfig) -> int | None:
    """Check that a run of this config may start or continue in the folder `output`.

    Returns:
      The steps of the last stage that are recorded there; None if there is no run yet.

    Raises:
      ConfigError: the folder holds a run of another config or of an earlier version, or something else.
    """
    with storage.cloud_errors(output):
        if (output / RECORD).exists():
            return _check_same(output, (output / RECORD).read_bytes(), config)
        if (output / FORMER_RECORD).exists():
            raise ConfigError(
                f"{output} holds a run of an earlier version of pavdm_jax ({FORMER_RECORD}), which this one cannot go "
                f"on with; start from its weights in another folder: --init-from {output} --output NEW"
            )
        others = [name for name in ("config.json", "model", "results", FILE, "checkpoints") if (output / name).exists()]
        others += ["stages"] if newest_step(output) else []
    if others:
        raise ConfigError(f"{output} is no run of this trainer, but holds {', '.join(others)}; choose another --output")
    return None


@contextlib.contextmanager
def claim(output: Path, config: TrainConfig) -> Iterator[int | None]:
    """A context that makes the run's folder and its record, or continues in it; yields the result of `check_claim`.

    If the run fails before its first checkpoint, a record that it made is removed, so that another config may use the
    folder. With several processes, only one calls it. No other run may use the folder until the context is left; this
    is not checked in a bucket.

    Raises:
      ConfigError: see `check_claim`; or the folder cannot be made, or another process trains into it.
    """
    storage.make_folder(output)
    with _locked(output):
        links = [name for name in WRITTEN if not storage.is_remote(output) and (output / name).is_symlink()]
        if links:
            raise ConfigError(
                f"{output / links[0]} is a symbolic link, through which something else would be changed; put what it "
                "names in its place, or make the run's folder itself the link"
            )
        recorded = check_claim(output, config)
        content = json.dumps(_as_json(config) | _precision(), indent=2, default=plain).encode()
        if recorded is None or (output / RECORD).read_bytes() != content:
            storage.write(output / RECORD, content)
        try:
            yield recorded
        except Exception:
            if recorded is None and not newest_step(output):
                with contextlib.suppress(OSError):  # the first error is the one to report
                    storage.remove(output / RECORD)
            raise


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """A context that holds the lock of a run's folder. Its file stays: without its name, two could hold the lock."""
    if storage.is_remote(output):
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file(output / LOCK))
        except BlockingIOError:
            raise ConfigError(
                f"another process trains into {output}; wait for it, or choose another --output"
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ConfigError(
                    f"{output / LOCK} is a symbolic link; remove it, or choose another --output"
                ) from None
            raise
        yield


def _check_same(output: Path, content: bytes, config: TrainConfig) -> int:
    """The recorded steps of the last stage; `ConfigError` if a field differs that may not change."""
    try:
        record = json.loads(content)
        there = dict(_leaves(record))
        last = f"stages.{len(record['stages']) - 1}.steps"
        recorded = there[last]
        if not isinstance(recorded, int):
            raise TypeError(recorded)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{output / RECORD} is damaged; choose another --output or remove that folder") from None
    given = dict(_leaves(_as_json(config))) | _precision()
    defaults: dict[str, Any] = dict(_leaves(_defaults(config))) | dict.fromkeys(_precision())
    for name in dict.fromkeys([*given, *there]):
        ours = given.get(name, ABSENT)
        theirs = there.get(name, defaults.get(name, ABSENT))
        if ours == theirs or MAY_CHANGE.fullmatch(name):
            continue
        if name == last and isinstance(ours, int):
            if ours > theirs:
                continue
            raise ConfigError(
                f"{output} holds a run with {name} {theirs}, not {ours}: the last stage may get more steps, not fewer; "
                "choose another --output"
            )
        raise ConfigError(
            f"{output} holds a run with {name} {_shown(theirs)}, not {_shown(ours)}; choose another --output or remove "
            "that folder"
        )
    return recorded


def _precision() -> dict[str, str | None]:
    """What the numbers of a run depend on beside its config: the precision of products where the user set one."""
    return {"matmul_precision": default_precision()}


def _shown(value: Any) -> str:
    return "absent" if value is ABSENT else str(value)


def _as_json(value: Any) -> Any:
    """A config as JSON values; fields that may have one of several classes name theirs."""
    if dataclasses.is_dataclass(value):
        kind = {"kind": type(value).__name__} if isinstance(value, KINDS) else {}
        return kind | {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value


def _defaults(value: Any) -> Any:
    """The defaults of a config's fields, in the form of `_as_json`; fields without a default are left out."""
    if isinstance(value, tuple):
        return [_defaults(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    found = {}
    for field in dataclasses.fields(value):
        if field.default is not dataclasses.MISSING:
            found[field.name] = _as_json(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = _as_json(field.default_factory())
        elif dataclasses.is_dataclass(getattr(value, field.name)) or isinstance(getattr(value, field.name), tuple):
            found[field.name] = _defaults(getattr(value, field.name))
    return found


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of all leaves of nested dictionaries and lists of dictionaries."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        parts = enumerate(value)
    else:
        yield name, value
        return
    for key, item in parts:
        yield from _leaves(item, f"{name}.{key}" if name else str(key))
