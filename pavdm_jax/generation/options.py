"""What may be asked for beside the prompt, by the same names in Python and on the command line."""

import dataclasses
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.checkpoints.config_json import check_kinds
from pavdm_jax.config import SCHEDULES
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import DTYPES


class Unasked(int):
    """A default, which is not the same as the equal number that was asked for."""


DEFAULT_FRAMES = Unasked(1440)
"""A minute at 24 frames per second."""

MAX_FRAMES = 10**9
"""The longest video that can be asked for, in pixel frames; a longer one is a video without end."""


def check_frames(frames: int) -> None:
    """Raise `ConfigError` for a length, in pixel frames, that no video can have."""
    if not 1 <= frames <= MAX_FRAMES:
        raise ConfigError(f"frames {frames} is not possible; ask for 1 to {MAX_FRAMES}, or for a video without end")


MAX_SAMPLES = 10_000
"""The most videos of a prompt: more is a slip of the keyboard."""


def check_samples(samples: int) -> None:
    """Raise `ConfigError` for a number of videos that cannot be asked for."""
    if not 1 <= samples <= MAX_SAMPLES:
        raise ConfigError(f"samples must be 1 to {MAX_SAMPLES}, not {samples}")


MAX_SEGMENT = 1000
"""The most shifts of one compiled call."""

METHODS = ("progressive", "replacement", "noisy-replacement")
"""Values of the option `method`."""

WAITING_SCHEDULES = ("synchronous", "asynchronous")
"""SkyReels-V2's own schedules, windows with a `lag`: the whole video as one chunk, and chunks one after the other."""

IMAGES = ("hold", "latent")
"""Values of the option `image`."""


@dataclass(frozen=True)
class Options:
    """What may be asked for beside the prompt, in Python and on the command line; None takes the model's default."""

    frames: int | None = DEFAULT_FRAMES
    """pixel frames of the whole video, a start clip's included; None makes a video without end"""
    seconds: float | None = None
    """the length in seconds instead of `frames`"""
    fps: float | None = None
    """frames per second; the model is told, and the file is played so"""
    height: int | None = None
    """in pixels; the nearest possible sizes are named when these are not possible"""
    width: int | None = None
    """in pixels"""
    resolution: str | None = None
    """a named size instead, such as 240p or 720p"""
    aspect_ratio: str | None = None
    """height to width of a named size, as Open-Sora writes it; 9:16, landscape, when none is given"""
    steps: int | None = None
    """network calls that each latent frame receives; of the progressive method a multiple of the noisy chunks"""
    guidance_scale: float | None = None
    """1 follows the model's plain prediction; higher follows the prompt more closely"""
    noise_shift: float | None = None
    """of SkyReels-V2: how far the levels are shifted towards noise; 8 is published for text, and 5, with guidance_scale
    5, for a video that begins with an image"""
    negative_prompt: str | Sequence[str] | None = None
    """what guidance leads away from, instead of the model's own (the null caption; SkyReels-V2's published one); a list
    gives each prompt its own"""
    aesthetic_score: float | None = None
    """appended to the prompts, as Open-Sora was trained to read it; 4 to 7 (6.5 with Open-Sora)"""
    motion_score: float | None = None
    """appended to the prompts; 0 to 20, of optical flow"""
    camera_motion: str | None = None
    """appended to the prompts; such as pan right"""
    seed: int | Sequence[int] = 0
    """sample n of a prompt is the video of seed + n, alone or in a batch; a list gives each video its own"""
    samples: int = 1
    """videos of each prompt"""
    start: str | os.PathLike | np.ndarray | Sequence[str | os.PathLike | np.ndarray] | None = None
    """how the video begins: a path of a clip or an image, or uint8 frames [f, h, w, 3]; a list gives each prompt its
    own, of equal length"""
    image: str = "hold"
    """what the image that is the start of each prompt becomes: hold shows it as a still clip of 17 frames, which also
    tells the model that nothing moves; latent gives it as the first latent frame alone, so that motion begins at once,
    for models that were trained so (Open-Sora's mask strategy "image head")"""
    method: str = "progressive"
    """how the video is extended: progressive (the paper's), or its baselines replacement and noisy-replacement. With
    weights that were finetuned progressively a baseline is compared outside of its training: at another clip length,
    with levels that do not differ; for the paper's comparison use weights that were trained for each"""
    schedule: str | None = None
    """a named window of the progressive method: pa-o and pa-m (the paper's settings), no-context and no-chunks (its
    ablations), fifo (FIFO-Diffusion); or a schedule of SkyReels-V2: synchronous (all frames at once), asynchronous
    (the model's own window, in which chunks wait until they begin, see lag)"""
    chunk_size: int | None = None
    """of the progressive method: latent frames that share a level"""
    noisy_chunks: int | None = None
    """of the progressive method: chunks being denoised"""
    context_chunks: int | None = None
    """of the progressive method: finished chunks at the head of the window"""
    partition: int | None = None
    """of the progressive method: latent frames of a network call, in a longer window"""
    context_noise: float | None = None
    """of the progressive method: level to which finished chunks are noised as context; 0.02 is usual against drift.
    Where chunks wait in the window (schedules synchronous and asynchronous) it is the level of given frames"""
    guidance_above: float | None = None
    """of the progressive method: noise level, 0 to 1, above which latent frames are guided; those at or below it, which
    are nearly finished, follow the prompt alone, and a step takes less time (0, all are guided)"""
    reuse_below: float | None = None
    """of the progressive method: noise level, 0 to 1, up to which latent frames are predicted in the first step of a
    shift alone; the other steps use that again and take less time. 0 is for the finished context alone"""
    lag: int | None = None
    """of schedule asynchronous: steps from the beginning of one chunk to that of the next (ar_step); steps divided by
    the noisy chunks when none is given"""
    fixed_length: bool = False
    """of the progressive method: begin and end with a full window (the paper's base design); the start clip's last
    chunks are noised and made again"""
    clip_frames: int | None = None
    """of the baselines: pixel frames of a clip (51; SkyReels-V2 97)"""
    context_frames: int | None = None
    """of the baselines: how many of these come from the clip before (17); 1 conditions on one frame"""
    keep_latents: bool = False
    """of replacement: hand the context on as latents, instead of decoding it and encoding it again"""
    edit_ratio: float = 0.0
    """of replacement: the level below which the context is denoised with the rest; 0 keeps it"""
    dtype: str = "float32"
    """in which the networks compute, and their matrices are kept, float32 or bfloat16; norms and noise levels are
    float32 in any case, and so is the encoding of a start clip. Decoding in bfloat16 takes half the memory"""
    segment: int = 2
    """of the progressive method: shifts of one compiled call; frames come out after each"""
    mesh: str = "auto"
    """which devices share the work: auto (all), single, or such as data=2,sequence=4; fsdp=8 splits the
    weights, too, for models that are too large for a device. Videos differ by rounding only"""


