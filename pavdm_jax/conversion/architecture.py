"""Recognises which network a set of tensors is, and its sizes.

The sizes are those of `config.json`, and where it does not have them, those of the tensors' shapes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from pavdm_jax.config import (
    OPEN_SORA_1_2,
    ModelConfig,
    SpatialVAEConfig,
    STDiT3Config,
    T5Config,
    TemporalVAEConfig,
    VAEConfig,
)
from pavdm_jax.conversion.sizes import Shapes, field
from pavdm_jax.errors import ConfigError

PartConfig = STDiT3Config | VAEConfig | T5Config

TITLES = {
    "stdit3": "Open-Sora v1.2's transformer (STDiT3)",
    "vae": "Open-Sora v1.2's VAE",
    "t5": "a T5 v1.1 text encoder",
}

OPTIONS = {"stdit3": "--stdit", "vae": "--vae", "t5": "--text-encoder"}

SIGNS = (
    (
        r".*(lora_[AB]|lora_up|lora_down|lora_embedding).*",
        "a LoRA, which changes a model and is none; merge it into its model first",
    ),
    (r"(spatial_vae\.module|temporal_vae)\..*", "vae"),
    (r"(spatial|temporal)_blocks\.\d+\..*", "stdit3"),
    (r"encoder\.block\.\d+\.layer\.1\.DenseReluDense\.wi_0\.weight", "t5"),
    (r"encoder\.block\.\d+\.layer\.1\.DenseReluDense\.wi\.weight", "a T5 of version 1.0; version 1.1 is needed"),
    (
        r"(diffusion_model|model\.diffusion_model|cond_stage_model|first_stage_model)\..*",
        "a Stable Diffusion checkpoint",
    ),
    (r"(down_blocks\.\d+\.attentions|mid_block\.attentions|time_embedding)\..*", "a Stable Diffusion UNet"),
    (r"(encoder|decoder)\.(down_blocks|up_blocks|mid_block)\..*", "an image VAE alone, without its temporal half"),
    (r"(text_model|vision_model)\..*", "a CLIP model"),
    (r"blocks\.\d+\.(attn|cross_attn|attn_temp)\..*", "another video transformer (Open-Sora 1.0 or 1.1, or PixArt)"),
    (r"(double_blocks|single_blocks|transformer_blocks)\.\d+\..*", "a transformer of another system"),
)
"""Patterns of tensor names, and the network that has them; the first pattern that matches any name decides."""


def identify(names: Mapping[str, Any]) -> str:
    """What a set of tensor names is: "stdit3", "vae", "t5", another network in words, or "" for something unknown."""
    for pattern, kind in SIGNS:
        if any(re.fullmatch(pattern, name) for name in names):
            return kind
    return ""


def check_part(part: str, label: str, names: Mapping[str, Any]) -> None:
    """Check that weights are of the network for which they were given.

    Raises:
      ConfigError: they are not; the message names the network that they look like, and its option.
    """
    kind = identify(names)
    looks = f"{OPTIONS[part]}: {label} looks like"
    if kind == "":
        raise ConfigError(f"{OPTIONS[part]}: {label} holds nothing known; needed is {TITLES[part]}")
    if kind in TITLES and kind != part:
        raise ConfigError(f"{looks} {TITLES[kind]}, not {TITLES[part]}; give it as {OPTIONS[kind]}")
    if kind != part:
        raise ConfigError(f"{looks} {kind}; needed is {TITLES[part]}")


# --- sizes ------------------------------------------------------------------------------------------------------------


def stdit3_config(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> STDiT3Config:
    """The sizes of a transformer; `config` is the content of its config.json, or empty.

    Raises:
      ConfigError: config.json has a value that is impossible or not supported.
    """
    sizes, usual = Shapes(shapes), STDiT3Config()
    if config.get("pred_sigma", True) is False:
        raise ConfigError("config.json: pred_sigma false is not supported; outputs must have 8 channels")
    hidden = field(config, "hidden_size", int, sizes.size("x_embedder.proj.weight", 0, usual.hidden_size))
    head = sizes.size("spatial_blocks.0.attn.q_norm.weight", 0, usual.head_width)
    mlp = sizes.size("spatial_blocks.0.mlp.fc1.weight", 0, usual.mlp_size)
    patch = config.get("patch_size")
    if patch is None:
        patch = [1, *(sizes.size("x_embedder.proj.weight", axis, 2) for axis in (3, 4))]
    is_patch = isinstance(patch, list) and len(patch) == 3 and all(type(n) is int and 0 < n <= 64 for n in patch)
    if not is_patch or patch[0] != 1:
        raise ConfigError(f"config.json: patch_size {patch!r} is not [1, rows, columns]")
    return STDiT3Config(
        depth=field(config, "depth", int, sizes.count("spatial_blocks.{i}")),
        hidden_size=hidden,
        num_heads=field(config, "num_heads", int, max(1, hidden // head)),
        mlp_ratio=field(config, "mlp_ratio", float, mlp / hidden),
        patch_size=(patch[1], patch[2]),
        latent_channels=field(config, "in_channels", int, sizes.size("x_embedder.proj.weight", 1, 4)),
        caption_channels=field(config, "caption_channels", int, sizes.size("y_embedder.y_proj.fc1.weight", 1, 4096)),
        max_caption_tokens=field(config, "model_max_length", int, sizes.size("y_embedder.y_embedding", 0, 300)),
        base_size=field(config, "input_sq_size", int, usual.base_size),
    )


def vae_config(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> VAEConfig:
    """The sizes of a video VAE, all from shapes, because the published config.json does not have them."""
    sizes, spatial, temporal = Shapes(shapes), SpatialVAEConfig(), TemporalVAEConfig()
    module, level = "spatial_vae.module", "spatial_vae.module.encoder.down_blocks.{i}"
    channels = tuple(
        sizes.size(f"{level}.resnets.0.conv1.weight".replace("{i}", str(i)), 0, 1) for i in range(sizes.count(level))
    )
    filters = sizes.size("temporal_vae.encoder.conv_in.conv.weight", 0, temporal.filters)
    levels = sizes.count("temporal_vae.encoder.block_res_blocks.{i}")
    widths = [
        sizes.size(f"temporal_vae.encoder.block_res_blocks.{i}.0.conv1.conv.weight", 0, filters) for i in range(levels)
    ]
    return VAEConfig(
        spatial=SpatialVAEConfig(
            block_channels=channels or spatial.block_channels,
            layers_per_block=sizes.count(f"{module}.encoder.down_blocks.0.resnets." + "{i}")
            or spatial.layers_per_block,
            num_groups=num_groups(min(channels, default=128)),
            latent_channels=sizes.size(f"{module}.post_quant_conv.weight", 0, spatial.latent_channels),
        ),
        temporal=TemporalVAEConfig(
            filters=filters,
            num_res_blocks=sizes.count("temporal_vae.encoder.res_blocks.{i}") or temporal.num_res_blocks,
            channel_multipliers=tuple(width // filters for width in widths) or temporal.channel_multipliers,
            temporal_downsample=tuple(
                f"temporal_vae.encoder.conv_blocks.{gap}.conv.weight" in shapes for gap in range(max(levels, 1) - 1)
            )
            if levels
            else temporal.temporal_downsample,
            num_groups=num_groups(filters),
            latent_channels=sizes.size("temporal_vae.encoder.conv_in.conv.weight", 1, temporal.latent_channels),
        ),
        micro_frames=field(config, "micro_frame_size", int, VAEConfig().micro_frames),
    )


def num_groups(narrowest: int) -> int:
    """The number of groups of the group norms, which shapes do not show.

    It is 32, as published, or half the channels in networks with fewer than 64.
    """
    return max(1, min(32, narrowest // 2))


def t5_config(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> T5Config:
    """The sizes of a text encoder; see `stdit3_config`."""
    sizes, usual = Shapes(shapes), T5Config()
    attention = "encoder.block.0.layer.0.SelfAttention"
    form = config.get("feed_forward_proj", "gated-gelu")
    if form != "gated-gelu":
        raise ConfigError(f"config.json: feed_forward_proj {form!r} is another T5; version 1.1 has gated-gelu")
    table = "shared.weight" if "shared.weight" in shapes else "encoder.embed_tokens.weight"
    bias = f"{attention}.relative_attention_bias.weight"
    heads = field(config, "num_heads", int, sizes.size(bias, 1, usual.num_heads))
    return T5Config(
        vocab_size=field(config, "vocab_size", int, sizes.size(table, 0, usual.vocab_size)),
        d_model=field(config, "d_model", int, sizes.size(table, 1, usual.d_model)),
        d_kv=field(config, "d_kv", int, max(1, sizes.size(f"{attention}.q.weight", 0, heads * usual.d_kv) // heads)),
        d_ff=field(
            config, "d_ff", int, sizes.size("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0, usual.d_ff)
        ),
        num_layers=field(config, "num_layers", int, sizes.count("encoder.block.{i}")),
        num_heads=heads,
        relative_buckets=field(
            config, "relative_attention_num_buckets", int, sizes.size(bias, 0, usual.relative_buckets)
        ),
        relative_max_distance=field(config, "relative_attention_max_distance", int, usual.relative_max_distance),
    )


PART_CONFIGS = {"stdit3": stdit3_config, "vae": vae_config, "t5": t5_config}


def model_config(base: ModelConfig | None, kept: set[str], new: Mapping[str, PartConfig]) -> ModelConfig:
    """The config of a model with the parts `new` and the parts `kept` of the model `base`.

    The config of a part that the model does not have yet is adapted to the others, so that it can be added later.

    Raises:
      ConfigError: the sizes of the parts do not fit together.
    """
    base = base or OPEN_SORA_1_2
    parts: dict[str, Any] = {part: getattr(base, part) for part in PART_CONFIGS} | dict(new)
    stdit3, vae, t5 = parts["stdit3"], parts["vae"], parts["t5"]
    held = kept | set(new)
    if "stdit3" not in held:
        channels = vae.latent_channels if "vae" in held else stdit3.latent_channels
        caption = t5.d_model if "t5" in held else stdit3.caption_channels
        stdit3 = dataclasses.replace(stdit3, latent_channels=channels, caption_channels=caption)
    if "vae" not in held:
        same = {"latent_channels": stdit3.latent_channels}
        vae = dataclasses.replace(
            vae, spatial=dataclasses.replace(vae.spatial, **same), temporal=dataclasses.replace(vae.temporal, **same)
        )
    if "t5" not in held:
        t5 = dataclasses.replace(t5, d_model=stdit3.caption_channels)
    text = dataclasses.replace(base.text, max_tokens=stdit3.max_caption_tokens)
    try:
        return dataclasses.replace(base, stdit3=stdit3, vae=vae, t5=t5, text=text)
    except ConfigError as error:
        raise ConfigError(f"these parts do not fit together: {error}") from None
