"""The diffusion transformer against the reference (goldens stdit3_a and _b), and what its parts may and may not mix."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from support import golden_data
from support.golden_data import FORWARD_TOLERANCE, channels_last, relative_error
from support.precision import check_float32
from support.pytorch_layout import to_params, to_tensors

from pavdm_jax.config import STDIT3_3B, STDiT3Config, tiny
from pavdm_jax.conversion.open_sora import stdit3_rules
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.caption import Caption, concatenate, take
from pavdm_jax.models.depth import REMAT_POLICIES
from pavdm_jax.models.stdit3 import STDiT3

pytestmark = pytest.mark.usefixtures("fully_optimised")

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Of the compiler, for programs that are compared with each other."""


def abstract_params(config: STDiT3Config) -> dict:
    return jax.eval_shape(lambda: STDiT3(config).init(jax.random.key(0), method="init_all")["params"])


class Golden:
    """A golden file as this project's config, parameters and inputs."""

    def __init__(self, name: str):
        settings, arrays = golden_data.load(name)
        self.config = STDiT3Config(
            depth=settings["depth"],
            hidden_size=settings["hidden_size"],
            num_heads=settings["num_heads"],
            mlp_ratio=settings["mlp_ratio"],
            caption_channels=settings["caption_channels"],
            max_caption_tokens=settings["model_max_length"],
            base_size=settings["input_sq_size"],
        )
        self.weights, self.taps, self.outputs = arrays["weights"], arrays["taps"], arrays["outputs"]
        self.params = to_params(stdit3_rules(self.config), self.weights, abstract_params(self.config))
        inputs = arrays["inputs"]
        self.latents = channels_last(inputs["x"])
        self.levels = inputs["t_per_frame"] / 1000
        self.uniform_levels = np.broadcast_to(inputs["t_scalar"][:, None] / 1000, self.levels.shape)
        self.is_noisy = inputs["x_mask"]
        self.video = inputs["fps"], inputs["height"], inputs["width"]
        self.features, self.lengths = inputs["y"], inputs["text_mask"].sum(1, dtype=np.int32)[:, None]

    def caption(self) -> Caption:
        return encode(self.config, self.params, self.features, self.lengths)

    def null_caption(self) -> Caption:
        return encode_null(self.config, self.params, self.lengths)

    def run(self, params=None, latents=None, levels=None, caption=None, num_valid=None, **attributes):
        """The network's output; everything that is not given is the golden's."""
        output = predict(
            STDiT3(self.config, **attributes),
            self.params if params is None else params,
            self.latents if latents is None else latents,
            self.levels if levels is None else levels,
            self.caption() if caption is None else caption,
            self.video,
            num_valid,
        )
        assert output.dtype == jnp.float32
        return np.asarray(output)

    @functools.cached_property
    def params_without_temporal_attention(self) -> dict:
        flat = traverse_util.flatten_dict(self.params, sep="/")
        silent = {k: np.zeros_like(v) for k, v in flat.items() if k.startswith("blocks/temporal/attention_out")}
        assert len(silent) == 2
        return traverse_util.unflatten_dict({**flat, **silent}, sep="/")


@functools.partial(jax.jit, static_argnums=0)
def predict(model, params, latents, levels, caption, video, num_valid):
    return model.apply({"params": params}, latents, levels, caption, *video, num_valid)


@functools.partial(jax.jit, static_argnums=0)
def encode(config, params, features, lengths):
    return STDiT3(config).apply({"params": params}, features, lengths, method="encode_caption")


@functools.partial(jax.jit, static_argnums=0)
def encode_null(config, params, lengths):
    return STDiT3(config).apply({"params": params}, lengths, method="encode_null_caption")


@functools.cache
def load(name: str) -> Golden:
    return Golden(name)


@pytest.fixture(params=["stdit3_a", "stdit3_b"])
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def golden_a() -> Golden:
    return load("stdit3_a")


# --- parity -----------------------------------------------------------------------------------------------------------


def test_a_level_for_every_frame_matches_the_reference(golden):
    output = golden.run()
    assert relative_error(output, channels_last(golden.outputs["per_frame_t"])) < FORWARD_TOLERANCE


def test_one_level_for_all_frames_matches_the_reference(golden):
    output = golden.run(levels=golden.uniform_levels)
    assert relative_error(output, channels_last(golden.outputs["scalar_t"])) < FORWARD_TOLERANCE


def test_clean_frames_match_the_reference_mask_on_the_noisy_frames(golden):
    # The reference normalises masked frames twice in its last layer; nothing reads them.
    output = golden.run(levels=np.where(golden.is_noisy, golden.uniform_levels, 0.0))
    reference = channels_last(golden.outputs["scalar_t_x_mask"])
    assert 0 < golden.is_noisy.sum() < golden.is_noisy.size
    assert relative_error(output[golden.is_noisy], reference[golden.is_noisy]) < FORWARD_TOLERANCE


