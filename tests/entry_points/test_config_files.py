"""Every config file by its shapes: it trains what it says, and fits the devices that it is for.

Whether it fits is told as far as possible without the devices.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from support.abstract_meshes import abstract_mesh, bytes_of_a_device

from pavdm_jax import train
from pavdm_jax.ahead_of_time.chips import CHIPS, GIB
from pavdm_jax.ahead_of_time.training import abstract_program
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.lora import find_base
from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.diffusion.family_levels import guided_frames, repeated_frames
from pavdm_jax.distributed.mesh import MeshConfig, train_mesh
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.claims import check_claims
from pavdm_jax.evaluation.comparison import read_comparison
from pavdm_jax.evaluation.held_out import held_out_prompts
from pavdm_jax.generation.as_trained import needed_pattern, unlike_training
from pavdm_jax.generation.request import make_request
from pavdm_jax.geometry import latent_frames
from pavdm_jax.models.model import PARTS
from pavdm_jax.training.config import VideoData, read_config
from pavdm_jax.training.denoising import DiffusionObjective, clip_chunks
from pavdm_jax.training.trained_with import level_patterns

CONFIGS = Path(__file__).parents[2] / "configs"
DEVICES = {
    "tpu_v4": (128, "v4"),
    "tpu_v5e": (64, "v5e"),
    "tpu_v5p": (64, "v5p"),
    "gpu_h100x8": (8, "h100"),
    "pa_m": (128, "v4"),
    "skyreels_progressive": (8, "h100"),
    "skyreels_lora": (8, "h100"),
    "open_sora_rw": (8, "h100"),
    "open_sora_rn": (8, "h100"),
    "open_sora_no_context": (8, "h100"),
    "open_sora_distilled": (128, "v4"),
    "open_sora_no_chunks": (8, "h100"),
}
"""Of the files that name their hardware: how many, and which chip. The others run on one device of any kind."""

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if not path.stem.startswith("comparison_"))


def read(name):
    return read_config(str(CONFIGS / f"{name}.py"))


def test_hardware_is_known():
    assert set(DEVICES) < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_a_config_lies_on_its_devices(name):
    config, (devices, chip) = read(name), DEVICES.get(name, (1, None))
    limit = 80e9 if chip is None else CHIPS[chip].memory_gib * GIB
    for stage in config.stages:
        if not isinstance(stage.objective, DiffusionObjective):
            continue
        rows = stage.batch_size // stage.optimizer.accumulate
        mesh = abstract_mesh(train_mesh(config.mesh, rows, devices))
        program, (state, frozen, batch, _) = abstract_program(config, stage, mesh)
        frames = clip_chunks(config.model, stage.objective) * config.model.window.chunk_size
        assert batch["latents"].shape[:2] == (stage.batch_size, frames)
        assert latent_frames(stage.data.frames, config.model.vae) >= frames  # the data's clips are long enough
        whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state, frozen)))
        here = bytes_of_a_device((state, frozen))
        assert here < 1.05 * whole / train_mesh(config.mesh, rows, devices).fsdp
        assert here < limit / 2
        assert jax.tree.structure(program.init.eval_shape(state.params)) == jax.tree.structure(state)


BASES = ("demo_vae", "demo_decoders", "demo_base", "demo_base_again", "demo_uniform")  # trained for no system


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BASES])
def test_a_system_is_sampled_with_the_levels_that_its_config_trains(name):
    """By the options of its row in configs/README.md."""
    config, method = read(name), {"rw": "noisy-replacement", "rn": "replacement"}.get(name[-2:], "progressive")
    for stage in config.stages:
        patterns = level_patterns(config.model, stage.objective)
        for kind in ("progressive", "replacement", "noisy-replacement"):
            needed = needed_pattern(make_request(config.model, "a red circle", method=kind))
            assert any(pattern.covers(needed) for pattern in patterns) == (kind == method)


def test_the_shipped_comparison_has_every_system_as_its_config_trains_it():
    comparison = read_comparison(str(CONFIGS / "comparison_shapes.py"))
    prompts = [line.prompt for line in comparison.lines]
    assert len(set(prompts)) == 20
    (world,) = {stage.data.world for name in ("demo_base", "demo_progressive") for stage in read(name).stages}
    assert replace(world, shape_counts=SIMPLE.shape_counts) == SIMPLE  # trained with more shapes a scene
    assert prompts[:2] == held_out_prompts(2, 1000, 64, SIMPLE)
    assert all(line.start.shape == (17, 64, 64, 3) for line in comparison.lines)
    assert [system.name for system in comparison.systems if system.from_text] == ["pa-text", "rn-text", "rw-text"]
    for system in comparison.systems:
        name = Path(system.checkpoint).name.removesuffix("_long")
        config = read(name)
        assert config.output == f"runs/{name}"
        request = make_request(config.model, prompts[0], frames=comparison.frames, **system.options)
        steps = request.config.window.steps if request.method == "progressive" else request.clip.steps
        assert (request.frames, steps) == (1440, 30)
        if name not in BASES:
            patterns = level_patterns(config.model, config.stages[-1].objective)
            assert any(pattern.covers(needed_pattern(request)) for pattern in patterns), system.name


@pytest.mark.parametrize("folder", sorted((CONFIGS / "results" / "comparison_shapes" / "systems").iterdir()))
def test_the_trained_systems_are_those_of_the_embedded_model(folder):
    base, files = find_base(str(folder))
    assert base == "demo"
    assert len(files) == (1 if folder.name == "demo_uniform" else 2)
    model = load(str(folder), ("transformer",))  # which compares the fingerprints
    config = read(folder.name.removesuffix("_long"))
    assert model.config == config.model
    assert model.trained_with == level_patterns(config.model, config.stages[-1].objective)


def test_the_claims_of_the_comparison_are_about_its_systems_and_about_scores():
    comparison = read_comparison(str(CONFIGS / "comparison_shapes.py"))
    check_claims(comparison.claims)
    named = {name for claim in comparison.claims for name in (claim.better, claim.worse)}
    assert named <= {system.name for system in comparison.systems}


def test_the_comparison_of_distillations_samples_the_students_as_their_configs_make_them():
    comparison = read_comparison(str(CONFIGS / "comparison_distilled.py"))
    for system in comparison.systems:
        if not system.checkpoint.startswith("runs/"):
            embedded = load(system.checkpoint, parts=())
            model, patterns = embedded.config, embedded.trained_with
        else:
            config = read(Path(system.checkpoint).name)
            assert config.output == system.checkpoint
            model, patterns = config.model, level_patterns(config.model, config.stages[-1].objective)
        request = make_request(model, comparison.prompts[0], frames=comparison.frames, **system.options)
        assert any(pattern.covers(needed_pattern(request)) for pattern in patterns), system.name
        assert request.config.window.steps_per_shift == int(system.name[-1])
        assert request.guided == (system.checkpoint == "demo")


def test_the_embedded_student_has_its_teachers_other_parts_and_takes_two_passes_a_shift():
    student, teacher = load("demo-distilled", PARTS), load("demo", PARTS)
    for part in ("vae", "t5"):
        jax.tree.map(np.testing.assert_array_equal, student.params[part], teacher.params[part])
    request = make_request(student.config, "a red circle")
    assert (request.guided, request.config.window.steps_per_shift) == (False, 2)
    assert unlike_training(student.trained_with, request) is None


def test_the_comparison_of_guidance_leaves_out_what_its_names_say():
    comparison = read_comparison(str(CONFIGS / "comparison_guidance.py"))
    model, second_pass = load("demo", parts=()).config, {}
    for system in comparison.systems:
        request = make_request(model, comparison.prompts[0], frames=comparison.frames, **system.options)
        kind, number = system.name.split("-")
        value = request.guidance_scale if kind == "scale" else request.config.window.guidance_above
        assert value == float(number)
        second_pass[system.name] = guided_frames(request.config, request.told_size)
    assert [second_pass[f"above-{level}"] for level in (0.3, 0.6, 0.7)] == [25, 20, 15]


def test_the_comparison_of_reuse_repeats_what_its_names_say():
    comparison = read_comparison(str(CONFIGS / "comparison_reuse.py"))
    model, repeated = load("demo", parts=()).config, []
    for system in comparison.systems:
        request = make_request(model, comparison.prompts[0], frames=comparison.frames, **system.options)
        level = request.config.window.reuse_below
        assert system.name == ("every-step" if level is None else f"reuse-{level}")
        repeated.append(repeated_frames(request.config, request.told_size))
    assert repeated == [None, 30, 25, 20, 15]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("comparison_*.py")))
def test_a_comparison_is_no_config_to_train(name):
    with pytest.raises(ConfigError, match="does not define `config = TrainConfig"):
        read(name)


def test_a_config_of_one_stage_is_changed_by_short_names():
    common = ["--config", str(CONFIGS / "gpu_h100x8.py"), "--data.manifest", "mine.csv", "--data.frames=136"]
    _, config = train.read([*common, "--optimizer.learning-rate", "5e-5", "--mesh", "data=8", "--batch-size", "16"])
    (stage,) = config.stages
    assert stage.data == VideoData("mine.csv", frames=136)
    assert (stage.optimizer.learning_rate, stage.batch_size, config.mesh) == (5e-5, 16, "data=8")
    assert train.read([*common, "--stages.0.steps", "7"])[1].stages[0].steps == 7
    with pytest.raises(ConfigError, match=r"no option --optimizer.learning-rat; did you mean --optimizer.learn"):
        train.read([*common, "--optimizer.learning-rat", "1"])
    with pytest.raises(ConfigError, match="no option --compile-onyl"):
        train.read([*common, "--compile-onyl", "v4:2x2x1"])
    several = ["--config", str(CONFIGS / "demo_vae.py"), "--batch-size", "5"]
    with pytest.raises(ConfigError, match=r"no option --batch-size; did you mean --stages\.[012]\.batch-size"):
        train.read(several)


def test_a_mesh_for_training_takes_all_devices_and_divides_the_batch():
    assert train_mesh("auto", 8, 1) == MeshConfig()
    assert train_mesh("auto", 128, 128) == MeshConfig(data=8, fsdp=16)
    assert train_mesh("auto", 6, 8) == MeshConfig(fsdp=2, sequence=4)
    assert train_mesh("single", 3, 8) == MeshConfig()
    assert train_mesh("data=2,fsdp=4", 8, 8) == MeshConfig(data=2, fsdp=4)
    with pytest.raises(ConfigError, match=r"takes 6 devices and there are 8; these fit: fsdp=1,sequence=8 or"):
        train_mesh("fsdp=2,sequence=3", 8, 8)
    with pytest.raises(ConfigError, match=r"a batch of 6 does not divide over 4 devices .*; use 4 or 8"):
        train_mesh("data=2,fsdp=2,sequence=2", 6, 8)
    with pytest.raises(ConfigError, match="mesh 'dat=2' is not understood"):
        train.read(["--config", str(CONFIGS / "demo_base.py"), "--mesh", "dat=2"])


TINY = """
from pavdm_jax.config import tiny
from pavdm_jax.training.config import ProgressiveDiffusion, Stage, TrainConfig, VideoData

