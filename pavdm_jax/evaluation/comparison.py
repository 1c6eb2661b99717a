"""What a comparison is made of and what is claimed of it, and the Python file that says so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pavdm_jax.checkpoints.config_python import read_python
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.prompts_file import PromptLine


@dataclass(frozen=True)
class System:
    """A way to make videos.

    Attributes:
      name: of its folder.
      checkpoint: a model folder or training run, or demo.
      lora: adapters for it, or None.
      options: by name, fields of `generation.options.Options` that differ from their defaults, such as method.
      from_text: begin with the prompt alone, even where prompts have a start clip.
    """

    name: str
    checkpoint: str = "demo"
    lora: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    from_text: bool = False


@dataclass(frozen=True)
class Claim:
    """That one system has a better score than another one (`claims.judge`).

    Attributes:
      text: the claim in words.
      better, worse: names of systems.
      metric: scenes, or a score of `pavdm evaluate score`, such as survival_seconds.
      higher: whether the better system is said to have the higher score, or the lower one.
      change: compare the score's change from the beginning of a video to its end, instead of its mean.
    """

    text: str
    better: str
    worse: str
    metric: str
    higher: bool
    change: bool = False

    def __post_init__(self) -> None:
        if self.better == self.worse:
            raise ConfigError(f"the claim '{self.text}' compares {self.better} with itself; name two systems")


@dataclass(frozen=True)
class Comparison:
    """Videos of every system for every prompt and seed.

    Attributes:
      systems: what is compared.
      prompts: texts, or lines of a prompts file, of which `prompt` and `start` count.
      seeds: the same for all systems.
      frames: of each video.
      claims: that the scores shall decide.
      note: what a reader of the scores must know of the systems.
    """

    systems: tuple[System, ...]
    prompts: tuple[str | PromptLine, ...]
    seeds: tuple[int, ...] = (0,)
    frames: int = 1440
    claims: tuple[Claim, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if not names or not self.prompts or not self.seeds:
            raise ConfigError("a comparison needs at least one system, one prompt and one seed")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two systems of the comparison are called {twice}; give them different names")
        for name in names:
            if not re.fullmatch(r"[\w.+-]+", name):
                raise ConfigError(f"the system's name '{name}' must be a folder's: letters, digits and . + - _")
        starts = [line.start is None for line in self.lines]
        if any(starts) and not all(starts):
            raise ConfigError("some prompts of the comparison have a start clip and others none; give all one")

    @property
    def lines(self) -> list[PromptLine]:
        """The prompts, all in one form."""
        return [PromptLine(prompt) if isinstance(prompt, str) else prompt for prompt in self.prompts]

    @property
    def videos(self) -> list[tuple[PromptLine, int, str]]:
        """Prompt, seed and file name of each video of a system; the same names for all systems, without an underscore.

        VBench-Long takes two names that differ only after the first underscore for one.
        """
        found = []
        for (number, line), seed in product(enumerate(self.lines, 1), self.seeds):
            words = re.sub(r"[^a-z0-9]+", "-", line.prompt.lower())[:50].strip("-")
            found.append((line, seed, f"{number:03}-{words}-seed{seed}.mp4"))
        return found


def read_comparison(path: str) -> Comparison:
    """The variable `comparison` of a Python file.

    Raises:
      ConfigError: see `read_python`.
    """
    return read_python(path, "comparison", Comparison)
