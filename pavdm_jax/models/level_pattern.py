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
      levels: "progressive", rising along the window chunk by chunk, or "uniform", one level for all that is noisy.
      latents: latent frames of a full window or clip; None: of any length.
      context: the first latent frames, clean; 0: none is clean; None: frames anywhere may be (Open-Sora's masks).
      chunk_size: latent frames that share a level; None where all do.
    """

    levels: str
    latents: int | None
    context: int | None
    chunk_size: int | None = None

    def __str__(self) -> str:
        size = "clips of any length" if self.latents is None else f"{self.latents} latent frames"
        clean = {None: "some of them clean", 0: "none of them clean"}.get(
            self.context, f"the first {self.context} clean"
        )
        if self.levels == "progressive":
            return f"levels that rise along {size} in chunks of {self.chunk_size}, {clean}"
        return f"one level for {size}, {clean}"

    def covers(self, needed: "LevelPattern") -> bool:
        """Whether training on this pattern is training on `needed`."""
        free = self.latents in (None, needed.latents) and self.context in (None, needed.context)
        return free and (self.levels, self.chunk_size) == (needed.levels, needed.chunk_size)


PRETRAINED = LevelPattern("uniform", latents=None, context=None)
"""Open-Sora 1.2's own training: clips of many lengths, mask strategies (its configs/opensora-v1-2/train/)."""


def name_patterns(patterns: Sequence[LevelPattern]) -> str:
    """In words; "unknown" for none."""
    return "; or ".join(map(str, patterns)) or "unknown"
