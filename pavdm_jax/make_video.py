"""Make a long video from a prompt: `pavdm "a small red circle moves left" --output video.mp4`.

The video is written while it is made, to NAME.partial.mp4, which plays at any moment; once whole it gets its name.
A prompt of one word that is also a command, such as train, goes after `pavdm generate`.
"""

import collections
import dataclasses
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pavdm_jax import resolutions, storage
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.generation.options import DEFAULT_FRAMES, Options, check_frames, check_samples
from pavdm_jax.generation.prompts_file import PromptLine, read_prompts_file
from pavdm_jax.generation.request import Request, make_request
from pavdm_jax.models.model import DTYPES, abstract_params

EXAMPLES = """
examples:
  pavdm "a large red circle bounces slowly" --frames 1440 --seed 3 --output v.mp4
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
        frames = int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else resolutions.frame_count(text)
    except ConfigError:
        raise ConfigError(
            f"--frames {text} is not a number of frames; give a whole number, or inf; or seconds with --seconds"
        ) from None
    check_frames(frames)
    return frames


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
    """of the whole video, a start clip's included, or inf: until Ctrl-C; or one of Open-Sora's names of lengths, which
    are of its own rate: 2s is 51 frames. For seconds there is --seconds"""
    seed: int = 0
    """the same seed makes the same video; the samples of a prompt have SEED, SEED+1, ..."""
    negative_prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """what guidance leads away from, instead of the model's own (the null caption; SkyReels-V2's published one)"""
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
    no_states: bool = False
    """keep no positions of the video in the folder NAME.states beside it; `pavdm redo` needs them. There is one for
    each compiled call, as large as the window's latents and what the solver keeps"""
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
    """more prompts: text with a line each, `a prompt` or `a prompt||start.mp4`; or .csv or .jsonl with prompt and,
    where wanted, start, seed, seconds, negative_prompt, output"""
    prompt_at: Annotated[
        tuple[tuple[str, str], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SECOND PROMPT")
    ] = ()
    """change the prompt at this second"""
    checkpoint: str = "demo"
    """a model folder or training run, perhaps gs://BUCKET/NAME; or demo, the embedded model of coloured shapes, or its
    student demo-distilled, which does a fifth of the work"""
    lora: str | None = None
    """LoRA adapters for that model: their file, or the training run that made them; alone, as --checkpoint, they find
    their model themselves"""
    batch_size: int = 1
    """videos made at the same time"""
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = VideoOptions()
    file: tyro.conf.OmitArgPrefixes[OutputOptions] = OutputOptions()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size must be at least 1, not {self.batch_size}")
        check_samples(self.video.samples)


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


@dataclass(frozen=True)
class Job:
    """One video: a prompt with its settings, a seed, and a file."""

    line: PromptLine
    seed: int
    name: Path

    @property
    def alike(self) -> tuple:
        """Videos in which this is equal are one request."""
        return self.line.seconds, self.line.start, self.line.negative_prompt is None


def plan_jobs(lines: Sequence[PromptLine], video: VideoOptions, output: str) -> list[Job]:
    """The videos of all prompts, in order. The file has the name that was asked for if there is one video; several are
    numbered, and a line's own name stands for it and its number."""
    path = storage.local_path(output, "--output")
    count = len(lines) * video.samples
    digits, jobs = max(3, len(str(count))), []
    for line in lines:
        for sample in range(video.samples):
            name = path if count == 1 else path.with_name(f"{path.stem}-{len(jobs) + 1:0{digits}}{path.suffix}")
            if line.output is not None:
                stem = Path(line.output).stem
                name = path.with_name(line.output if video.samples == 1 else f"{stem}-{sample + 1:0{digits}}.mp4")
            jobs.append(Job(line, (video.seed if line.seed is None else line.seed) + sample, name))
    counts = collections.Counter(job.name for job in jobs)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two videos would be written to {twice}; give one of them another output in the prompts file"
        )
    return jobs


def check_ends(groups: Sequence[Sequence[Job]], video: VideoOptions, at_once: int) -> None:
    """Refuse a video without end where others would wait for it; those of a group are made `at_once`."""
    batches = [group[first] for group in groups for first in range(0, len(group), at_once)]
    if video.frames is None and any(first.line.seconds is None for first in batches[:-1]):
        raise ConfigError(
            "--frames inf makes videos until Ctrl-C, and others would wait; make them one by one, give lengths, or, of "
            "prompts that are alike, a larger --batch-size"
        )


