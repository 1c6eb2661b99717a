"""Mistakes of a training config that are found without a model."""

import dataclasses
from pathlib import Path

import pytest
from support.tiny_model import SHAPES, TINY

from pavdm_jax.errors import ConfigError
from pavdm_jax.training.check import check
from pavdm_jax.training.config import (
    JointReconstruction,
    ProgressiveDiffusion,
    ShapesData,
    SpatialReconstruction,
    Stage,
    TemporalReconstruction,
    TrainConfig,
    read_config,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def checked(model, objective, frames, train, output):
    return check(TrainConfig(model, (Stage("s", objective, ShapesData(frames), (train,), 1, 1),), str(output / "run")))


@pytest.mark.parametrize("objective", [TemporalReconstruction(), JointReconstruction()])
def test_stages_of_the_temporal_vae_train_on_single_micro_clips(tmp_path, objective):
    """Longer clips would be encoded as one, and decoded as several."""
    checked(SHAPES, objective, 17, "vae", tmp_path)
    checked(SHAPES, SpatialReconstruction(), 18, "vae", tmp_path)
    with pytest.raises(
        ConfigError, match=r"stage s: clips of 18 frames are too long: .*; give at most 17 frames \(data\.frames\)"
    ):
        checked(SHAPES, objective, 18, "vae", tmp_path)
    check(dataclasses.replace(read_config(str(CONFIGS / "demo_vae.py")), output=str(tmp_path / "run")))


def test_videos_of_the_shapes_world_are_square(tmp_path):
    checked(SHAPES, ProgressiveDiffusion(), 68, "stdit3", tmp_path)
    wide = dataclasses.replace(SHAPES, width=128)
    for model in (wide, TINY):
        with pytest.raises(
            ConfigError, match=rf"model\.width must be model\.height, {model.height}, not {model.width}"
        ):
            checked(model, ProgressiveDiffusion(), 68, "stdit3", tmp_path)
