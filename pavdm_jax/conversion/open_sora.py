"""The conversion tables of Open-Sora v1.2's three networks: the only file with their PyTorch names and axis orders."""

import numpy as np

from pavdm_jax.config import STDiT3Config, T5Config, VAEConfig
from pavdm_jax.conversion.rules import Rule, linear


def vae_rules(config: VAEConfig) -> list[Rule]:
    """OpenSora-VAE-v1.2: diffusers' `AutoencoderKL` as `spatial_vae.module`, the temporal VAE, the normalisation."""
    flat = Rule("scale", "scale", "1 c 1 1 1 -> c"), Rule("shift", "shift", "1 c 1 1 1 -> c")
    return [*flat, *_spatial_vae_rules(config), *_temporal_vae_rules(config)]


def _conv(source: str, target: str, dimensions: int, bias: bool = True) -> list[Rule]:
    axes = "t h w"[-(2 * dimensions - 1) :]
    rules = [Rule(f"{source}.weight", f"{target}/kernel", f"o i {axes} -> {axes} i o")]
    return rules + ([Rule(f"{source}.bias", f"{target}/bias")] if bias else [])


def _pointwise(source: str, target: str, dimensions: int) -> list[Rule]:
    """A 1×1 convolution that becomes a dense layer."""
    return [
        Rule(f"{source}.weight", f"{target}/kernel", f"o i {'1 ' * dimensions}-> i o"),
        Rule(f"{source}.bias", f"{target}/bias"),
    ]


def _norm(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}/affine/scale"), Rule(f"{source}.bias", f"{target}/affine/bias")]


def _spatial_vae_rules(config: VAEConfig) -> list[Rule]:
    channels, layers = config.spatial.block_channels, config.spatial.layers_per_block
    rules: list[Rule] = []

    def resnet(source: str, target: str, shortcut: bool = False) -> None:
        for n in (1, 2):
            rules.extend(_norm(f"{source}.norm{n}", f"{target}/norm{n}"))
            rules.extend(_conv(f"{source}.conv{n}", f"{target}/conv{n}", 2))
        if shortcut:
            rules.extend(_conv(f"{source}.conv_shortcut", f"{target}/shortcut", 2))

    for part, width, blocks, resample, order, per_block in (
        ("encoder", channels[0], "down_blocks", "downsamplers", channels, layers),
        ("decoder", channels[-1], "up_blocks", "upsamplers", channels[::-1], layers + 1),
    ):
        source, target = f"spatial_vae.module.{part}", f"spatial/{part}"
        rules += _conv(f"{source}.conv_in", f"{target}/conv_in", 2)
        for level, channel in enumerate(order):
            for layer in range(per_block):
                resnet(
                    f"{source}.{blocks}.{level}.resnets.{layer}",
                    f"{target}/level_{level}_resnet_{layer}",
                    width != channel,
                )
                width = channel
            if level < len(order) - 1:
                way = "down" if part == "encoder" else "up"
                rules += _conv(f"{source}.{blocks}.{level}.{resample}.0.conv", f"{target}/level_{level}_{way}", 2)
        for n in (0, 1):
            resnet(f"{source}.mid_block.resnets.{n}", f"{target}/mid/resnet_{n}")
        attention = f"{source}.mid_block.attentions.0"
        rules += _norm(f"{attention}.group_norm", f"{target}/mid/attention_norm")
        for theirs, ours in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "attention_out")):
            rules += linear(f"{attention}.{theirs}", f"{target}/mid/{ours}")
        rules += _norm(f"{source}.conv_norm_out", f"{target}/norm_out")
        rules += _conv(f"{source}.conv_out", f"{target}/conv_out", 2)
    for name in ("quant_conv", "post_quant_conv"):
        rules += _pointwise(f"spatial_vae.module.{name}", f"spatial/{name}", 2)
    return rules


def _temporal_vae_rules(config: VAEConfig) -> list[Rule]:
    temporal = config.temporal
    channels = [temporal.filters * multiplier for multiplier in temporal.channel_multipliers]
    rules: list[Rule] = []

    def resnet(source: str, target: str, shortcut: bool) -> None:
        for n in (1, 2):
            rules.extend(_norm(f"{source}.norm{n}", f"{target}/norm{n}"))
            rules.extend(_conv(f"{source}.conv{n}.conv", f"{target}/conv{n}/conv", 3, bias=False))
        if shortcut:
            rules.extend(_conv(f"{source}.conv3.conv", f"{target}/shortcut/conv", 3, bias=False))

    # The decoder walks the levels backwards, so a level's input is as wide as the level above it.
    for part, way, before in (
        ("encoder", "down", [channels[0], *channels[:-1]]),
        ("decoder", "up", [*channels[1:], channels[-1]]),
    ):
        source, target = f"temporal_vae.{part}", f"temporal/{part}"
        for level, channel in enumerate(channels):
            for layer in range(temporal.num_res_blocks):
                shortcut = layer == 0 and before[level] != channel
                resnet(f"{source}.block_res_blocks.{level}.{layer}", f"{target}/level_{level}_resnet_{layer}", shortcut)
        for gap, halved in enumerate(temporal.temporal_downsample):
            if halved:  # between level `gap` and the next
                level = gap if part == "encoder" else gap + 1
                rules += _conv(f"{source}.conv_blocks.{gap}.conv", f"{target}/level_{level}_{way}/conv", 3)
        for layer in range(temporal.num_res_blocks):
            resnet(f"{source}.res_blocks.{layer}", f"{target}/resnet_{layer}", False)
        rules += _norm(f"{source}.norm1", f"{target}/norm_out")
    rules += _conv("temporal_vae.encoder.conv_in.conv", "temporal/encoder/conv_in/conv", 3, bias=False)
    rules += _conv("temporal_vae.encoder.conv2.conv", "temporal/encoder/conv_out/conv", 3)
    rules += _conv("temporal_vae.decoder.conv1.conv", "temporal/decoder/conv_in/conv", 3)
    rules += _conv("temporal_vae.decoder.conv_out.conv", "temporal/decoder/conv_out/conv", 3)
    for name in ("quant_conv", "post_quant_conv"):
        rules += _pointwise(f"temporal_vae.{name}.conv", f"temporal/{name}", 3)
    return rules


