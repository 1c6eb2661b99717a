"""The logs of a run: a progress bar, `log.csv`, `train.log`, and TensorBoard's scalars and sample videos.

For a run in a bucket, they are written to a temporary folder, which is copied with every checkpoint and at the end.
"""

import contextlib
import csv
import logging
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pavdm_jax import storage
from pavdm_jax.config import OPEN_SORA_1_2, STDIT3_3B
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.training.config import Stage
from pavdm_jax.training.state import TrainState

FIXED_COLUMNS = ("stage", "step", "seconds", "samples_per_second")


class RunLog:
    """The log of a whole run; use it as a context manager.

    Args:
      output: the run's folder.
      done: steps of the run that are done; lines of later steps, which will be repeated, are removed.
      shown: False for a process that writes nothing, because another one does.

    Attributes:
      folder: the folder for files of the run that do not come from Orbax; only where `shown`.
    """

    def __init__(self, output: Path, done: int, shown: bool = True):
        self.shown = shown
        self.text = logging.getLogger("pavdm_jax.train")
        self.text.setLevel(logging.INFO)
        self.text.propagate = False
        if not shown:
            self._handlers = [logging.NullHandler()]
            return
        from tensorboardX import (
            SummaryWriter,
        )  # here, because it imports PyTorch where that is installed, which takes seconds

        self._mirror = Mirror(output, ("log.csv", "train.log"))
        self.folder = self._mirror.folder
        self.table = Table(self.folder / "log.csv", done)
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=done + 1 if done else None)
        self._handlers = [logging.FileHandler(self.folder / "train.log"), logging.StreamHandler()]
        self._handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handlers[1].setFormatter(logging.Formatter("%(message)s"))

    def __enter__(self) -> "RunLog":
        for handler in self._handlers:
            self.text.addHandler(handler)
        self._redirect = logging_redirect_tqdm([self.text]) if self.shown else contextlib.nullcontext()
        self._redirect.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._redirect.__exit__(*error)
        for handler in self._handlers:
            self.text.removeHandler(handler)
            handler.close()
        if self.shown:
            self.board.close()
            first_fault_counts = contextlib.suppress(OSError) if error[0] else contextlib.nullcontext()
            with first_fault_counts:
                self._mirror.close()

    def keep(self) -> None:
        """Flush the logs, and copy them to the run's folder if it is in a bucket.

        Raises:
          OSError: they cannot be copied.
        """
        if self.shown:
            self.board.flush()
            self._mirror.copy()

    def line(self, step: int, row: dict[str, float | int | str], values: dict[str, float]) -> None:
        """Write a line of the table, and the values of a step, counted over the whole run, to TensorBoard."""
        if not self.shown:
            return
        self.table.write(row)
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def videos(self, step: int, gifs: list[Path]) -> None:
        """Write sample videos to TensorBoard, which plays GIFs among its images."""
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]: generated

        writer: Any = self.board.file_writer
        for number, path in enumerate(gifs):
            with Image.open(path) as image:
                width, height = image.size
            shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
            value = Summary.Value(tag=f"samples/{number}", image=shown)
            writer.add_summary(Summary(value=[value]), step)


