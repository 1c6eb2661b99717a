"""Counted arithmetic: the published size, and XLA's own count of a network so shallow that its scan has one step."""

import dataclasses

import jax
import jax.numpy as jnp

from pavdm_jax.ahead_of_time.chips import CHIPS
from pavdm_jax.config import OPEN_SORA_1_2, tiny
from pavdm_jax.flops import forward_flops, peak_flops, shift_flops, train_flops
from pavdm_jax.models.stdit3 import STDiT3, STDiT3Config


def test_the_published_transformer_takes_31_tflop_for_a_window():
    assert round(forward_flops(STDiT3Config(), 35, 15 * 27, 300) / 1e12, 1) == 31.4
    # Five steps, with and without the prompt.
    assert round(shift_flops(OPEN_SORA_1_2, 240, 424) / 1e12) == 314


def test_xla_counts_the_same_within_the_norms():
    config = STDiT3Config(depth=1, hidden_size=768, num_heads=8, caption_channels=16, max_caption_tokens=40)
    network, (b, frames, h, w) = STDiT3(config), (1, 10, 6, 8)
    shape = jax.ShapeDtypeStruct
    params = jax.eval_shape(lambda key: network.init(key, method="init_all"), jax.random.key(0))["params"]
    variables = {"params": params}
    caption = jax.eval_shape(
        lambda v, x, n: network.apply(v, x, n, method="encode_caption"),
        variables,
        shape((b, 1, 40, 16), jnp.float32),
        shape((b, 1), jnp.int32),
    )
    latents, levels, one = (
        shape((b, frames, h, w, 4), jnp.float32),
        shape((b, frames), jnp.float32),
        shape((b,), jnp.float32),
    )
    lowered = jax.jit(network.apply).lower(variables, latents, levels, caption, one, one, one)
    counted = lowered.compile().cost_analysis()["flops"]
    # XLA counts the level's embedding and modulation, too, once a latent frame.
    d = config.hidden_size
    modulation = frames * 2 * (256 * d + d * d + 6 * d * d)
    expected = forward_flops(config, frames, h * w // 4, 40) + modulation
    assert expected < counted < 1.05 * expected


def test_arithmetic_grows_with_the_window_and_the_steps():
    config = tiny()
    more_steps = dataclasses.replace(config, window=dataclasses.replace(config.window, steps=12))
    assert shift_flops(more_steps, 16, 24) == 2 * shift_flops(config, 16, 24)
    assert 2 * shift_flops(dataclasses.replace(config, guidance_scale=1.0), 16, 24) == shift_flops(config, 16, 24)
    assert shift_flops(config, 32, 48) > 4 * shift_flops(config, 16, 24)


def test_a_training_step_is_three_forward_passes_and_the_captions():
    config, forward = OPEN_SORA_1_2.stdit3, forward_flops(STDiT3Config(), 35, 15 * 27, 300)
    assert 6 * forward < train_flops(config, (2, 35, 30, 53, 4)) < 1.01 * 6 * forward


def test_the_peak_is_known_by_the_kind_of_device():
    known = {name: peak_flops(chip.kind) for name, chip in CHIPS.items()}
    assert known["h100"] == 989e12 and known["v5e"] == 197e12 and known["v5p"] == 459e12
    assert all(known.values())
    assert (
        peak_flops("NVIDIA L40") == 181e12 and peak_flops("NVIDIA L40S") == 362e12 and peak_flops("NVIDIA L4") == 121e12
    )
    assert peak_flops("NVIDIA H100 NVL") == 835e12
    assert peak_flops("NVIDIA A100-SXM4-40GB") == 312e12 and peak_flops("NVIDIA RTX A1000") is None
    assert peak_flops(jax.devices()[0].device_kind) is None  # a CPU