def t5_rules(config: T5Config) -> list[Rule]:
    """Hugging Face's `T5EncoderModel` (DeepFloyd/t5-v1_1-xxl); the table is the same for every size."""
    attention, feed_forward = "encoder.block.{i}.layer.0", "encoder.block.{i}.layer.1"
    shared = "encoder.block.0", "relative_bias"  # stored with the first layer
    biased, bias = ("encoder.block.{i}", "layers/relative_bias") if config.bias_in_every_layer else shared
    rules = [
        Rule("shared.weight", "token_embedding", alias="encoder.embed_tokens.weight"),
        Rule(f"{biased}.layer.0.SelfAttention.relative_attention_bias.weight", bias),
        Rule(f"{attention}.layer_norm.weight", "layers/attention_norm/scale"),
        Rule(f"{feed_forward}.layer_norm.weight", "layers/mlp_norm/scale"),
        Rule("encoder.final_layer_norm.weight", "final_norm/scale"),
    ]
    for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "attention_out")):
        rules += linear(f"{attention}.SelfAttention.{theirs}", f"layers/{ours}", bias=False)
    for theirs, ours in (("wi_0", "mlp_gate"), ("wi_1", "mlp_in"), ("wo", "mlp_out")):
        rules += linear(f"{feed_forward}.DenseReluDense.{theirs}", f"layers/{ours}", bias=False)
    return rules


def stdit3_rules(config: STDiT3Config) -> list[Rule]:
    """OpenSora-STDiT-v3, the diffusion transformer, in any size."""
    rows, columns = config.patch_size
    rules = [
        Rule("rope.freqs", "", constant=rotary_frequencies(config.head_width)),
        Rule("x_embedder.proj.weight", "patch_embed/kernel", "d c 1 h w -> (h w c) d", {"h": rows, "w": columns}),
        Rule("x_embedder.proj.bias", "patch_embed/bias"),
        Rule("y_embedder.y_embedding", "null_caption"),
        Rule("final_layer.scale_shift_table", "final_table"),
        *linear("t_block.1", "modulation"),
        *linear("y_embedder.y_proj.fc1", "caption_in"),
        *linear("y_embedder.y_proj.fc2", "caption_out"),
        *linear("final_layer.linear", "final"),
    ]
    for theirs, ours in (("t_embedder", "level_embed"), ("fps_embedder", "fps_embed")):
        rules += linear(f"{theirs}.mlp.0", f"{ours}/linear_in") + linear(f"{theirs}.mlp.2", f"{ours}/linear_out")
    for kind in ("spatial", "temporal"):
        source, target = kind + "_blocks.{i}", f"blocks/{kind}"
        rules += [
            Rule(f"{source}.scale_shift_table", f"{target}/modulation_table"),
            Rule(f"{source}.attn.q_norm.weight", f"{target}/query_norm/scale"),
            Rule(f"{source}.attn.k_norm.weight", f"{target}/key_norm/scale"),
            *linear(f"{source}.attn.qkv", f"{target}/qkv"),
            *linear(f"{source}.attn.proj", f"{target}/attention_out"),
            *linear(f"{source}.cross_attn.q_linear", f"{target}/cross_query"),
            *linear(f"{source}.cross_attn.kv_linear", f"caption_blocks/{kind}"),
            *linear(f"{source}.cross_attn.proj", f"{target}/cross_out"),
            *linear(f"{source}.mlp.fc1", f"{target}/mlp_in"),
            *linear(f"{source}.mlp.fc2", f"{target}/mlp_out"),
        ]
    return rules


def rotary_frequencies(width: int) -> tuple[float, ...]:
    """1 / 10000^(2i / width) for i < width / 2, in float32 as in upstream's rotary embedding.

    PyTorch's power may differ in the last bit.
    """
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    powers = np.power(10_000.0, exponents.astype(np.float64)).astype(np.float32)
    return tuple(map(float, np.float32(1) / powers))
