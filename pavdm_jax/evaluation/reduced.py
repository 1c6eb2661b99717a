"""Frames as grey pictures of moderate size, for metrics that compare them with each other."""

import numpy as np

from pavdm_jax.evaluation.extras import import_extra

MAX_SIDE_PX = 256
"""Of a reduced frame; smaller frames stay as they are."""


def reduced_grey(frame: np.ndarray) -> np.ndarray:
    """8-bit luma `[h, w]` of an RGB frame, averaged over areas so that its longer side has at most 256 pixels."""
    cv2 = import_extra("cv2")
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    factor = MAX_SIDE_PX / max(grey.shape)
    if factor >= 1:
        return grey
    height, width = (max(1, round(side * factor)) for side in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
