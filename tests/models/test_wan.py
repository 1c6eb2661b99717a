"""Wan's transformer against the reference (goldens skyreels/dit_a, dit_b and stored samplings), and what it may mix."""

import functools

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from support import golden_data
from support.golden_data import channels_last, relative_error
from support.nightly import nightly
from support.precision import check_float32
from support.pytorch_layout import to_params, to_tensors
from support.wan_network import FPS, abstract_wan, wan_network_config

from pavdm_jax.conversion.wan import wan_rules
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.caption import Caption, take
from pavdm_jax.models.depth import REMAT_POLICIES
from pavdm_jax.models.embeddings import space_time_rotation
from pavdm_jax.models.wan import Block, WanTransformer
from pavdm_jax.wan_config import SKYREELS_V2_DF_1_3B, SKYREELS_V2_DF_14B, WanConfig

pytestmark = pytest.mark.usefixtures("fully_optimised")

TOLERANCE = 1e-5
"""Of a forward: two implementations of the reference differ by 4e-7, the rest is another order of summation."""


QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Golden:
    """A golden file as this project's config, parameters and inputs."""

    def __init__(self, name: str):
        settings, arrays = golden_data.load(f"skyreels/{name}")
        self.config = wan_network_config(settings)
        self.weights, self.taps, self.outputs = arrays["weights"], arrays["taps"], arrays["outputs"]
        self.params = to_params(wan_rules(self.config, "original"), self.weights, abstract_wan(self.config))
        inputs = arrays["inputs"]
        self.latents = channels_last(inputs["x"])
        self.timesteps = inputs["t_per_frame"]
        self.uniform_timesteps = np.broadcast_to(inputs["t_scalar"][:, None], self.timesteps.shape)
        self.fps = np.take(FPS, inputs.get("fps", [0, 0])).astype(np.float32)
        self.features, self.lengths = inputs["context"][:, None], inputs["context_lengths"][:, None]

    @functools.cached_property
    def caption(self) -> Caption:
        return encode(self.config, self.params, self.features, self.lengths)

    def run(self, latents=None, timesteps=None, caption=None, fps=None, num_valid=None, params=None, **attributes):
        """Velocity, noise minus clean as in the reference; everything that is not given is the golden's."""
        output = predict(
            WanTransformer(self.config, **attributes),
            self.params if params is None else params,
            self.latents if latents is None else latents,
            self.timesteps if timesteps is None else timesteps,
            self.caption if caption is None else caption,
            self.fps if fps is None else fps,
            num_valid,
        )
        assert output.dtype == jnp.float32
        return -np.asarray(output)


@functools.partial(jax.jit, static_argnums=0)
def predict(model, params, latents, timesteps, caption, fps, num_valid):
    return model.apply({"params": params}, latents, timesteps, caption, fps, num_valid)


@functools.partial(jax.jit, static_argnums=0)
def encode(config, params, features, lengths):
    return WanTransformer(config).apply({"params": params}, features, lengths, method="encode_caption")


def tokens(patches: np.ndarray) -> np.ndarray:
    """[b, d, t, h, w] → [b, t, s, d]."""
    return einops.rearrange(patches, "b d t h w -> b t (h w) d")


load = functools.cache(Golden)


@pytest.fixture(params=["dit_a", "dit_b"])
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def golden_a() -> Golden:
    return load("dit_a")


# --- parity -----------------------------------------------------------------------------------------------------------


def test_a_timestep_for_every_frame_matches_the_reference(golden):
    """Also where the samples of a batch have different frame rates, which the reference runs one by one."""
    assert relative_error(golden.run(), channels_last(golden.outputs["per_frame_t"])) < TOLERANCE


def test_one_timestep_for_all_frames_matches_the_reference(golden):
    output = golden.run(timesteps=golden.uniform_timesteps)
    assert relative_error(output, channels_last(golden.outputs["scalar_t"])) < TOLERANCE


def test_the_embeddings_match_the_reference(golden):
    model, taps = WanTransformer(golden.config), golden.taps
    inputs = golden.latents, golden.timesteps, golden.caption, golden.fps
    _, kept = jax.jit(functools.partial(model.apply, capture_intermediates=True))({"params": golden.params}, *inputs)
    parts = {name: part for name, part in kept["intermediates"].items() if name != "__call__"}
    seen = {name: np.asarray(part["__call__"][0]) for name, part in parts.items()}
    rows = np.prod(golden.timesteps.shape)
    assert relative_error(seen["patch_embed"], tokens(taps["patch_embedding"])) < TOLERANCE
    assert relative_error(seen["level_embed"].reshape(rows, -1), taps["time_embedding"]) < TOLERANCE
    assert relative_error(seen["modulation"].reshape(rows, -1), taps["time_projection"]) < TOLERANCE
    assert ("fps_embed" in seen) == golden.config.embeds_fps
    if golden.config.embeds_fps:
        assert relative_error(seen["fps_embed"], taps["fps_projection"]) < TOLERANCE


