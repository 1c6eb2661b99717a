"""Make a video longer, or again from a second on: `pavdm redo video.mp4 --from 20 --seed 5`.

What comes before stays as it is, bit for bit; so do the frames up to the next position that was kept when the video was
made, a second or so. The chunks that were in the window then have been denoised in part already: the change sets in
gradually, and what enters the window behind them is all new.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pavdm_jax import storage
from pavdm_jax.checkpoints.config_json import check_kinds
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.generation.options import MAX_FRAMES, check_frames
from pavdm_jax.geometry import decoded_frames, seconds_to_frames
from pavdm_jax.text.captions import is_blank

if TYPE_CHECKING:
    from pavdm_jax.generation.request import Request

EXAMPLES = """
examples:
  pavdm redo video.mp4 --from 20 --seed 5
  pavdm redo video.mp4 --from 20 --prompt "a green square moves right" --output other.mp4
  pavdm redo video.mp4 --seconds 120                    # goes on where the window was last full

A killed run goes on where it was when the same command is given with --resume.
"""


@dataclass(frozen=True)
class RedoCommand:
    """Which video, from where, and what is to be different."""

    video: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
    """a finished video of `pavdm generate`, with the folder NAME.states beside it"""
    from_second: Annotated[float | None, tyro.conf.arg(name="from", metavar="SECOND")] = None
    """what comes before is kept; for a longer video, as much as there is when none is given"""
    seconds: float | None = None
    """the length of the new video, if it is to be longer; without --from, all but the last window is kept"""
    seed: int | None = None
    """of the noise that enters from there on; the video's own, if there is a prompt"""
    prompt: str | None = None
    """what is to be seen from there on, until a later prompt of the video's own timeline"""
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """the file to write; VIDEO with -redo in its name when none is given"""
    checkpoint: str | None = None
    """the model that made the video; that of the package which it names when none is given"""
    lora: str | None = None
    """LoRA adapters that made the video, too"""
    mesh: str = "auto"
    """how devices share the work, as of `pavdm --mesh`"""
    gif: bool = False
    """write a GIF beside the video, too"""
    no_states: bool = False
    """keep no positions of the new video in the folder NAME.states beside it; the next redo needs them"""
    resume: bool = False
    """continue an interrupted run of the same command"""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """no progress bar"""

    def __post_init__(self) -> None:
        if self.seed is None and self.prompt is None and self.seconds is None:
            raise ConfigError("nothing would be different; give another --seed or --prompt, or more --seconds")
        if self.from_second is None and self.seconds is None:
            raise ConfigError("--from is missing: the second from which on the video is made again")
        if self.seed is not None and not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed must be 0 to {2**31 - 1}, not {self.seed}")
        if self.prompt is not None and is_blank(self.prompt):
            raise ConfigError("--prompt is empty; leave it out to keep the video's own")


def read(arguments: Sequence[str]) -> RedoCommand:
    """What the command line asks for."""
    return read_command(RedoCommand, arguments, "pavdm redo", __doc__, EXAMPLES)


def read_settings(video: Path, second: float | None) -> tuple[dict[str, Any], int | None]:
    """What a video's comment says of it, and the number of the frame at that second.

    Raises:
      ConfigError: there is no such video, it was made by other software, or it is shorter.
    """
    from pavdm_jax.video.writer import MAX_FPS, MIN_FPS, read_comment

    if not video.is_file():
        raise ConfigError(f"there is no video {video}")
    try:
        said = json.loads(read_comment(video) or "")
        fps, frames, crf = said["fps"], said["frames"], said["crf"]
        check_kinds(fps, float, "fps")
        check_kinds(frames, int | None, "frames")
        check_kinds(crf, int, "crf")
        check_kinds(said["weights"], str, "weights")
        for change in said.get("redone", []):
            check_kinds(change["at_frame"], int, "at_frame")
            check_kinds(change["seed"], int, "seed")
            check_kinds(change.get("seed_before"), int | None, "seed_before")
        if not (MIN_FPS <= fps <= MAX_FPS and 1 <= crf <= 51 and (frames is None or 1 <= frames <= MAX_FRAMES)):
            raise ValueError("out of range")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(f"{video} was not made by `pavdm generate`: its comment has no settings") from None
    if frames is None:
        raise ConfigError(f"{video} was made without end, so that no positions were kept; it cannot be redone")
    if second is None:
        return said, None
    if not 0 <= second < frames / fps:
        raise ConfigError(f"--from {second:g} is not within the video, which has {frames / fps:g} s")
    return said, math.ceil(second * fps)


