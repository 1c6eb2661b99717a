"""What a user asks for, checked before anything is compiled."""

import dataclasses
import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pavdm_jax.config import SCHEDULES, ClipConfig, ModelConfig
from pavdm_jax.distributed.mesh import MeshConfig, generation_mesh
from pavdm_jax.errors import ConfigError
from pavdm_jax.geometry import check_size, decoded_size, seconds_to_frames
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

IMAGES = ("hold", "latent")


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
    negative_prompt: str | Sequence[str] | None = None
    """what guidance leads away from, instead of the null caption; a list gives each prompt its own"""
    aesthetic_score: float | None = None
    """appended to the prompts, as Open-Sora was trained to read it; 4 to 7"""
    motion_score: float | None = None
    """appended to the prompts; 0 to 20, of optical flow"""
    camera_motion: str | None = None
    """appended to the prompts; such as pan right"""
    seed: int | Sequence[int] = 0
    """sample n of a prompt is the video of seed + n, alone or in a batch; a list gives each video its own"""
    samples: int = 1
    """videos of each prompt"""
    start: str | os.PathLike | np.ndarray | Sequence[str | os.PathLike | np.ndarray] | None = None
    """how the video begins: a path of a clip or an image, or uint8 frames [f, h, w, 3]; a list gives each prompt its own, of
    equal length"""
    image: str = "hold"
    """what an image as start becomes: hold shows it as a still clip of 17 frames, which also tells the model that nothing
    moves; latent gives it as the first latent frame alone, so that motion begins at once, for models that were trained so
    (Open-Sora's mask strategy "image head")"""
    method: str = "progressive"
    """how the video is extended: progressive (the paper's), or its baselines replacement and noisy-replacement. With weights
    that were finetuned progressively a baseline is compared outside of its training: at another clip length, with levels
    that do not differ; for the paper's comparison use weights that were trained for each"""
    schedule: str | None = None
    """a named window of the progressive method: pa-o and pa-m (the paper's settings), no-context and no-chunks (its
    ablations), fifo (FIFO-Diffusion)"""
    chunk_size: int | None = None
    """of the progressive method: latent frames that share a level"""
    noisy_chunks: int | None = None
    """of the progressive method: chunks being denoised"""
    context_chunks: int | None = None
    """of the progressive method: finished chunks at the head of the window"""
    partition: int | None = None
    """of the progressive method: latent frames of a network call, in a longer window"""
    context_noise: float | None = None
    """of the progressive method: level to which finished chunks are noised as context; 0.02 is usual against drift"""
    fixed_length: bool = False
    """of the progressive method: begin and end with a full window (the paper's base design); the start clip's last chunks
    are noised and made again"""
    clip_frames: int | None = None
    """of the baselines: pixel frames of a clip (51)"""
    context_frames: int | None = None
    """of the baselines: how many of these come from the clip before (17); 1 conditions on one frame"""
    keep_latents: bool = False
    """of replacement: hand the context on as latents, instead of decoding it and encoding it again"""
    edit_ratio: float = 0.0
    """of replacement: the level below which the context is denoised with the rest; 0 keeps it"""
    dtype: str = "float32"
    """in which the transformer and the text encoder compute, and their matrices are kept, float32 or bfloat16"""
    segment: int = 2
    """shifts of one compiled call; frames come out after each"""
    mesh: str = "auto"
    """which devices share the work: auto (all), single, or such as data=2,sequence=4; videos differ by rounding only"""


OF_WINDOW = ("schedule", "chunk_size", "noisy_chunks", "context_chunks", "partition", "context_noise", "fixed_length")
"""Options of the progressive method alone."""

OF_CLIPS = ("clip_frames", "context_frames", "keep_latents", "edit_ratio")
"""Options of the baselines alone."""


