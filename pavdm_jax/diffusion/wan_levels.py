"""Noise levels of the Wan 2.1 family (SkyReels-V2-DF): their noise shift does not depend on the size of the video."""

import numpy as np

WAN_FIRST_LEVEL = 0.999
"""Before its noise shift, which leaves it near 1: what enters the network as pure noise."""


def wan_levels(steps: int, shift: float) -> np.ndarray:
    """Levels of the Wan 2.1 family before each step and after the last: float32 [steps + 1], falling to 0.

    s_k = 0.999 · (1 − k / steps) becomes shift · s / (1 + (shift − 1) · s), computed in float64. Source: SkyReels-V2
    skyreels_v2_infer/scheduler/fm_solvers_unipc.py, `set_timesteps`.

    Args:
      steps: network calls that each latent frame receives.
      shift: 1 leaves the levels as they are; published are 8 from text and 5 from an image.
    """
    even = WAN_FIRST_LEVEL * (1.0 - np.arange(steps, dtype=np.float64) / steps)
    return np.append(shift * even / (1.0 + (shift - 1.0) * even), 0.0).astype(np.float32)


def window_table(levels: np.ndarray, noisy_chunks: int) -> np.ndarray:
    """A grid of falling levels [steps + 1] as the table of a sliding window: [steps_per_shift, noisy_chunks].

    The last chunk has the first levels; `noise_levels.level_table` is that of an even grid.
    """
    return levels[:-1].reshape(noisy_chunks, -1)[::-1].T
