"""Timelines: the prompts of a video, and from when on each of them holds."""

import math
from collections.abc import Sequence
from numbers import Real

from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.options import MAX_FRAMES
from pavdm_jax.text.captions import is_blank, is_text

Timeline = tuple[tuple[float, str], ...]
"""Pairs of a second and the prompt that holds from then on; the first second is 0."""

_EXAMPLE = "give a text such as 'a red circle moves left'"


def read_prompts(prompt: str | Sequence) -> tuple[list[Timeline], bool]:
    """The timelines of a text, of one timeline `[(second, text), ...]`, or of a list of either.

    Returns:
      A timeline for each video, and whether `prompt` was a single one.

    Raises:
      ConfigError: no prompt, an empty one, or timelines that do not begin at 0, do not rise, or change at different
        seconds.
    """
    if not isinstance(prompt, str | list | tuple) or len(prompt) <= 0:
        raise ConfigError(f"there is no prompt; {_EXAMPLE}")
    single = isinstance(prompt, str) or isinstance(prompt[0], tuple)
    videos = [prompt] if single else prompt
    timelines = [_timeline(video) for video in videos]
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
            if is_blank(text):
                raise ConfigError(f"a prompt is empty; {_EXAMPLE}")
            if not is_text(text):
                raise ConfigError(f"the prompt {text!r} is not text; write it in UTF-8")
    return timelines, single


def _timeline(video: str | Sequence) -> Timeline:
    """A text, or pairs of a second and a text, as a timeline."""
    pairs = ((0, video),) if isinstance(video, str) else video
    if isinstance(pairs, list | tuple) and len(pairs) > 0 and all(map(_is_change, pairs)):
        return tuple((float(second), text) for second, text in pairs)
    raise ConfigError(f"a timeline is a list of seconds with their prompts, [(0, 'text'), (20, 'text')], not {video!r}")


def _is_change(pair: Sequence) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and isinstance(pair[0], Real)
        and not math.isnan(pair[0])
        and isinstance(pair[1], str)
    )
