"""From a prompt to frames: `generate`, and `generate_stream`, which hands frames over as they are finished.

Order of things: the request is checked (`request.py`); the prompts are encoded once (`prompts.py`); then the sampling method runs,
some shifts (`progressive.py`) or a clip (`clip_by_clip.py`) at a time, as one compiled program (`programs.py`), and every chunk that
comes out is decoded and yielded (`stream.py`). Memory does not depend on the length of the video.
"""

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.clip_by_clip import ClipStream
from pavdm_jax.generation.progressive import ProgressiveStream
from pavdm_jax.generation.prompts import PromptFeatures, encode_prompts
from pavdm_jax.generation.request import Request, make_request
from pavdm_jax.generation.stream import VideoStream
from pavdm_jax.models.model import Model


def open_stream(model: Model, request: Request, prompts: PromptFeatures) -> VideoStream:
    """The stream of a checked request with its encoded prompts, by its method."""
    return (ProgressiveStream if request.method == "progressive" else ClipStream)(model, request, prompts)


def generate_stream(model: Model, prompt, frames: int | None = 1440, **options) -> VideoStream:
    """Frames of a video while it is made; `frames=None` goes on for ever.

    Args and errors: see `generate`. Yields uint8 `[b, f, h, w, 3]`, f being 17 for most models (the start clip comes first, and
    the last chunk is cut), with b = 1 for a single prompt.
    """
    request = make_request(model.config, prompt, frames=frames, **options)
    return open_stream(model, request, *encode_prompts(model, request))


def generate(model: Model, prompt, frames: int = 1440, **options) -> np.ndarray:
    """Make a video.

    Args:
      model: from `load`.
      prompt: a text; a list of texts for a batch; or a timeline `[(second, text), ...]` that starts at second 0.
      frames: pixel frames of the whole video, a start clip's included; any number.
      options: the other fields of `options.Options`: seconds, height and width or resolution and aspect_ratio, fps, steps,
        guidance_scale, seed, samples, start, method, dtype, segment, mesh.

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
