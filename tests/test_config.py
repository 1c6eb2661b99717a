"""Configs: JSON round trips, validation, and the files in configs/."""

import ast
import dataclasses
from pathlib import Path

import pytest

from pavdm_jax import config as c
from pavdm_jax import train
from pavdm_jax.checkpoints.config_json import check_kinds, from_json, to_json
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import Stage, TrainConfig, read_config
from pavdm_jax.wan_config import WanConfig, WanVAEConfig

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pavdm_jax"


@pytest.mark.parametrize("model", [c.OPEN_SORA_1_2, c.demo(), c.tiny()], ids=lambda model: model.name)
def test_json_round_trip(model):
    assert from_json(c.ModelConfig, to_json(model)) == model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a JSON"),
        ('{"hidden_sise": 3}', "unknown field hidden_sise"),
        ('{"hidden_size": "3"}', "expected int"),
        ('{"patch_size": 2}', "expected a list"),
        ('{"patch_size": [1, 2, 2]}', "expected 2 values"),
        ('{"hidden_size": true}', "expected int"),
    ],
)
def test_wrong_json_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        from_json(c.STDiT3Config, text)


def test_a_field_without_a_default_must_not_be_missing():
    with pytest.raises(ConfigError, match="Stage: the field name, objective, data, train, batch_size is missing"):
        from_json(Stage, '{"steps": 3}')
    with pytest.raises(ConfigError, match="WanVAEConfig: unknown field hands_on_latents"):  # of the class
        from_json(WanVAEConfig, '{"hands_on_latents": true}')


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((2, 2, 2), r"model\.patch_size must have 2 values, not \(2, 2, 2\)"),
        ((2,), r"model\.patch_size must have 2 values, not \(2,\)"),
        ((2, 0.5), r"model\.patch_size\.1 must be int, not 0\.5"),
    ],
)
def test_the_values_of_a_tuple_are_checked(value, says):
    size = c.STDiT3Config()
    object.__setattr__(size, "patch_size", value)
    with pytest.raises(ConfigError, match=says):
        check_kinds(size, c.STDiT3Config, "model")


DEMO_BASE = read_config(str(Path(__file__).parent.parent / "configs" / "demo_base.py"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: c.WindowConfig(steps=31), "use 30 or 36"),
        (lambda: c.WindowConfig(steps=4), "use 6"),
        (lambda: c.WindowConfig(chunk_size=0), "chunk_size"),
        (lambda: c.WindowConfig(context_chunks=-1), "context_chunks"),
        (lambda: c.STDiT3Config(hidden_size=100), "num_heads 16"),
        (lambda: c.STDiT3Config(patch_size=(0, 2)), r"patch_size must be at least 1, not \(0, 2\)"),
        (lambda: c.STDiT3Config(mlp_ratio=-1.0), "mlp_ratio must be at least 0"),
        (lambda: c.STDiT3Config(base_size=0), "base_size"),
        (lambda: c.SpatialVAEConfig(num_groups=7), "num_groups 7 does not divide the 128 channels"),
        (lambda: c.SpatialVAEConfig(num_groups=0), "num_groups 0"),
        (lambda: c.SpatialVAEConfig(block_channels=()), r"block_channels must be at least 1, not \(\)"),
        (lambda: c.TemporalVAEConfig(filters=16), "num_groups 32 does not divide the 16 channels"),
        (lambda: c.T5Config(num_heads=0), "num_heads"),
        (lambda: c.T5Config(relative_buckets=2), "relative_buckets must be at least 4"),
        (lambda: c.T5Config(relative_max_distance=8), "relative_max_distance must be at least 9"),
        (lambda: dataclasses.replace(c.demo(), noise_base_size=0), "noise_base_size"),
        (lambda: WanConfig(patch_size=(0, 1)), "patch_size"),
        (lambda: WanVAEConfig(base_channels=0), "base_channels"),
        (lambda: c.TextConfig(max_tokens=1), "max_tokens"),
        (
            lambda: dataclasses.replace(DEMO_BASE, output="./demo"),
            "output ./demo is the name of a model in the package",
        ),
        (lambda: c.TemporalVAEConfig(temporal_downsample=(True,)), "temporal_downsample"),
        (lambda: dataclasses.replace(c.demo(), text=c.TextConfig(max_tokens=7)), "max_caption_tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        change()
    assert "\n" not in str(caught.value)


def test_sizes_that_the_window_derives():
    window = c.WindowConfig(chunk_size=5, noisy_chunks=10, context_chunks=1, steps=50)
    assert (window.steps_per_shift, window.slots, window.window_size) == (5, 11, 55)


TRAININGS = sorted(path for path in (ROOT / "configs").glob("*.py") if not path.stem.startswith("comparison_"))


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_config_file_loads_and_says_how_it_is_run(path):
    assert isinstance(read_config(str(path)), TrainConfig)
    first_lines = ast.get_docstring(ast.parse(path.read_text()))
    assert f"--config configs/{path.name}" in first_lines


def test_fields_are_overridden_by_dotted_names():
    _, config = train.read(["--config", str(ROOT / "configs/demo_base.py"), "--seed", "7", "--model.stdit3.depth", "5"])
    assert (config.seed, config.model.stdit3.depth) == (7, 5)


@pytest.mark.parametrize("arguments", [[], ["--config", "configs/absent.py"]])
def test_a_missing_config_is_named(arguments):
    with pytest.raises(ConfigError, match="config"):
        train.read(arguments)


def test_no_file_is_longer_than_400_lines():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_latent_frames_of_a_micro_clip():
    assert c.VAEConfig().micro_latents == 5
    assert c.VAEConfig(micro_frames=16).micro_latents == 4
    assert c.VAEConfig(micro_frames=16, micro_latents=5).micro_latents == 5
    assert (
        from_json(c.VAEConfig, '{"micro_frames": 17}')
        == c.VAEConfig()
        == from_json(c.VAEConfig, to_json(c.VAEConfig()))
    )
    for latents in (3, 6):
        with pytest.raises(
            ConfigError, match=f"micro_latents {latents} does not fit .* 16 frames, 4 to a .*; use 4 or 5"
        ):
            c.VAEConfig(micro_frames=16, micro_latents=latents)
    with pytest.raises(ConfigError, match="micro_frames must be at least 1, not 0"):
        c.VAEConfig(micro_frames=0)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_of_latents_by_which_nothing_can_be_divided_is_refused(factor):
    with pytest.raises(ConfigError, match="scaling_factor must be finite and above 0"):
        c.SpatialVAEConfig(scaling_factor=factor)