def test_a_block_matches_the_reference_in_each_of_its_parts(golden):
    """Given what the reference's first block is given."""
    config, taps, (b, t) = golden.config, golden.taps, golden.timesteps.shape
    d, (_, _, _, h, w) = config.hidden_size, taps["patch_embedding"].shape
    modulation = taps["time_projection"].reshape(b, t, 6, d)
    if config.embeds_fps:
        modulation = modulation + taps["fps_projection"].reshape(b, 1, 6, d)
    block, layer = Block(config, jnp.float32, "xla"), jax.tree.map(lambda x: x[0], golden.params["blocks"])
    rotation = space_time_rotation(t, h, w, config.head_width)
    caption = golden.caption.keys[0], golden.caption.values[0]
    (output, _), kept = jax.jit(functools.partial(block.apply, capture_intermediates=True))(
        {"params": layer}, tokens(taps["patch_embedding"]), *caption, modulation, rotation, None
    )
    for theirs, ours in (("self_attn", "attention_out"), ("cross_attn", "cross_out"), ("ffn", "mlp_out")):
        seen = kept["intermediates"][ours]["__call__"][0]
        assert relative_error(seen.reshape(b, t * h * w, d), taps[f"blocks.0.{theirs}"]) < TOLERANCE
    assert relative_error(output.reshape(b, t * h * w, d), taps["blocks.0"]) < TOLERANCE


# --- what mixes with what ---------------------------------------------------------------------------------------------


def test_a_partly_filled_window_is_a_shorter_window(golden_a):
    t = golden_a.latents.shape[1]
    full = golden_a.run(num_valid=np.array([4, t]))
    short = golden_a.run(golden_a.latents[:, :4], golden_a.timesteps[:, :4])
    assert relative_error(full[0, :4], short[0]) < TOLERANCE
    assert relative_error(full[1], golden_a.run()[1]) < TOLERANCE
    assert relative_error(full[0, :4], golden_a.run()[0, :4]) > 1e-3
    assert np.isfinite(full).all()


def test_samples_of_a_batch_do_not_mix(golden_a):
    changed = golden_a.latents.copy()
    changed[1] += 1.0
    np.testing.assert_array_equal(golden_a.run(changed)[0], golden_a.run()[0])


def test_timesteps_are_whole_numbers_up_to_999(golden_a):
    fractions = golden_a.timesteps + np.float32(0.9)
    np.testing.assert_array_equal(golden_a.run(timesteps=fractions), golden_a.run())
    noise = np.full_like(golden_a.timesteps, 999)
    np.testing.assert_array_equal(golden_a.run(timesteps=noise + 1), golden_a.run(timesteps=noise))


def test_16_frames_per_second_differ_from_all_other_rates(golden_a):
    at = {fps: golden_a.run(fps=np.full(2, fps, np.float32)) for fps in (16, 24, 30)}
    np.testing.assert_array_equal(at[24], at[30])
    assert np.abs(at[16] - at[24]).max() > 1e-2
    without = load("dit_b")
    np.testing.assert_array_equal(without.run(fps=np.full(2, 24, np.float32)), without.run())


# --- captions ---------------------------------------------------------------------------------------------------------


def test_the_padding_of_a_caption_counts_as_zeros(golden_a):
    features = golden_a.features.copy()
    for sample, length in enumerate(golden_a.lengths[:, 0]):
        features[sample, :, length:] = 100.0
    caption = encode(golden_a.config, golden_a.params, features, golden_a.lengths)
    np.testing.assert_array_equal(golden_a.run(caption=caption), golden_a.run())
    assert (np.asarray(golden_a.caption.length) == golden_a.config.max_caption_tokens).all()


def test_captions_of_another_padded_length_are_refused(golden_a):
    with pytest.raises(ConfigError, match="captions have 23 tokens; pad them to 24"):
        encode(golden_a.config, golden_a.params, golden_a.features[:, :, 1:], golden_a.lengths)