@dataclass(frozen=True)
class Request:
    """A video, or a batch of them, with every choice made and checked (see `Options` for the fields that are not explained here).

    Attributes:
      config: the model's, with the window and the appended scores of this request.
      prompts: a timeline for each sample; all samples change prompts at the same seconds.
      single: one sample of one prompt, for which no batch axis is expected.
      seeds: one for each sample.
      negative_prompts: one for each sample, or None.
      told_size: height and width that the network is told. Of a named resolution it is the named one (240 x 426), as upstream
        does, although what is left of it by the VAE is smaller (240 x 424, `height` and `width`).
      start: uint8 [1 or b, f, height, width, 3] or None.
      image: uint8 [1 or b, 1, height, width, 3], an image that is one latent frame, or None; then `start` is None.
      clip: of the baselines.
    """

    config: ModelConfig
    prompts: tuple[Timeline, ...]
    single: bool
    frames: int | None
    height: int
    width: int
    told_size: tuple[int, int]
    fps: float
    guidance_scale: float
    negative_prompts: tuple[str, ...] | None
    seeds: tuple[int, ...]
    start: np.ndarray | None
    image: np.ndarray | None
    method: str
    fixed_length: bool
    clip: ClipConfig
    dtype: str
    segment: int
    mesh: MeshConfig

    @property
    def batch(self) -> int:
        return len(self.prompts)

    @property
    def given_frames(self) -> int:
        """Frames of the start clip."""
        return 0 if self.start is None else self.start.shape[1]

    @property
    def texts(self) -> list[str]:
        """The prompts of the first sample's timeline, of the second's, and so on."""
        return [text for timeline in self.prompts for _, text in timeline]

    @property
    def change_seconds(self) -> tuple[float, ...]:
        """When the second, third, ... prompt of the timeline begins."""
        return tuple(second for second, _ in self.prompts[0][1:])

    def part(self, samples: slice) -> "Request":
        """The request of some of the samples alone."""

        def of_samples(frames: np.ndarray | None) -> np.ndarray | None:
            return frames if frames is None or len(frames) == 1 else frames[samples]

        return dataclasses.replace(
            self,
            prompts=self.prompts[samples],
            seeds=self.seeds[samples],
            negative_prompts=self.negative_prompts and self.negative_prompts[samples],
            start=of_samples(self.start),
            image=of_samples(self.image),
        )


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
    asked = _read_options(options)
    timelines, single = read_prompts(prompt)
    videos = len(timelines) * asked.samples
    fps = config.fps if asked.fps is None else asked.fps
    if not 0 < fps <= 1000:
        raise ConfigError(f"fps must be above 0 and at most 1000, not {fps:g}")
    guidance_scale = config.guidance_scale if asked.guidance_scale is None else asked.guidance_scale
    if not math.isfinite(guidance_scale):
        raise ConfigError(f"guidance_scale must be a finite number, not {guidance_scale}")
    frames = asked.frames if asked.seconds is None else seconds_to_frames(asked.seconds, fps)
    if frames is not None and not 1 <= frames <= MAX_FRAMES:
        raise ConfigError(f"frames {frames} is not possible; ask for 1 to {MAX_FRAMES}, or for a video without end")
    config = _own_config(config, asked)
    height, width, told_size = _size(config, asked)
    start, image = _start_frames(config, asked, len(timelines), height, width)
    if frames is not None and start is not None and frames <= start.shape[1]:
        raise ConfigError(
            f"{frames} frames are asked for, and the start clip has {start.shape[1]} already; ask for more"
        )
    return Request(
        config=config,
        prompts=tuple(timeline for timeline in timelines for _ in range(asked.samples)),
        single=single and asked.samples == 1,
        frames=frames,
        height=height,
        width=width,
        told_size=told_size,
        fps=fps,
        guidance_scale=guidance_scale,
        negative_prompts=_negative_prompts(asked, len(timelines)),
        seeds=_seeds(asked, len(timelines)),
        start=start,
        image=image,
        method=asked.method,
        fixed_length=asked.fixed_length,
        clip=_clip(config, asked),
        dtype=asked.dtype,
        segment=asked.segment,
        mesh=generation_mesh(asked.mesh, videos=min(at_once or videos, videos)),
    )


def _read_options(options: dict) -> Options:
    """The options, checked as far as they can be without the model."""
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known options are {', '.join(known)}"
            raise ConfigError(f"there is no option '{name}'; {hint}")
    asked, defaults = Options(**options), Options()
    if asked.samples < 1:
        raise ConfigError(f"samples must be at least 1, not {asked.samples}")
    if not 1 <= asked.segment <= MAX_SEGMENT:
        raise ConfigError(f"segment must be 1 to {MAX_SEGMENT} shifts, not {asked.segment}")
    for name, values in (("method", METHODS), ("dtype", DTYPES), ("image", IMAGES)):
        if getattr(asked, name) not in values:
            raise ConfigError(f"{name} '{getattr(asked, name)}' is not known; use {' or '.join(values)}")
    if asked.schedule not in (None, *SCHEDULES):
        raise ConfigError(f"schedule '{asked.schedule}' is not known; use {' or '.join(SCHEDULES)}")
    foreign = OF_CLIPS if asked.method == "progressive" else OF_WINDOW
    for name in foreign:
        if getattr(asked, name) != getattr(defaults, name):
            whose = "the methods replacement and noisy-replacement" if foreign is OF_CLIPS else "method progressive"
            raise ConfigError(f"{name} is an option of {whose}; method is {asked.method}")
    if asked.method == "noisy-replacement" and (asked.keep_latents or asked.edit_ratio):
        raise ConfigError(
            "keep_latents and edit_ratio are options of method replacement; noisy-replacement keeps latents"
        )
    return asked


