"""From a prompt to frames: `generate`, and `generate_stream`, which hands frames over as they are finished.

The request is checked (`request.py`) and its prompts are encoded once (`prompts.py`). Then the sampling method runs,
some shifts (`progressive.py`) or one clip (`clip_by_clip.py`) at a time, as one compiled program (`programs.py`), and
every finished chunk is decoded and yielded (`stream.py`). Memory does not depend on the length of the video.
"""

import warnings

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.as_trained import unlike_training
from pavdm_jax.generation.clip_by_clip import ClipStream, check_clips
from pavdm_jax.generation.options import DEFAULT_FRAMES
from pavdm_jax.generation.progressive import ProgressiveStream, make_plan
from pavdm_jax.generation.prompts import PromptFeatures, encode_prompts
from pavdm_jax.generation.request import Request, make_request
from pavdm_jax.generation.stream import VideoStream
from pavdm_jax.models.model import SAMPLING_PARTS, Model, part_name


def check_model(model: object) -> None:
    """`ConfigError` unless this is a model that can sample: its text encoder may be read later, the others not."""
    if not isinstance(model, Model):
        raise ConfigError(f"generate needs a model as pavdm_jax.load returns it, not {str(model)[:80]!r}")
    missing = [part for part in SAMPLING_PARTS if part_name(part, model.config) not in model.params]
    if missing:
        raise ConfigError(f"the model was loaded without its {' and '.join(missing)}; load it without `parts`")


def check_method(request: Request) -> None:
    """Check before anything is loaded that the request's method can make its videos.

    Raises:
      ConfigError: the start clip, the timeline or the lengths do not suit the method.
    """
    if request.method == "progressive":
        make_plan(request)
    else:
        check_clips(request)


def open_stream(model: Model, request: Request, prompts: PromptFeatures) -> VideoStream:
    """The stream of frames of a checked request and its encoded prompts, by the request's method.

    Warns of a model that was trained for something else.

    Raises:
      ConfigError: the start clip, the timeline or the lengths do not suit the method.
    """
    note = unlike_training(model.trained_with, request)
    if note is not None:
        warnings.warn(note, stacklevel=2)
    return (ProgressiveStream if request.method == "progressive" else ClipStream)(model, request, prompts)


def generate_stream(model: Model, prompt, frames: int | None = DEFAULT_FRAMES, **options) -> VideoStream:
    """The frames of a video while it is made; `frames=None` makes a video without end.

    Arguments and errors are those of `generate`.

    Returns:
      An iterator over uint8 `[b, f, h, w, 3]`, with b = 1 for a single prompt: first the start clip, then micro clips
      (f = 17 for most models), of which the last one is cut to the length of the video.
    """
    check_model(model)
    request = make_request(model.config, prompt, frames=frames, **options)
    return open_stream(model, request, *encode_prompts(model, request))


def generate(model: Model, prompt, frames: int = DEFAULT_FRAMES, **options) -> np.ndarray:
    """Make a video.

    Args:
      model: from `load`.
      prompt: a text; a list of texts for a batch; or a timeline `[(second, text), ...]` that starts at second 0.
      frames: pixel frames of the whole video, a start clip's included; any number (1440, a minute).
      options: the other fields of `options.Options`, such as seconds, resolution, guidance_scale, seed, start, method.

    Returns:
      uint8 `[frames, height, width, 3]`; with a batch axis in front for a list of prompts or `samples` > 1.

    Raises:
      ConfigError: something in the request cannot work; the message names the value and the remedy.
    """
    stream = generate_stream(model, prompt, frames, **options)
    if stream.request.frames is None:
        raise ConfigError("an endless video does not fit in memory; use generate_stream")
    video = np.concatenate(list(stream), axis=1)
    return video[0] if stream.request.single else video
