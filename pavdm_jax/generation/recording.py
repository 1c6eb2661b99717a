"""Writes a stream of frames to files: videos that can be played while they grow, and a record to resume from."""

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pavdm_jax.checkpoints.fingerprint import model_fingerprint
from pavdm_jax.cli import INTERRUPTED, check_interrupted
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.generation.pipeline import open_stream
from pavdm_jax.generation.positions import (
    begin_states,
    check_states,
    finish_states,
    inherit_states,
    keep_state,
    read_arrays,
    remove_states,
    write_arrays,
)
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import Request
from pavdm_jax.generation.request_json import describe
from pavdm_jax.generation.stream import VideoStream, one_sample
from pavdm_jax.models.level_pattern import name_patterns
from pavdm_jax.models.linear import default_precision
from pavdm_jax.models.model import Model
from pavdm_jax.outputs import check_not_written, check_output, partial_path
from pavdm_jax.video.clips import iterate_video
from pavdm_jax.video.images import write_gif
from pavdm_jax.video.writer import NotResumable, VideoWriter, read_comment


def check_outputs(paths: Sequence[Path], crf: int) -> None:
    """Check before anything is computed that every video can be written.

    Raises:
      ConfigError: crf is not 1 to 51, or a path cannot be written.
    """
    if not 1 <= crf <= 51:
        raise ConfigError(f"crf must be 1 to 51, not {crf}; 18 looks like the original")
    for path in paths:
        check_states(check_output(path))


def record_path(output: Path) -> Path:
    """The file from which an interrupted run is resumed that began with this video: `NAME.resume.npz`."""
    return output.with_name(output.stem + ".resume.npz")


def check_record(output: Path) -> None:
    """Refuse to begin a video anew of which an interrupted run has left its record.

    Raises:
      ConfigError: there is a record, or another process is writing the video.
    """
    record = record_path(output)
    check_not_written(partial_path(output))
    if record.exists():
        raise ConfigError(
            f"{record} is left of an interrupted run; continue it with --resume, or delete that file to start again"
        )


@dataclass(frozen=True)
class Branch:
    """Where a video leaves another one, whose frames it begins with.

    Attributes:
      video: the other one.
      position: of it, from `positions.find_state`.
      prompt: what is to be seen from there on, or None: the same.
    """

    video: Path
    position: dict[str, np.ndarray]
    prompt: str | None

    def enter(self, stream: VideoStream, writers: Sequence[VideoWriter]) -> None:
        """Bring a stream and its files to the position."""
        stream.restore(self.position)
        if self.prompt is not None:
            stream.set_prompt(self.prompt)
        for writer in writers:
            writer.copy(self.video, stream.frames_done)


