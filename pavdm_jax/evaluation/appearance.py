"""Brightness, saturation and sharpness of frames, as they are in the file: nothing is resized."""

import numpy as np

from pavdm_jax.evaluation.extras import import_extra


def brightness(frames: np.ndarray) -> np.ndarray:
    """Mean luma (ITU-R BT.601 weights) of each frame, 0..1 `[f]`; `frames` are uint8 RGB `[f, h, w, 3]`."""
    cv2 = import_extra("cv2")
    return np.array([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).mean() / 255 for frame in frames])


def saturation(frames: np.ndarray) -> np.ndarray:
    """Mean saturation of each frame in the hue-saturation-value model, 0..1 `[f]`."""
    cv2 = import_extra("cv2")
    return np.array([cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255 for frame in frames])


def sharpness(frames: np.ndarray) -> np.ndarray:
    """Variance of the Laplacian of each frame's 8-bit luma `[f]` (kernel 0 1 0 / 1 -4 1 / 0 1 0).

    It depends on the size of the frames: compare videos of one size.
    """
    cv2 = import_extra("cv2")
    return np.array([cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var() for frame in frames])
