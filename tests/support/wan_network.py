"""The small Wan transformers whose weights a golden file carries."""

import functools

import jax
from support import golden_data
from support.pytorch_layout import to_params

from pavdm_jax.conversion.wan import wan_rules
from pavdm_jax.models.wan import WanTransformer
from pavdm_jax.wan_config import WanConfig

FPS = (16.0, 24.0)
"""A frame rate for each of the reference's two codes."""


def wan_network_config(settings: dict) -> WanConfig:
    return WanConfig(
        depth=settings["num_layers"],
        hidden_size=settings["dim"],
        num_heads=settings["num_heads"],
        mlp_size=settings["ffn_dim"],
        latent_channels=settings["in_dim"],
        caption_channels=settings["text_dim"],
        max_caption_tokens=settings["text_len"],
        sinusoid_width=settings["freq_dim"],
        embeds_fps=settings["inject_sample_info"],
    )


def abstract_wan(config: WanConfig) -> dict:
    """The shapes of the network's parameters."""
    return jax.eval_shape(lambda: WanTransformer(config).init(jax.random.key(0), method="init_all")["params"])


@functools.cache
def trajectory_network() -> tuple[WanConfig, dict]:
    """Config and parameters of the network of all stored trajectories."""
    settings, arrays = golden_data.load("skyreels/trajectory_dit")
    config = wan_network_config(settings)
    return config, to_params(wan_rules(config, "original"), arrays["weights"], abstract_wan(config))
