"""Training of SkyReels-V2-DF's family: a progressive finetune and adapters of it, and what can be made with them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support.small_videos import gradient, write_csv, write_video
from support.tiny_model import PROMPT, tiny_model

from pavdm_jax import generate, load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.diffusion.family_levels import noise_base_size
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.objectives import ProgressiveDiffusion
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import PARTS, flatten
from pavdm_jax.training import loop
from pavdm_jax.training.config import (
    LoRAConfig,
    OptimizerConfig,
    SpatialReconstruction,
    Stage,
    TrainConfig,
    VideoData,
)
from pavdm_jax.wan_config import tiny_wan

CONFIG = tiny_wan()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    save_model(folder / "start", tiny_model(CONFIG))
    write_video(folder / "video.mp4", gradient(90, 16, 24, 0))
    write_csv(folder / "clips.csv", ["video.mp4,A red Circle moves left"])
    return folder


def trained(folder, name, lora=None):
    data = VideoData(str(folder / "clips.csv"), frames=77)
    optimizer = OptimizerConfig(3e-3, warmup_steps=1, epsilon=1e-8, decay=False, ema_decay=0.0)
    stage = Stage("progressive", ProgressiveDiffusion(), data, ("wan",), 2, 2, optimizer, lora=lora)
    loop.train(TrainConfig(CONFIG, (stage,), str(folder / name), init_from=str(folder / "start"), log_every=1))
    return str(folder / name)


def test_a_finetune_changes_the_transformer_alone_and_is_remembered(folder):
    before, after = load(folder / "start", PARTS), load(trained(folder, "run"), PARTS)
    changed = {
        name.split("/")[0]
        for name, value in flatten(before.params).items()
        if not np.array_equal(value, flatten(after.params)[name])
    }
    assert changed == {"wan"}
    assert [pattern.levels for pattern in after.trained_with] == ["progressive"]
    assert generate(after, PROMPT, 5).shape == (5, 16, 24, 3)


def test_adapters_change_the_transformer_that_they_are_of(folder):
    run = trained(folder, "adapters", LoRAConfig(rank=2, layers=("query", "value"), save_merged=True))
    base, adapted = load(folder / "start"), load(folder / "start", lora=run)
    merged = load(f"{run}/model").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), merged, adapted.params)
    changed = {
        name for name, value in flatten(base.params).items() if not np.array_equal(value, flatten(adapted.params)[name])
    }
    assert changed == {f"wan/{name}/kernel" for name in ("blocks/query", "blocks/value", "caption_blocks/value")}


def test_levels_are_shifted_alike_at_every_size():
    levels = np.float32([0.0, 0.25, 0.5, 1.0])
    for config in (CONFIG, replace(CONFIG, height=544, width=960)):
        base_size = noise_base_size(config, 20)
        shifted = shift_levels(levels, config.height, config.width, 20, base_size)
        np.testing.assert_allclose(shifted, 8 * levels / (1 + 7 * levels), rtol=1e-5)


def test_its_vae_is_used_as_published(folder):
    stage = Stage("vae", SpatialReconstruction(), VideoData(str(folder / "clips.csv"), frames=1), ("vae",), 1, 1)
    with pytest.raises(ConfigError, match="the VAE of tiny-wan is used as published"):
        loop.train(TrainConfig(CONFIG, (stage,), str(folder / "vae"), init_from=str(folder / "start")))