stage = Stage("progressive", ProgressiveDiffusion(), VideoData("x.csv", 68), ("stdit3",), 10, 8)
config = TrainConfig(tiny(), (stage,), compute_dtype="bfloat16", remat="attention")
"""


def compile_only(tmp_path, topology, *options):
    (tmp_path / "config.py").write_text(TINY)
    command = [sys.executable, "-m", "pavdm_jax.train", "--config", str(tmp_path / "config.py")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [*command, "--compile-only", topology, *options], env=environment, capture_output=True, text=True
    )


@pytest.mark.other_chips
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler, libtpu, is not installed")
def test_a_step_is_compiled_for_tpus_that_are_not_there(tmp_path):
    done = compile_only(tmp_path, "v5e:2x4", "--mesh", "data=2,fsdp=2,sequence=2")
    assert done.returncode == 0, done.stderr
    assert (
        "stage progressive on v5e:2x4: 8 chips, mesh data=2,fsdp=2,sequence=2, remat attention, bfloat16" in done.stdout
    )
    for words in ("GiB of 15.75", "all-gather", "all-to-all", "estimate of step time", "MFU 30%"):
        assert words in done.stdout
    done = compile_only(tmp_path, "v5e:2x4", "--mesh", "fsdp=16")
    assert done.returncode == 2
    assert "error: mesh fsdp=16 takes 16 devices and there are 8; these fit: fsdp=8" in done.stderr


@pytest.mark.other_chips
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="the compiler for GPUs is not installed"
)
def test_a_step_is_compiled_for_gpus_that_are_not_there(tmp_path):
    done = compile_only(tmp_path, "h100:2x4", "--mesh", "data=2,fsdp=2,sequence=2")
    assert done.returncode == 0, done.stderr
    assert "stage progressive on h100:2x4: 8 chips, mesh data=2,fsdp=2,sequence=2" in done.stdout
    for words in ("GiB of 59.32", "all-gather", "all-to-all", "estimate of step time"):
        assert words in done.stdout


def test_clips_that_are_too_short_are_named_in_pixel_frames_before_anything_is_compiled(tmp_path):
    done = compile_only(tmp_path, "v5e:2x4", "--data.frames", "67")
    assert done.returncode == 2
    assert done.stderr == (
        "error: clips of 67 frames are too short: the stage trains on 20 latent frames; give at least 68 frames "
        "(data.frames)\n"
    )


def test_a_topology_that_is_none_is_named(tmp_path):
    done = compile_only(tmp_path, "v4-256")
    assert done.returncode == 2
    assert done.stderr.startswith("error: topology 'v4-256' is not understood; write a chip and a layout")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("raise SystemExit", "fails: SystemExit"),
        ("import absent_module", "fails: ModuleNotFoundError"),
        ("config = 5", "does not define"),
        (
            "from dataclasses import replace\nconfig = replace(config, save_every=100.5)",
            "save_every must be int, not 100.5",
        ),
        (
            "from dataclasses import replace\nconfig = replace(config, init_from=5)",
            "init_from must be str or None, not 5",
        ),
        ("from dataclasses import replace\nconfig = replace(config, seed=True)", "seed must be int, not True"),
        (
            "from dataclasses import replace\nconfig = replace(config, stages=(replace(config.stages[0], data=None),))",
            "stages.0.data must be ShapesData or .*, not None",
        ),
    ],
)
def test_a_wrong_config_file_is_one_line(tmp_path, lines, message):
    path = tmp_path / "mine.py"
    path.write_text((CONFIGS / "demo_base.py").read_text() + "\n" + lines + "\n")
    with pytest.raises(ConfigError, match=message):
        read_config(str(path))
