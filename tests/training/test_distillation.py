"""Distillation: what a student's loss is beside a teacher that is known, runs that resume, and models that know it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import SHAPES, tiny_model

from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.convert_weights import inspect, verify
from pavdm_jax.distributed.placement import to_devices
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.as_trained import unlike_training
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.level_pattern import LevelPattern
from pavdm_jax.training import loop
from pavdm_jax.training.config import (
    DistilledGuidance,
    DistilledShift,
    LoRAConfig,
    OptimizerConfig,
    ShapesData,
    Stage,
    TrainConfig,
    VideoData,
)
from pavdm_jax.training.distillation import distillation_loss, teacher_flops
from pavdm_jax.training.parameters import trainable
from pavdm_jax.training.program import used_frozen
from pavdm_jax.training.trained_with import trained_with

STUDENT = dataclasses.replace(
    SHAPES, guidance_scale=1.0, window=dataclasses.replace(SHAPES.window, steps=SHAPES.window.noisy_chunks)
)
WHOLE = {"growing": 0.0, "shrinking": 0.0, "short": 0.0}


def loss_of(objective, student=None, model=STUDENT):
    """The loss of a student beside the tiny model as its teacher."""
    params, rng = tiny_model(SHAPES).params, np.random.default_rng(0)
    t, b = model.window.window_size, 2
    batch = {
        "latents": jnp.asarray(rng.normal(size=(b, t, 4, 4, 4)), jnp.float32),
        "ids": jnp.ones((b, model.text.max_tokens), jnp.int32),
        "length": jnp.array([3, 5]),
        "fps": jnp.full((b,), 24.0),
    }
    params = params | {"stdit3": student or params["stdit3"], "teacher": {"stdit3": params["stdit3"]}}
    value, report = jax.jit(distillation_loss(model, objective))(params, batch, jax.random.key(0))
    assert report.per_sample.shape == (b,)
    return float(value)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    assert loss_of(DistilledGuidance(**WHOLE, guidance_scale=1.0)) < 1e-10
    assert loss_of(DistilledShift(**WHOLE, steps=3)) < 1e-9  # a step each
    assert loss_of(DistilledShift(**WHOLE, steps=3, rollout=1.0)) < 1e-9
    assert loss_of(DistilledShift(**WHOLE, steps=6)) > 1e-4  # the teacher's second step is elsewhere


def test_what_guidance_adds_grows_with_its_scale_less_one():
    """Guided less conditional is (scale - 1) times conditional less unconditional."""
    once, thrice = (loss_of(DistilledGuidance(guidance_scale=scale)) for scale in (2.0, 4.0))
    assert once > 1e-4
    np.testing.assert_allclose(thrice, 9 * once, rtol=1e-4)


def test_windows_of_the_students_own_are_others():
    shares = DistilledShift(steps=6), DistilledShift(steps=6, rollout=1.0)
    data, own = (loss_of(objective) for objective in shares)
    assert abs(own - data) > 1e-3 * data


def test_the_student_alone_is_changed():
    shrunk = jax.tree.map(lambda x: 0.5 * x, tiny_model(SHAPES).params["stdit3"])
    objective = DistilledGuidance(**WHOLE, guidance_scale=1.0)
    assert loss_of(objective, shrunk) > 1e-3


def stage(objective, steps=2, **changes):
    frames = 17 * SHAPES.window.slots
    optimizer = OptimizerConfig(1e-3, warmup_steps=0, decay=False, epsilon=1e-8)
    return Stage("d", objective, ShapesData(frames, samples=2), ("stdit3",), steps, 1, optimizer, **changes)


def run(folder, name, one, model=STUDENT):
    return TrainConfig(model, (one,), str(folder / name), init_from=str(folder / "start"), save_every=1, log_every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    save_model(folder / "start", tiny_model(SHAPES))
    return folder


def test_a_distillation_goes_on_where_it_stopped_and_its_model_needs_no_guidance(folder):
    objective = DistilledShift(steps=6, guidance_scale=4.0, rollout=0.5)
    whole = loop.fit(run(folder, "whole", stage(objective)))
    loop.fit(run(folder, "cut", stage(objective, steps=1)))
    continued = loop.fit(run(folder, "cut", stage(objective)))
    jax.tree.map(np.testing.assert_array_equal, continued.params, whole.params)

    start, made = load(folder / "start"), load(folder / "whole")
    assert set(made.params) == set(start.params) and set(whole.params) == {"stdit3", "vae", "t5"}  # no teacher
    for part in ("vae", "t5"):
        jax.tree.map(np.testing.assert_array_equal, whole.params[part], tiny_model(SHAPES).params[part])
    change = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), made.params["stdit3"], start.params["stdit3"])
    assert max(jax.tree.leaves(change["blocks"])) > 1e-4
    assert made.config == STUDENT
    assert made.trained_with == (LevelPattern("progressive", 20, 5, 5, steps_per_shift=1, guidance_scale=1.0),)


def test_requests_that_a_student_was_not_taught_are_warned_of():
    prompt, shift = "a red circle moves left", trained_with(STUDENT, stage(DistilledShift(steps=6)), ())
    guidance = trained_with(STUDENT, stage(DistilledGuidance()), ())
    request = make_request(STUDENT, prompt)
    assert not request.guided and request.config.window.steps_per_shift == 1
    guided, more = make_request(STUDENT, prompt, guidance_scale=6.0), make_request(STUDENT, prompt, steps=6)
    for patterns in (shift, guidance):
        assert unlike_training(patterns, request) is None
        assert "guidance scale: 1; this request" in str(unlike_training(patterns, guided))
    assert "steps a shift: 1, guidance scale: 1; this request samples" in str(unlike_training(shift, more))
    assert unlike_training(guidance, more) is None


def factors_of(folder):
    return lora.read(folder / "lora.safetensors").factors


def test_adapters_can_be_distilled(folder):
    one = stage(DistilledGuidance(), steps=1, lora=LoRAConfig(rank=2))
    loop.fit(run(folder, "lora", one))
    adapted = load(folder / "start", lora=folder / "lora")
    assert adapted.trained_with == (LevelPattern("progressive", 20, 5, 5, None, 1.0),)
    assert adapted.config == STUDENT
    (folder / "lora" / "lora.safetensors").rename(folder / "lora.safetensors")  # as before the run has finished
    assert load(folder / "lora", parts=()).config == load(folder / "lora", parts=["vae"]).config == STUDENT
    unfinished = load(folder / "lora")
    jax.tree.map(np.testing.assert_array_equal, unfinished.params, adapted.params)
    more = lora.Adapters(factors_of(folder), 1.0, params_fingerprint(unfinished.transformer), "lora")
    lora.save(folder / "more.safetensors", more)
    assert load(folder / "more.safetensors", dtype="bfloat16").trained_with == ()
    assert "lora: a checkpoint of a training run" in inspect(str(folder / "more.safetensors"))
    assert "the adapters are as they were written" in verify(str(folder / "more.safetensors"))
    (folder / "lora.safetensors").rename(folder / "lora" / "lora.safetensors")
    (folder / "lora" / "stages").rename(folder / "stages")  # the adapters alone are enough
    alone = load(folder / "lora")
    assert (alone.config, alone.trained_with) == (STUDENT, adapted.trained_with)
    jax.tree.map(np.testing.assert_array_equal, alone.params, adapted.params)


def test_the_teachers_passes_are_counted():
    latents = (2, 20, 8, 8, 4)
    once = teacher_flops(STUDENT, DistilledShift(steps=3), latents)
    assert once > 0
    assert teacher_flops(STUDENT, DistilledShift(steps=12, guidance_scale=3.0), latents) == 8 * once
    assert teacher_flops(STUDENT, DistilledShift(steps=3, rollout=0.5), latents) == 2 * once
    assert teacher_flops(STUDENT, DistilledGuidance(), latents) == 2 * once


def test_distillations_that_cannot_work_are_refused(tmp_path):
    (tmp_path / "start").mkdir()
    shift = DistilledShift(steps=6)
    with pytest.raises(ConfigError, match=r"let model\.guidance_scale be 1, not 7"):
        run(tmp_path, "run", stage(shift), model=SHAPES)
    with pytest.raises(ConfigError, match="teacher's steps 7 are no multiple"):
        run(tmp_path, "run", stage(DistilledShift(steps=7)))
    with pytest.raises(ConfigError, match="needs a teacher"):
        TrainConfig(STUDENT, (stage(shift),), str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="the transformer only, not t5"):
        dataclasses.replace(stage(shift), train=("stdit3", "t5"))
    with pytest.raises(ConfigError, match="let image_share be 0"):
        dataclasses.replace(stage(shift), data=VideoData("clips.csv", 119, image_share=0.5))


def test_a_teacher_whose_student_is_adapters_of_it_is_once_on_the_devices():
    params = tiny_model(SHAPES).params
    stage = Stage(
        "d", DistilledGuidance(), ShapesData(17), ("stdit3",), 2, 2, OptimizerConfig(1e-3), lora=LoRAConfig(2)
    )
    parameters = trainable(params, stage, 0)
    frozen = used_frozen(STUDENT, parameters, params, stage, {"features": None})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = to_devices(frozen, dict.fromkeys(frozen, place))
    assert len(placed) == 2 * len(jax.tree.leaves(params["stdit3"]))
    assert len({id(x) for x in placed.values()}) == len(placed) / 2
    for name, x in placed.items():
        np.testing.assert_array_equal(x, frozen[name])
