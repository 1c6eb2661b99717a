"""The record of a model's training: what each objective is, and which stages change it."""

import dataclasses

import pytest
from support.tiny_model import TINY

from pavdm_jax.models.level_pattern import PRETRAINED, LevelPattern
from pavdm_jax.training.config import (
    DistilledGuidance,
    DistilledShift,
    Masks,
    MixedDiffusion,
    ProgressiveDiffusion,
    ShapesData,
    SpatialReconstruction,
    Stage,
    UniformDiffusion,
    masks_of,
)
from pavdm_jax.training.trained_with import level_patterns, trained_with

PROGRESSIVE = LevelPattern("progressive", 20, 5, 5)
RW = LevelPattern("uniform", 10, 0)


@pytest.mark.parametrize(
    ("objective", "patterns"),
    [
        (ProgressiveDiffusion(), (PROGRESSIVE,)),
        (DistilledGuidance(), (dataclasses.replace(PROGRESSIVE, guidance_scale=1.0),)),
        (DistilledShift(), (dataclasses.replace(PROGRESSIVE, steps_per_shift=2, guidance_scale=1.0),)),
        (UniformDiffusion(2, masks=None), (RW,)),
        (UniformDiffusion(2, masks=masks_of()), (RW,)),
        (UniformDiffusion(2, masks=masks_of(context=0.5, context_latents=4)), (LevelPattern("uniform", 10, 4),)),
        (UniformDiffusion(2, masks=Masks()), (LevelPattern("uniform", 10, None),)),
        (
            MixedDiffusion((ProgressiveDiffusion(), UniformDiffusion(2, None), ProgressiveDiffusion(0.1)), (1, 1, 1)),
            (PROGRESSIVE, RW),
        ),
    ],
)
def test_every_objective_has_patterns_of_levels(objective, patterns):
    assert level_patterns(TINY, objective) == patterns
    stage = Stage("s", objective, ShapesData(68), ("stdit3/blocks",), 1, 1)
    assert trained_with(TINY, stage, (PRETRAINED,)) == patterns


def test_stages_that_leave_the_transformer_alone_leave_its_record():
    vae = Stage("vae", SpatialReconstruction(), ShapesData(1), ("vae",), 1, 1)
    text = Stage("text", ProgressiveDiffusion(), ShapesData(68), ("t5",), 1, 1)
    for stage in (vae, text):
        assert trained_with(TINY, stage, (PRETRAINED,)) == (PRETRAINED,)
