"""Real videos and images, listed in a manifest: its rows, an index of its files that is made once, and the clips into
which they are cut."""

import csv
import io
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.fingerprint import fingerprint
from pavdm_jax.data.config import MAX_FPS, VideoData
from pavdm_jax.errors import ConfigError, first_line, printable
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.geometry import decoded_size
from pavdm_jax.resolutions import RESOLUTIONS
from pavdm_jax.text.captions import clean, is_blank, is_text
from pavdm_jax.video.clips import MAX_SECONDS, VideoInfo, frames_within, probe, read_clip
from pavdm_jax.video.images import is_image, read_image, resize_crop

IMAGE_FPS = 120.0
"""What the network is told of an image (Open-Sora opensora/datasets/datasets.py, `IMG_FPS`)."""


@dataclass(frozen=True)
class Row:
    """A row of a manifest; times are in seconds, None: to the end, at the rate of the data's config.

    That of an image has the defaults.
    """

    path: str
    caption: str
    start: float = 0.0
    end: float | None = None
    fps: float | None = None


def read_manifest(path: str | os.PathLike) -> list[Row]:
    """The rows of a CSV file (with a header) or of JSON lines; paths are relative to the manifest. Both it and the
    files may be in buckets, gs://BUCKET/NAME.

    Raises:
      ConfigError: no such manifest, missing columns, values that make no sense, or rows whose file does not exist.
    """
    path = storage.as_path(path)
    with storage.cloud_errors(path):
        if not path.is_file():
            raise ConfigError(f"there is no manifest {path}")
        content = path.read_bytes()
    if path.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"the manifest {path} must be a .csv or a .jsonl file")
    try:
        file = io.StringIO(content.decode("utf-8-sig"), newline="")
        if path.suffix == ".csv":
            reader = csv.DictReader(file, strict=True)
            records = [(reader.line_num, record) for record in reader]
        else:
            records = [(number, json.loads(line)) for number, line in enumerate(file, 1) if line.strip()]
    except (ValueError, RecursionError, csv.Error) as error:  # of text, of JSON, or of numbers with thousands of digits
        raise ConfigError(f"the manifest {path} cannot be read: {first_line(error)}") from None
    if not records:
        raise ConfigError(f"the manifest {path} has no rows")
    rows = [_row(record, path, number) for number, record in records]
    missing = sorted(name for name, stamp in storage.stamps({row.path for row in rows}).items() if stamp is None)
    if missing:
        raise ConfigError(
            f"the manifest {path} names {len(missing)} files that do not exist, first {missing[0]}; "
            "paths are relative to the manifest's folder"
        )
    return rows


def _row(record: dict, manifest: Path, line: int) -> Row:
    where = f"line {line} of the manifest {manifest}"
    if not isinstance(record, dict):
        raise ConfigError(f"{where} is no object with the fields path and caption")
    if None in record:
        raise ConfigError(f"{where} has more columns than the header; put a text with commas into double quotes")
    for name in ("path", "caption"):
        found = ", ".join(str(key) for key in record if key is not None) or "none"
        if name not in record:
            raise ConfigError(f"{where} has no {name}: the columns path and caption are needed; it has {found}")
        if not isinstance(record[name], str) or is_blank(record[name]):
            raise ConfigError(f"{where} has an empty {name}")
        if not is_text(record[name]):
            raise ConfigError(f"{where}: {name} {record[name]!r} is not text; write it in UTF-8")
    numbers = {}
    for name in ("start", "end", "fps"):
        text = record.get(name)
        if text is None or text == "":
            continue
        try:
            numbers[name] = float(text)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{where}: {name} {text!r} is no number") from None
        if not math.isfinite(numbers[name]) or numbers[name] < 0:
            raise ConfigError(f"{where}: {name} {text} must be a number from 0 on")
    if not 0 < numbers.get("fps", 1.0) <= MAX_FPS:
        raise ConfigError(f"{where}: fps must be above 0 and at most {MAX_FPS}, not {record['fps']}")
    if numbers and is_image(record["path"]):
        raise ConfigError(f"{where}: {record['path']} is an image, which has no {' or '.join(numbers)}; leave it empty")
    start, end = numbers.get("start", 0.0), numbers.get("end")
    if end is not None and end <= start:
        raise ConfigError(f"{where}: the end, {end} s, must come after the start, {start} s")
    return Row(str(storage.resolve(manifest.parent, record["path"])), record["caption"], start, end, numbers.get("fps"))


KEPT_EACH = 1000
"""Files after which the index is kept while it grows."""


def index_files(manifest: Path, paths: list[str]) -> dict[str, VideoInfo | str]:
    """What each file holds, or why it cannot be read. Kept in `NAME.index.json`; files that did not change are not read
    again, but for those that could not be read, whose fault may have been a passing one."""
    kept_in = manifest.with_suffix(".index.json")
    try:
        with storage.cloud_errors(kept_in):
            said = json.loads(kept_in.read_text())
        kept = {
            path: (entry["file"], VideoInfo(**entry["video"]))
            for path, entry in said.items()
            if "error" not in entry and _is_info(**entry["video"])  # earlier versions kept errors, too
        }
    except (OSError, TypeError, ValueError, KeyError, AttributeError, RecursionError):
        kept = {}  # none yet, or damaged: it is written again
    stamps = storage.stamps(paths)
    infos: dict[str, VideoInfo | str] = {
        path: kept[path][1] for path in paths if path in kept and kept[path][0] == list(stamps[path] or ())
    }
    new = [path for path in paths if path not in infos]
    if new:
        try:
            with ThreadPoolExecutor(8) as pool:
                probed = tqdm(pool.map(_probed, new), "reading files", len(new), unit="file")
                for number, (path, info) in enumerate(zip(new, probed, strict=True), 1):
                    infos[path] = info
                    if number % KEPT_EACH == 0:  # a kill gives no time to
                        _keep_index(kept_in, infos, stamps)
        finally:  # what has been read is not read again, even if something ends this
            _keep_index(kept_in, infos, stamps)
    return infos


