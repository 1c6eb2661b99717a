"""Reads `tests/golden/`: inputs, weights and outputs of the reference, float32 on a CPU (arrays `[B, C, T, H, W]`)."""

import json
from pathlib import Path

import einops
import numpy as np
from safetensors import safe_open

GOLDEN = Path(__file__).parents[1] / "golden"

FORWARD_TOLERANCE = 2e-5
"""A single forward: float32 rounding in another order of summation; a larger gap is another mathematics."""

TRAJECTORY_TOLERANCE = 5e-4
"""Hundreds of network calls with guidance 7, each of which amplifies the rounding of the last."""


def load(name: str) -> tuple[dict, dict[str, dict[str, np.ndarray]]]:
    """The settings and the arrays of `name`.safetensors, as `arrays[group][tensor name]`."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    with safe_open(GOLDEN / f"{name}.safetensors", "np") as file:
        metadata = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            group, _, tensor = key.partition("/")
            arrays.setdefault(group, {})[tensor] = file.get_tensor(key)
    return json.loads(metadata.get("config", "{}")), arrays


def channels_last(array: np.ndarray) -> np.ndarray:
    """[B, C, T, H, W] → [b, t, h, w, c]."""
    return einops.rearrange(array, "b c t h w -> b t h w c")


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference, over the reference's largest value."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())