class Table:
    """`log.csv`: a line for each logged step, with a column for each metric of any stage.

    Args:
      path: of the file, which is continued if it is there.
      done: steps of the run that are done; lines of later steps are removed.

    Raises:
      ConfigError: the file is no such table.
    """

    def __init__(self, path: Path, done: int):
        self.path, self.columns, self.rows = path, list(FIXED_COLUMNS), []
        if path.exists():
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    reader = csv.DictReader(file)
                    self.columns = list(reader.fieldnames or FIXED_COLUMNS)
                    rows = [row for row in reader if (row["step"] or "").isdecimal() and int(row["step"]) <= done]
            except (KeyError, ValueError, csv.Error):  # no column of steps, or no text
                raise ConfigError(
                    f"{path} is damaged, or no log of a training run; move it away, and give the same command again"
                ) from None
            self.rows = [{name: row[name] for name in self.columns} for row in rows]  # without what has no column
            self._rewrite()

    def write(self, row: dict[str, float | int | str]) -> None:
        """Append a line; a new metric adds a column to the whole table."""
        self.rows.append({name: f"{x:.6g}" if isinstance(x, float) else str(x) for name, x in row.items()})
        new = [name for name in row if name not in self.columns]
        self.columns += new
        if new or not self.path.exists():
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(self.rows[-1])

    def _rewrite(self) -> None:
        with storage.atomic_file(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


class StageLog:
    """The progress of a stage: a bar on the terminal, and lines of the run's log; use it as a context manager.

    Args:
      run: the run's log.
      stage: the stage.
      first: step of the run at which it starts.
      done: its steps that are done.
      flops: FLOPs of a step, or None where they are unknown.
      peak: peak FLOP/s of all devices, or None where it is unknown.
    """

    def __init__(self, run: RunLog, stage: Stage, first: int, done: int, flops: float | None, peak: float | None):
        self.run, self.stage, self.first = run, stage, first
        self.flops, self.peak = flops, peak
        self.bar = tqdm(
            total=stage.steps,
            initial=done,
            desc=stage.name,
            unit="step",
            smoothing=0.05,
            dynamic_ncols=True,
            disable=not run.shown,
        )
        self._began = self._since = time.time()
        self._start = self._step = done

    def __enter__(self) -> "StageLog":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def advance(self, loss: float) -> None:
        """Move the bar on by a step."""
        with contextlib.suppress(BrokenPipeError):  # nobody looks any more
            self.bar.set_postfix_str(f"loss={loss:.4g}{self._speed}", refresh=False)
            self.bar.update()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write a line of the log.

        Args:
          step: the steps of the stage that are done.
          metrics: name → mean since the line before.
        """
        now = time.time()
        rate = (step - self._step) / max(now - self._since, 1e-9)
        self._since, self._step = now, step
        samples = {"samples_per_second": rate * self.stage.batch_size}
        row = {"stage": self.stage.name, "step": self.first + step, "seconds": round(now - self._began, 1)}
        scalars = {**metrics, **samples, **self._utilisation(rate)}
        self.run.line(self.first + step, {**row, **samples, **metrics}, scalars)

    def summary(self, state: TrainState) -> str:
        """Loss, duration and speed of the stage since the last start, as text."""
        seconds = time.time() - self._began
        rate = (int(state.step) - self._start) * self.stage.batch_size / max(seconds, 1e-9)
        return f"smoothed loss {float(state.smooth_loss):.4g}, {seconds:.0f} s, {rate:.3g} samples/s"

    @property
    def _speed(self) -> str:
        rate = self.bar.format_dict["rate"]
        if not rate:
            return ""
        used = self._utilisation(rate)
        text = f", {rate * self.stage.batch_size:.3g} samples/s"
        if "mfu" in used:
            text += f", MFU {100 * used['mfu']:.1f}%"
        elif used:
            text += f", {used['model_tflops_per_second']:.3g} model TFLOP/s"
        return text

    def _utilisation(self, steps_per_second: float) -> dict[str, float]:
        if self.flops is None or not np.isfinite(steps_per_second):
            return {}
        reached = self.flops * steps_per_second
        return {"model_tflops_per_second": reached / 1e12} if self.peak is None else {"mfu": reached / self.peak}


class Mirror:
    """A local folder for growing files: the run's own or, for a run in a bucket, a temporary one that is copied there.

    Args:
      target: the run's folder.
      kept: names of files in it that are continued.

    Attributes:
      folder: the local folder.
    """

    def __init__(self, target: Path, kept: Iterable[str]):
        self.target, self.folder, self._copied = target, target, {}
        if not storage.is_remote(target):
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="pavdm-")
        self.folder = Path(self._temporary.name)
        with storage.cloud_errors(target):
            for name in storage.names(target) & set(kept):
                (self.folder / name).write_bytes((target / name).read_bytes())

    def copy(self) -> None:
        """Copy the files that changed since the last time; the last line of a log may be missing until the next time.

        Raises:
          OSError: it cannot be copied.
        """
        if self.folder == self.target:
            return
        found = storage.stamps(str(path) for path in sorted(self.folder.rglob("*")) if path.is_file())
        for path, stamp in found.items():
            if self._copied.get(path) != stamp:
                storage.upload(Path(path), self.target / Path(path).relative_to(self.folder).as_posix())
                self._copied[path] = stamp

    def close(self) -> None:
        """Copy the rest, and remove the temporary folder; raises as `copy`."""
        if self.folder != self.target:
            with self._temporary:
                self.copy()


FIRST_STEPS = 50
"""The step after which `loss_warning` judges the smoothed loss."""


def loss_warning(config: AnyModelConfig, loaded: bool, loss: float) -> str | None:
    """A warning about the loss of a diffusion stage's first steps, or None if it is as expected or nothing is known.

    Args:
      config: of the model; usual losses are known only for the published architectures with the published VAE.
      loaded: whether training started from a model on disk.
      loss: mean over samples and steps.
    """
    if config.transformer not in (OPEN_SORA_1_2.stdit3, STDIT3_3B) or config.vae != OPEN_SORA_1_2.vae:
        return None
    if loss > 3:
        return (
            f"the loss is {loss:.2f}; 4 to 5 is that of weights that were not loaded: check init_from and the latents' "
            "normalisation"
        )
    if loaded and loss > 0.8:
        return f"the loss is {loss:.2f}, about that of a fresh model; a good base shows 0.4 to 0.5: check init_from"
    if loss < 0.1:
        return f"the loss is {loss:.2f}; even a good base shows 0.4 to 0.5: check that the latents are not constant"
    return None
