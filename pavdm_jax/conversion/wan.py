"""The tables of Wan 2.1's transformer and of umT5, in both published layouts, and their sizes.

"original" is the layout of the authors (SkyworkAI/SkyReels-V2), "diffusers" that of diffusers' and transformers' ports.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pavdm_jax.config import T5Config
from pavdm_jax.conversion.open_sora import t5_rules
from pavdm_jax.conversion.rules import Rule, linear
from pavdm_jax.conversion.sizes import Shapes, field
from pavdm_jax.errors import ConfigError
from pavdm_jax.wan_config import WanConfig

Layout = Literal["original", "diffusers"]

PUBLISHED_HEAD_WIDTH = 128

# --- the transformer --------------------------------------------------------------------------------------------------

# Each row: here, original, diffusers. Tables of layers, then of single tensors.

_LAYERS = (
    ("level_embed/linear_in", "time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("level_embed/linear_out", "time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("modulation", "time_projection.1", "condition_embedder.time_proj"),
    ("caption_in", "text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("caption_out", "text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("final", "head.head", "proj_out"),
    ("blocks/query", "blocks.{i}.self_attn.q", "blocks.{i}.attn1.to_q"),
    ("blocks/key", "blocks.{i}.self_attn.k", "blocks.{i}.attn1.to_k"),
    ("blocks/value", "blocks.{i}.self_attn.v", "blocks.{i}.attn1.to_v"),
    ("blocks/attention_out", "blocks.{i}.self_attn.o", "blocks.{i}.attn1.to_out.0"),
    ("blocks/cross_query", "blocks.{i}.cross_attn.q", "blocks.{i}.attn2.to_q"),
    ("caption_blocks/key", "blocks.{i}.cross_attn.k", "blocks.{i}.attn2.to_k"),
    ("caption_blocks/value", "blocks.{i}.cross_attn.v", "blocks.{i}.attn2.to_v"),
    ("blocks/cross_out", "blocks.{i}.cross_attn.o", "blocks.{i}.attn2.to_out.0"),
    ("blocks/mlp_in", "blocks.{i}.ffn.0", "blocks.{i}.ffn.net.0.proj"),
    ("blocks/mlp_out", "blocks.{i}.ffn.2", "blocks.{i}.ffn.net.2"),
)

_FPS_LAYERS = (
    ("fps_embed/linear_in", "fps_projection.0", "fps_projection.net.0.proj"),
    ("fps_embed/linear_out", "fps_projection.2", "fps_projection.net.2"),
)

_TENSORS = (
    ("patch_embed/bias", "patch_embedding.bias", "patch_embedding.bias"),
    ("blocks/query_norm/scale", "blocks.{i}.self_attn.norm_q.weight", "blocks.{i}.attn1.norm_q.weight"),
    ("blocks/key_norm/scale", "blocks.{i}.self_attn.norm_k.weight", "blocks.{i}.attn1.norm_k.weight"),
    ("blocks/cross_query_norm/scale", "blocks.{i}.cross_attn.norm_q.weight", "blocks.{i}.attn2.norm_q.weight"),
    ("caption_blocks/key_norm/scale", "blocks.{i}.cross_attn.norm_k.weight", "blocks.{i}.attn2.norm_k.weight"),
    # The norm before cross-attention, the only one with weights: the third of the authors, the second of the port.
    ("blocks/cross_norm/scale", "blocks.{i}.norm3.weight", "blocks.{i}.norm2.weight"),
    ("blocks/cross_norm/bias", "blocks.{i}.norm3.bias", "blocks.{i}.norm2.bias"),
)

_MODULATION_TABLES = (
    ("blocks/modulation_table", "blocks.{i}.modulation", "blocks.{i}.scale_shift_table"),
    ("final_table", "head.modulation", "scale_shift_table"),
)


def wan_rules(config: WanConfig, layout: Layout) -> list[Rule]:
    """The diffusion transformer, at every size."""
    rows, columns = config.patch_size
    rules = [
        Rule("patch_embedding.weight", "patch_embed/kernel", "d c 1 h w -> (h w c) d", sizes={"h": rows, "w": columns}),
        *(Rule(theirs, ours) for ours, theirs in _in_layout(_TENSORS, layout)),
        *(Rule(theirs, ours, "1 m d -> m d") for ours, theirs in _in_layout(_MODULATION_TABLES, layout)),
    ]
    if config.embeds_fps:
        rules.append(Rule("fps_embedding.weight", "fps_embed/table"))
    for ours, theirs in _in_layout(_LAYERS + (_FPS_LAYERS if config.embeds_fps else ()), layout):
        rules += linear(theirs, ours)
    return rules


def wan_config(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> WanConfig:
    """The sizes of a transformer.

    Args:
      shapes: of its tensors by their names, in either layout.
      config: the content of its config.json, or empty; heads are then of the published width, 128.

    Raises:
      ConfigError: config.json says something impossible, or describes another variant of the network.
    """
    _check_variant(config)
    usual, layout = WanConfig(), layout_of(shapes)
    sizes = _SizesHere(wan_rules(usual, layout), shapes)
    patch = [sizes.size("patch_embed/kernel", axis, default) for axis, default in ((2, 1), (3, 2), (4, 2))]
    if patch[0] != 1:
        raise ConfigError(f"a token of these weights spans {patch[0]} latent frames; only 1 is known")
    hidden = sizes.size("patch_embed/bias", 0, usual.hidden_size)
    heads = "num_heads" if layout == "original" else "num_attention_heads"
    return WanConfig(
        depth=field(config, "num_layers", int, Shapes(shapes).count("blocks.{i}")),
        hidden_size=hidden,
        num_heads=field(config, heads, int, max(1, hidden // PUBLISHED_HEAD_WIDTH)),
        mlp_size=sizes.size("blocks/mlp_in/kernel", 0, usual.mlp_size),
        patch_size=(patch[1], patch[2]),
        latent_channels=sizes.size("patch_embed/kernel", 1, usual.latent_channels),
        caption_channels=sizes.size("caption_in/kernel", 1, usual.caption_channels),
        max_caption_tokens=field(config, "text_len", int, usual.max_caption_tokens),
        sinusoid_width=sizes.size("level_embed/linear_in/kernel", 1, usual.sinusoid_width),
        embeds_fps="fps_embedding.weight" in shapes,
    )


def _check_variant(config: Mapping[str, Any]) -> None:
    for name, known in (("model_type", "t2v"), ("cross_attn_norm", True), ("qk_norm", "rms_norm_across_heads")):
        if config.get(name, known) != known:
            raise ConfigError(f"config.json: {name} {config[name]!r} is another transformer; only {known!r} is known")
    eps = config.get("eps", 1e-6)
    if eps != 1e-6:
        raise ConfigError(f"config.json: eps {eps!r} is another transformer's; only 1e-06 is known")


# --- the text encoder -------------------------------------------------------------------------------------------------

_UMT5_LAYERS = {
    "query": "attn.q",
    "key": "attn.k",
    "value": "attn.v",
    "attention_out": "attn.o",
    "mlp_gate": "ffn.gate.0",
    "mlp_in": "ffn.fc1",
    "mlp_out": "ffn.fc2",
}


def umt5_rules(config: T5Config, layout: Layout) -> list[Rule]:
    """umT5's encoder; in the layout "diffusers", Hugging Face's `UMT5EncoderModel`."""
    if layout == "diffusers":
        return t5_rules(config)
    rules = [
        Rule("token_embedding.weight", "token_embedding"),
        Rule("blocks.{i}.pos_embedding.embedding.weight", "layers/relative_bias"),
        Rule("blocks.{i}.norm1.weight", "layers/attention_norm/scale"),
        Rule("blocks.{i}.norm2.weight", "layers/mlp_norm/scale"),
        Rule("norm.weight", "final_norm/scale"),
    ]
    for ours, theirs in _UMT5_LAYERS.items():
        rules += linear("blocks.{i}." + theirs, f"layers/{ours}", bias=False)
    return rules


def umt5_config(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> T5Config:
    """The sizes of an umT5 encoder.

    Args:
      shapes: of its tensors by their names, in either layout.
      config: the content of its config.json; not used in the original layout, whose config.json is the transformer's.

    Raises:
      ConfigError: config.json says something impossible, or describes another encoder.
    """
    usual, layout = T5Config(bias_in_every_layer=True), layout_of(shapes)
    ported = config if layout == "diffusers" else {}
    form = ported.get("feed_forward_proj", "gated-gelu")
    if form != "gated-gelu":
        raise ConfigError(f"config.json: feed_forward_proj {form!r} is another text encoder; umT5 has gated-gelu")
    sizes = _SizesHere(umt5_rules(usual, layout), shapes)
    heads = sizes.size("layers/relative_bias", 1, usual.num_heads)
    layer = "blocks.{i}" if layout == "original" else "encoder.block.{i}"
    return T5Config(
        vocab_size=sizes.size("token_embedding", 0, usual.vocab_size),
        d_model=sizes.size("token_embedding", 1, usual.d_model),
        d_kv=max(1, sizes.size("layers/query/kernel", 0, heads * usual.d_kv) // heads),
        d_ff=sizes.size("layers/mlp_in/kernel", 0, usual.d_ff),
        num_layers=field(ported, "num_layers", int, Shapes(shapes).count(layer)),
        num_heads=heads,
        relative_buckets=sizes.size("layers/relative_bias", 0, usual.relative_buckets),
        relative_max_distance=field(ported, "relative_attention_max_distance", int, usual.relative_max_distance),
        bias_in_every_layer=True,
    )


# --- layouts ----------------------------------------------------------------------------------------------------------


def layout_of(names: Iterable[str]) -> Layout:
    """The layout of a transformer's or text encoder's tensors, by their names."""
    ported = ("condition_embedder.", "encoder.", "shared.")
    return "diffusers" if any(name.startswith(ported) for name in names) else "original"


def _in_layout(table: tuple[tuple[str, str, str], ...], layout: Layout) -> list[tuple[str, str]]:
    """Of every row, the name here and the name in a layout."""
    return [(ours, original if layout == "original" else ported) for ours, original, ported in table]


class _SizesHere:
    """Sizes of PyTorch tensors by the parameter that they go into; of stacked ones, those of the first layer."""

    def __init__(self, rules: list[Rule], shapes: Mapping[str, tuple[int, ...]]):
        self._sizes = Shapes(shapes)
        self._names = {
            rule.target: rule.alias if rule.alias in shapes and rule.source not in shapes else rule.name(0)
            for rule in rules
        }

    def size(self, target: str, axis: int, default: int) -> int:
        return self._sizes.size(self._names[target], axis, default)