def read(arguments: Sequence[str]) -> GenerateCommand:
    """What the command line asks for."""
    return read_command(GenerateCommand, arguments, "pavdm", __doc__, EXAMPLES)


def run(command: GenerateCommand) -> int:
    """Make all videos that are asked for; returns the exit code."""
    video, file = command.video, command.file
    lines = [PromptLine(prompt) for prompt in command.prompts]
    if command.prompts_file is not None:
        lines += read_prompts_file(command.prompts_file)
    if not lines:
        raise ConfigError('there is no prompt; give one, for instance: pavdm "a small red circle moves left"')
    changes = read_timeline(command.prompt_at)
    jobs = plan_jobs(lines, video, file.output)
    groups = [list(group) for _, group in itertools.groupby(jobs, lambda job: job.alike)]
    check_ends(groups, video, command.batch_size)
    starts = {start for job in jobs if isinstance(start := job.line.start or video.start, str)}

    # Imported when the command was read: most mistakes are told before the seconds that these take.
    from pavdm_jax.checkpoints.load import load
    from pavdm_jax.distributed.mesh import make_mesh
    from pavdm_jax.distributed.partitioning import tree_shardings
    from pavdm_jax.generation.pipeline import check_method
    from pavdm_jax.generation.prompts import encode_prompts
    from pavdm_jax.generation.recording import Recording, check_outputs, check_record, make_files
    from pavdm_jax.outputs import check_output, partial_path, warn_of_replaced
    from pavdm_jax.video.clips import find_video

    check_outputs([job.name for job in jobs], file.crf)
    names = [job.name for job in jobs]
    gifs = [name.with_suffix(".gif") for name in names] if file.gif else []
    for gif in gifs:
        check_output(gif, (".gif",))
    written = {path.resolve() for path in (*names, *map(partial_path, names), *gifs)}
    own = written & {Path(start).resolve() for start in starts}
    if own:
        raise ConfigError(f"{min(own).name} is the start clip itself, and would be overwritten; give another --output")
    for group in groups if not file.resume else ():
        for job in group[:: command.batch_size]:
            check_record(job.name)
    if not file.resume:
        warn_of_replaced(names)
    for start in starts:
        find_video(start)
    enable_cache()
    # The text encoder is at work before the rest is read: together they might not fit.
    model = load(command.checkpoint, parts=(), lora=command.lora)
    requests = [make_group_request(model.config, group, changes, command) for group in groups]
    for request in requests:
        check_method(request)
    features = encode_prompts(model, *requests, progress=not file.quiet)
    shardings = tree_shardings(abstract_params(model.config), make_mesh(requests[0].mesh))
    model = load(command.checkpoint, shardings=shardings, dtype=DTYPES[requests[0].dtype], lora=command.lora)
    for group, request, encoded in zip(groups, requests, features, strict=True):
        for first in range(0, len(group), command.batch_size):
            part = slice(first, first + command.batch_size)
            names = [job.name for job in group[part]]
            recording = Recording(
                model, request.part(part), encoded.part(part), names, file.crf, states=not file.no_states
            )
            code = make_files(recording, resume=file.resume, gif=file.gif, quiet=file.quiet)
            if code:
                return code
    return 0


def make_group_request(
    config: AnyModelConfig, group: Sequence[Job], changes: Sequence[tuple[float, str]], command: GenerateCommand
) -> Request:
    """The request of videos that are alike."""
    video, line = command.video, group[0].line
    options = {field.name: getattr(video, field.name) for field in dataclasses.fields(video)}
    options |= {"seed": [job.seed for job in group], "samples": 1}
    if line.seconds is not None:
        options |= {"seconds": line.seconds, "frames": DEFAULT_FRAMES}
    if line.start is not None:
        options["start"] = line.start
    if line.negative_prompt is not None:
        options["negative_prompt"] = [job.line.negative_prompt for job in group]
    timelines = [[(0.0, job.line.prompt), *changes] for job in group]
    return make_request(config, timelines, command.batch_size, **options)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    exit_with(lambda: run(read(given)), interrupted="interrupted; the same command with --resume goes on")


if __name__ == "__main__":
    main()
