"""What a user asks for, checked before anything is compiled."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from pavdm_jax.config import SCHEDULES, ClipConfig, WindowConfig
from pavdm_jax.diffusion.family_levels import repeated_frames
from pavdm_jax.distributed.mesh import MeshConfig, generation_mesh
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig, AnyVAEConfig
from pavdm_jax.generation.options import Options, Unasked, check_frames, read_options
from pavdm_jax.generation.start_clips import read_starts
from pavdm_jax.generation.timeline import Timeline, read_prompts
from pavdm_jax.geometry import (
    check_size,
    decodable_latents,
    decoded_size,
    latent_frames,
    new_latents,
    seconds_to_frames,
)
from pavdm_jax.resolutions import resolution
from pavdm_jax.text.captions import is_blank
from pavdm_jax.video.images import MAX_PIXELS
from pavdm_jax.video.writer import MAX_FPS, MAX_SIDE, MIN_FPS
from pavdm_jax.wan_config import WanModelConfig


@dataclass(frozen=True)
class Request:
    """A video, or a batch of them, with every choice made and checked.

    `Options` explains the fields that are not explained here.

    Attributes:
      config: the model's, with the window and the appended scores of this request.
      prompts: a timeline for each sample; all samples change prompts at the same seconds.
      single: one sample of one prompt, for which no batch axis is expected.
      seeds: one for each sample.
      negative_prompts: one for each sample, or None.
      height, width: size of the frames, in pixels.
      told_size: height and width that the network is told. Of a named resolution it is the named size (240 x 426), as
        upstream does, although the VAE's frames are smaller (240 x 424, `height` and `width`).
      frames: pixel frames of the whole video, or None for a video without end.
      start: uint8 [1 or b, f, height, width, 3], the start clip or still clip, or None.
      image: uint8 [1 or b, 1, height, width, 3], an image that becomes one latent frame, or None. At most one of
        `start` and `image` is given.
      clip: lengths and steps of a baseline's clips.
    """

    config: AnyModelConfig
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
        """Samples, b."""
        return len(self.prompts)

    @property
    def guided(self) -> bool:
        """Whether a step predicts twice, with the prompt and without; a guidance scale of 1 needs no second pass."""
        return self.guidance_scale != 1

    @property
    def given_frames(self) -> int:
        """Pixel frames of the start clip; an image that becomes one latent frame is none of them."""
        return 0 if self.start is None else self.start.shape[1]

    @property
    def held_latents(self) -> int:
        """Latent frames at the head of the first chunk that are given while the rest of it is made.

        They are an image; or the end of a start clip, where chunks wait in a window without context.
        """
        if self.image is not None:
            return 1
        held = self.config.window.lag is not None and self.config.window.context_chunks == 0
        return _held_of_start(self.given_frames, self.config.vae) if held else 0

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


MAX_GUIDANCE = 1000


def has_two_halves(guidance_scale: float, window: WindowConfig) -> bool:
    """Whether the predictions with the prompt and without are one call of twice the batch, which devices can share."""
    return guidance_scale != 1 and window.guidance_above == 0


def make_request(config: AnyModelConfig, prompt: str | Sequence, at_once: int | None = None, **options) -> Request:
    """Check a prompt and `Options`, fill in the model's defaults, and read the start clip.

    Args:
      config: of the model.
      prompt: a text, a timeline, or a list of either (see `read_prompts`).
      at_once: videos that will be made at the same time, by which the devices share the work; None: all.
      options: fields of `Options`.

    Raises:
      ConfigError: something cannot work; the message names the value and the remedy.
    """
    asked = read_options(options)
    timelines, single = read_prompts(prompt)
    videos = len(timelines) * asked.samples
    fps = config.fps if asked.fps is None else asked.fps
    if not MIN_FPS <= fps <= MAX_FPS:
        raise ConfigError(f"fps must be {MIN_FPS} to {MAX_FPS}, not {fps:g}")
    guidance_scale = config.guidance_scale if asked.guidance_scale is None else asked.guidance_scale
    if not abs(guidance_scale) <= MAX_GUIDANCE:
        raise ConfigError(f"guidance_scale must be a number up to {MAX_GUIDANCE}, not {guidance_scale}")
    for what, value in (("a negative prompt", asked.negative_prompt), ("guidance_above", asked.guidance_above)):
        if guidance_scale == 1 and value is not None:
            raise ConfigError(f"{what} works by guidance, and guidance_scale is 1, which is none; give a higher one")
    if asked.seconds is not None and not isinstance(asked.frames, Unasked):
        length = "inf" if asked.frames is None else asked.frames
        raise ConfigError(f"frames {length} and seconds {asked.seconds:g} both say how long; give one of them")
    frames = asked.frames if asked.seconds is None else seconds_to_frames(asked.seconds, fps)
    if frames is not None:
        check_frames(frames)
    scores = _given(asked, "aesthetic_score", "motion_score", "camera_motion")
    if scores and config.text.aesthetic_score is None:
        warnings.warn(
            f"{' and '.join(scores)} are appended to prompts of a model that is not known to be trained with scores",
            stacklevel=2,
        )
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, **scores))
    if asked.noise_shift is not None:
        config = with_noise_shift(config, asked.noise_shift)
    height, width, told_size = _size(config, asked)
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise ConfigError(
            f"frames of {height}x{width} pixels are too large; at most {MAX_PIXELS} pixels are possible, and "
            f"{MAX_SIDE} along a side"
        )
    start, image = read_starts(config, asked, len(timelines), frames, fps, height, width)
    if frames is not None and start is not None and frames <= start.shape[1]:
        raise ConfigError(
            f"{frames} frames are asked for, and the start clip has {start.shape[1]} or more already; ask for more"
        )
    given = 0 if start is None else start.shape[1]
    config = dataclasses.replace(config, window=_window(config, asked, frames, given))
    if asked.context_noise and config.window.lag is not None and start is None and image is None:
        warnings.warn(
            f"context_noise {asked.context_noise:g} does nothing without a start clip here: where chunks wait in the "
            "window it is the level of given frames",
            stacklevel=2,
        )
    repeated_frames(config, told_size)  # refuses a reuse that is not possible
    two_halves = has_two_halves(guidance_scale, config.window)
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
        negative_prompts=None if guidance_scale == 1 else _negative_prompts(config, asked, len(timelines)),
        seeds=_seeds(asked, len(timelines)),
        start=start,
        image=image,
        method=asked.method,
        fixed_length=asked.fixed_length,
        clip=_clip(config, asked),
        dtype=asked.dtype,
        segment=asked.segment,
        mesh=generation_mesh(asked.mesh, min(at_once or videos, videos), guided=two_halves),
    )


def with_noise_shift(config: AnyModelConfig, noise_shift: float) -> AnyModelConfig:
    """The config with levels that are shifted so; `ConfigError` for a family whose shift follows from the size."""
    if not isinstance(config, WanModelConfig):
        raise ConfigError(
            f"noise_shift is a setting of SkyReels-V2; that of {config.name} follows from the size of the frames"
        )
    return dataclasses.replace(config, noise_shift=noise_shift)


def _given(asked: Options, *names: str) -> dict:
    """The options of these names that have a value."""
    return {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}


def _window(config: AnyModelConfig, asked: Options, frames: int | None, given_frames: int) -> WindowConfig:
    """The model's window with what the request changes.

    Args:
      config: of the model.
      asked: the options.
      frames: pixel frames of the whole video; None is a video without end.
      given_frames: pixel frames of the start clip.
    """
    window = SCHEDULES.get(asked.schedule or "", config.window)
    if asked.method != "progressive":
        return window_of_clips(window)
    changed = _given(asked, *(field.name for field in dataclasses.fields(window)))
    if asked.schedule == "synchronous":
        if frames is None:
            raise ConfigError(
                "schedule synchronous makes all frames at once, which a video without end cannot have; give frames, or "
                "use schedule asynchronous"
            )
        held = _held_of_start(given_frames, config.vae)
        whole = held + new_latents(frames - given_frames, config.vae, held)
        # A shift is a step, so that a run can be resumed between any two.
        changed |= {"chunk_size": whole, "noisy_chunks": 1, "context_chunks": 0, "partition": None, "lag": 1}
    elif asked.schedule == "asynchronous":  # chunks that begin evenly, unless a lag is given
        steps, noisy = (changed.get(name, getattr(window, name)) for name in ("steps", "noisy_chunks"))
        changed = {"lag": max(1, -(-steps // max(1, noisy)))} | changed
    return dataclasses.replace(window, **changed)


def window_of_clips(window: WindowConfig) -> WindowConfig:
    """A model's window where clips are sampled, which have no shifts and one level."""
    return dataclasses.replace(window, reuse_below=None, guidance_above=0.0)


