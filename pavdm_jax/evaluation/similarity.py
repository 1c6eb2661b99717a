"""How alike frames are that lie some distance apart in time: a frozen video stays at 1, a drifting one falls."""

from collections import deque

import numpy as np

from pavdm_jax.evaluation.extras import import_extra
from pavdm_jax.evaluation.reduced import reduced_grey

DISTANCES = (2, 5, 10, 20, 30, 40, 50)
"""Frames between the two that are compared."""
EVERY = 10
"""Every tenth frame is compared with those before it."""


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity (SSIM) of two grey 8-bit pictures of one size, -1..1.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004:
    Gaussian window of 11 pixels with deviation 1.5, C1 = (0.01·255)², C2 = (0.03·255)².
    """
    cv2 = import_extra("cv2")

    def local_mean(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = local_mean(a), local_mean(b)
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float(np.mean(likeness / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))))


class SimilarityOverTime:
    """Collects frames one by one and compares every tenth with those 2, 5, ... 50 frames before it.

    Attributes:
      count: how many frames there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._recent: deque[np.ndarray] = deque(maxlen=max(DISTANCES) + 1)
        self._found: dict[int, list[float]] = {distance: [] for distance in DISTANCES}

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 RGB `[h, w, 3]`."""
        self._recent.append(reduced_grey(frame))
        if self.count % EVERY == 0:
            for distance in DISTANCES:
                if distance < len(self._recent):
                    pair = self._recent[-1 - distance], self._recent[-1]
                    self._found[distance].append(structural_similarity(*pair))
        self.count += 1

    def means(self) -> dict[int, float]:
        """Mean similarity by distance in frames; nan for distances that the video does not have."""
        return {distance: float(np.mean(found)) if found else float("nan") for distance, found in self._found.items()}
