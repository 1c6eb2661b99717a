"""Eight devices compute what one does.

Run by `tests/distributed/test_mesh.py` in a process of its own, in which the CPU counts as eight devices.

"Equal" is a difference of at most 1e-5 of the largest value: sums in another order. Sizes do not divide evenly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.golden_data import relative_error
from support.nightly import at_night, nightly
from support.tiny_model import CHUNK, PROMPT, TINY, tiny_model
from support.wan_network import trajectory_network

from pavdm_jax import generate, generate_stream
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.sampler import WindowState, sample_keys
from pavdm_jax.diffusion.window import plan_shifts
from pavdm_jax.distributed.mesh import MeshConfig, make_mesh, use_mesh
from pavdm_jax.distributed.partitioning import batch_sharding
from pavdm_jax.distributed.placement import place_batch, place_params, to_devices, to_host
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import Conditions, guidance_caption, run_segment
from pavdm_jax.models.networks import networks
from pavdm_jax.models.stdit3 import STDiT3
from pavdm_jax.models.wan import WanTransformer
from pavdm_jax.models.wan_vae import WanVAE, decode_next
from pavdm_jax.training.config import LoRAConfig, OptimizerConfig, ProgressiveDiffusion, ShapesData, Stage, TrainConfig
from pavdm_jax.training.parameters import trainable
from pavdm_jax.training.program import make_program, used_parts
from pavdm_jax.wan_config import WanVAEConfig, tiny_wan

TOLERANCE = 1e-5
EVERY_AXIS = [
    MeshConfig(2, 2, 2),
    *at_night(
        *(MeshConfig(*sizes) for sizes in ((8,), (1, 8), (1, 1, 8), (4, 2), (4, 1, 2), (1, 4, 2))),
    ),
]
"""A mesh that splits all axes; at night each axis alone and two of them, too: a training step takes long to compile."""

OTHER = "a large green triangle moves right"


def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_the_text_encoder_stays_where_it_is():
    """It may be too large for the devices; the networks that sample are on all of them."""
    stream = generate_stream(tiny_model(), PROMPT, CHUNK)
    devices = {part: len(jax.tree.leaves(params)[0].devices()) for part, params in stream.model.params.items()}
    assert devices == {"stdit3": 8, "vae": 8, "t5": 1}


# --- sampling ---------------------------------------------------------------------------------------------------------


@functools.cache
def shifts(mesh_config: MeshConfig, dtype=jnp.float32) -> np.ndarray:
    """The window after two shifts of two videos with a change of prompt: 20 latent frames of 3 × 5 tokens."""
    model = tiny_model()
    config = model.config
    mesh = make_mesh(mesh_config)
    params = place_params(model.params, mesh)
    features = (
        np.random.default_rng(0).normal(size=(2, 2, config.text.max_tokens, config.t5.d_model)).astype(np.float32)
    )
    lengths = np.array([[5, 3], [8, 1]], np.int32)
    latents = np.random.default_rng(1).normal(size=(2, config.window.window_size, 6, 10, 4)).astype(np.float32)
    plan = plan_shifts(config.window, level_table(config.window), 9, 1, (0, 0, 0, 1), start=2, stop=4)
    with use_mesh(mesh):
        caption = guidance_caption(params["stdit3"], features, lengths, config=config)
        state, finished = run_segment(
            Conditions(params["stdit3"], caption, *map(np.float32, (24, 96, 160, 4)), config, dtype, "xla"),
            WindowState(jnp.asarray(latents), sample_keys([3, 4])),
            plan,
        )
        assert state.latents.sharding.is_fully_replicated
    return np.concatenate([state.latents, *finished.latents], axis=1)


@pytest.mark.parametrize("mesh", [MeshConfig(1, 2, 4), *at_night(MeshConfig(2, 1, 4), MeshConfig(8))], ids=str)
def test_shifts_equal_those_of_one_device(mesh):
    assert np.abs(shifts(MeshConfig())).max() > 0.1
    assert relative_error(shifts(mesh), shifts(MeshConfig())) < TOLERANCE


def test_the_program_moves_between_tokens_and_frames():
    """Constraints have no effect, and raise no error, without a mesh or for unknown names: so look at the program."""
    config = tiny_model().config.stdit3
    params = tiny_model().params["stdit3"]
    mesh = make_mesh(MeshConfig(data=2, sequence=4))

    def lowered(latents):
        network, b = STDiT3(config), latents.shape[0]
        caption = network.apply({"params": params}, jnp.full((b, 1), 3), method="encode_null_caption")
        numbers = (jnp.ones((b,)) for _ in range(3))
        return network.apply({"params": params}, latents, jnp.ones(latents.shape[:2]), caption, *numbers)

    latents = jnp.zeros((2, 5, 6, 10, 4))
    assert "sharding_constraint" not in jax.jit(lowered).lower(latents).as_text()
    with use_mesh(mesh):
        program = jax.jit(lowered).lower(latents)
    batch = '{"data", "fsdp", "fsdp_rest"}'
    lines = [line for line in program.as_text().splitlines() if "sdy.sharding_constraint" in line]
    tokens = [line for line in lines if f'[{batch}, {{}}, {{"sequence"}}, {{}}]' in line]
    frames = [line for line in lines if f'[{batch}, {{"sequence"}}, {{}}, {{}}]' in line]
    assert len(frames) == 1  # into spatial attention
    assert len(tokens) == 2  # out of it, and at the network's entrance
    assert "all-to-all" in program.compile().as_text()


@nightly
def test_the_rows_of_a_causal_vae_on_several_devices_are_those_of_one():
    """Five latent rows on four devices, in two calls."""
    vae = WanVAE(WanVAEConfig(base_channels=4))
    params = vae.init(jax.random.key(0), jnp.zeros((1, 5, 8, 8, 3)), method="reconstruct")["params"]
    latents = jax.random.normal(jax.random.key(1), (2, 3, 5, 2, 16))

    def decode(mesh: MeshConfig) -> np.ndarray:
        decode_some = jax.jit(functools.partial(decode_next, vae))
        with use_mesh(make_mesh(mesh)):
            assert '{}, {"sequence"}, {}' in decode_some.lower(params, latents).as_text()  # the rows
            first, past = decode_some(params, latents[:, :2])
            return np.concatenate([first, decode_some(params, latents[:, 2:], past)[0]], axis=1)

    one, several = decode(MeshConfig()), decode(MeshConfig(data=2, sequence=4))
    assert one.shape == (2, 9, 40, 16, 3)
    assert relative_error(several, one) < TOLERANCE


@functools.cache
def wan_velocity(mesh_config: MeshConfig) -> np.ndarray:
    """Of three latent frames of 3 × 5 tokens, one of two windows being filled in part."""
    config, params = trajectory_network()
    mesh, rng = make_mesh(mesh_config), np.random.default_rng(0)
    placed = place_params(params, mesh)
    features = rng.normal(size=(2, 1, config.max_caption_tokens, config.caption_channels)).astype(np.float32)
    latents = rng.normal(size=(2, 3, 6, 10, config.latent_channels)).astype(np.float32)

    @jax.jit
    def velocity(params, features, latents):
        network = WanTransformer(config)
        caption = network.apply({"params": params}, features, jnp.array([[4], [7]]), method="encode_caption")
        times, fps, num_valid = jnp.array([[0, 20, 999], [500, 700, 0]]), jnp.array([16.0, 24.0]), jnp.array([3, 2])
        return network.apply({"params": params}, latents, times, caption, fps, num_valid)

    with use_mesh(mesh):
        return np.asarray(velocity(placed, features, latents))


@pytest.mark.parametrize(
    "mesh", [MeshConfig(1, 2, 4), *at_night(MeshConfig(2, 1, 4), MeshConfig(8), MeshConfig(1, 1, 8))], ids=str
)
def test_the_second_networks_velocity_equals_that_of_one_device(mesh):
    assert relative_error(wan_velocity(mesh), wan_velocity(MeshConfig())) < TOLERANCE


@pytest.mark.parametrize("config", [TINY, tiny_wan()], ids=lambda config: config.name)
def test_all_devices_encode_a_clip(config):
    """To float16, as one does."""
    model = tiny_model(config)
    frames = np.random.default_rng(0).integers(0, 256, (1, 21, 40, 24, 3), np.uint8)
    expected = jax.jit(networks(config).encode)(model.params["vae"], frames.astype(np.float32) / 127.5 - 1.0)
    found = Encoder(model).latents(frames)
    assert len(found.devices()) == 8
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def video(config=TINY, **options) -> np.ndarray:
    return generate(tiny_model(config), PROMPT, 2 * CHUNK + 3, height=32, width=24, **options)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (TINY, "progressive"),
        *at_night((TINY, "replacement"), (TINY, "noisy-replacement"), (tiny_wan(), "progressive")),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_video_of_every_method_is_that_of_one_device(config, method):
    rng = np.random.default_rng(0)
    start = rng.integers(0, 256, (CHUNK, 32, 24, 3), dtype=np.uint8) if method == "replacement" else None
    one, eight = (video(config, method=method, start=start, mesh=mesh) for mesh in ("single", "auto"))
    assert one.std() > 5
    assert np.abs(one.astype(int) - eight).max() <= 1  # a rounding apart, now and then
    assert (one != eight).mean() < 1e-3


@nightly
@pytest.mark.parametrize("config", [TINY, tiny_wan()], ids=lambda config: config.name)
def test_what_is_used_again_is_that_of_one_device(config):
    options = {"reuse_below": 0.9, "steps": 6}
    one, eight = (video(config, mesh=mesh, **options) for mesh in ("single", "data=2,sequence=4"))
    assert np.abs(one.astype(int) - eight).max() <= 1
    assert (one != video(config, mesh="single", steps=6)).any()


@pytest.mark.parametrize("config", [TINY, *at_night(tiny_wan())], ids=lambda config: config.name)
def test_a_stream_goes_on_on_another_mesh(config):
    timeline, frames = [(0, PROMPT), (1, OTHER)], 3 * CHUNK
    stream = generate_stream(tiny_model(config), timeline, frames, mesh="data=2,sequence=4")
    first = []
    while not first:
        first += stream.advance()
    programs = run_segment._cache_size()
    whole = np.concatenate(
        [*first, *generate_stream_from(config, stream.save(), timeline, frames, "data=2,sequence=4")], 1
    )
    assert run_segment._cache_size() == programs  # a restored position is placed as one that was computed
    moved = np.concatenate([*first, *generate_stream_from(config, stream.save(), timeline, frames, "single")], 1)
    assert whole.shape == (1, frames, 16, 24, 3)
    assert np.abs(whole.astype(int) - moved).max() <= 1


def generate_stream_from(config, saved: dict, timeline: list, frames: int, mesh: str):
    stream = generate_stream(tiny_model(config), timeline, frames, mesh=mesh)
    stream.restore(saved)
    return stream


def test_a_mesh_takes_all_devices():
    with pytest.raises(ConfigError, match="takes 6 devices and there are 8; these fit: data=1,sequence=8 or data=2"):
        video(mesh="data=2,sequence=3")
    with pytest.raises(ConfigError, match=r"these fit: data=8$"):
        video(mesh="data=3")


# --- training ---------------------------------------------------------------------------------------------------------


LORA = LoRAConfig(rank=2, layers=("qkv", "mlp_in"))


@functools.cache
def stepped(
    mesh_config: MeshConfig, accumulate: int = 1, lora: LoRAConfig | None = None, text_encoder: bool = False
) -> tuple:
    """The state after a training step, and the loss, on a batch of 8 windows with 20 latent frames of 3 × 5 tokens.

    AdamW's first moment is a tenth of the gradient, which is not clipped.
    """
    model = tiny_model()
    mesh = make_mesh(mesh_config)
    rng, tokens = np.random.default_rng(0), model.config.text.max_tokens
    batch = {
        "latents": rng.normal(size=(8, model.config.window.window_size, 6, 10, 4)).astype(np.float32),
        "length": rng.integers(1, 9, 8).astype(np.int32),
        "fps": np.full(8, 24, np.float32),
    }
    if text_encoder:
        batch["ids"] = rng.integers(3, 90, (8, tokens)).astype(np.int32)
    else:
        batch["features"] = rng.normal(size=(8, tokens, model.config.t5.d_model)).astype(np.float32)
    optimizer = OptimizerConfig(1e-2, 0, decay=False, epsilon=1e-3, clip_norm=1e9, accumulate=accumulate)
    stage = Stage("s", ProgressiveDiffusion(), ShapesData(), ("stdit3",), 2, 8, optimizer, lora=lora)
    config = TrainConfig(model.config, (stage,), init_from="a model")
    parameters = trainable({name: model.params[name] for name in used_parts(model.config, stage, batch)}, stage)
    batch = place_batch(batch, mesh, 8)
    program = make_program(config, stage, parameters, batch, mesh)
    state = program.init(to_devices(parameters.trained, jax.tree.map(lambda x: x.sharding, program.state.params)))
    with use_mesh(mesh):
        state, loss = program.step(state, to_devices(parameters.frozen, program.frozen), batch, jax.random.key(5))
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, program.state)
    if mesh_config.fsdp > 1 and lora is None:
        for tree in (state.params, state.ema, state.opt_state[1][0].mu, state.opt_state[1][0].nu):
            kernel = tree["stdit3/blocks/spatial/mlp_in/kernel"]
            assert kernel.addressable_shards[0].data.size == kernel.size / mesh_config.fsdp
    return to_host(state), float(loss)


def same_step(mesh: MeshConfig, **options) -> None:
    same(stepped(MeshConfig(), **options), stepped(mesh, **options))


def same(one: tuple, several: tuple) -> None:
    """All of the state is that of one device, each part of it relative to its own largest value."""
    (state, loss), (here, loss_here) = one, several
    assert abs(loss_here / loss - 1) < TOLERANCE
    assert int(state.step) == 1
    adam, adam_here = state.opt_state[1][0], here.opt_state[1][0]
    pairs = [(adam.mu, adam_here.mu), (adam.nu, adam_here.nu), (state.params, here.params), (state.ema, here.ema)]
    for ours, theirs in [*pairs, (state.totals, here.totals)]:
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(ours))
        assert scale > 0
        for (path, leaf), other in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
            assert np.abs(np.asarray(leaf) - np.asarray(other)).max() <= TOLERANCE * scale, path
    assert here.fault.tolist() == state.fault.tolist() == [-1, -1, 0]


@pytest.mark.parametrize("mesh", EVERY_AXIS, ids=str)
def test_a_training_step_equals_that_of_one_device(mesh):
    same_step(mesh)


@nightly
def test_a_training_step_of_adapters_in_parts_with_the_text_encoder_equals_that_of_one_device():
    same_step(MeshConfig(data=2, fsdp=2, sequence=2), accumulate=2, lora=LORA, text_encoder=True)


@nightly
def test_a_training_step_with_the_attention_of_gpus_equals_that_of_one_device(monkeypatch):
    """cuDNN's calls see the part of one device each; in its place is JAX's attention.

    15 tokens and 20 frames on 4 devices.
    """
    plain, mesh, parts = jax.nn.dot_product_attention, MeshConfig(data=2, sequence=4), set()

    def local(q, k, v, key_value_seq_lengths, implementation):
        parts.add(q.shape[:2])
        return plain(q, k, v, key_value_seq_lengths=key_value_seq_lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", local)
    monkeypatch.setattr("pavdm_jax.training.program.choose_backend", lambda *_: "cudnn")
    several = stepped.__wrapped__(mesh)
    videos = 8 // (mesh.data * mesh.fsdp)
    frames, tokens = 20 // mesh.sequence, -(-15 // mesh.sequence)
    assert parts >= {(videos * frames, 16), (videos * tokens, 20), (videos, 20 * tokens)}
    same(stepped(MeshConfig()), several)


def test_a_batch_that_does_not_divide_is_named():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, sequence=2))
    with pytest.raises(ConfigError, match=r"batch of 6 does not divide over 4 devices \(data times fsdp\); use 4 or 8"):
        batch_sharding(mesh, 6)