def _is_info(height: Any, width: Any, seconds: Any) -> bool:
    """Whether an index says what a file can hold; else it is damaged, and the file is read again."""
    whole = type(height) is int and type(width) is int and height >= 1 and width >= 1
    return whole and type(seconds) in (int, float) and 0 <= seconds <= MAX_SECONDS


def _keep_index(kept_in: Path, infos: dict[str, VideoInfo | str], stamps: dict) -> None:
    read = {path: info for path, info in infos.items() if isinstance(info, VideoInfo)}
    entries = {path: {"file": stamps[path], "video": asdict(info)} for path, info in read.items()}
    if not entries:
        return
    try:
        storage.write(kept_in, json.dumps(entries, indent=0).encode())
    except OSError as error:
        problem = f"the index {kept_in} cannot be kept ({error.strerror or error}); files are read each time"
        print(printable(problem), file=sys.stderr)


def _probed(path: str) -> VideoInfo | str:
    try:
        return probe(path)
    except ConfigError as error:
        return str(error)


def bucket(height: int, width: int, model: AnyModelConfig, resolution: str | None) -> tuple[int, int]:
    """The size at which a video is trained on: the model's, or of a named resolution the one of the nearest aspect
    ratio."""
    sizes = [(model.height, model.width)] if resolution is None else RESOLUTIONS[resolution].values()
    nearest = min(sizes, key=lambda size: abs(math.log(size[0] / size[1] * width / height)))
    return decoded_size(*nearest, model.vae)


class ManifestClips:
    """The clips and images of a manifest's rows, numbered; see `clips.Clips`.

    Attributes:
      skipped: why a file that cannot be read, by its path, or a row that is too short, by its path and times, is left
        out.
    """

    starts = 1

    def __init__(self, data: VideoData, model: AnyModelConfig):
        rows = read_manifest(data.manifest)
        files = index_files(storage.as_path(data.manifest), sorted({row.path for row in rows}))
        self.skipped: dict[str, str] = {}
        self.text = model.text
        self.clips: list[tuple[Row, int, float]] = []  # row, number of its first frame, frames a second
        shapes = []  # frames, height, width
        for row in rows:
            info, fps = files[row.path], row.fps or data.fps or model.fps
            if isinstance(info, str):
                self.skipped[row.path] = info
                continue
            size = bucket(info.height, info.width, model, data.resolution)
            if is_image(row.path):
                self.clips.append((row, 0, IMAGE_FPS))
                shapes.append((1, *size))
                continue
            end = info.seconds if row.end is None else min(row.end, info.seconds)
            found = frames_within(row.start, end, fps)
            if found < data.frames:
                name = f"{row.path}, seconds {row.start:g} to {end:g}"
                self.skipped[name] = f"{name}, has {found} frames at {fps:g} fps; a clip needs {data.frames}"
            for first in range(0, found - data.frames + 1, data.frames):
                self.clips.append((row, first, fps))
                shapes.append((data.frames, *size))
        if self.skipped:
            print(printable(f"{data.manifest}: {len(self.skipped)} files or rows give no clip:"), file=sys.stderr)
            for reason in self.skipped.values():
                print(f"  {printable(reason)}", file=sys.stderr)
        if not any(frames == data.frames for frames, *_ in shapes):
            raise ConfigError(
                f"the manifest {data.manifest} gives no clip of {data.frames} frames: all {len(rows)} rows are images, "
                "too short or cannot be read"
            )
        self.frames_of_a_clip = data.frames
        self.shapes = np.asarray(shapes, np.int32)
        folder = storage.as_path(data.manifest).parent
        named = [(storage.reference(row.path, folder), row.caption, row.start, *clip) for row, *clip in self.clips]
        # Not the times of the files, so that copies of the data have the same latents.
        stamps = storage.stamps({row.path for row, *_ in self.clips})
        bytes_of = [stamp[0] if (stamp := stamps[row.path]) else None for row, *_ in self.clips]
        self.identity = fingerprint(named, data.frames, [size for _, *size in shapes], bytes_of)

    def __len__(self) -> int:
        return len(self.clips)

    def frames(self, index: int, first: int = 0, count: int | None = None) -> np.ndarray:
        row, begin, fps = self.clips[index]
        frames, height, width = map(int, self.shapes[index])
        if is_image(row.path):
            return resize_crop(read_image(row.path), height, width)
        count = frames - first if count is None else count
        return read_clip(row.path, row.start + (begin + first) / fps, fps, count, (height, width))

    def captions(self, index: int) -> list[str]:
        return [clean(self.clips[index][0].caption, self.text)]

    def fps(self, index: int) -> float:
        return self.clips[index][2]

    def name(self, index: int) -> str:
        return self.clips[index][0].path
