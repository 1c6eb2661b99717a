"""What a user asks for, checked before anything is compiled."""

import dataclasses
import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.config import ModelConfig, WindowConfig
from pavdm_jax.distributed.mesh import MeshConfig, generation_mesh
from pavdm_jax.errors import ConfigError
from pavdm_jax.geometry import check_size, chunk_frames, decoded_size, seconds_to_frames
from pavdm_jax.models.model import DTYPES
from pavdm_jax.resolutions import resolution
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.images import resize_crop

Timeline = tuple[tuple[float, str], ...]
"""Prompts by the second from which they hold; the first one is 0."""

_EXAMPLE = "give a text such as 'a red circle moves left'"

DEFAULT_FRAMES = 1440
"""A minute at 24 frames per second."""

MAX_FRAMES = 10**9

MAX_SEGMENT = 1000

METHODS = ("progressive", "replacement", "noisy-replacement")


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
    """network calls that each latent frame receives, a multiple of the window's noisy chunks"""
    guidance_scale: float | None = None
    """1 follows the model's plain prediction; higher follows the prompt more closely"""
    seed: int | Sequence[int] = 0
    """sample n of a prompt is the video of seed + n, alone or in a batch; a list gives each video its own"""
    samples: int = 1
    """videos of each prompt"""
    start: str | os.PathLike | np.ndarray | None = None
    """how the video begins: a path of a clip or an image, or uint8 frames [f, h, w, 3]; an image is held for a chunk"""
    method: str = "progressive"
    """how the video is extended: progressive (the paper's), or its baselines replacement and noisy-replacement"""
    dtype: str = "float32"
    """in which the transformer and the text encoder compute, and their matrices are kept, float32 or bfloat16"""
    segment: int = 2
    """shifts of one compiled call; frames come out after each"""
    mesh: str = "auto"
    """which devices share the work: auto (all), single, or such as data=2,sequence=4; videos differ by rounding only"""


@dataclass(frozen=True)
class Request:
    """A video, or a batch of them, with every choice made and checked (see `Options` for the fields that are not explained here).

    Attributes:
      prompts: a timeline for each sample; all samples change prompts at the same seconds.
      single: one sample of one prompt, for which no batch axis is expected.
      seeds: one for each sample.
      window: the model's, with the number of steps that was asked for.
      start: uint8 [f, height, width, 3] or None.
    """

    prompts: tuple[Timeline, ...]
    single: bool
    window: WindowConfig
    frames: int | None
    height: int
    width: int
    fps: float
    guidance_scale: float
    seeds: tuple[int, ...]
    start: np.ndarray | None
    method: str
    dtype: str
    segment: int
    mesh: MeshConfig

    @property
    def batch(self) -> int:
        return len(self.prompts)

    def part(self, samples: slice) -> "Request":
        """The request of some of the samples alone."""
        return dataclasses.replace(self, prompts=self.prompts[samples], seeds=self.seeds[samples])

    @property
    def texts(self) -> list[str]:
        """The prompts of the first sample's timeline, of the second's, and so on."""
        return [text for timeline in self.prompts for _, text in timeline]

    @property
    def change_seconds(self) -> tuple[float, ...]:
        """When the second, third, ... prompt of the timeline begins."""
        return tuple(second for second, _ in self.prompts[0][1:])


