"""How much moves in a clip: the magnitude of dense optical flow."""

import itertools

import numpy as np

from pavdm_jax.evaluation.extras import import_extra
from pavdm_jax.evaluation.reduced import reduced_grey

LARGEST_SHARE = 0.05
"""Of the pixels, those that move most; as in VBench's dynamic degree. In the mean over all pixels, flow that is
smoothed into a background without texture would count, and a large thing would seem faster than a small one."""

FLOWS_PER_SECOND = 8
"""As in VBench's dynamic degree: slow motion is lost between neighbouring frames."""


def flow_stride(fps: float) -> int:
    """Frames from one compared frame to the next: 3 at 24 frames a second."""
    return max(1, round(fps / FLOWS_PER_SECOND))


def motion_amplitude(clip: np.ndarray, fps: float) -> float:
    """The speed of what moves most, in per cent of the picture's shorter side a second.

    Farnebäck's optical flow between every third frame (at 24 frames a second), reduced to 256 pixels; the mean of the
    largest 5 % of its magnitudes. The median over a clip's pairs is taken, so that a cut is not motion.

    Args:
      clip: uint8 RGB `[f, h, w, 3]`.
      fps: frames a second.

    Returns:
      The speed, or nan if the clip has fewer than two compared frames.
    """
    cv2 = import_extra("cv2")
    stride = flow_stride(fps)
    frames = [reduced_grey(frame) for frame in clip[::stride]]
    speeds = []
    for before, after in itertools.pairwise(frames):
        flow = cv2.calcOpticalFlowFarneback(
            before, after, None, pyr_scale=0.5, levels=5, winsize=15, iterations=3, poly_n=5, poly_sigma=1.1, flags=0
        )
        magnitudes = np.sort(np.linalg.norm(flow, axis=-1), axis=None)
        speeds.append(magnitudes[-max(1, int(LARGEST_SHARE * magnitudes.size)) :].mean())
    if not speeds:
        return float("nan")
    return float(100 * np.median(speeds) / min(frames[0].shape) * fps / stride)
