"""The sizes of Open-Sora's networks: those of `config.json`, and where that lacks them, of the tensors' shapes."""

from collections.abc import Mapping
from typing import Any

from pavdm_jax.config import SpatialVAEConfig, STDiT3Config, T5Config, TemporalVAEConfig, VAEConfig
from pavdm_jax.conversion.sizes import Shapes, field
from pavdm_jax.errors import ConfigError


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
