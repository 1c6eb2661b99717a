"""The table of Wan 2.1's video autoencoder, in both of its published layouts: `Wan2.1_VAE.pth`, and diffusers'
`AutoencoderKLWan`, whose names are the aliases.
"""

from collections.abc import Mapping
from typing import Any

from pavdm_jax.conversion.rules import Rule
from pavdm_jax.errors import ConfigError
from pavdm_jax.wan_config import WanVAEConfig


def wan_vae_config(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> WanVAEConfig:
    """The sizes of an autoencoder: its width from shapes, the normalisation of latents from diffusers' config.json.

    Args:
      shapes: of the tensors, in either layout.
      config: the content of config.json, or empty, as beside `Wan2.1_VAE.pth`; what it lacks is as published.

    Raises:
      ConfigError: config.json has statistics of latents that are no numbers.
    """
    usual = WanVAEConfig()
    first = shapes.get("encoder.conv1.weight") or shapes.get("encoder.conv_in.weight") or (usual.base_channels,)
    statistics = {}
    for field, name in (("latent_mean", "latents_mean"), ("latent_deviation", "latents_std")):
        values = config.get(name, getattr(usual, field))
        if not isinstance(values, (list, tuple)) or not all(type(value) in (int, float) for value in values):
            raise ConfigError(f"config.json: {name} must be a list of numbers, one for each channel of a latent frame")
        statistics[field] = tuple(map(float, values))
    return WanVAEConfig(base_channels=first[0], **statistics)


def wan_vae_rules(config: WanVAEConfig) -> list[Rule]:
    """Every tensor of the autoencoder; the constants of the normalisation of latents are in no file."""
    levels = range(len(config.channel_multipliers))
    widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
    rules = _layer("conv1", "quant_conv", "quant_conv", POINTWISE) + _layer(
        "conv2", "post_quant_conv", "post_quant_conv", POINTWISE
    )
    # Upstream numbers the blocks of all levels in one; diffusers numbers those of the decoder by level.
    width, number = config.base_channels, 0
    for level in levels:
        for layer in range(config.num_res_blocks):
            theirs, diffusers = f"encoder.downsamples.{number}", f"encoder.down_blocks.{number}"
            ours = f"encoder/level_{level}_resnet_{layer}"
            rules += _res_block(theirs, diffusers, ours, shortcut=width != widths[level])
            width, number = widths[level], number + 1
        if level < levels[-1]:
            theirs, diffusers = f"encoder.downsamples.{number}", f"encoder.down_blocks.{number}"
            rules += _resampling(theirs, diffusers, f"encoder/level_{level}", "down", config.temporal_downsample[level])
            number += 1
    width, number = widths[-1], 0
    for level in reversed(levels):
        block = f"decoder.up_blocks.{levels[-1] - level}"
        for layer in range(config.num_res_blocks + 1):
            theirs, ours = f"decoder.upsamples.{number}", f"decoder/level_{level}_resnet_{layer}"
            rules += _res_block(theirs, f"{block}.resnets.{layer}", ours, shortcut=width != widths[level])
            width, number = widths[level], number + 1
        if level > 0:
            theirs, doubled = f"decoder.upsamples.{number}", config.temporal_downsample[level - 1]
            rules += _resampling(theirs, f"{block}.upsamplers.0", f"decoder/level_{level}", "up", doubled)
            width, number = width // 2, number + 1
    return rules + _ends("encoder") + _ends("decoder")


POINTWISE, IMAGES, TIME, VIDEO = (
    "o i 1 1 1 -> i o",
    "o i h w -> h w i o",
    "o i t 1 1 -> t 1 1 i o",
    "o i t h w -> t h w i o",
)


def _layer(theirs: str, diffusers: str, ours: str, order: str) -> list[Rule]:
    return [
        Rule(f"{theirs}.weight", f"{ours}/kernel", order, alias=f"{diffusers}.weight"),
        Rule(f"{theirs}.bias", f"{ours}/bias", alias=f"{diffusers}.bias"),
    ]


def _norm(theirs: str, diffusers: str, ours: str, axes: str = "1 1 1") -> Rule:
    return Rule(f"{theirs}.gamma", f"{ours}/scale", f"c {axes} -> c", alias=f"{diffusers}.gamma")


def _res_block(theirs: str, diffusers: str, ours: str, shortcut: bool = False) -> list[Rule]:
    rules = (
        _layer(f"{theirs}.shortcut", f"{diffusers}.conv_shortcut", f"{ours}/shortcut", POINTWISE) if shortcut else []
    )
    for n, (norm, conv) in ((1, (0, 2)), (2, (3, 6))):
        rules.append(_norm(f"{theirs}.residual.{norm}", f"{diffusers}.norm{n}", f"{ours}/norm{n}"))
        rules += _layer(f"{theirs}.residual.{conv}", f"{diffusers}.conv{n}", f"{ours}/conv{n}/conv", VIDEO)
    return rules


def _resampling(theirs: str, diffusers: str, ours: str, way: str, in_time: bool) -> list[Rule]:
    rules = _layer(f"{theirs}.resample.1", f"{diffusers}.resample.1", f"{ours}_{way}", IMAGES)
    time = _layer(f"{theirs}.time_conv", f"{diffusers}.time_conv", f"{ours}_time/conv", VIDEO)
    return rules + (time if in_time else [])


def _ends(part: str) -> list[Rule]:
    """The first convolution, the middle, and the last norm and convolution."""
    middle, mid_block, mid = f"{part}.middle", f"{part}.mid_block", f"{part}/mid"
    return [
        *_layer(f"{part}.conv1", f"{part}.conv_in", f"{part}/conv_in/conv", VIDEO),
        *_res_block(f"{middle}.0", f"{mid_block}.resnets.0", f"{mid}/resnet_0"),
        _norm(f"{middle}.1.norm", f"{mid_block}.attentions.0.norm", f"{mid}/attention_norm", "1 1"),
        *_layer(f"{middle}.1.to_qkv", f"{mid_block}.attentions.0.to_qkv", f"{mid}/qkv", "o i 1 1 -> i o"),
        *_layer(f"{middle}.1.proj", f"{mid_block}.attentions.0.proj", f"{mid}/attention_out", "o i 1 1 -> i o"),
        *_res_block(f"{middle}.2", f"{mid_block}.resnets.1", f"{mid}/resnet_1"),
        _norm(f"{part}.head.0", f"{part}.norm_out", f"{part}/norm_out"),
        *_layer(f"{part}.head.2", f"{part}.conv_out", f"{part}/conv_out/conv", VIDEO),
    ]
