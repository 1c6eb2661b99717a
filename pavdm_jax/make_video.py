"""Make a long video from a prompt: `pavdm "a small red circle moves left" --output video.mp4`.

The video is written while it is made, to NAME.partial.mp4, which plays at any moment; once whole it gets its name.
A prompt of one word that is also a command, such as train, goes after `pavdm generate`.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pavdm_jax import resolutions, storage
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.options import Options
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.model import DTYPES, abstract_params

if TYPE_CHECKING:
    from pavdm_jax.generation.recording import Recording

EXAMPLES = """
examples:
  pavdm "a small blue square and a large red circle bounce slowly" --frames 1440 --seed 3 --output v.mp4
  pavdm "a red circle moves left" --prompt-at 20 "a green square moves right" --seconds 40
  pavdm "a white circle bounces" --start clip.mp4 --frames 960       continue a clip; its frames are kept
  pavdm --prompts-file prompts.txt --samples 2 --output out/v.mp4    writes out/v-001.mp4, out/v-002.mp4, ...
  pavdm "a red circle bounces" --frames inf --output live.mp4        until Ctrl-C

A killed run goes on where it was when the same command is given with --resume.
"""


def frame_count(text: str) -> int | None:
    """A number of frames, None for "inf", or one of Open-Sora's named lengths."""
    if text == "inf":
        return None
    try:
        return int(text) if text.lstrip("-").isdigit() else resolutions.frame_count(text)
    except ConfigError:
        raise ConfigError(f"--frames {text} is not a number of frames; give a whole number, or inf") from None


FRAMES = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="FRAMES",
    instance_from_str=lambda words: frame_count(words[0]),
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda value: ["inf" if value is None else str(value)],
)
"""How a number of frames is written on the command line."""


@dataclass(frozen=True)
class VideoOptions(Options):
    """How long, how large and how the videos are sampled; the model's own values where nothing is said."""

    frames: Annotated[int | None, FRAMES] = Options.frames
    """of the whole video, a start clip's included, or inf: until Ctrl-C"""
    seed: int = 0
    """the same seed makes the same video; the samples of a prompt have SEED, SEED+1, ..."""
    negative_prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """what guidance leads away from, instead of the null caption"""
    start: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """a clip, or an image, that the video begins with and continues"""


@dataclass(frozen=True)
class OutputOptions:
    """The file and how it is written."""

    output: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = "video.mp4"
    """the file to write; several videos get -001, -002, ... before the ending"""
    crf: int = 18
    """H.264 quality, 1 to 51; smaller is better and makes larger files"""
    gif: bool = False
    """write a GIF beside the video, too"""
    resume: bool = False
    """continue an interrupted run of the same command"""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """no progress bar"""


@dataclass(frozen=True)
class GenerateCommand:
    """Which videos to make, and by which model."""

    prompts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PROMPT ...]")] = ()
    """what the video shows; several prompts make several videos"""
    prompts_file: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """more prompts, one a line; empty lines and lines that begin with # are skipped"""
    prompt_at: Annotated[
        tuple[tuple[str, str], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SECOND PROMPT")
    ] = ()
    """change the prompt at this second"""
    checkpoint: str = "demo"
    """a model folder or training run, perhaps gs://BUCKET/NAME, or demo, the small embedded model of coloured shapes"""
    lora: str | None = None
    """LoRA adapters for that model: their file, or the training run that made them"""
    batch_size: int = 1
    """videos made at the same time"""
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = VideoOptions()
    file: tyro.conf.OmitArgPrefixes[OutputOptions] = OutputOptions()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size must be at least 1, not {self.batch_size}")
        if self.video.samples < 1:
            raise ConfigError(f"--samples must be at least 1, not {self.video.samples}")


def read_prompts_file(path: str) -> list[str]:
    """The prompts of a text file.

    Raises:
      ConfigError: no such file, not text, or no prompt in it.
    """
    try:
        with storage.cloud_errors(path):
            lines = storage.as_path(path).read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"the prompts file {path} cannot be read: it is not a text file") from None
    except OSError as error:
        raise ConfigError(f"the prompts file {path} cannot be read: {error.strerror or error}") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not prompts:
        raise ConfigError(f"the prompts file {path} holds no prompt; write one a line")
    return prompts


