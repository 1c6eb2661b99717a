"""Files of prompts: text with one prompt a line, or CSV and JSON lines with settings for each."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.text.captions import is_blank, is_text

SEPARATOR = "||"
"""Between a prompt and its start clip in a text file, as in the released test set."""

MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class PromptLine:
    """A line of a prompts file; None: as for all lines.

    Attributes:
      prompt: what the video shows.
      start: path of the clip or picture that begins the video, or its frames, uint8 [f, h, w, 3].
      seed: from 0 to 2**31 - 1.
      seconds: of the whole video.
      negative_prompt: what the video shall not show.
      output: name of the video, `*.mp4`, without a folder.
    """

    prompt: str
    start: str | np.ndarray | None = None
    seed: int | None = None
    seconds: float | None = None
    negative_prompt: str | None = None
    output: str | None = None


NAMES = tuple(field.name for field in fields(PromptLine))


def read_prompts_file(path: str | os.PathLike) -> list[PromptLine]:
    """The prompts of a file, in their order.

    A `.csv` file has a header with `prompt` and any of the other names of `PromptLine`; a `.jsonl` file has an object
    with these names on every line. Any other file is text with one prompt a line, `a prompt` or `a prompt||start.mp4`;
    empty lines and those that begin with `#` are left out. Paths of start clips are relative to the file.

    Args:
      path: of the file, which may be in a bucket, if no start clips are beside it.

    Raises:
      ConfigError: no such file, no prompt in it, or the first line with a mistake.
    """
    file = storage.as_path(path)
    lines = {".csv": _csv_lines, ".jsonl": _json_lines}.get(file.suffix.lower(), _text_lines)
    prompts: list[PromptLine] = []
    outputs: dict[str, int] = {}
    for number, record in lines(_read_text(file), file):
        where = _where(number, file)
        line = _prompt_line(record, file.parent, where)
        if line.output in outputs:
            raise ConfigError(f"{where}: output {line.output} is that of line {outputs[line.output]}, too; change one")
        if line.output is not None:
            outputs[line.output] = number
        prompts.append(line)
    if not prompts:
        raise ConfigError(f"the prompts file {path} holds no prompt; write one a line")
    return prompts


def _read_text(path: Path) -> str:
    try:
        with storage.cloud_errors(path):
            return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"the prompts file {path} cannot be read: it is no text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"the prompts file {path} cannot be read: {error.strerror or error}") from None


def _where(number: int, path: Path) -> str:
    return f"line {number} of the prompts file {path}"


# --- the three forms: the number and the values of every line ---------------------------------------------------------


def _text_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        prompt, *start = line.split(SEPARATOR)
        if len(start) > 1 or (start and not start[0].strip()):
            raise ConfigError(
                f"{_where(number, path)}: write a prompt, or a prompt, {SEPARATOR} and one start clip, not "
                f"{line.strip()!r}"
            )
        yield number, {"prompt": prompt, "start": start[0] if start else None}


def _csv_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for record in reader:
            if None in record:
                raise ConfigError(
                    f"{_where(reader.line_num, path)} has more values than the header has names; "
                    'put a prompt with commas between quotes, "..."'
                )
            yield reader.line_num, {name.strip(): value for name, value in record.items()}
    except csv.Error as error:
        raise ConfigError(f"{_where(reader.reader.line_num, path)} is no CSV: {first_line(error)}") from None


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(io.StringIO(text), 1):  # texts may hold what else `splitlines` takes for an end
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{_where(number, path)} is no JSON: {first_line(error)}") from None
        if not isinstance(record, dict):
            raise ConfigError(f'{_where(number, path)} must be an object, such as {{"prompt": "a red circle"}}')
        yield number, record


# --- values -----------------------------------------------------------------------------------------------------------


def _prompt_line(record: Mapping[str, Any], folder: Path, where: str) -> PromptLine:
    unknown = [name for name in record if name not in NAMES]
    if unknown:
        raise ConfigError(f"{where} has the unknown name {unknown[0]!r}; known are {', '.join(NAMES)}")
    if "prompt" not in record:
        raise ConfigError(f"{where} has no prompt; name the column or field 'prompt'")
    given = {name: value for name, value in record.items() if value is not None and not is_blank(str(value))}
    texts = {name: _text(given, name, where) for name in ("prompt", "start", "negative_prompt", "output")}
    if texts["prompt"] is None:
        raise ConfigError(f"{where} has an empty prompt; write one, or remove the line")
    if texts["start"] is not None:
        texts["start"] = _existing(texts["start"], folder, where)
    output = texts["output"]
    if output is not None and (Path(output).name != output or Path(output).suffix != ".mp4"):
        raise ConfigError(f"{where}: output {output} must be a name that ends in .mp4, without a folder")
    seed = _number(given, "seed", where)
    if seed is not None and not (0 <= seed <= MAX_SEED and seed == int(seed)):
        raise ConfigError(f"{where}: seed {given['seed']} must be a whole number from 0 to {MAX_SEED}")
    seconds = _number(given, "seconds", where)
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"{where}: seconds {given['seconds']} must be above 0")
    return PromptLine(
        texts["prompt"], texts["start"], None if seed is None else int(seed), seconds, texts["negative_prompt"], output
    )


def _text(given: Mapping[str, Any], name: str, where: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: {name} {value!r} must be text")
    if value is not None and not is_text(value):
        raise ConfigError(f"{where}: {name} {value!r} has characters that are no text; write it anew")
    return value.strip() if value is not None else None


def _number(given: Mapping[str, Any], name: str, where: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{where}: {name} {value!r} is no number") from None


def _existing(start: str, folder: Path, where: str) -> str:
    path = storage.resolve(folder, start)
    with storage.cloud_errors(path):
        if not path.is_file():
            raise ConfigError(
                f"{where}: the start clip {start} does not exist; its path is relative to the prompts file's folder, "
                f"{folder}"
            )
    return str(path)