def test_each_prompt_holds_for_its_share_of_the_frames(golden_a):
    """Without self-attention, a frame's output depends on its own prompt only."""
    flat = traverse_util.flatten_dict(golden_a.params, sep="/")
    silent = {k: np.zeros_like(v) for k, v in flat.items() if k.startswith("blocks/attention_out")}
    assert len(silent) == 2
    params = traverse_util.unflatten_dict({**flat, **silent}, sep="/")
    run = functools.partial(golden_a.run, golden_a.latents[:, :4], golden_a.timesteps[:, :4], params=params)
    features = np.stack([golden_a.features[:, 0], golden_a.features[::-1, 0]], 1)
    lengths = np.stack([golden_a.lengths[:, 0], golden_a.lengths[::-1, 0]], 1)
    both = encode(golden_a.config, golden_a.params, features, lengths)
    with_one, with_other = (run(caption=take(both, np.array([prompt]))) for prompt in (0, 1))
    assert np.abs(with_one - with_other).max() > 1e-2
    output = run(caption=take(both, np.array([1, 0])))
    np.testing.assert_allclose(output[:, :2], with_other[:, :2], atol=1e-5)
    np.testing.assert_allclose(output[:, 2:], with_one[:, 2:], atol=1e-5)


def test_captions_that_do_not_fit_are_named(golden_a):
    with pytest.raises(ConfigError, match=r"caption is for a batch of 2, the latents are a batch of 1"):
        golden_a.run(golden_a.latents[:1], golden_a.timesteps[:1], fps=golden_a.fps[:1])
    with pytest.raises(ConfigError, match=r"2 prompts cannot share 7 latent frames"):
        golden_a.run(caption=take(golden_a.caption, np.array([0, 0])))


# --- precision, training, size ----------------------------------------------------------------------------------------


def test_bfloat16_stays_near_float32(golden_a):
    assert 1e-4 < relative_error(golden_a.run(dtype=jnp.bfloat16), golden_a.run()) < 5e-2


def test_what_must_be_float32_is_float32_in_bfloat16(golden_a):
    model = WanTransformer(golden_a.config, jnp.bfloat16)
    inputs = golden_a.latents, golden_a.timesteps, golden_a.caption, golden_a.fps
    check_float32(jax.make_jaxpr(model.apply)({"params": golden_a.params}, *inputs))


@nightly
def test_what_is_recomputed_does_not_change_the_gradient(golden_a):
    def loss(remat, blocks):
        model = WanTransformer(golden_a.config, remat=remat)
        params = {**golden_a.params, "blocks": blocks}
        output = model.apply(
            {"params": params}, golden_a.latents, golden_a.timesteps, golden_a.caption, golden_a.fps, np.array([7, 4])
        )
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
        assert max(jax.tree.leaves(errors)) < 1e-4
    with pytest.raises(ConfigError, match="remat 'some' is not known; use one of none, attention, full"):
        jax.eval_shape(functools.partial(loss, "some"), blocks)


def test_a_new_model_predicts_zero_and_a_moved_one_trains_every_parameter():
    config = WanConfig(1, 32, 2, 48, latent_channels=4, caption_channels=8, max_caption_tokens=6, sinusoid_width=16)
    latents = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 4)).astype(np.float32)
    features = np.random.default_rng(1).normal(size=(2, 1, 6, 8)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def loss_and_gradient(params):
        def loss(params):
            model, variables = WanTransformer(config, remat="full"), {"params": params}
            caption = model.apply(variables, features, np.array([[3], [6]]), method="encode_caption")
            output = model.apply(variables, latents, np.array([[10, 500], [999, 0]]), caption, np.array(FPS))
            return jnp.square(output).sum()

        return jax.value_and_grad(loss)(params)

    init = jax.jit(functools.partial(WanTransformer(config).init, method="init_all"), compiler_options=QUICK)
    params = init(jax.random.key(0))["params"]
    assert loss_and_gradient(params)[0] == 0

    noise = np.random.default_rng(2)
    moved = jax.tree.map(lambda leaf: leaf + noise.normal(scale=0.1, size=leaf.shape).astype(np.float32), params)
    loss, gradient = loss_and_gradient(moved)
    assert loss > 0
    for path, leaf in traverse_util.flatten_dict(gradient, sep="/").items():
        assert np.abs(leaf).max() > 0, path


def test_weights_survive_the_round_trip(golden):
    tensors = to_tensors(wan_rules(golden.config, "original"), golden.params)
    assert set(tensors) == set(golden.weights)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, golden.weights[name], err_msg=name)


@pytest.mark.parametrize(
    ("config", "size"), [(SKYREELS_V2_DF_1_3B, 1_435_525_696), (SKYREELS_V2_DF_14B, 14_288_491_584)]
)
def test_full_sizes_have_the_published_parameters(config, size):
    leaves = jax.tree.leaves(abstract_wan(config))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert sum(leaf.size for leaf in leaves) == size


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="not divisible by num_heads 12 into even heads"):
        WanConfig(hidden_size=1548)
    with pytest.raises(ConfigError, match="head width 4 must be at least 6"):
        WanConfig(hidden_size=16, num_heads=4)
    with pytest.raises(ConfigError, match="sinusoid_width 7 must be even"):
        WanConfig(sinusoid_width=7)