def read_timeline(changes: Sequence[tuple[str, str]]) -> list[tuple[float, str]]:
    """The `--prompt-at` pairs, in order of time."""
    timeline = []
    for second, prompt in changes:
        try:
            timeline.append((float(second), prompt))
        except ValueError:
            raise ConfigError(
                f"--prompt-at {second} is not a number of seconds; write for instance --prompt-at 20 '{prompt}'"
            ) from None
    return sorted(timeline)


def output_names(output: str, count: int) -> list[Path]:
    """The name itself for one video, numbered names for several."""
    path = storage.local_path(output, "--output")
    if count == 1:
        return [path]
    digits = max(3, len(str(count)))
    return [path.with_name(f"{path.stem}-{n:0{digits}}{path.suffix}") for n in range(1, count + 1)]


def read(arguments: Sequence[str]) -> GenerateCommand:
    """What the command line asks for."""
    return read_command(GenerateCommand, arguments, "pavdm", __doc__, EXAMPLES)


def run(command: GenerateCommand) -> int:
    """Make all videos that are asked for; returns the exit code."""
    video, file = command.video, command.file
    in_file = [] if command.prompts_file is None else read_prompts_file(command.prompts_file)
    prompts = [*command.prompts, *in_file]
    if not prompts:
        raise ConfigError('there is no prompt; give one, for instance: pavdm "a small red circle moves left"')
    changes = read_timeline(command.prompt_at)
    timelines = [[(0.0, prompt), *changes] for prompt in prompts for _ in range(video.samples)]
    seeds = [video.seed + n for _ in prompts for n in range(video.samples)]
    names = output_names(file.output, len(seeds))

    # Imported when the command was read: most mistakes are told before the seconds that these take.
    from pavdm_jax.checkpoints.load import load
    from pavdm_jax.distributed.mesh import make_mesh
    from pavdm_jax.distributed.partitioning import tree_shardings
    from pavdm_jax.generation.prompts import encode_prompts
    from pavdm_jax.generation.recording import Recording, check_outputs

    check_outputs(names, file.crf)
    enable_cache()
    options = {field.name: getattr(video, field.name) for field in dataclasses.fields(video)}
    # The text encoder is at work before the rest is read: together they might not fit.
    model = load(command.checkpoint, parts=())
    request = make_request(model.config, timelines, command.batch_size, **options | {"seed": seeds, "samples": 1})
    features = encode_prompts(model, request, progress=not file.quiet)
    shardings = tree_shardings(abstract_params(model.config), make_mesh(request.mesh))
    model = load(command.checkpoint, shardings=shardings, dtype=DTYPES[request.dtype], lora=command.lora)
    for first in range(0, len(names), command.batch_size):
        group = slice(first, first + command.batch_size)
        recording = Recording(model, request.part(group), features.part(group), names[group], file.crf)
        if not record(recording, names[group], file):
            shown = ", ".join(map(str, recording.partial_paths))
            kept = f"the {recording.frames_done} frames so far play: {shown}; " if shown else ""
            print(f"interrupted; {kept}the same command with --resume goes on", file=sys.stderr)
            return 130
    return 0


def record(recording: "Recording", names: Sequence[Path], file: OutputOptions) -> bool:
    """Make the videos of a batch and say what came of it; whether they are finished."""
    started = time.time()
    finished = recording.run(resume=file.resume, progress=not file.quiet)
    if file.gif and finished:
        recording.write_gifs()
    seconds = time.time() - started
    made = f"{recording.frames_done} frames in {seconds:.0f} s" if recording.frames_done else "was finished"
    for name in names if finished else ():
        print(f"{name}: {made}")
    return finished


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    exit_with(lambda: run(read(given)), interrupted="interrupted; the same command with --resume goes on")


if __name__ == "__main__":
    main()
