"""How far the attributes that no caption names have drifted away from those of a video's own beginning."""

from collections.abc import Callable, Sequence

import numpy as np

from pavdm_jax.evaluation.outline_fit import SYMMETRY
from pavdm_jax.evaluation.tracker import Detection

MIN_VISIBLE = 0.9  # of a shape, for its attributes to be read
MIN_SAMPLES = 3  # of a window

UNITS = {
    "hue_drift": "degrees",
    "size_drift": "% of the radius",
    "elongation_drift": "% of width over height",
    "tilt_drift": "degrees",
    "texture_drift": "% of the brightness",
}


def shape_drift(followed: Sequence[Detection | None], windows: Sequence[slice]) -> dict[str, list[float]]:
    """The drift of one shape's attributes in each window, from those in the first one.

    An attribute of a window is its mean over the frames in which the shape is seen nearly whole. Hue has no meaning for
    white and tilt none for circles: nan, as where a shape is not seen. Turns that a kind's symmetry hides are no drift.
    """
    readers: dict[str, Callable[[Detection], complex]] = {
        "hue_drift": lambda d: np.exp(1j * np.deg2rad(d.hue)) if d.color != "white" else np.nan,
        "size_drift": lambda d: np.log(d.radius),
        "elongation_drift": lambda d: np.log(d.aspect) * np.exp(2j * np.deg2rad(d.tilt)),
        "tilt_drift": lambda d: np.exp(1j * SYMMETRY[d.kind] * np.deg2rad(d.tilt)) if d.kind != "circle" else np.nan,
        "texture_drift": lambda d: d.contrast,
    }
    seen = [[d for d in followed[w] if d is not None and d.visible >= MIN_VISIBLE] for w in windows]
    kind = next((d.kind for d in followed if d is not None), "circle")
    found = {}
    for name, read in readers.items():
        means = [np.mean([read(d) for d in ds]) if len(ds) >= MIN_SAMPLES else complex(np.nan) for ds in seen]
        if name in ("hue_drift", "tilt_drift"):
            order = 1 if name == "hue_drift" else SYMMETRY[kind]
            drift = [abs(np.rad2deg(np.angle(mean * np.conj(means[0])))) / order for mean in means]
        else:
            drift = [100 * abs(mean - means[0]) for mean in means]
        found[name] = [float(value) for value in drift]
    return found


def background_drift(background: np.ndarray, windows: Sequence[slice]) -> list[float]:
    """Relative distance, in percent, of the background's colours `[f, 5, 3]` in each window from those in the first
    one, whatever the brightness of the light: the nearest multiple counts."""
    means = [background[window].mean(axis=0).ravel().astype(np.float64) for window in windows]
    first = means[0]
    drift = []
    for mean in means:
        light = mean @ first / max(mean @ mean, 1e-9)
        drift.append(100 * float(np.linalg.norm(light * mean - first) / max(np.linalg.norm(first), 1e-9)))
    return drift