def _held_of_start(frames: int, vae: AnyVAEConfig) -> int:
    """Latent frames of a start clip's end that are held: those of 17 pixel frames, as in SkyReels-V2, or fewer."""
    return min(latent_frames(vae.still_frames, vae), decodable_latents(frames, vae))


def _clip(config: AnyModelConfig, asked: Options) -> ClipConfig:
    """The clips of the baselines."""
    defaults = ClipConfig(config.clip_frames, steps=config.window.steps)
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


def _seeds(asked: Options, prompts: int) -> tuple[int, ...]:
    """A seed for each video: counted up over the samples of a prompt, or as given."""
    if isinstance(asked.seed, str):
        raise ConfigError(f"seed must be a whole number, or a list of them, not {asked.seed!r}")
    if isinstance(asked.seed, Sequence):
        if not all(isinstance(seed, Integral) for seed in asked.seed):
            raise ConfigError(f"seed must be a whole number, or a list of them, not {asked.seed!r}")
        seeds = tuple(map(int, asked.seed))
    else:
        seeds = tuple(int(asked.seed) + n for _ in range(prompts) for n in range(asked.samples))
    videos = prompts * asked.samples
    if len(seeds) != videos:
        raise ConfigError(f"{len(seeds)} seeds are given for {videos} videos; give one each, or a single number")
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(f"seeds must be 0 to {2**31 - 1}, not {min(seeds) if min(seeds) < 0 else max(seeds)}")
    return seeds


def _negative_prompts(config: AnyModelConfig, asked: Options, prompts: int) -> tuple[str, ...] | None:
    """The negative prompt of each video: as asked for, or the model's own."""
    negative = config.negative_prompt if asked.negative_prompt is None else asked.negative_prompt
    if negative is None:
        return None
    each = [negative] * prompts if isinstance(negative, str) else list(negative)
    if len(each) != prompts:
        raise ConfigError(
            f"{len(each)} negative prompts are given for {prompts} prompts; give one each, or a single one"
        )
    for text in each:
        if is_blank(text):
            raise ConfigError("a negative prompt is empty; leave it out to guide away from the model's own")
    return tuple(text for text in each for _ in range(asked.samples))


def _size(config: AnyModelConfig, asked: Options) -> tuple[int, int, tuple[int, int]]:
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