OF_SIZES = ("chunk_size", "noisy_chunks", "context_chunks", "partition")
"""Options of the progressive method alone that schedule synchronous does not leave open."""

OF_WINDOW = ("schedule", *OF_SIZES, "context_noise", "guidance_above", "reuse_below", "lag", "fixed_length", "segment")
"""Options of the progressive method alone."""

OF_CLIPS = ("clip_frames", "context_frames", "keep_latents", "edit_ratio")
"""Options of the baselines alone."""


def read_options(options: dict) -> Options:
    """The options, checked as far as they can be without the model.

    Raises:
      ConfigError: one that does not exist, a value that it cannot have, or options of different methods.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known options are {', '.join(known)}"
            raise ConfigError(f"there is no option '{name}'; {hint}")
    asked, defaults = Options(**options), Options()
    check_kinds(asked, Options, "")
    check_samples(asked.samples)
    if not 1 <= asked.segment <= MAX_SEGMENT:
        raise ConfigError(f"segment must be 1 to {MAX_SEGMENT} shifts, not {asked.segment}")
    for name, values in (("method", METHODS), ("dtype", DTYPES), ("image", IMAGES)):
        if getattr(asked, name) not in values:
            raise ConfigError(f"{name} '{getattr(asked, name)}' is not known; use {' or '.join(values)}")
    schedules = (*SCHEDULES, *WAITING_SCHEDULES)
    if asked.schedule not in (None, *schedules):
        raise ConfigError(f"schedule '{asked.schedule}' is not known; use {' or '.join(schedules)}")
    foreign = OF_CLIPS if asked.method == "progressive" else OF_WINDOW
    for name in foreign:
        if getattr(asked, name) != getattr(defaults, name):
            whose = "the methods replacement and noisy-replacement" if foreign is OF_CLIPS else "method progressive"
            raise ConfigError(f"{name} is an option of {whose}; method is {asked.method}")
    _check_schedule(asked)
    if asked.method == "noisy-replacement" and (asked.keep_latents or asked.edit_ratio):
        raise ConfigError(
            "keep_latents and edit_ratio are options of method replacement; noisy-replacement keeps latents"
        )
    return asked


def _check_schedule(asked: Options) -> None:
    """Raise `ConfigError` for options that the schedule does not have."""
    if asked.lag is not None and asked.schedule != "asynchronous":
        raise ConfigError(f"lag {asked.lag} is an option of schedule asynchronous; schedule is {asked.schedule}")
    if asked.fixed_length and asked.schedule in WAITING_SCHEDULES:
        raise ConfigError(f"fixed_length is not possible with schedule {asked.schedule}; leave it out")
    for name in OF_SIZES if asked.schedule == "synchronous" else ():
        if getattr(asked, name) is not None:
            raise ConfigError(
                f"{name} is not possible with schedule synchronous, one chunk of all frames; leave it out"
            )