def test_caption_keys_match_the_reference(golden):
    """Through the tap of the projected caption and each block's own weights."""
    e = golden.config.head_width
    for block, kind in enumerate(("spatial", "temporal")):
        for layer in range(golden.config.depth):
            source = f"{kind}_blocks.{layer}.cross_attn.kv_linear"
            both = golden.taps["y_embedder"] @ golden.weights[f"{source}.weight"].T + golden.weights[f"{source}.bias"]
            keys, values = (half.reshape(*half.shape[:-1], -1, e) for half in np.split(both, 2, -1))
            assert relative_error(golden.caption().keys[layer, block], keys) < FORWARD_TOLERANCE
            assert relative_error(golden.caption().values[layer, block], values) < FORWARD_TOLERANCE


def test_weights_survive_the_round_trip(golden):
    tensors = to_tensors(stdit3_rules(golden.config), golden.params)
    assert set(tensors) == set(golden.weights) - {"rope.freqs"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, golden.weights[name], err_msg=name)


# --- what mixes with what ---------------------------------------------------------------------------------------------


def test_a_partly_filled_window_is_a_shorter_window(golden_a):
    t = golden_a.latents.shape[1]
    full = golden_a.run(num_valid=np.array([4, t]))
    short = golden_a.run(latents=golden_a.latents[:, :4], levels=golden_a.levels[:, :4])
    assert relative_error(full[0, :4], short[0]) < 1e-5
    assert relative_error(full[1], golden_a.run()[1]) < 1e-5
    assert relative_error(full[0, :4], golden_a.run()[0, :4]) > 1e-3
    assert np.isfinite(full).all()


def test_only_temporal_attention_mixes_frames(golden_a):
    changed = golden_a.latents.copy()
    changed[:, 2] += 1.0
    others = np.arange(changed.shape[1]) != 2
    for params, mixes in ((golden_a.params_without_temporal_attention, False), (golden_a.params, True)):
        difference = np.abs(golden_a.run(params, changed) - golden_a.run(params)).max((0, 2, 3, 4))
        assert difference[2] > 1e-2
        assert (difference[others] > 1e-4).all() if mixes else not difference[others].any()


def test_samples_of_a_batch_do_not_mix(golden_a):
    changed = golden_a.latents.copy()
    changed[1] += 1.0
    np.testing.assert_array_equal(golden_a.run(latents=changed)[0], golden_a.run()[0])


# --- captions ---------------------------------------------------------------------------------------------------------


def test_each_prompt_holds_for_its_share_of_the_frames(golden_a):
    """Without temporal attention, a frame's output depends on its own prompt only."""
    run = functools.partial(
        golden_a.run,
        golden_a.params_without_temporal_attention,
        golden_a.latents[:, :4],
        golden_a.levels[:, :4],
    )
    one, other = golden_a.caption(), golden_a.null_caption()
    both = Caption(
        keys=jnp.concatenate([one.keys, other.keys], 3),
        values=jnp.concatenate([one.values, other.values], 3),
        length=jnp.concatenate([one.length, other.length], 1),
    )
    with_one, with_other = run(one), run(other)
    assert np.abs(with_one - with_other).max() > 1e-2
    for prompts, first, second in (
        ([0, 1], with_one, with_other),
        ([1, 0], with_other, with_one),
        ([0, 0], with_one, with_one),
    ):
        output = run(take(both, jnp.array(prompts)))
        np.testing.assert_allclose(output[:, :2], first[:, :2], atol=1e-5)
        np.testing.assert_allclose(output[:, 2:], second[:, 2:], atol=1e-5)


def test_the_same_prompt_twice_is_one_prompt(golden_a):
    run = functools.partial(golden_a.run, None, golden_a.latents[:, :4], golden_a.levels[:, :4])
    assert relative_error(run(take(golden_a.caption(), jnp.array([0, 0]))), run()) < 1e-5


def test_the_padding_of_a_caption_is_not_read(golden_a):
    features = golden_a.features.copy()
    for i, length in enumerate(golden_a.lengths[:, 0]):
        features[i, :, length:] = 100.0
    caption = encode(golden_a.config, golden_a.params, features, golden_a.lengths)
    np.testing.assert_array_equal(golden_a.run(caption=caption), golden_a.run())


def test_an_empty_caption_is_finite(golden_a):
    empty = golden_a.caption().replace(length=np.zeros_like(golden_a.lengths))
    output = golden_a.run(caption=empty)
    assert np.isfinite(output).all()
    assert np.abs(output - golden_a.run()).max() > 1e-3


