"""The parts of the trainer, each by itself: the step, the state, trainable parameters, adapters, levels of a mix, the log."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.tiny_model import tiny_model

from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.config import OPEN_SORA_1_2, STDIT3_3B, WindowConfig, tiny
from pavdm_jax.diffusion.objectives import TrainLevels
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import abstract_params
from pavdm_jax.training.config import (
    LoRAConfig,
    MixedDiffusion,
    OptimizerConfig,
    ProgressiveDiffusion,
    ShapesData,
    Stage,
    TrainConfig,
    UniformDiffusion,
)
from pavdm_jax.training.denoising import clip_chunks, denoising_loss, draw_levels, losses_by_level
from pavdm_jax.training.log import Table, loss_warning
from pavdm_jax.training.loss import LossReport, scalar_metric
from pavdm_jax.training.parameters import join, split, trainable
from pavdm_jax.training.state import init_state, read_totals
from pavdm_jax.training.step import learning_rate, make_gradients, make_optimizer, make_train_step, metric_shapes

KEY = jax.random.key(0)


def squares(params, batch, key):
    """The loss of a line, a value a sample."""
    per_sample = jnp.square(params["w"] * batch["x"] - batch["y"])
    return jnp.mean(per_sample), LossReport(per_sample, {"error": scalar_metric(jnp.mean(jnp.abs(batch["y"])))})


def run(batch, steps=1, accumulate=1, ema_decay=0.9):
    optimizer = optax.sgd(0.02)
    gradients_of = make_gradients(squares, join, accumulate)
    trained = {"w": jnp.float32(0.5)}
    state = init_state(trained, optimizer, metric_shapes(squares, trained, batch))
    step = make_train_step(gradients_of, optimizer, optax.constant_schedule(0.02), ema_decay, None)
    for _ in range(steps):
        state, loss = step(state, {}, batch, KEY)
    return state, loss


BATCH = {"x": jnp.arange(1.0, 7.0), "y": jnp.array([2.0, 1.0, 0.0, -1.0, 3.0, 5.0])}


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(parts):
    whole, in_parts = run(BATCH)[0], run(BATCH, accumulate=parts)[0]
    assert whole.params["w"] != 0.5
    np.testing.assert_allclose(in_parts.params["w"], whole.params["w"], rtol=1e-6)
    metrics, fresh = read_totals(in_parts)
    np.testing.assert_allclose(metrics["loss"], read_totals(whole)[0]["loss"], rtol=1e-6)
    assert all(not total.any() and not weight.any() for total, weight in fresh.totals.values())


def test_metrics_are_means_over_the_steps_since_the_last_line():
    state, _ = run(BATCH, steps=3)
    losses = [float(run(BATCH, steps=n)[1]) for n in (1, 2, 3)]
    assert losses[0] > losses[1]
    np.testing.assert_allclose(read_totals(state)[0]["loss"], np.mean(losses), rtol=1e-6)
    assert int(state.step) == 3


def test_the_moving_average_is_float32_and_lags():
    state, _ = run(BATCH, steps=30, ema_decay=0.9)
    solution = float(jnp.sum(BATCH["x"] * BATCH["y"]) / jnp.sum(BATCH["x"] ** 2))
    assert state.ema["w"].dtype == jnp.float32
    one, _ = run(BATCH, steps=1)
    np.testing.assert_array_equal(one.ema["w"], one.params["w"])  # it does not remember the start
    assert abs(float(state.ema["w"]) - solution) < 1e-2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_first_step_and_sample_that_are_not_finite_are_kept(accumulate):
    bad = {**BATCH, "y": BATCH["y"].at[3].set(jnp.inf).at[4].set(jnp.nan)}
    state, _ = run(bad, steps=3, accumulate=accumulate)
    assert state.fault[0] == 0 and state.fault[1] == 3 and state.fault[2] == 2
    assert run(BATCH, steps=2)[0].fault.tolist() == [-1, -1, 0]


def test_the_learning_rate_warms_up_and_decays_or_stays():
    settings = OptimizerConfig(1e-3, warmup_steps=10)
    rate = learning_rate(settings, 100)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(100)], [0, 5e-4, 1e-3, 0], atol=1e-9)
    rate = learning_rate(dataclasses.replace(settings, decay=False), 100)
    np.testing.assert_allclose([rate(5), rate(10), rate(1000)], [5e-4, 1e-3, 1e-3], rtol=1e-6)


def test_parameters_are_split_by_prefix_and_put_together_again():
    params = {"a": {"b": 1, "bc": 2}, "d": 3}
    trained, frozen = split(params, ("a/b", "d"))
    assert trained == {"a/b": 1, "d": 3}
    assert join(trained, frozen) == params
    assert split(params, ("a",), freeze=("a/b",))[0] == {"a/bc": 2}
    with pytest.raises(ConfigError, match="train names 'e', which is no part"):
        split(params, ("e",))
    with pytest.raises(ConfigError, match="freeze names 'e', which is no part"):
        split(params, ("a",), freeze=("e",))
    with pytest.raises(ConfigError, match="leaves nothing"):
        split(params, ("a",), freeze=("a",))


# --- adapters ---------------------------------------------------------------------------------------------------------

ADAPTED = Stage(
    "adapt",
    UniformDiffusion(clip_chunks=1, masks=None, caption_dropout=0.0),
    ShapesData(17),
    ("stdit3",),
    steps=1,
    batch_size=1,
    lora=LoRAConfig(rank=2, alpha=4.0, layers=("qkv", "mlp_in")),
)


def test_adapters_change_nothing_at_first_and_get_gradients():
    params = tiny_model().params
    adapters, frozen, assemble = trainable(params, ADAPTED)
    assert set(join(frozen)) == set(params)
    assert len(adapters) == 8  # two layers of a spatial and a temporal block, two factors each
    jax.tree.map(np.testing.assert_array_equal, assemble(adapters, frozen), params)
    gradients = jax.jit(
        jax.grad(lambda a: jnp.sum(jnp.square(assemble(a, frozen)["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"])))
    )(adapters)
    assert np.abs(gradients["stdit3/blocks/spatial/qkv/kernel/b"]).max() > 0
    assert not np.asarray(gradients["stdit3/blocks/temporal/qkv/kernel/b"]).any()


def test_saved_adapters_are_merged_when_a_model_is_loaded(tmp_path):
    model = tiny_model()
    save_model(tmp_path / "base", model)
    adapters = trainable(model.params, ADAPTED).trained
    adapters = {name: x + 0.1 for name, x in adapters.items()}
    lora.save(tmp_path / lora.FILE, adapters, 4.0, model.params)
    merged = load(tmp_path / "base", lora=tmp_path)
    name = "stdit3/blocks/spatial/qkv/kernel"
    before, after = (np.asarray(m.params["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"]) for m in (model, merged))
    expected = before + 4.0 / 2 * np.einsum("pir,pro->pio", adapters[f"{name}/a"], adapters[f"{name}/b"])
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    half = load(tmp_path / "base", dtype="bfloat16", lora=tmp_path)
    assert half.params["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"].dtype == jnp.bfloat16
    with pytest.raises(ConfigError, match="trained on another model"):
        lora.apply(merged, tmp_path)
    with pytest.raises(ConfigError, match="there are no LoRA adapters"):
        lora.apply(model, tmp_path / "nowhere")
    (tmp_path / lora.FILE).write_bytes(b"no")
    with pytest.raises(ConfigError, match="is not a file of LoRA adapters"):
        lora.apply(model, tmp_path)


def test_adapters_that_cannot_be_are_refused():
    wrong = dataclasses.replace(ADAPTED, lora=LoRAConfig(layers=("qvk",)))
    with pytest.raises(ConfigError, match=r"lora\.layers names 'qvk'"):
        trainable(tiny_model().params, wrong)
    with pytest.raises(ConfigError, match="with init_from"):
        TrainConfig(tiny(), (ADAPTED,))


# --- objectives -------------------------------------------------------------------------------------------------------


def test_a_mix_draws_its_objectives_by_weight():
    config = dataclasses.replace(tiny(), window=WindowConfig(chunk_size=1, noisy_chunks=3, steps=3))
    uniform, progressive = (
        UniformDiffusion(clip_chunks=2, masks=None, caption_dropout=0.0),
        ProgressiveDiffusion(0.0, 0.0, 0.0, level_shift=0.0, caption_dropout=1.0),
    )
    mix = MixedDiffusion((uniform, progressive), (1.0, 3.0))
    assert clip_chunks(config, mix) == 4
    drawn, dropout = jax.jit(draw_levels(config, mix), static_argnums=(1, 2))(KEY, 1000, 4)
    is_progressive = np.asarray(dropout) == 1.0
    assert abs(is_progressive.mean() - 0.75) < 0.05
    np.testing.assert_array_equal(np.asarray(drawn.num_valid), np.where(is_progressive, 4, 2))
    levels = np.asarray(drawn.levels)
    assert (levels[is_progressive, 0] == 0).all() and (np.diff(levels[is_progressive]) > 0).all()
    assert (levels[~is_progressive, 0] == levels[~is_progressive, 1]).all()
    assert (levels[~is_progressive, 2:] == 0).all() and not np.asarray(drawn.loss_mask)[~is_progressive, 2:].any()
    with pytest.raises(ConfigError, match="2 weights are given for 1 objectives"):
        MixedDiffusion((uniform,), (1.0, 2.0))


def test_losses_are_kept_apart_by_level():
    levels = jnp.array([[0.0, 0.1, 0.5], [0.55, 0.99, 1.0]])
    drawn = TrainLevels(levels, (levels > 0).astype(jnp.float32), jnp.array([3, 3]))
    found = losses_by_level(jnp.array([[0.0, 2.0, 3.0], [5.0, 7.0, 9.0]]), drawn)
    means = {name: float(total / weight) for name, (total, weight) in found.items() if weight > 0}
    assert means == {"loss_level_0.0_0.2": 2.0, "loss_level_0.4_0.6": 4.0, "loss_level_0.8_1.0": 8.0}


def test_one_clip_of_the_published_size_is_learnt():
    """35 latent frames of 30 x 53, as of 119 frames at 240p, through a transformer of one thin pair of blocks."""
    config = tiny()
    config = dataclasses.replace(
        config,
        stdit3=dataclasses.replace(config.stdit3, depth=1, hidden_size=16, num_heads=1),
        window=WindowConfig(),
        height=240,
        width=424,
    )
    shapes = abstract_params(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.1, jnp.float32),
        {name: shapes[name] for name in ("stdit3", "t5")},
    )
    t, h, w = np.meshgrid(np.arange(35), np.arange(30), np.arange(53), indexing="ij")
    clip = np.stack([np.sin(0.2 * (w + channel * h) + 0.3 * t) for channel in range(4)], -1)[None]
    batch = {
        "latents": clip.astype(np.float32),
        "ids": np.ones((1, 8), np.int32),
        "length": np.array([4]),
        "fps": np.array([24.0], np.float32),
    }
    stage = Stage("one", ProgressiveDiffusion(caption_dropout=0.0), ShapesData(119), ("stdit3", "t5"), 30, 1)
    trained, frozen, assemble = trainable(params, stage)
    settings = OptimizerConfig(2e-2, warmup_steps=1, decay=False)
    optimizer = make_optimizer(settings, 30)
    loss_of = denoising_loss(config, stage.objective, remat="full")
    gradients_of = make_gradients(loss_of, assemble, 1)
    state = init_state(trained, optimizer, metric_shapes(loss_of, params, batch))
    step = make_train_step(gradients_of, optimizer, learning_rate(settings, 30), 0.9, None)
    losses = []
    for _ in range(stage.steps):
        state, loss = step(state, frozen, batch, KEY)
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.65 * np.mean(losses[:3])


@pytest.mark.parametrize(
    ("loss", "loaded", "says"),
    [
        (4.5, True, "not loaded"),
        (1.0, True, "fresh model"),
        (0.45, True, None),
        (1.0, False, None),
        (0.01, True, "constant"),
    ],
)
def test_the_loss_of_the_published_models_is_judged(loss, loaded, says):
    for config in (OPEN_SORA_1_2, dataclasses.replace(OPEN_SORA_1_2, stdit3=STDIT3_3B)):
        warning = loss_warning(config, loaded, loss)
        assert warning is None if says is None else says in warning
    assert loss_warning(tiny(), loaded, loss) is None


def test_the_log_drops_lines_that_will_be_made_again_and_takes_new_columns(tmp_path):
    table = Table(tmp_path / "log.csv", 0)
    for step in (1, 2, 3):
        table.write({"stage": "a", "step": step, "loss": step / 3})
    again = Table(tmp_path / "log.csv", 2)
    again.write({"stage": "b", "step": 3, "loss": 0.5, "psnr": 20.0})
    lines = (tmp_path / "log.csv").read_text().split()
    assert lines == [
        "stage,step,seconds,samples_per_second,loss,psnr",
        "a,1,,,0.333333,",
        "a,2,,,0.666667,",
        "b,3,,,0.5,20",
    ]