def run(command: RedoCommand) -> int:
    """Make the video; returns the exit code."""
    video = storage.local_path(command.video, "video")
    said, frame = read_settings(video, command.from_second)
    output = storage.local_path(command.output or video.with_name(f"{video.stem}-redo.mp4"), "--output")
    if output.resolve() == video.resolve():
        raise ConfigError(f"--output {output} is the video itself; give another file")

    # Imported when the command was read: most mistakes are told before the seconds that these take.
    from pavdm_jax.checkpoints.fingerprint import model_fingerprint
    from pavdm_jax.checkpoints.load import load
    from pavdm_jax.checkpoints.model_folder import is_embedded
    from pavdm_jax.distributed.mesh import make_mesh
    from pavdm_jax.distributed.partitioning import tree_shardings
    from pavdm_jax.generation.pipeline import check_method
    from pavdm_jax.generation.progressive import make_plan
    from pavdm_jax.generation.prompts import encode_prompts, encode_texts
    from pavdm_jax.generation.recording import Branch, Recording, check_outputs, check_record, make_files
    from pavdm_jax.generation.request_json import read_request
    from pavdm_jax.models.model import DTYPES, abstract_params
    from pavdm_jax.outputs import check_output, warn_of_replaced
    from pavdm_jax.video.clips import read_video

    named = said.get("model")
    if command.checkpoint is None and not is_embedded(named):
        raise ConfigError(f"{video} was made by a {named}, which is not in the package; give it as --checkpoint")
    checkpoint = command.checkpoint or str(named)
    frames = said["frames"] if command.seconds is None else seconds_to_frames(command.seconds, said["fps"])
    check_frames(frames)
    if command.seconds is not None and frames <= said["frames"]:
        length = said["frames"] / said["fps"]
        raise ConfigError(f"--seconds {command.seconds:g} is no longer than the video, which has {length:g} s")
    check_outputs([output], said["crf"])
    if command.gif:
        check_output(output.with_suffix(".gif"), (".gif",))
    if not command.resume:
        check_record(output)
        warn_of_replaced([output])
    enable_cache()
    model = load(checkpoint, parts=(), lora=command.lora)
    request = read_request(said, model.config, lambda count: read_video(video, 0, count), command.mesh)
    position = find_position(command, video, request, frame)
    request = replace(request, frames=frames)
    if command.seconds is not None:
        try:
            check_method(request)
        except ConfigError as error:
            raise ConfigError(f"{video} cannot be made longer: {error}") from None
    frames_kept, earlier = int(position["frames_done"]), said.get("redone", [])
    kept = [change for change in earlier if change["at_frame"] < frames_kept]
    seed = _seed_before(kept, earlier, last=request.seeds[0])
    request = replace(request, seeds=(seed if command.seed is None else command.seed,))
    progressive, round_number = request.method == "progressive", int(position["round"])
    changes_noise_alone = progressive and command.prompt is None and command.seconds is None
    if changes_noise_alone and not make_plan(request).takes_noise(round_number):
        raise ConfigError(
            f"all that is to come of {video} is in the window at second {command.from_second:g}, so that another "
            "--seed would change nothing; give --prompt, or an earlier second"
        )
    # The text encoder is at work before the rest is read: together they might not fit.
    (features,) = encode_prompts(model, request, progress=not command.quiet)
    if command.prompt is not None:
        encode_texts(model, request, (command.prompt,))
    shardings = tree_shardings(abstract_params(model.config), make_mesh(request.mesh))
    model = load(checkpoint, shardings=shardings, dtype=DTYPES[request.dtype], lora=command.lora)
    if model_fingerprint(model) != said["weights"]:
        raise ConfigError(
            f"{checkpoint} is not the model that made {video} (a {said['model']}); give that one as --checkpoint"
        )
    change = {"at_frame": frames_kept, "seed_before": seed, "seed": request.seeds[0], "prompt": command.prompt}
    redone = kept if command.seed is command.prompt is None else [*kept, change]
    history = {name: said[name] for name in ("start", "image")} | {"redone": redone}
    branch = Branch(video, position, command.prompt)
    recording = Recording(
        model, request, features, [output], said["crf"], states=not command.no_states, branch=branch, history=history
    )
    kept_seconds = frames_kept / request.fps
    print(printable(f"the first {frames_kept} frames ({kept_seconds:.1f} s) are those of {video}"), file=sys.stderr)
    if len(kept) < len(earlier):
        print("changes that were made after that point are dropped", file=sys.stderr)
    return make_files(recording, resume=command.resume, gif=command.gif, quiet=command.quiet)


def find_position(command: RedoCommand, video: Path, request: "Request", frame: int | None) -> dict[str, Any]:
    """The position of a video from which it is made again.

    Args:
      command: what is asked for.
      video: the file.
      request: what made it.
      frame: the first frame that need not be kept, or None: as late as a longer video can go on.

    Raises:
      ConfigError: there is none.
    """
    from pavdm_jax.generation.positions import find_state, find_state_before
    from pavdm_jax.video.writer import read_comment

    comment, shared = read_comment(video) or "", shared_frames(request)
    if command.seconds is None:
        return find_state(video, frame or 0, comment)
    if shared < 0:
        raise ConfigError(f"{video} is shorter than its window, so that nothing of it goes on; make it again, longer")
    if frame is None:
        return find_state_before(video, shared, comment)
    if frame > shared:
        raise ConfigError(
            f"--from {command.from_second:g} lies in the last window of {video}, which a longer video does not share; "
            f"give {shared / request.fps:g} or less, or leave it out"
        )
    position = find_state(video, frame, comment)
    if position["frames_done"] <= shared:
        return position
    position = find_state_before(video, shared, comment)
    if position["frames_done"] < frame and (command.seed is not None or command.prompt is not None):
        raise ConfigError(
            f"no position between second {frame / request.fps:g} and the last window of {video} was kept; give --from "
            f"{int(position['frames_done']) / request.fps:g}, from which the video can be changed"
        )
    return position


def shared_frames(request: "Request") -> int:
    """The frames that a video has in common with a longer one: all but those that were in its last full window."""
    from pavdm_jax.diffusion.window import shifts_per_chunk

    assert request.frames is not None
    if request.method != "progressive":
        return request.frames
    window = request.config.window
    chunks = max(window.noisy_chunks, shifts_per_chunk(window))
    return request.frames - decoded_frames(chunks * window.chunk_size, request.config.vae)


def _seed_before(kept: list[dict], earlier: list[dict], last: int) -> int:
    """The seed that holds where a video is redone.

    Args:
      kept: the changes before that.
      earlier: all changes of the video.
      last: the seed that holds at its end.
    """
    if kept:
        return kept[-1]["seed"]
    seed = earlier[0].get("seed_before") if earlier else None  # videos of earlier versions do not say
    return last if seed is None else seed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    exit_with(lambda: run(read(given)), interrupted="interrupted; the same command with --resume goes on")


if __name__ == "__main__":
    main()