def test_the_null_caption_is_its_features_encoded_at_the_prompts_lengths(golden_a):
    features = np.broadcast_to(golden_a.weights["y_embedder.y_embedding"], golden_a.features.shape)
    expected = encode(golden_a.config, golden_a.params, features, golden_a.lengths)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), golden_a.null_caption(), expected)


def test_concatenated_captions_run_side_by_side(golden_a):
    prompt, null = golden_a.caption(), golden_a.null_caption()
    first = Caption(prompt.keys[:, :, :1], prompt.values[:, :, :1], prompt.length[:1])
    second = Caption(null.keys[:, :, 1:], null.values[:, :, 1:], null.length[1:])
    both = golden_a.run(caption=concatenate([first, second]))
    np.testing.assert_allclose(both[0], golden_a.run()[0], atol=1e-5)
    np.testing.assert_allclose(both[1], golden_a.run(caption=null)[1], atol=1e-5)


def test_captions_that_do_not_fit_are_named(golden_a):
    with pytest.raises(ConfigError, match=r"caption is for a batch of 2, the latents are a batch of 1"):
        golden_a.run(latents=golden_a.latents[:1], levels=golden_a.levels[:1])
    with pytest.raises(ConfigError, match=r"2 prompts cannot share 7 latent frames"):
        golden_a.run(caption=take(golden_a.caption(), jnp.array([0, 0])))


# --- precision, training, size ----------------------------------------------------------------------------------------


def test_bfloat16_stays_near_float32(golden_a):
    assert 1e-4 < relative_error(golden_a.run(dtype=jnp.bfloat16), golden_a.run()) < 5e-2


def test_what_must_be_float32_is_float32_in_bfloat16(golden_a):
    """Sinusoids and rotary angles, norm statistics, softmax; and what the levels pass through."""
    model = STDiT3(golden_a.config, jnp.bfloat16)
    inputs = golden_a.latents, golden_a.levels, golden_a.caption(), *golden_a.video
    check_float32(jax.make_jaxpr(model.apply)({"params": golden_a.params}, *inputs), also=("cos", "sin"))


def test_what_is_recomputed_does_not_change_the_gradient(golden_a):
    caption = golden_a.caption()

    def loss(remat, blocks):
        model = STDiT3(golden_a.config, remat=remat)
        params = {**golden_a.params, "blocks": blocks}
        output = model.apply({"params": params}, golden_a.latents, golden_a.levels, caption, *golden_a.video)
        return jnp.square(output).mean()

    blocks = golden_a.params["blocks"]
    kept, gradients = {}, {}
    for remat in REMAT_POLICIES:
        f = functools.partial(loss, remat)
        residuals = jax.eval_shape(lambda blocks, f=f: jax.vjp(f, blocks)[1], blocks)
        kept[remat] = sum(leaf.size for leaf in jax.tree.leaves(residuals))
        gradients[remat] = jax.jit(jax.grad(f), compiler_options=QUICK)(blocks)
    assert kept["full"] < kept["attention"] < kept["none"] / 2
    for remat in ("full", "attention"):
        errors = jax.tree.map(lambda a, b: relative_error(a, np.asarray(b)), gradients[remat], gradients["none"])
        assert max(jax.tree.leaves(errors)) < 1e-5
    with pytest.raises(ConfigError, match="remat 'some' is not known; use one of none, attention, full"):
        jax.eval_shape(functools.partial(loss, "some"), blocks)


def test_a_new_model_predicts_zero_and_a_moved_one_trains_every_parameter():
    config = dataclasses.replace(tiny().stdit3, depth=1)
    latents, levels = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 4)).astype(np.float32), np.full((1, 2), 0.5)
    video = np.full((1,), 24.0), np.full((1,), 32.0), np.full((1,), 32.0)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def loss_and_gradient(params):
        def loss(params):
            model, variables = STDiT3(config, remat="full"), {"params": params}
            null = model.apply(variables, jnp.array([[3]]), method="encode_null_caption")
            return jnp.square(model.apply(variables, latents, levels, null, *video)).sum()

        return jax.value_and_grad(loss)(params)

    init = jax.jit(functools.partial(STDiT3(config).init, method="init_all"), compiler_options=QUICK)
    params = init(jax.random.key(0))["params"]
    assert loss_and_gradient(params)[0] == 0

    noise = np.random.default_rng(1)
    moved = jax.tree.map(lambda leaf: leaf + noise.normal(scale=0.1, size=leaf.shape).astype(np.float32), params)
    loss, gradient = loss_and_gradient(moved)
    assert loss > 0
    for path, leaf in traverse_util.flatten_dict(gradient, sep="/").items():
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize(("config", "size"), [(STDiT3Config(), 1_208_872_736), (STDIT3_3B, 3_183_440_336)])
def test_full_sizes_have_the_published_parameters(config, size):
    leaves = jax.tree.leaves(abstract_params(config))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert sum(leaf.size for leaf in leaves) == size
