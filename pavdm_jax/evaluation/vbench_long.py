"""The six dimensions of VBench-Long, from what its networks say of each two-second clip.

Source: VBench at commit 45e79ec, `vbench/` (the score of a clip) and `vbench2_beta_long/utils.py`,
`fuse_inclip_clip2clip` (the score of a video), with `--dev_flag`. The networks themselves are plug-ins, see
`vbench_networks`; none is ever replaced by another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pavdm_jax.errors import ConfigError, first_line

Outputs = Mapping[str, Iterable[np.ndarray]]
"""By network (see `NETWORKS`), its output for each clip of a video."""

NETWORKS = {
    "dino_vitb16": "DINO ViT-B/16: a feature of each frame [f, d]",
    "clip_vit_b_32": "CLIP ViT-B/32: a feature of each frame [f, d]",
    "dinov2_vitb14": "DINOv2 ViT-B/14: a feature of the first frame [1, d]",
    "dreamsim_ensemble": "DreamSim ensemble: a feature of the first frame [1, d]",
    "amt_s": "AMT-S: mean absolute error, 0..255, of each interpolated frame [pairs]; see `interpolation_errors`",
    "raft_things": "RAFT (things): mean of the largest 5 % of the flow between sampled frames, in pixels [pairs]",
    "laion_aesthetic": "CLIP ViT-L/14 with LAION's linear head: a score of each frame, 0..10 [f]",
    "musiq_spaq": "MUSIQ-SPAQ: a score of each frame, 0..100 [f]",
}

IN_CLIP_WEIGHT = 0.5
"""Of the in-clip score; the rest is that of the mapped clip-to-clip score."""


@dataclass(frozen=True)
class Consistency:
    """How constant a subject or background is.

    Attributes:
      in_clip: a score of each clip.
      clip_to_clip: of the clips' first frames; None for a video of one clip.
      mapped: the clip-to-clip score on the scale of in-clip scores; None if there is none.
      score: of the video.
    """

    in_clip: list[float]
    clip_to_clip: float | None
    mapped: float | None
    score: float


@dataclass(frozen=True)
class MappingTable:
    """A monotone map of clip-to-clip scores to in-clip scores: values at 0, 0.01, ... 1, linear between them."""

    values: np.ndarray

    def __call__(self, score: float) -> float:
        return float(np.interp(score, np.linspace(0, 1, len(self.values)), self.values))


def read_mapping_table(path: str | Path) -> MappingTable:
    """A table as VBench publishes it, `configs/subject_mapping_table.yaml`: 101 lines such as "0.01: 0.6558".

    Raises:
      ConfigError: it cannot be read, or is no such table.
    """
    try:
        lines = [line.split(":") for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        keys, values = np.array([[float(part) for part in line] for line in lines]).T
    except (OSError, ValueError) as error:
        raise ConfigError(f"the mapping table {path} cannot be read ({first_line(error)}); take VBench's own") from None
    if len(keys) != 101 or not np.allclose(keys, np.linspace(0, 1, 101)):
        raise ConfigError(f"the mapping table {path} must have the keys 0.0, 0.01, ... 1.0, as VBench's own")
    return MappingTable(values)


def similarity_to_first_and_previous(features: np.ndarray) -> float:
    """Consistency of a sequence: the mean over frames from the second on of (previous + first) / 2.

    "previous" and "first" are cosine similarities with the frame before and with the first frame, negative ones
    counting as 0.

    Args:
      features: a vector for each frame `[f, d]`.

    Returns:
      0..1; nan for a single frame.
    """
    unit = np.asarray(features, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), 1e-12)
    if len(unit) < 2:
        return float("nan")
    previous = np.maximum(np.sum(unit[1:] * unit[:-1], axis=-1), 0)
    first = np.maximum(unit[1:] @ unit[0], 0)
    return float(np.mean((previous + first) / 2))


def consistency(frames: Sequence[np.ndarray], first_frames: Sequence[np.ndarray], table: MappingTable) -> Consistency:
    """Subject consistency (DINO in clips, DINOv2 between them) or background consistency (CLIP, DreamSim) of a video.

    The score is half the mean of the in-clip scores and half the mapped clip-to-clip score. As in VBench-Long, a video
    of one clip, or one whose score is mapped to exactly 0, is scored by the in-clip scores alone.

    Args:
      frames: for each clip, a feature of each frame `[f, d]`.
      first_frames: for each clip, a feature of its first frame `[1, d]`, of another network.
      table: maps clip-to-clip scores to in-clip scores.
    """
    in_clip = [similarity_to_first_and_previous(features) for features in frames]
    mean = float(np.mean(in_clip))
    if len(in_clip) < 2:
        return Consistency(in_clip, None, None, mean)
    between = similarity_to_first_and_previous(np.concatenate([np.asarray(f)[:1] for f in first_frames]))
    mapped = table(between)
    fused = IN_CLIP_WEIGHT * mean + (1 - IN_CLIP_WEIGHT) * mapped if mapped != 0 else mean
    return Consistency(in_clip, between, mapped, fused)


def interpolation_errors(clip: np.ndarray, midpoints: np.ndarray) -> np.ndarray:
    """Mean absolute difference, 0..255, of each real odd frame from the one interpolated between its neighbours.

    Args:
      clip: uint8 `[f, h, w, 3]`.
      midpoints: uint8 `[(f - 1) // 2, h, w, 3]`, interpolated from frames 0 and 2, 2 and 4, ... An odd frame at the
        end, which has one neighbour only, is left out.
    """
    real = clip[1::2][: len(midpoints)].astype(np.float64)
    return np.abs(real - midpoints).mean(axis=(1, 2, 3))


def motion_smoothness(errors: np.ndarray) -> float:
    """0..1, from the errors of interpolated frames; nan if there are none."""
    return float((255 - np.mean(errors)) / 255) if len(errors) else float("nan")


def moves(largest_flow: np.ndarray, shorter_side: int) -> float:
    """Dynamic degree of a clip: 1 if enough of its sampled frames move, else 0.

    Args:
      largest_flow: between neighbouring sampled frames, the mean of the largest 5 % of magnitudes in pixels `[pairs]`.
      shorter_side: of the frames, in pixels.
    """
    sampled = len(largest_flow) + 1
    moving = np.count_nonzero(np.asarray(largest_flow) > 6 * shorter_side / 256)
    return float(len(largest_flow) > 0 and moving >= round(4 * sampled / 16))


@dataclass(frozen=True)
class Dimension:
    """A score of a single clip: the network that it is made from, and how, given the frames' shorter side."""

    network: str
    of_clip: Callable[[np.ndarray, int], float]