class Recording:
    """Makes a batch of videos and writes each to its file.

    While the run lasts, the record `NAME.resume.npz` lies beside the first output. It holds the sampler's position, how
    far each file was written then, and the run's `identity`. It is replaced atomically after every segment, once the
    frames are on disk. A finished file carries what was asked for as its comment, so that a resumed job knows which of
    its videos are done. Positions of each video are kept beside it (`positions.py`), unless it has no end.

    Args:
      outputs: a file for each sample.
      crf: H.264 quality, 1 to 51.
      states: whether positions are kept.
      branch: of a video that begins as another one.
      history: JSON values that the record and the comments say beside the request and the model.

    Attributes:
      identity: JSON values that decide what the videos are: the request, the model and its weights, and `crf`.
      frames_done: pixel frames of each video so far, the start clip's included.
    """

    def __init__(
        self,
        model: Model,
        request: Request,
        prompts: PromptFeatures,
        outputs: Sequence[Path],
        crf: int,
        *,
        states: bool = True,
        branch: Branch | None = None,
        history: Mapping[str, Any] | None = None,
    ):
        self.model, self.request, self.prompts = model, request, prompts
        self.outputs, self.crf, self.branch = list(outputs), crf, branch
        self.keeps_states = states and request.frames is not None
        made_by = {"model": model.config.name, "weights": model_fingerprint(model), "crf": crf}
        made_by |= {"trained_with": name_patterns(model.trained_with)} | dict(history or {})
        if (precision := default_precision()) is not None:
            made_by["matmul_precision"] = precision
        self.identity = describe(request) | made_by
        each = [request.part(slice(n, n + 1)) for n in range(request.batch)]
        self.comments = {path: json.dumps(describe(one) | made_by) for path, one in zip(outputs, each, strict=True)}
        self.frames_done = 0

    @property
    def record(self) -> Path:
        """The file from which an interrupted run is resumed."""
        return record_path(self.outputs[0])

    @property
    def partial_paths(self) -> list[Path]:
        """The unfinished videos that exist."""
        return [path for path in map(partial_path, self.outputs) if path.exists()]

    def is_done(self, resume: bool) -> bool:
        """Check the files that are there, and whether `resume` finds all videos finished, as this request makes them.

        Raises:
          ConfigError: there is a record of an interrupted run and `resume` is False; or `resume` finds the record, or a
            finished file, of another run.
        """
        if not resume:
            check_record(self.outputs[0])
        elif self.record.exists():
            self._read_record()
        else:
            others = [path for path in self.outputs if path.exists() and not self._is_finished(path)]
            if others:
                raise ConfigError(
                    f"{others[0]} is finished, and was made with other options; nothing is left to resume: "
                    "choose another --output, or delete it to make it anew"
                )
            done = [path for path in self.outputs if path.exists()]
            if done and len(done) < len(self.outputs):
                raise ConfigError(
                    f"{done[0]} is finished and {min(set(self.outputs) - set(done))} is not, and no run of both has "
                    f"left a record: resume with the --batch-size of that run, or delete {done[0]} to make it anew"
                )
            return bool(done)
        return False

    def run(self, resume: bool = False, progress: bool = True) -> bool:
        """Make the videos, or the rest of them.

        Args:
          resume: continue from the record of an interrupted run, and keep files that this same request has finished.
          progress: show a progress bar.

        Returns:
          Whether the videos are finished. False when Ctrl-C ended the run early; the partial files then hold all frames
          up to `frames_done`. Ctrl-C finishes a video without end: it is moved to its path, and the result is True.

        Raises:
          ConfigError: `is_done` refuses the files that are there, or one cannot be written.
        """
        if self.is_done(resume):
            return True
        saved = self._read_record() if self.record.exists() else None
        if resume and saved is None and self.partial_paths:
            warnings.warn(f"there is no record {self.record} to resume; it is started from the beginning", stacklevel=2)
        stream = open_stream(self.model, self.request, self.prompts)
        positions = [None] * len(self.outputs)
        if saved is not None:
            stream.restore(saved)
            positions = json.loads(str(saved["positions"]))
        with contextlib.ExitStack() as stack:
            writers = []
            for path, position in zip(self.outputs, positions, strict=True):
                if saved is not None and stream.done and self._is_finished(path):
                    continue  # the last run was killed between naming its files and removing its record
                writers.append(self._writer(path, position))
                stack.callback(writers[-1].abandon)
                if saved is None:
                    begin_states(path)
            if saved is None and self.branch is not None:
                self.branch.enter(stream, writers)
                for path in self.outputs if self.keeps_states else ():
                    inherit_states(path, self.branch.video, stream.frames_done, self.comments[path])
            self.frames_done = stream.frames_done
            finished = self._record_all(stream, writers, progress)
            for writer in writers if finished else []:
                writer.close()
        if finished:
            for path in self.outputs:
                (finish_states if self.keeps_states else remove_states)(path)
            self.record.unlink(missing_ok=True)
        return finished

    def _record_all(self, stream: VideoStream, writers: list[VideoWriter], progress: bool) -> bool:
        total = None if self.request.frames is None else stream.num_rounds
        bar = tqdm(
            total=total, initial=stream.round, desc=stream.place, unit=stream.unit, disable=not progress, smoothing=0.1
        )
        first_frame = stream.frames_done
        behind = ThreadPoolExecutor(1)  # a round is encoded and written while the next one is computed
        written = behind.submit(lambda: None)
        try:
            while not stream.done:
                before, frames, saved = stream.round, stream.advance(), stream.save()
                written.result()
                written = behind.submit(self._write, writers, frames, saved, stream.done)
                if not stream.done:
                    check_interrupted()
                bar.update(stream.round - before)
                made = stream.frames_done - first_frame
                rate = made / max(bar.format_dict["elapsed"], 1e-9)
                shown = f"{stream.frames_done} frames, {rate:.1f} frames/s" if made else stream.before_first_frames
                bar.set_postfix_str(shown)
            written.result()
            return True
        except KeyboardInterrupt:
            _settle(behind)
            INTERRUPTED.clear()
            if (error := written.exception()) is not None:
                raise error from None
            return self.request.frames is None and all(writer.position.num_frames for writer in writers)
        finally:
            _settle(behind)
            behind.shutdown()
            bar.close()

    def _write(
        self, writers: list[VideoWriter], frames: list[np.ndarray], saved: dict[str, np.ndarray], is_last: bool
    ) -> None:
        """Write the frames of a round, and then the position after it."""
        for together in frames:
            for writer, video in zip(writers, together, strict=True):
                writer.write(video)
        for n, path in enumerate(self.outputs if self.keeps_states and not is_last else ()):
            keep_state(path, one_sample(saved, n), self.comments[path])
        positions = json.dumps([writer.position for writer in writers])
        write_arrays(self.record, identity=json.dumps(self.identity), positions=positions, **saved)
        self.frames_done = int(saved["frames_done"])

    def _writer(self, path: Path, position: list | None) -> VideoWriter:
        """A video's writer, at the position that the record says."""
        try:
            return VideoWriter(path, self.request.fps, crf=self.crf, resume=position, comment=self.comments[path])
        except NotResumable as error:
            raise ConfigError(f"{error}; delete {self.record} to start again without --resume") from None

    def write_gifs(self) -> None:
        """Write a GIF beside every finished video; `ConfigError` where it cannot be written."""
        for path in self.outputs:
            write_gif(path.with_suffix(".gif"), iterate_video(path), self.request.fps)

    def _is_finished(self, path: Path) -> bool:
        """Whether `path` is a finished video of this same request."""
        return read_comment(path) == self.comments[path]

    def _read_record(self) -> dict[str, np.ndarray]:
        saved = read_arrays(self.record, "delete it to start again")
        try:
            identity = json.loads(str(saved["identity"]))
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{self.record} cannot be read ({error}); delete it to start again") from None
        names = self.identity.keys() | identity.keys()
        differing = sorted(name for name in names if identity.get(name) != self.identity.get(name))
        if differing:
            raise ConfigError(
                f"{self.record} belongs to another run: {', '.join(differing)} differ; give that run's options, or "
                "delete it to start again"
            )
        return saved


def _settle(behind: ThreadPoolExecutor) -> None:
    """Wait until all is written that a single thread was given, whatever signals come: it takes less than a second, and
    a file that is cut while it grows could not be resumed."""
    while True:
        try:
            return behind.submit(lambda: None).result()
        except KeyboardInterrupt:
            pass


def make_files(recording: Recording, *, resume: bool, gif: bool, quiet: bool) -> int:
    """Make the videos, for a command: what came of it is printed, and the exit code is returned."""
    started = time.time()
    if not recording.run(resume=resume, progress=not quiet):
        shown = printable(", ".join(map(str, recording.partial_paths)))
        kept = f"the {recording.frames_done} frames so far play: {shown}; " if shown else ""
        print(f"interrupted; {kept}the same command with --resume goes on", file=sys.stderr)
        return 130
    if gif:
        recording.write_gifs()
    seconds = time.time() - started
    made = f"{recording.frames_done} frames in {seconds:.0f} s" if recording.frames_done else "was finished"
    for path in recording.outputs:
        print(printable(f"{path}: {made}"))
    return 0