def _own_config(config: ModelConfig, asked: Options) -> ModelConfig:
    """The model's config with what the request changes."""

    def given(*names: str) -> dict:
        return {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}

    window = config.window if asked.schedule is None else SCHEDULES[asked.schedule]
    if asked.method == "progressive":
        sizes = ("chunk_size", "noisy_chunks", "context_chunks", "partition", "context_noise", "steps")
        window = dataclasses.replace(window, **given(*sizes))
    text = dataclasses.replace(config.text, **given("aesthetic_score", "motion_score", "camera_motion"))
    return dataclasses.replace(config, window=window, text=text)


def _clip(config: ModelConfig, asked: Options) -> ClipConfig:
    """The clips of the baselines."""
    defaults = ClipConfig(steps=config.window.steps)
    asked_for = {
        "frames": asked.clip_frames,
        "context_frames": asked.context_frames,
        "keep_latents": asked.keep_latents,
        "edit_ratio": asked.edit_ratio,
        "steps": asked.steps,
    }
    if asked.method == "progressive":
        return defaults
    return dataclasses.replace(defaults, **{name: value for name, value in asked_for.items() if value is not None})


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


def _negative_prompts(asked: Options, prompts: int) -> tuple[str, ...] | None:
    """The negative prompt of each video."""
    if asked.negative_prompt is None:
        return None
    each = [asked.negative_prompt] * prompts if isinstance(asked.negative_prompt, str) else list(asked.negative_prompt)
    if len(each) != prompts:
        raise ConfigError(
            f"{len(each)} negative prompts are given for {prompts} prompts; give one each, or a single one"
        )
    for text in each:
        if not text.strip():
            raise ConfigError("a negative prompt is empty; leave it out to guide away from the null caption")
    return tuple(text for text in each for _ in range(asked.samples))


def _size(config: ModelConfig, asked: Options) -> tuple[int, int, tuple[int, int]]:
    """Height and width of the frames, and what the network is told (see `Request.told_size`)."""
    if asked.resolution is not None:
        if asked.height is not None or asked.width is not None:
            raise ConfigError("give either resolution and aspect_ratio, or height and width, not both")
        named = resolution(asked.resolution, asked.aspect_ratio or "9:16")
        return *decoded_size(*named, config.vae), named
    if asked.aspect_ratio is not None:
        raise ConfigError(f"aspect_ratio {asked.aspect_ratio} needs a resolution, such as 240p, beside it")
    height = config.height if asked.height is None else asked.height
    width = config.width if asked.width is None else asked.width
    check_size(height, width, config)
    return height, width, (height, width)


def _start_frames(
    config: ModelConfig, asked: Options, prompts: int, height: int, width: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The start clips, and the images that are one latent frame, at the video's size: see `Request`."""
    if asked.start is None:
        return None, None
    each = list(asked.start) if isinstance(asked.start, list | tuple) else [asked.start]
    if len(each) not in (1, prompts):
        raise ConfigError(f"{len(each)} start clips are given for {prompts} prompts; give one each, or a single one")
    clips = [_read_start(config, start, asked.image, height, width) for start in each]
    lengths = {len(clip) for clip in clips}
    if len(lengths) != 1:
        raise ConfigError(
            f"the start clips of a batch must have equal lengths, not {', '.join(map(str, sorted(lengths)))} frames"
        )
    repeats = 1 if len(each) == 1 else asked.samples
    frames = np.repeat(np.stack(clips), repeats, axis=0)
    return (None, frames) if asked.image == "latent" and lengths == {1} else (frames, None)


def _read_start(
    config: ModelConfig, start: str | os.PathLike | np.ndarray, image: str, height: int, width: int
) -> np.ndarray:
    frames = start if isinstance(start, np.ndarray) else read_video(start)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ConfigError(
            f"start frames must be uint8 [frames, height, width, 3], not {frames.dtype} {list(frames.shape)}"
        )
    if len(frames) == 1 and image == "hold":
        frames = np.repeat(frames, config.vae.micro_frames, axis=0)
    return resize_crop(frames, height, width)