DIMENSIONS = {
    "subject_consistency_in_clip": Dimension("dino_vitb16", lambda out, _: similarity_to_first_and_previous(out)),
    "background_consistency_in_clip": Dimension("clip_vit_b_32", lambda out, _: similarity_to_first_and_previous(out)),
    "motion_smoothness": Dimension("amt_s", lambda out, _: motion_smoothness(out)),
    "dynamic_degree": Dimension("raft_things", moves),
    "aesthetic_quality": Dimension("laion_aesthetic", lambda out, _: float(np.mean(out) / 10)),
    "imaging_quality": Dimension("musiq_spaq", lambda out, _: float(np.mean(out) / 100)),
}
"""The score of a video is the mean over its clips. VBench gives the imaging quality of a video as 0..100 and divides
the mean over videos by 100; here every number is 0..1."""

CONSISTENCIES = {
    "subject_consistency": ("dino_vitb16", "dinov2_vitb14"),
    "background_consistency": ("clip_vit_b_32", "dreamsim_ensemble"),
}
"""Scores of whole videos: the network that sees all frames of a clip, and the one that sees the clips' first frames."""


def dimension_curves(outputs: Outputs, shorter_side: int) -> dict[str, list[float]]:
    """A score of each clip in every dimension whose network has spoken."""
    return {
        name: [dimension.of_clip(output, shorter_side) for output in outputs[dimension.network]]
        for name, dimension in DIMENSIONS.items()
        if dimension.network in outputs
    }


def video_consistencies(outputs: Outputs, tables: Mapping[str, MappingTable]) -> dict[str, Consistency]:
    """The consistencies whose two networks have spoken and whose mapping table is given, by name."""
    return {
        name: consistency(list(outputs[within]), list(outputs[between]), tables[name])
        for name, (within, between) in CONSISTENCIES.items()
        if within in outputs and between in outputs and name in tables
    }


def dimension_protocols() -> dict[str, str]:
    """How each dimension is measured, for the file of scores."""
    clips = {
        name: f"VBench 45e79ec, on two-second clips; {NETWORKS[dimension.network]}"
        for name, dimension in DIMENSIONS.items()
    }
    videos = {
        name: f"VBench-Long 45e79ec with --dev_flag: {within} in clips, {between} between clips, mapping table; clips "
        "are not compressed again"
        for name, (within, between) in CONSISTENCIES.items()
    }
    return clips | videos