def make_request(config: ModelConfig, prompt: str | Sequence, at_once: int | None = None, **options) -> Request:
    """Check a prompt and `Options`, fill in the model's defaults, and read the start clip.

    Args:
      config: of the model.
      prompt: a text, a timeline, or a list of either (see `read_prompts`).
      at_once: videos that will be made at the same time, by which the devices share the work; None: all.
      options: fields of `Options`.

    Raises:
      ConfigError: something cannot work; the message names the value and the remedy.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known options are {', '.join(known)}"
        if name not in known:
            raise ConfigError(f"there is no option '{name}'; {hint}")
    asked = Options(**options)

    timelines, single = read_prompts(prompt)
    if asked.samples < 1:
        raise ConfigError(f"samples must be at least 1, not {asked.samples}")
    if not 1 <= asked.segment <= MAX_SEGMENT:
        raise ConfigError(f"segment must be 1 to {MAX_SEGMENT} shifts, not {asked.segment}")
    if asked.method not in METHODS:
        raise ConfigError(f"method '{asked.method}' is not known; use {', '.join(METHODS)}")
    if asked.dtype not in DTYPES:
        raise ConfigError(f"dtype '{asked.dtype}' is not known; use {' or '.join(DTYPES)}")
    fps = config.fps if asked.fps is None else asked.fps
    if not 0 < fps <= 1000:
        raise ConfigError(f"fps must be above 0 and at most 1000, not {fps:g}")
    guidance_scale = config.guidance_scale if asked.guidance_scale is None else asked.guidance_scale
    if not math.isfinite(guidance_scale):
        raise ConfigError(f"guidance_scale must be a finite number, not {guidance_scale}")
    frames = asked.frames if asked.seconds is None else seconds_to_frames(asked.seconds, fps)
    if frames is not None and not 1 <= frames <= MAX_FRAMES:
        raise ConfigError(f"frames {frames} is not possible; ask for 1 to {MAX_FRAMES}, or for a video without end")
    height, width = _size(config, asked)
    seeds = _seeds(asked, len(timelines))
    window = config.window if asked.steps is None else dataclasses.replace(config.window, steps=asked.steps)
    return Request(
        prompts=tuple(timeline for timeline in timelines for _ in range(asked.samples)),
        single=single and asked.samples == 1,
        window=window,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        guidance_scale=guidance_scale,
        seeds=seeds,
        start=_start_frames(config, asked.start, height, width),
        method=asked.method,
        dtype=asked.dtype,
        segment=asked.segment,
        mesh=generation_mesh(asked.mesh, videos=min(at_once or len(seeds), len(seeds))),
    )


def read_prompts(prompt: str | Sequence) -> tuple[list[Timeline], bool]:
    """The timelines of a text, of one timeline `[(second, text), ...]`, or of a list of either; and whether it was a single one.

    Raises:
      ConfigError: no prompt, an empty one, or timelines that do not begin at 0, do not rise, or change at different seconds.
    """
    if not isinstance(prompt, str | list | tuple) or len(prompt) <= 0:
        raise ConfigError(f"there is no prompt; {_EXAMPLE}")
    single = isinstance(prompt, str) or isinstance(prompt[0], tuple)
    videos = [prompt] if single else prompt
    timelines = [
        ((0.0, video),) if isinstance(video, str) else tuple((float(s), text) for s, text in video) for video in videos
    ]
    seconds = [second for second, _ in timelines[0]]
    if seconds[0] != 0:
        raise ConfigError(f"the first prompt of a timeline must begin at second 0, not {seconds[0]:g}")
    shown = ", ".join(f"{second:g}" for second in seconds)
    if not all(second <= MAX_FRAMES for second in seconds):
        raise ConfigError(f"a timeline cannot reach that far: {shown} s")
    if seconds != sorted(set(seconds)):
        raise ConfigError(f"the seconds of a timeline must rise: {shown}")
    for timeline in timelines:
        if [second for second, _ in timeline] != seconds:
            raise ConfigError(f"all videos of a batch must change prompts at the same seconds: {shown}")
        for _, text in timeline:
            if not text.strip():
                raise ConfigError(f"a prompt is empty; {_EXAMPLE}")
            if not _is_text(text):
                raise ConfigError(f"the prompt {text!r} is not text; write it in UTF-8")
    return timelines, single


def _is_text(text: str) -> bool:
    """Whether no byte of it was undecodable (Python keeps those of a command line as surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _seeds(asked: Options, prompts: int) -> tuple[int, ...]:
    """A seed for each video: counted up over the samples of a prompt, or as given."""
    if isinstance(asked.seed, Sequence):
        seeds = tuple(map(int, asked.seed))
    else:
        seeds = tuple(int(asked.seed) + n for _ in range(prompts) for n in range(asked.samples))
    videos = prompts * asked.samples
    if len(seeds) != videos:
        raise ConfigError(f"{len(seeds)} seeds are given for {videos} videos; give one each, or a single number")
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(f"seeds must be 0 to {2**31 - 1}, not {seeds[0]}")
    return seeds


def _size(config: ModelConfig, asked: Options) -> tuple[int, int]:
    if asked.resolution is not None:
        if asked.height is not None or asked.width is not None:
            raise ConfigError("give either resolution and aspect_ratio, or height and width, not both")
        return decoded_size(*resolution(asked.resolution, asked.aspect_ratio or "9:16"), config.vae)
    if asked.aspect_ratio is not None:
        raise ConfigError(f"aspect_ratio {asked.aspect_ratio} needs a resolution, such as 240p, beside it")
    height = config.height if asked.height is None else asked.height
    width = config.width if asked.width is None else asked.width
    check_size(height, width, config)
    return height, width


def _start_frames(
    config: ModelConfig, start: str | os.PathLike | np.ndarray | None, height: int, width: int
) -> np.ndarray | None:
    """The start clip at the video's size; an image is repeated to fill a chunk."""
    if start is None:
        return None
    frames = start if isinstance(start, np.ndarray) else read_video(start)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ConfigError(
            f"start frames must be uint8 [frames, height, width, 3], not {frames.dtype} {list(frames.shape)}"
        )
    if len(frames) == 1:
        frames = np.repeat(frames, chunk_frames(config), axis=0)
    return resize_crop(frames, height, width)
