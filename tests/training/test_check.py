"""Mistakes of a training config that are found without a model."""

import dataclasses
from pathlib import Path

import pytest
from support.tiny_model import SHAPES, TINY

from pavdm_jax.config import SCHEDULES
from pavdm_jax.data.shapes_world.world import World
from pavdm_jax.diffusion.objectives import DistilledGuidance, DistilledShift
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.check import check
from pavdm_jax.training.config import (
    JointReconstruction,
    LoRAConfig,
    MixedDiffusion,
    OptimizerConfig,
    ProgressiveDiffusion,
    SampleConfig,
    ShapesData,
    SpatialReconstruction,
    Stage,
    TemporalReconstruction,
    TfdsData,
    TrainConfig,
    UniformDiffusion,
    VideoData,
    read_config,
)
from pavdm_jax.wan_config import tiny_wan

CONFIGS = Path(__file__).parents[2] / "configs"
INF, NAN = float("inf"), float("nan")
TWO = (UniformDiffusion(), ProgressiveDiffusion())


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


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (SampleConfig(every=2, prompts=("一只猫",)), "nothing is left of the prompt '一只猫' when it is cleaned"),
        (SampleConfig(every=2, prompts=("a cat",), method="replacement"), "clip_frames 51 cannot be decoded whole"),
    ],
)
def test_samples_that_could_never_be_made_are_told_before_the_training(tmp_path, samples, says):
    config = dataclasses.replace(read_config(str(CONFIGS / "demo_pa_m.py")), output=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=says):
        check(dataclasses.replace(config, samples=samples))


def test_videos_of_the_shapes_world_are_square(tmp_path):
    checked(SHAPES, ProgressiveDiffusion(), 68, "stdit3", tmp_path)
    wide = dataclasses.replace(SHAPES, width=128)
    for model in (wide, TINY):
        with pytest.raises(
            ConfigError, match=rf"model\.width must be model\.height, {model.height}, not {model.width}"
        ):
            checked(model, ProgressiveDiffusion(), 68, "stdit3", tmp_path)


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"train": ("stdit3/bloks",)}, "stage last: train names 'stdit3/bloks', which is no part of the model"),
        (
            {"train": ("wan",)},
            "stage last: train names 'wan', which is no part of the model; parts are stdit3, t5, vae",
        ),
        ({"freeze": ("stdit3",)}, "stage last: freeze .* leaves nothing of train"),
        (
            {"train": ("vae",), "objective": SpatialReconstruction(), "optimizer": OptimizerConfig(algorithm="muon")},
            "stage last: muon is for the matrices of blocks",
        ),
        ({"lora": LoRAConfig(layers=("qkw",))}, "stage last: lora.layers names 'qkw', which train does not"),
    ],
    ids=str,
)
def test_what_a_later_stage_cannot_train_is_told_before_the_first(tmp_path, stage, says):
    first = Stage("first", UniformDiffusion(clip_chunks=1), ShapesData(17), ("stdit3",), 1, 1)
    last = dataclasses.replace(dataclasses.replace(first, name="last"), **stage)
    stages = (last,) if last.lora else (first, last)
    config = TrainConfig(SHAPES, stages, str(tmp_path / "run"), init_from="demo")
    with pytest.raises(ConfigError, match=says):
        check(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [({"height": 101, "width": 101}, "101"), ({"fps": 0.0}, "fps must be"), ({"fps": NAN}, "fps must be")],
)
def test_a_model_that_could_make_no_videos_is_not_trained(tmp_path, change, says):
    with pytest.raises(ConfigError, match=says):
        checked(dataclasses.replace(SHAPES, **change), ProgressiveDiffusion(), 68, "stdit3", tmp_path)


def test_what_is_of_sampling_only_is_refused():
    model = dataclasses.replace(SHAPES, window=SCHEDULES["fifo"])
    with pytest.raises(ConfigError, match=r"model\.window\.partition 10 is of sampling only"):
        TrainConfig(model, (Stage("s", ProgressiveDiffusion(), ShapesData(), ("stdit3",), 1, 1),))


def test_a_model_that_is_guided_by_a_negative_prompt_is_not_distilled():
    model, data = dataclasses.replace(tiny_wan(), guidance_scale=1.0), VideoData("x.csv")
    stages = [
        Stage("s", objective, data, ("wan",), 1, 1)
        for objective in (DistilledGuidance(guidance_scale=6.0), DistilledShift(guidance_scale=1.0, steps=6))
    ]
    with pytest.raises(ConfigError, match="is guided by a negative prompt"):
        TrainConfig(model, (stages[0],), init_from="demo")
    with pytest.raises(ConfigError, match=r"let model\.solver be euler"):
        TrainConfig(model, (stages[1],), init_from="demo")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LoRAConfig(layers=()), r"lora\.layers names no layers"),
        (lambda: LoRAConfig(alpha=0.0), "alpha of LoRA adapters must be a number other than 0, not 0"),
        (lambda: LoRAConfig(alpha=NAN), "alpha of LoRA adapters .* not nan"),
        (lambda: LoRAConfig(alpha=INF), "alpha of LoRA adapters .* not inf"),
        (lambda: OptimizerConfig(INF), "learning_rate must be a number above 0, not inf"),
        (lambda: OptimizerConfig(weight_decay=INF), "weight_decay must be a number from 0 on, not inf"),
        (lambda: OptimizerConfig(epsilon=INF), "epsilon must be a number above 0, not inf"),
        (lambda: SpatialReconstruction(NAN), "kl_weight must be a number from 0 on, not nan"),
        (lambda: TemporalReconstruction(INF), "kl_weight must be a number from 0 on, not inf"),
        (lambda: JointReconstruction(-1.0), "kl_weight must be a number from 0 on, not -1"),
        (lambda: ProgressiveDiffusion(level_shift=INF), "level_shift must be a number from 0 on, not inf"),
        (lambda: MixedDiffusion(TWO, (1.0, NAN)), "of a mix must be numbers from 0 on"),
        (lambda: MixedDiffusion(TWO, (NAN, 1.0)), "of a mix must be numbers from 0 on"),
        (lambda: MixedDiffusion(TWO, (1.0, INF)), "of a mix must be numbers from 0 on"),
        (lambda: World(shape_counts=(0.5, NAN, 0.5)), "shape_counts must be probabilities"),
        (lambda: World(shape_counts=(NAN, 0.5, 0.5)), "shape_counts must be probabilities"),
        (lambda: VideoData("x.csv", fps=INF), "fps must be above 0 and at most 1000, not inf"),
        (lambda: TfdsData("tfds:x", fps=NAN), "fps must be above 0 and at most 1000, not nan"),
        (lambda: Stage("a/b", TWO[0], ShapesData(), ("stdit3",), 1, 1), "the stage name 'a/b' is part of a folder's"),
        (
            lambda: Stage("s", TemporalReconstruction(), ShapesData(), ("vae/spatial",), 1, 1),
            "does not train 'vae/spat",
        ),
        (lambda: Stage("s", SpatialReconstruction(), ShapesData(), ("vae/temporal/decoder",), 1, 1), "'vae/temporal/d"),
        (lambda: Stage("", TWO[0], ShapesData(), ("stdit3",), 1, 1), "the stage name '' is part of a folder's name"),
    ],
)
def test_settings_that_are_no_numbers_or_train_nothing_are_refused(make, says):
    with pytest.raises(ConfigError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)
