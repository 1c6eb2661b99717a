"""Which noise levels the latent frames of a clip have together: what a transformer was trained on, or a request needs.

A model folder keeps the patterns that its transformer was last trained on, so that a video can say whether it is
sampled as the model was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LevelPattern:
    """The noise levels of the latent frames that the transformer sees at once.

    Attributes:
      levels: "progressive", rising along the window chunk by chunk; "waiting", the same with chunks behind them that
        are pure noise; "uniform", one level for all that is noisy; or "any", a level for each latent frame by itself.
      latents: latent frames of a full window or clip; of "any", the most; None: of any length.
      context: the first latent frames, clean; 0: none is clean; None: frames anywhere may be (Open-Sora's masks).
      chunk_size: latent frames that share a level; None where all do.
      steps_per_shift: steps that a shift of the window takes; None: of a training, any number.
      guidance_scale: with which a step is made; None: of a training, any. 1 is a model whose guidance was distilled.
    """

    levels: str
    latents: int | None
    context: int | None
    chunk_size: int | None = None
    steps_per_shift: int | None = None
    guidance_scale: float | None = None

    def __str__(self) -> str:
        if self.levels == "any":
            return f"any levels, frame by frame, of at most {self.latents} latent frames"
        size = "clips of any length" if self.latents is None else f"{self.latents} latent frames"
        clean = {None: "some of them clean", 0: "none of them clean"}.get(
            self.context, f"the first {self.context} clean"
        )
        if self.levels in ("progressive", "waiting"):
            waiting = "" if self.levels == "progressive" else ", some waiting as noise"
            steps = "" if self.steps_per_shift is None else f", steps a shift: {self.steps_per_shift}"
            scale = "" if self.guidance_scale is None else f", guidance scale: {self.guidance_scale:g}"
            return f"levels that rise along {size} in chunks of {self.chunk_size}{waiting}, {clean}{steps}{scale}"
        return f"one level for {size}, {clean}"

    def covers(self, needed: "LevelPattern") -> bool:
        """Whether training on this pattern is training on `needed`."""
        if self.levels == "any":
            return needed.latents is not None and self.latents is not None and needed.latents <= self.latents
        free = all(
            getattr(self, name) in (None, getattr(needed, name))
            for name in ("latents", "context", "steps_per_shift", "guidance_scale")
        )
        return free and (self.levels, self.chunk_size) == (needed.levels, needed.chunk_size)


def diffusion_forcing(latents: int) -> LevelPattern:
    """The training of SkyReels-V2-DF: each of so many latent frames has its own level, which do not fall in time."""
    return LevelPattern("any", latents, context=None)


PRETRAINED = LevelPattern("uniform", latents=None, context=None)
"""Open-Sora 1.2's own training: clips of many lengths, mask strategies (its configs/opensora-v1-2/train/)."""


def name_patterns(patterns: Sequence[LevelPattern]) -> str:
    """In words; "unknown" for none."""
    return "; or ".join(map(str, patterns)) or "unknown"
