"""Make a long video from a prompt: `python -m pavdm_jax "a small red circle moves left" --output video.mp4`.

The video is written while it is made, to NAME.partial.mp4, which plays at any moment; it gets its name when it is whole.
"""

import argparse
import sys
import time
from pathlib import Path

from pavdm_jax import resolutions, storage
from pavdm_jax.checkpoints.load import load
from pavdm_jax.cli import Parser, enable_cache, exit_with
from pavdm_jax.distributed.mesh import make_mesh
from pavdm_jax.distributed.partitioning import tree_shardings
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.prompts import encode_prompts
from pavdm_jax.generation.recording import Recording, check_outputs
from pavdm_jax.generation.request import METHODS, make_request
from pavdm_jax.models.model import DTYPES, abstract_params

PASSED_ON = (
    "frames",
    "seconds",
    "height",
    "width",
    "resolution",
    "aspect_ratio",
    "fps",
    "steps",
    "guidance_scale",
    "start",
    "method",
    "dtype",
    "segment",
    "mesh",
)
"""Command-line options that are options of `generate`, too."""

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
        raise argparse.ArgumentTypeError(f"{text} is not a number of frames; give a whole number, or inf") from None


def make_parser() -> Parser:
    parser = Parser(
        prog="pavdm",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("what to show").add_argument
    add("prompt", nargs="*", help="what the video shows; several prompts make several videos")
    add(
        "--prompts-file",
        metavar="FILE",
        help="more prompts, one a line; empty lines and lines that begin with # are skipped",
    )
    add(
        "--prompt-at",
        nargs=2,
        action="append",
        default=[],
        metavar=("SECOND", "PROMPT"),
        help="change the prompt at this second; repeatable",
    )
    add("--start", metavar="FILE", help="a clip (or an image) that the video begins with and continues")
    add("--samples", type=int, default=1, help="videos of each prompt, with seeds SEED, SEED+1, ... (default 1)")
    add("--seed", type=int, default=0, help="the same seed makes the same video (default 0)")

    add = parser.add_argument_group("size and length").add_argument
    add(
        "--frames",
        type=frame_count,
        default=1440,
        help="frames of the whole video, or inf: until Ctrl-C (default 1440, 60 s)",
    )
    add("--seconds", type=float, help="the length in seconds instead")
    add("--fps", type=float, help="frames per second (default: the model's, 24)")
    add("--height", type=int, help="in pixels (default: the model's)")
    add("--width", type=int, help="in pixels (default: the model's)")
    add("--resolution", help="a named size instead, such as 240p or 720p")
    add(
        "--aspect-ratio",
        help="height to width of a named size, as Open-Sora writes it (default 9:16, landscape)",
    )

    add = parser.add_argument_group("sampling").add_argument
    add(
        "--checkpoint",
        default="demo",
        help="a model folder or training run, perhaps gs://BUCKET/NAME, or 'demo', the small embedded model of coloured shapes (default)",
    )
    add("--lora", help="LoRA adapters for that model: their file, or the training run that made them")
    add("--steps", type=int, help="network calls for each latent frame (default: the model's, 30)")
    add("--guidance-scale", type=float, help="higher follows the prompt more closely (default: the model's)")
    add(
        "--method",
        default="progressive",
        choices=METHODS,
        help="how the video is extended: the paper's way, or one of its baselines (default progressive)",
    )
    add(
        "--dtype",
        default="float32",
        choices=tuple(DTYPES),
        help="what the transformer and the text encoder compute in, and their matrices are kept in (default float32)",
    )
    add("--segment", type=int, default=2, help="shifts of one compiled call; frames are written after each (default 2)")
    add(
        "--mesh",
        default="auto",
        help="which devices share the work: auto (all), single, or for instance data=2,sequence=4 (default auto)",
    )
    add("--batch-size", type=int, default=1, help="videos made at the same time (default 1)")

    add = parser.add_argument_group("output").add_argument
    add(
        "--output",
        "-o",
        default="video.mp4",
        help="the file to write (default video.mp4); several videos get -001, -002, ... before the ending",
    )
    add(
        "--crf",
        type=int,
        default=18,
        help="H.264 quality, 1 to 51; smaller is better and makes larger files (default 18)",
    )
    add("--gif", action="store_true", help="write a GIF beside the video, too")
    add("--resume", action="store_true", help="continue an interrupted run of the same command")
    add("--quiet", "-q", action="store_true", help="no progress bar")
    return parser


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


def read_timeline(changes: list[list[str]]) -> list[tuple[float, str]]:
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


def run(arguments: argparse.Namespace) -> int:
    """Make all videos that the arguments ask for; returns the exit code."""
    prompts = [
        *arguments.prompt,
        *(read_prompts_file(arguments.prompts_file) if arguments.prompts_file is not None else []),
    ]
    if not prompts:
        raise ConfigError('there is no prompt; give one, for instance: pavdm "a small red circle moves left"')
    if arguments.samples < 1:
        raise ConfigError(f"--samples must be at least 1, not {arguments.samples}")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {arguments.batch_size}")
    changes = read_timeline(arguments.prompt_at)
    timelines = [[(0.0, prompt), *changes] for prompt in prompts]
    jobs = [(timeline, arguments.seed + n) for timeline in timelines for n in range(arguments.samples)]
    names = output_names(arguments.output, len(jobs))

    check_outputs(names, arguments.crf)
    enable_cache()
    options = {name: getattr(arguments, name) for name in PASSED_ON}
    dtype = DTYPES[arguments.dtype]
    # The text encoder is at work before the rest is read: together they might not fit.
    model = load(arguments.checkpoint, parts=())
    timelines, seeds = zip(*jobs, strict=True)
    request = make_request(model.config, timelines, arguments.batch_size, seed=seeds, **options)
    features = encode_prompts(model, request, progress=not arguments.quiet)
    shardings = tree_shardings(abstract_params(model.config), make_mesh(request.mesh))
    model = load(arguments.checkpoint, shardings=shardings, dtype=dtype, lora=arguments.lora)
    for first in range(0, len(jobs), arguments.batch_size):
        group = slice(first, first + arguments.batch_size)
        recording = Recording(model, request.part(group), features.part(group), names[group], arguments.crf)
        started = time.time()
        finished = recording.run(resume=arguments.resume, progress=not arguments.quiet)
        if arguments.gif and finished:
            recording.write_gifs()
        for name in names[group] if finished else []:
            made = (
                f"{recording.frames_done} frames in {time.time() - started:.0f} s"
                if recording.frames_done
                else "was finished"
            )
            print(f"{name}: {made}")
        if not finished:
            shown = ", ".join(map(str, recording.partial_paths))
            kept = f"the {recording.frames_done} frames so far play: {shown}; " if shown else ""
            print(f"interrupted; {kept}the same command with --resume goes on", file=sys.stderr)
            return 130
    return 0


def main() -> None:
    """The command line; user mistakes print one line and exit with 2."""
    arguments = make_parser().parse_args()
    exit_with(lambda: run(arguments), interrupted="interrupted; the same command with --resume goes on")


if __name__ == "__main__":
    main()
