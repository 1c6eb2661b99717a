"""A stream of frames into files: a growing video that plays at any moment, and a record from which an interrupted run goes on."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pavdm_jax.config import ConfigError, require
from pavdm_jax.model import Model
from pavdm_jax.pipeline import VideoStream
from pavdm_jax.request import Request, make_request
from pavdm_jax.video_io import iterate_video, write_gif
from pavdm_jax.video_writer import VideoWriter, check_output, partial_path, storage_error


def check_outputs(paths: Sequence[Path], crf: int) -> None:
    """Fail now, not after an hour, when a file cannot be written."""
    require(0 <= crf <= 51, f"--crf must be in 0..51, not {crf}; 18 is a good quality")
    for path in paths:
        check_output(path)


class Recording:
    """A batch of videos on their way to files.

    Beside the first output lies `NAME.resume.npz` while the run lasts: the sampler's position, how far each file was written then, and
    what was asked for. It is replaced as a whole after every segment, once the frames are on disk.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence,
        seeds: Sequence[int],
        outputs: Sequence[Path],
        crf: int,
        checkpoint: str,
        options: dict,
    ):
        self.request = make_request(model.config, prompts, seed=seeds, **options)
        self.model, self.outputs, self.crf = model, list(outputs), crf
        self.identity = _identity(self.request, checkpoint, crf)
        self.frames_done = 0

    @property
    def record(self) -> Path:
        return self.outputs[0].with_name(self.outputs[0].stem + ".resume.npz")

    @property
    def partial_paths(self) -> list[Path]:
        return [partial_path(path) for path in self.outputs]

    def run(self, resume: bool = False, progress: bool = True) -> bool:
        """Make the videos; False when Ctrl-C ended it early, with the partial files whole up to `frames_done`.

        Ctrl-C is how a video without end is finished: then it gets its name, and this is True.

        Raises:
          ConfigError: `resume` finds the record of another run, or a file cannot be written.
        """
        saved = self._read_record() if resume else None
        if resume and saved is None and all(path.exists() for path in self.outputs):
            return True
        stream = VideoStream(self.model, self.request)
        if saved is not None:
            stream.restore(saved)
        positions = [None] * len(self.outputs) if saved is None else saved["positions"].tolist()
        writers = [
            VideoWriter(path, self.request.fps, crf=self.crf, resume=position)
            for path, position in zip(self.outputs, positions, strict=True)
        ]
        try:
            finished = self._record_all(stream, writers, progress)
            for writer in writers if finished else []:
                writer.close()
        finally:
            for writer in writers:
                writer.abandon()
        self.frames_done = writers[0].position.num_frames
        if finished:
            self.record.unlink(missing_ok=True)
        return finished

    def _record_all(self, stream: VideoStream, writers: list[VideoWriter], progress: bool) -> bool:
        total = None if self.request.frames is None else stream.plan.num_shifts
        bar = tqdm(total=total, initial=stream.shift, unit="shift", disable=not progress, smoothing=0.1)
        first_frame = stream.frames_done
        try:
            while not stream.done:
                before = stream.shift
                chunks = stream.advance()
                for frames in chunks:
                    for writer, video in zip(writers, frames, strict=True):
                        writer.write(video)
                self._write_record(stream, writers)
                bar.update(stream.shift - before)
                rate = (stream.frames_done - first_frame) / max(bar.format_dict["elapsed"], 1e-9)
                bar.set_postfix_str(f"{stream.frames_done} frames, {rate:.1f} frames/s")
            return True
        except KeyboardInterrupt:
            return self.request.frames is None
        finally:
            bar.close()

    def write_gifs(self) -> None:
        """A GIF beside every finished video."""
        for path in self.outputs:
            write_gif(path.with_suffix(".gif"), iterate_video(path), self.request.fps)

    def _write_record(self, stream: VideoStream, writers: list[VideoWriter]) -> None:
        beside = self.record.with_suffix(".new")
        positions = np.asarray([writer.position for writer in writers])
        try:
            with beside.open("wb") as file:
                np.savez(file, identity=json.dumps(self.identity), positions=positions, **stream.save())
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.record)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise storage_error(error, self.record) from None

    def _read_record(self) -> dict[str, np.ndarray] | None:
        if not self.record.exists():
            return None
        try:
            with np.load(self.record, allow_pickle=False) as file:
                saved = {name: file[name] for name in file.files}
            identity = json.loads(str(saved["identity"]))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{self.record} cannot be read ({error}); start again without --resume") from None
        differing = sorted(name for name in self.identity if identity.get(name) != self.identity[name])
        require(
            not differing,
            f"{self.record} belongs to another run: {', '.join(differing)} differ; give that run's options, or leave out --resume",
        )
        return saved


def _identity(request: Request, checkpoint: str, crf: int) -> dict:
    """What must be equal for one run to continue another, as JSON values."""
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    start = fields.pop("start")
    fields["start"] = None if start is None else hashlib.sha256(start.tobytes()).hexdigest()
    fields.pop("segment")
    fields["window"] = dataclasses.asdict(fields["window"])
    return json.loads(json.dumps({**fields, "checkpoint": checkpoint, "crf": crf}))
